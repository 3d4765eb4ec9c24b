//! `app-host dev`: an edit becomes live, and whatever goes wrong on the way leaves what is live alone.

use std::process::Command;

use app_host_tests::admin::get;
use app_host_tests::dev::{Dev, In};
use app_host_tests::host::{pause, wait_until};
use app_host_tests::{Address, App, Connection, process};
use nix::sys::signal::Signal;

#[test]
fn each_save_is_live_and_a_build_error_leaves_what_is_live() {
    let dev = Dev::new("dev-saves", &[]);
    let live = dev.wait_after(0, &["live", "version"]);
    assert!(live.contains(" from save to live: build "), "{live}");
    assert!(dev.get("/").contains(">one<"));

    let mark = dev.lines().len();
    dev.edit(">one<", ">two<");
    dev.wait_after(mark, &["changed", "src/lib.rs"]);
    dev.wait_after(mark, &["live", "version"]);
    assert!(dev.get("/").contains(">two<"), "{:#?}", dev.lines());

    let mark = dev.lines().len();
    dev.edit("Ok(Self)", "Ok(Self");
    dev.wait_after(mark, &["not built", "what was live before stays so"]);
    let lines = dev.lines();
    assert!(lines[mark..].iter().any(|line| line.starts_with("error")), "cargo's own words: {lines:#?}");
    assert!(dev.get("/").contains(">two<"));

    let mark = dev.lines().len();
    dev.edit("Ok(Self", "Ok(Self)");
    dev.edit(">two<", ">three<");
    dev.wait_after(mark, &["live", "version"]);
    // On a busy machine the first of the two edits may be live before the second.
    let is_live = || dev.get("/").contains(">three<").then_some(());
    app_host_tests::host::wait_until(is_live).expect("the last edit goes live");
}

#[test]
fn epoch_change_is_explained_and_answered_with_a_full_restart() {
    let dev = Dev::new("dev-epoch", &[]);
    dev.wait_after(0, &["live", "version"]);
    let mark = dev.lines().len();
    dev.edit("export_app!(Answer)", "export_app!(Answer, epoch = 2)");
    let restart = dev.wait_after(mark, &["restart"]);
    assert!(restart.contains("epoch") && restart.contains("starts again"), "{restart}");
    dev.wait_after(mark, &["live", "version"]);
}

#[test]
fn start_that_fails_leaves_what_is_live_and_the_next_build_gets_a_new_master() {
    let dev = Dev::new("dev-start", &[]);
    dev.wait_after(0, &["live", "version"]);
    let mark = dev.lines().len();
    dev.edit("Ok(Self)", "Err(StartError::new(\"no luck\"))");
    let failed = dev.wait_after(mark, &["failed"]);
    assert!(failed.contains("no luck"), "{failed}");
    assert!(dev.get("/").contains(">one<"));
    let mark = dev.lines().len();
    dev.edit("Err(StartError::new(\"no luck\"))", "Ok(Self)");
    dev.wait_after(mark, &["live", "version"]);
}

