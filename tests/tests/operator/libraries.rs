//! Libraries that are none, that can't be loaded, or that touch what is the host's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use app_host_tests::{Address, App, Connection, Host};
use serde_json::{Value, json};

use super::app_host;

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
