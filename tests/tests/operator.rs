//! What operators do to a service that runs: deploys by a link, state in the release, secrets in files, libraries that
//! are none, and where its workers are.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use app_host_tests::{Address, App, Connection, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How a master is started: by a shell inside of the link, or by a path through it.
const INSIDE: &str = "cd current && shift && exec \"$1\" run app-host.json";
const BY_PATH: &str = "shift && exec \"$1\" run \"$PWD/current/app-host.json\"";

/// Two releases of the same service, which say who they are, and the link `current` to the first.
fn releases(host: &Host, state_dir: &str) {
    host.restore_config();
    let mut config: Value = serde_json::from_slice(&fs::read(host.config_path()).unwrap()).unwrap();
    config["state_dir"] = state_dir.into();
    for number in 1..=2 {
        let release = host.path(&format!("releases/{number}"));
        fs::create_dir_all(&release).unwrap();
        let mut library = fs::read(host.library_path()).unwrap();
        library.push(number);
        fs::write(release.join("app.so"), library).unwrap();
        config["app"]["config"] = json!({ "marker": format!("release {number}") });
        fs::write(release.join("app-host.json"), config.to_string()).unwrap();
    }
    symlink("releases/1", host.path("current")).unwrap();
}

/// As a deploy tool does it.
fn switch(host: &Host, to: &str) {
    symlink(to, host.path("next")).unwrap();
    fs::rename(host.path("next"), host.path("current")).unwrap();
}

fn marker(host: &Host) -> String {
    let answer: Value = serde_json::from_str(&host.get("/whoami")).unwrap();
    answer["marker"].as_str().unwrap().to_owned()
}

/// Kills a worker and waits until another serves in its slot.
fn is_respawned(host: &Host) {
    let mark = host.mark();
    process::signal(host.serving()[0], Signal::SIGKILL);
    host.wait_after(mark, said::WORKER_READY, |_| true);
    let serving = host.serving();
    assert_eq!(serving.len(), 2);
    host.assert_all_serve(&serving);
}

#[test]
fn a_deploy_by_link_serves_the_new_release_and_needs_nothing_of_the_old_one() {
    for way in [INSIDE, BY_PATH] {
        let host = Host::misbehaving().launched_with(&["--", "sh", "-c", way, "sh"]);
        releases(&host, host.path("keep").to_str().unwrap());
        let host = host.start();
        assert_eq!(marker(&host), "release 1");
        switch(&host, "releases/2");
        host.restart_completes();
        assert_eq!(marker(&host), "release 2", "{way}");
        fs::remove_dir_all(host.path("releases/1")).unwrap();
        is_respawned(&host);
        // Nor of where its own copy lay.
        fs::remove_dir_all(host.path("keep")).unwrap();
        is_respawned(&host);
        assert_eq!(marker(&host), "release 2", "{way}");
        host.stop();
    }
}

#[test]
fn state_in_the_release_serves_on_when_that_is_gone_and_a_restart_says_where_it_belongs() {
    let host = Host::misbehaving().launched_with(&["--", "sh", "-c", BY_PATH, "sh"]);
    releases(&host, "state");
    let host = host.start();
    switch(&host, "releases/2");
    let detail = host.restart_is_refused("incompatibility");
    assert!(detail.contains("state_dir: ") && detail.contains("outside of the release"), "{detail}");
    fs::remove_dir_all(host.path("releases/1")).unwrap();
    is_respawned(&host);
    assert_eq!(marker(&host), "release 1");
    // Nobody begins an empty databank where the link leads now.
    assert!(!host.path("releases/2/state").exists());
    host.stop();
}

#[test]
fn a_state_directory_that_was_moved_away_is_held_and_may_come_back() {
    let host = Host::misbehaving().start();
    fs::rename(host.path("state"), host.path("aside")).unwrap();
    is_respawned(&host);
    let detail = host.restart_is_refused("incompatibility");
    assert!(detail.contains("state_dir: ") && detail.contains("isn't there any more"), "{detail}");
    assert!(!host.path("state").exists());
    fs::rename(host.path("aside"), host.path("state")).unwrap();
    host.restart_completes();
}

