//! Earlier generations and other numbers of workers, asked for at the control socket and by `ctl`.

use std::process::{Command, Output};

use app_host_tests::{App, Host, said};
use serde_json::Value;

fn ctl(host: &Host, words: &[&str]) -> Output {
    let socket = host.path("state/control.sock");
    Command::new(App::build().host()).arg("ctl").arg("--socket").arg(socket).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The versions with their states, the newest first.
fn versions(host: &Host) -> Vec<(String, String)> {
    let answer = host.control().ask("VERSIONS");
    let listed: Vec<Value> = serde_json::from_str(answer.strip_prefix("ACK ").unwrap()).unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    listed.iter().map(|one| (word(&one["state"]), word(&one["version"]))).collect()
}

/// A master whose generations were `a`, `b` with another configuration, and `a` again with that.
fn three_generations() -> Host {
    let mut host = Host::answering("a").start();
    host.install(&App::build().app("answer_b"));
    host.set("/restart/probation", "21ms");
    assert_eq!(host.restart().verdict, "complete");
    host.install_fresh(&App::build().app("answer_a"));
    assert_eq!(host.restart().verdict, "complete");
    assert_eq!(host.get("/"), "a");
    host
}

#[test]
fn rollback_brings_back_code_and_configuration_step_by_step_and_holds() {
    let host = three_generations();
    let before = versions(&host);
    assert_eq!(before.iter().map(|(state, _)| state.as_str()).collect::<Vec<_>>(), ["active", "kept", "kept"]);

    let mut control = host.control();
    assert_eq!(control.ask("ROLLBACK WAIT"), "ACK 3 complete\n");
    assert_eq!(host.get("/"), "b");
    assert_eq!(host.verdict(3).line.str("by"), "rollback");
    assert_eq!(control.ask("ROLLBACK"), "ACK\n");
    assert_eq!(control.ask("WAIT 4"), "ACK 4 complete\n");
    assert_eq!(host.get("/"), "a");
    assert_eq!(versions(&host)[2], ("active".to_owned(), before[2].1.clone()));
    // Further back there is nothing, and nothing is touched.
    assert_eq!(control.ask("ROLLBACK WAIT"), "NACK 5 refused: bad artifact\n");
    let detail = host.verdict(5).line.str("detail").to_owned();
    assert!(detail.contains("earlier"), "{detail}");

    // To one by its name, forwards as well.
    let named = &before[1].1[..8];
    assert_eq!(control.ask(&format!("rollback wait {}", named.to_ascii_uppercase())), "ACK 6 complete\n");
    assert_eq!(host.get("/"), "b");
    for (line, answer) in [
        ("ROLLBACK 00000000 WAIT", "NACK 7 refused: bad artifact\n"),
        ("ROLLBACK nonsense", "NACK invalid\n"),
        ("ROLLBACK WAIT WAIT", "NACK invalid\n"),
        ("ROLLBACK ab cd", "NACK invalid\n"),
        ("VERSIONS all", "NACK invalid\n"),
    ] {
        assert_eq!(control.ask(line), answer, "{line}");
    }
    // It holds over a restart of the master, although `a` lies on disk.
    host.stop();
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::EARLIER_GENERATION_STARTED, |_| true);
    host.wait_after(mark, said::SERVING, |_| true);
    assert_eq!(host.get("/"), "b");
    // An ordinary restart takes what lies there.
    assert_eq!(host.control().ask("RESTART WAIT"), "ACK 1 complete\n");
    assert_eq!(host.get("/"), "a");
}

#[test]
fn rollback_by_ctl_says_what_became_of_it_and_versions_are_listed() {
    let host = three_generations();
    let listed = ctl(&host, &["versions"]);
    let lines: Vec<String> = text(&listed.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let column = |name: &str| lines[0].find(name).unwrap_or_else(|| panic!("no {name}: {lines:?}"));
    let app = column("APP");
    assert!(lines[1..].iter().all(|line| line[..app].ends_with("  ") && !line[app..].starts_with(' ')), "{lines:?}");
    assert!(lines[1].starts_with("active ") && lines[2].starts_with("kept "), "{lines:?}");
    let digits = lines[3].split_whitespace().nth(1).unwrap();
    assert_eq!(digits.len(), 25, "a version and a configuration: {lines:?}");
    let output = ctl(&host, &["rollback", digits, "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("restart 3 complete: generation 4, "), "{}", text(&output.stdout));
    assert_eq!(host.get("/"), "a");
    assert!(ctl(&host, &["versions", "--json"]).stdout.starts_with(b"["));
    let output = ctl(&host, &["rollback", "0000000000"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let said =
        "app-host: restart refused: bad artifact: no earlier generation is kept whose version begins with 0000000000";
    assert_eq!(text(&output.stderr).trim_end(), said);
}

#[test]
fn a_rollback_to_another_databank_is_refused_and_says_what_has_to_be_put_in_place() {
    let mut host = Host::answering("a").start();
    host.stop();
    host.set("/databank", serde_json::json!({ "path": "two.sqlite" }));
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    let output = ctl(&host, &["rollback", "--wait"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr),
        "app-host: restart 1 refused: incompatibility: that generation had another databank.path, which can't change while \
         workers run; hint: put its configuration and library in place, then restart the master\n"
    );
    // What is on disk, on the other hand, comes with a start.
    host.set("/databank", serde_json::json!({ "path": "three.sqlite" }));
    host.restore_config();
    let output = ctl(&host, &["restart"]);
    let hint =
        "databank.path can't change while workers run; restart the master to change it; hint: restart the master to";
    assert!(text(&output.stderr).contains(hint), "{}", text(&output.stderr));
}

#[test]
fn number_of_workers_is_set_at_the_socket_and_by_ctl() {
    let host = Host::misbehaving().start();
    let serve = |count: usize| {
        host.wait("as many workers", || (host.serving().len() == count).then_some(()));
        host.assert_all_serve(&host.serving());
    };
    let mut control = host.control();
    assert_eq!(control.ask("WORKERS 4"), "ACK\n");
    serve(4);
    assert_eq!(ctl(&host, &["workers", "1"]).status.code(), Some(0));
    serve(1);
    for line in ["WORKERS", "WORKERS 0", "WORKERS 513", "WORKERS -1", "WORKERS 70000", "WORKERS two", "WORKERS 1 2"] {
        assert_eq!(control.ask(line), "NACK invalid\n", "{line}");
    }
    assert_eq!(ctl(&host, &["workers", "0"]).status.code(), Some(2));
    // Two are configured, so it can be restarted all the same.
    assert_eq!(control.ask("RESTART WAIT"), "ACK 1 complete\n");
    serve(1);
}