#[test]
fn browser_is_opened_at_a_page_that_has_the_script_and_all_else_is_as_the_app_says() {
    let dev = Dev::new("dev-page", &["--open"]);
    dev.wait_after(0, &["live", "version"]);
    let page = dev.address("page");
    let opened = wait_until(|| std::fs::read_to_string(dev.path(".opened")).ok().filter(|text| text.ends_with('\n')));
    assert_eq!(opened.as_deref(), Some(format!("http://{page}\n").as_str()));
    let mut browser = Connection::connect(&Address::Tcp(page.parse().unwrap())).unwrap();
    assert_eq!(get(&mut browser, "/").unwrap(), 200);
    let text = browser.text();
    assert!(text.starts_with("<!doctype html>") && text.contains("/.app-host-dev/reload.js"), "{text}");
    assert!(!dev.get("/").contains("app-host-dev"), "the app's own address is left alone");
    assert_eq!(get(&mut browser, "/.app-host-dev/reload.js").unwrap(), 200);
    assert!(browser.text().contains("location.reload()"));
    // A page of somebody else's that has its own name resolve to this machine.
    for path in ["/", "/.app-host-dev/events"] {
        browser.send(format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(browser.receive().unwrap(), 403);
        assert!(browser.text().starts_with("app-host dev: only localhost"), "{}", browser.text());
    }
}

#[test]
fn its_end_however_it_comes_is_the_end_of_the_service() {
    let mut dev = Dev::new("dev-end", &[]);
    dev.wait_after(0, &["live", "version"]);
    let masters = process::children(dev.pid());
    assert!(!masters.is_empty());
    assert!(dev.interrupt().success());
    assert!(masters.iter().all(|pid| !process::is_alive(*pid)), "it has waited for them");

    let dev = Dev::new("dev-end", &[]);
    dev.wait_after(0, &["live", "version"]);
    let master = process::children(dev.pid());
    let workers: Vec<_> = master.iter().flat_map(|pid| process::children(*pid)).collect();
    assert_eq!(workers.len(), 2);
    process::signal(dev.pid(), Signal::SIGKILL);
    let gone = || master.iter().chain(&workers).all(|pid| !process::is_alive(*pid)).then_some(());
    assert!(wait_until(gone).is_some(), "master {master:?} and workers {workers:?} end with it");
}

#[test]
fn its_terminals_end_is_the_end_of_it_and_of_all_its_children() {
    for (place, name) in [(In::ItsTerminal, "dev-terminal"), (In::AnothersTerminal, "dev-anothers-terminal")] {
        let mut dev = Dev::new_in(place, name, &[]);
        dev.wait_after(0, &["live", "version"]);
        let masters = process::children(dev.pid());
        let workers: Vec<_> = masters.iter().flat_map(|pid| process::children(*pid)).collect();
        assert_eq!(workers.len(), 2);
        let status = dev.close_terminal();
        assert!(status.is_some_and(|status| status.success()), "{place:?}: {status:?}");
        let is_gone = |pid: &u32| !process::is_alive(*pid);
        assert!(
            masters.iter().chain(&workers).all(is_gone),
            "{place:?}: it has waited for {masters:?} and {workers:?}"
        );
    }
}

#[test]
fn its_end_is_the_end_of_a_build_that_is_under_way() {
    let mut dev = Dev::new("dev-end-building", &[]);
    dev.wait_after(0, &["live", "version"]);
    // A compiler that would be at work for a minute.
    let script = "fn main() { println!(\"cargo:rerun-if-changed=build.rs\"); \
                  std::thread::sleep(std::time::Duration::from_secs(60)); }";
    std::fs::write(dev.path("build.rs"), script).unwrap();
    let scripts = || -> Vec<u32> {
        let children = process::children(dev.pid());
        children
            .into_iter()
            .flat_map(process::children)
            .filter(|pid| process::name(*pid).starts_with("build-script"))
            .collect()
    };
    let running = wait_until(|| Some(scripts()).filter(|found| !found.is_empty())).expect("the script runs");
    assert!(dev.interrupt().success());
    let gone = || running.iter().all(|pid| !process::is_alive(*pid)).then_some(());
    assert!(wait_until(gone).is_some(), "{running:?}");
}

#[test]
fn what_the_app_writes_in_its_directory_is_no_change() {
    let dev = Dev::new("dev-writes", &[]);
    dev.wait_after(0, &["live", "version"]);
    let writes = format!(
        "{{ let mut file = std::fs::File::create({:?}).unwrap(); std::thread::spawn(move || loop {{ \
         let _ = std::io::Write::write_all(&mut file, b\"x\"); \
         std::thread::sleep(std::time::Duration::from_millis(20)); }}); Ok(Self) }}",
        dev.path("visits.data")
    );
    let mark = dev.lines().len();
    dev.edit("Ok(Self)", &writes);
    dev.wait_after(mark, &["live", "version"]);
    let length = || std::fs::metadata(dev.path("visits.data")).map_or(0, |file| file.len());
    let before = length();
    wait_until(|| (length() > before + 50).then_some(())).expect("the app writes");
    // A database whose process we can't see, and the files beside it.
    for name in ["notes.db-wal", "notes.db"] {
        std::fs::write(dev.path(name), "x").unwrap();
    }
    dev.edit(">one<", ">two<");
    wait_until(|| dev.get("/").contains(">two<").then_some(())).expect("the edit goes live");
    let lines = dev.lines();
    let changes: Vec<_> = lines[mark..].iter().filter(|line| line.trim_start().starts_with("changed")).collect();
    assert!(changes.iter().all(|line| line.ends_with("changed  src/lib.rs")) && changes.len() == 2, "{lines:#?}");
}

#[test]
fn what_was_built_is_live_although_something_changes_all_the_time() {
    let dev = Dev::new("dev-restless", &[]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut text = String::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                text.push('x');
                std::fs::write(dev.path("restless.txt"), &text).unwrap();
                pause();
            }
        });
        // Also when this panics, the other thread ends.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            dev.wait_after(0, &["live", "version"]);
            dev.edit(">one<", ">two<");
            wait_until(|| dev.get("/").contains(">two<").then_some(())).expect("the edit is live");
        }));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn what_is_no_app_is_refused_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let dev = |expected: &str| {
        let output = Command::new(App::build().host()).arg("dev").arg(directory.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    dev("could not find `Cargo.toml`");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("member/Cargo.toml", "[package]\nname = \"x\"\nedition = \"2024\"\n");
    write("member/src/lib.rs", "");
    write("Cargo.toml", "[workspace]\nmembers = [\"member\"]\nresolver = \"3\"\n");
    dev("hint: name the app's directory");
    write("src/lib.rs", "");
    write("Cargo.toml", "[package]\nname = \"y\"\nedition = \"2024\"\n[workspace]\n");
    dev("crate-type = [\"cdylib\"]");
    std::fs::remove_dir_all(directory.path()).unwrap();
    dev("can't be found");
}

#[test]
fn the_lock_that_its_own_build_has_written_is_no_save_and_anothers_is() {
    let dev = Dev::new("dev-lock", &[]);
    let write = |name: &str, text: &str| {
        let path = dev.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let read = |name: &str| std::fs::read_to_string(dev.path(name)).unwrap();
    let changes = |mark: usize| -> Vec<String> {
        let lines = dev.lines();
        lines[mark..].iter().filter_map(|line| line.trim_start().strip_prefix("changed  ")).map(str::to_owned).collect()
    };
    dev.wait_after(0, &["live", "version"]);
    let mark = dev.lines().len();
    dev.edit(">one<", ">two<");
    dev.wait_after(mark, &["live", "version"]);
    assert_eq!(changes(0), ["src/lib.rs"], "the first build has made a lock");

    // A dependency, which cargo writes into the lock.
    write("helper/src/lib.rs", "pub const ANSWER: &str = \"three\";\n");
    write("helper/Cargo.toml", "[package]\nname = \"dev-lock-helper\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    let mark = dev.lines().len();
    assert!(!read("Cargo.lock").contains("dev-lock-helper"));
    write("Cargo.toml", &format!("{}dev-lock-helper = {{ path = \"helper\" }}\n", read("Cargo.toml")));
    dev.wait_after(mark, &["live", "version"]);
    assert!(read("Cargo.lock").contains("dev-lock-helper"));
    let later = dev.lines().len();
    dev.edit(">two<", ">three<");
    dev.wait_after(later, &["live", "version"]);
    // On a busy machine what was written before is seen in two builds.
    wait_until(|| dev.get("/").contains(">three<").then_some(())).expect("the save goes live");
    let seen = changes(mark).join(", ");
    assert!(seen.contains("Cargo.toml") && seen.ends_with("src/lib.rs") && !seen.contains("Cargo.lock"), "{seen}");

    // Somebody else's, which changes nothing of the library.
    let mark = dev.lines().len();
    write("Cargo.lock", &format!("{}\n# mine\n", read("Cargo.lock")));
    dev.wait_after(mark, &["changed", "Cargo.lock"]);
    dev.wait_after(mark, &["live", "version", " as before, "]);
}

#[test]
fn a_port_that_another_process_has_is_named_and_so_is_the_configuration() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dev = Dev::with_config(
        "dev-taken",
        &format!(r#"{{ "app": {{ "library": "named by dev" }}, "listen": ["{address}"] }}"#),
    );
    dev.wait_after(0, &["configured by", "app-host.json"]);
    let said = dev.wait_after(0, &["error", "could not start"]);
    assert!(said.contains(&format!("{address} can't be bound")), "{said}");
    dev.wait_after(0, &["ended", "the next build starts it again"]);
}