#[test]
fn a_worker_is_respawned_although_the_access_log_has_gone_with_its_directory() {
    let host = Host::misbehaving().with("/access_log", json!({ "file": "logs/access" }));
    fs::create_dir(host.path("logs")).unwrap();
    let host = host.start();
    fs::rename(host.path("logs"), host.path("old")).unwrap();
    is_respawned(&host);
    host.wait_for("the access log can't be opened by its name: a worker writes to the old one", |_| true);
    let mark = format!("/whoami?{}", std::process::id());
    for pid in host.serving() {
        assert_eq!(host.connect_to(pid).get(&mark).unwrap(), 200);
    }
    host.wait("both requests in the old file", || {
        let text = fs::read_to_string(host.path("old/access")).ok()?;
        (text.matches(&mark).count() == 2).then_some(())
    });
    assert!(!host.path("logs").exists());
}

#[test]
fn a_databank_that_is_gone_is_not_begun_anew_by_a_restart() {
    let host = Host::misbehaving().start();
    let file = host.path("state/data/databank.sqlite");
    fs::rename(&file, host.path("aside")).unwrap();
    let detail = host.restart_is_refused("databank unreachable");
    assert!(detail.contains("databank.sqlite: ") && detail.contains("No such file"), "{detail}");
    assert!(!file.exists());
    fs::rename(host.path("aside"), &file).unwrap();
    host.restart_completes();
}

#[test]
fn a_program_that_was_replaced_on_disk_changes_nothing_for_the_master_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("app-host");
    fs::copy(App::build().host(), &program).unwrap();
    let host = Host::misbehaving().with_binary(&program).start();
    // As `mv` does it; and what lies there can't even be run.
    fs::write(directory.path().join("new"), "no program").unwrap();
    fs::rename(directory.path().join("new"), &program).unwrap();
    is_respawned(&host);
    host.restart_completes();
    host.stop();
}

#[test]
fn versions_that_were_removed_are_named_workers_still_come_and_the_next_master_makes_them_anew() {
    let host = Host::misbehaving().start();
    fs::remove_dir_all(host.path("state/versions")).unwrap();
    let detail = host.restart_is_refused("bad artifact");
    let said = "state/versions was removed under the master that uses it; restart the master, which makes it anew";
    assert!(detail.ends_with(said), "{detail}");
    is_respawned(&host);
    host.stop();
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert_eq!(host.control().ask("RESTART WAIT"), "ACK 1 complete\n");
}

fn app_host(host: &Host, arguments: &[&str]) -> Output {
    Command::new(App::build().host()).args(arguments).current_dir(host.directory()).output().unwrap()
}

#[test]
fn a_restart_that_changes_nothing_says_so_wherever_verdicts_are_told() {
    let host = Host::misbehaving().start();
    let said = |line: &app_host_tests::Line| line.text().contains("\"unchanged\":true");
    assert!(said(&host.restart_completes().line));
    let waits = app_host(&host, &["ctl", "restart", "--wait"]);
    let text = String::from_utf8_lossy(&waits.stdout).into_owned();
    assert!(text.starts_with("restart 2 complete: generation 3, ") && text.contains(", unchanged=true ("), "{text}");
    let status = String::from_utf8_lossy(&app_host(&host, &["ctl", "status"]).stdout).into_owned();
    assert!(status.contains("2 complete (unchanged=true)"), "{status}");
    let mut control = host.control();
    // Scripts compare this line.
    assert_eq!(control.ask("RESTART WAIT"), "ACK 3 complete\n");
    host.install_fresh(&App::build().app("misbehaving"));
    assert!(!said(&host.restart_completes().line));
    let status: Value = serde_json::from_slice(&app_host(&host, &["ctl", "status", "--json"]).stdout).unwrap();
    let found: Vec<_> = status["verdicts"].as_array().unwrap().iter().map(|it| it["unchanged"].as_bool()).collect();
    assert_eq!(found, [Some(true), Some(true), Some(true), Some(false)]);
}

#[test]
fn workers_are_in_the_configurations_directory_wherever_the_master_is() {
    let script = "cd / && shift && exec \"$@\"";
    let host = Host::misbehaving().launched_with(&["--", "sh", "-c", script, "sh"]).start();
    let directory = fs::canonicalize(host.directory()).unwrap();
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", host.master())).unwrap(), Path::new("/"));
    for pid in host.workers() {
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), directory);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(b"PWD=")));
    }
}

#[test]
fn a_secret_of_the_app_comes_from_its_file_and_is_shown_nowhere() {
    let mut host = Host::misbehaving()
        .with("/app/config", json!({ "marker": { "file": "secrets/marker" } }))
        .with("/log/level", "trace");
    fs::create_dir(host.path("secrets")).unwrap();
    fs::write(host.path("secrets/marker"), "hunter2-of-the-app\r\n").unwrap();
    let mut host = {
        host.set("/listen", json!(["127.0.0.1:0"]));
        host.start()
    };
    assert_eq!(marker(&host), "hunter2-of-the-app");
    // As it is at each restart, which is none that changes nothing.
    fs::write(host.path("secrets/marker"), "hunter3-of-the-app").unwrap();
    assert!(!host.restart_completes().line.text().contains("unchanged"));
    assert_eq!(marker(&host), "hunter3-of-the-app");
    // What an app says of a secret that isn't what it expects quotes it.
    host.set("/app/config", json!({ "start_ms": { "file": "secrets/marker" } }));
    host.set("/restart/on_failure", "rollback");
    let detail = host.restart().line.str("detail").to_owned();
    assert!(detail.contains("start_ms") && detail.contains("(secret)"), "{detail}");
    let mut shown = fs::read_to_string(host.path("log")).unwrap();
    for words in [&["ctl", "status", "--json"][..], &["ctl", "versions", "--json"], &["check", "app-host.json"]] {
        let output = app_host(&host, words);
        shown.push_str(&String::from_utf8_lossy(&output.stdout));
        shown.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    shown.push_str(&fs::read_to_string(host.path("state/generations.json")).unwrap());
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn all_of_an_apps_configuration_may_be_a_file_and_one_that_is_missing_is_a_bad_configuration() {
    let mut host = Host::misbehaving().with("/app/config", json!({ "file": "app.json" }));
    fs::write(host.path("app.json"), "{\"marker\": \"of a file\"}\n").unwrap();
    let mut host = {
        host.set("/workers", 2);
        host.start()
    };
    assert_eq!(marker(&host), "of a file");
    fs::remove_file(host.path("app.json")).unwrap();
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("app.config: ") && detail.contains("app.json can't be read"), "{detail}");
    let check = app_host(&host, &["check", "app-host.json"]);
    assert!(
        String::from_utf8_lossy(&check.stderr).contains("app.json can't be read"),
        "check says what a restart says"
    );
    host.set("/app/config", json!({ "marker": { "file": "app.json" } }));
    fs::write(host.path("app.json"), "x".repeat(65 * 1024)).unwrap();
    assert!(host.restart_is_refused("bad config").contains("app.config.marker: "));
}

/// What `cc` makes of a program text.
fn compiled(host: &Host, name: &str, text: &str, options: &[&str]) -> PathBuf {
    let (source, made) = (host.path(&format!("{name}.c")), host.path(name));
    fs::write(&source, text).unwrap();
    let output =
        Command::new("cc").args(options).arg("-o").arg(&made).arg(&source).output().expect("cc links Rust, too");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    made
}

#[test]
fn what_is_no_app_is_refused_in_words_of_its_own() {
    let host = Host::misbehaving().start();
    let good = fs::read(App::build().app("misbehaving")).unwrap();
    let mut without_sections = good.clone();
    // e_shoff, and e_shnum with e_shstrndx (elf(5)).
    without_sections[40..48].fill(0);
    without_sections[60..64].fill(0);
    let note = |number: u8| format!(".long 8, 4, 1\\n.asciz \\\"app-abi\\\"\\n.long {number}\\n");
    let two = format!(
        "__asm__(\".pushsection .note.app_abi,\\\"a\\\",@note\\n.balign 4\\n{}{}.popsection\\n\");\n",
        note(1),
        note(2)
    );
    let sanitized = |init: &str| format!("void {init}(void);\nvoid f(void) {{ {init}(); }}\n");
    let library = ["-shared", "-fPIC"];
    let of = |name: &str, text: &str, options: &[&str]| fs::read(compiled(&host, name, text, options)).unwrap();
    for (bytes, expected) in [
        (fs::read(App::build().host()).unwrap(), "it is an executable, no shared library"),
        (of("pie", "int main(void) { return 0; }", &["-pie", "-fPIE"]), "it is an executable, no shared library"),
        (of("fixed", "int main(void) { return 0; }", &["-no-pie"]), "it is an executable, no shared library"),
        (of("object", "int f(void) { return 0; }", &["-c"]), "it is an object file that isn't linked yet"),
        (of("asan", &sanitized("__asan_init"), &library), "built with AddressSanitizer"),
        (of("tsan", &sanitized("__tsan_init"), &library), "built with ThreadSanitizer"),
        (of("two", &two, &library), "it has 2 app-abi manifests"),
        (without_sections, "it has no section headers"),
    ] {
        host.install_bytes(&bytes);
        let detail = host.restart_is_refused("bad artifact");
        assert!(detail.contains(expected), "expected \"{expected}\": {detail}");
        // And it is the configured library that is wrong, in every word.
        assert!(detail.contains("app.so can't be loaded"), "{detail}");
        let check = app_host(&host, &["check", "app-host.json"]);
        let check = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(check.contains(expected) && check.contains("app.so can't be loaded"), "{check}");
    }
}

#[test]
fn what_the_dynamic_linker_refuses_is_said_of_the_configured_library() {
    let host = Host::misbehaving().start();
    host.install(&App::build().app("unresolved"));
    let detail = host.restart_is_refused("bad artifact");
    let check = app_host(&host, &["check", "app-host.json"]);
    let library = host.library_path();
    for text in [detail, String::from_utf8_lossy(&check.stderr).into_owned()] {
        assert!(text.contains(library.to_str().unwrap()) && text.contains("no_library_has_this_function"), "{text}");
        assert!(!text.contains("/proc/") && !text.contains("/versions/") && !text.contains("/tmp/.tmp"), "{text}");
    }
}

#[test]
fn an_app_that_closes_what_is_not_its_own_is_not_called_a_bug_in_the_host() {
    // One kind of it makes other panics than all of it.
    for path in ["/close", "/close/all"] {
        let host = Host::misbehaving().with("/log/file", "host.log");
        host.spawn();
        let log = || fs::read_to_string(host.path("host.log")).unwrap_or_default();
        let waits = |what: &str, times: usize| {
            host.wait(what, || (log().matches(what).count() >= times).then_some(()));
        };
        waits("\"msg\":\"serving\"", 1);
        let listening: Value =
            serde_json::from_str(log().lines().find(|line| line.contains("\"listening\"")).unwrap()).unwrap();
        let address = Address::parse(listening["address"].as_str().unwrap()).unwrap();
        let mut connection = Connection::connect(&address).unwrap();
        connection.ask(path).unwrap();
        // Whether its own log can still be written depends on what it has closed; the master's says that it is gone.
        waits("\"msg\":\"worker ready\"", 3);
        let text = log();
        assert!(!text.contains("bug in the host"), "{path}: {text}");
        if path == "/close" {
            assert!(text.contains("a thread panicked: the app has closed a descriptor of the host's"), "{text}");
            assert!(text.contains("close(2)"), "{text}");
        }
    }
}

/// A port that is free in both families; none where this machine has no IPv6.
fn free_port() -> Option<u16> {
    (0..100).find_map(|_| {
        let port = TcpListener::bind("0.0.0.0:0").ok()?.local_addr().ok()?.port();
        TcpListener::bind(("::", port)).ok().map(|_| port)
    })
}

/// What the app sees of a connection to this address.
fn seen(address: &str) -> String {
    let address = Address::Tcp(address.parse().unwrap());
    let mut connection = Connection::connect(&address).unwrap_or_else(|error| panic!("{address:?}: {error}"));
    assert_eq!(connection.get("/connection").unwrap(), 200);
    connection.text()
}

#[test]
fn both_families_are_served_however_they_are_configured_and_the_app_sees_which_listener_and_client_it_is() {
    let Some(port) = free_port() else { return };
    let (four, six) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    for (listen, name4, name6) in [
        (json!([format!("0.0.0.0:{port}"), format!("[::]:{port}")]), format!("0.0.0.0:{port}"), format!("[::]:{port}")),
        (json!([format!(":{port}")]), format!(":{port}"), format!(":{port}")),
        (json!([port]), port.to_string(), port.to_string()),
        (json!([{ "address": port.to_string(), "name": "web" }]), "web".to_owned(), "web".to_owned()),
    ] {
        let host = Host::misbehaving().with("/listen", listen.clone());
        host.spawn();
        host.wait_for(said::SERVING, |_| true);
        for _ in 0..2 {
            let answers = [(&four, &name4, "127.0.0.1"), (&six, &name6, "::1")].map(|(at, name, client)| {
                let text = seen(at);
                assert!(text.contains(&format!("\"{name}\"")), "{listen}: {text}");
                assert!(text.contains(client) && !text.contains("ffff"), "{listen}: {text}");
            });
            assert_eq!(answers.len(), 2);
            host.signal(Signal::SIGUSR2);
            assert_eq!(host.verdict(host.last_request().max(1)).verdict, "complete");
        }
        let said: Vec<_> =
            host.lines_with(said::LISTENING).iter().map(|line| line.str("listener").to_owned()).collect();
        assert_eq!(said, if name4 == name6 { vec![name4] } else { vec![name4, name6] }, "nothing is bound twice");
        host.stop();
    }
}

#[test]
fn localhost_is_every_loopback_address_that_it_has_and_stays_over_a_restart() {
    let host = Host::misbehaving().with("/listen", json!(["localhost:0"]));
    host.spawn();
    host.wait_for(said::SERVING, |_| true);
    let of_system: BTreeSet<_> = ("localhost", 0).to_socket_addrs().unwrap().map(|address| address.ip()).collect();
    let bound = host.lines_with(said::LISTENING);
    let addresses: Vec<SocketAddr> = bound.iter().map(|line| line.str("address").parse().unwrap()).collect();
    assert_eq!(addresses.iter().map(SocketAddr::ip).collect::<BTreeSet<_>>(), of_system);
    for _ in 0..2 {
        for address in &addresses {
            assert!(seen(&address.to_string()).contains("\"localhost:0\""));
        }
        host.signal(Signal::SIGUSR2);
        assert_eq!(host.verdict(host.last_request().max(1)).verdict, "complete");
    }
    assert_eq!(host.lines_with(said::LISTENING).len(), bound.len());
    host.stop();
}

#[test]
fn an_app_that_opens_the_databanks_own_file_is_refused_and_one_with_a_file_of_its_own_serves() {
    let host = Host::new(&App::build().app("second_sqlite")).with("/databank", json!({ "driver": "sqlite" }));
    let own = host.path("state/data/databank.sqlite");
    let mut host = host.with("/app/config", json!({ "database": own }));
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let expected = "the databank's own file, with a SQLite of its own";
    assert!(host.report().contains(expected), "{}", host.report());
    host.set("/app/config", json!({ "database": host.path("apps.sqlite") }));
    let host = host.start();
    host.restart_completes();
    assert_eq!(host.get("/"), "second\n");
    host.stop();
}
