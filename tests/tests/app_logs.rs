//! What an app tells reaches the log: its events with their spans, and whatever it prints, in either
//! format, to its last word.

use std::fs;

use app_host_tests::{App, Host, Line, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn telling() -> Host {
    Host::new(&App::build().app("telling")).with("/log/level", "info")
}

fn text_log(host: &Host) -> String {
    fs::read_to_string(host.path("log")).unwrap_or_default()
}

/// Waits for a line of the text format that ends so, and is nothing but it behind its time.
fn wait_for_text(host: &Host, line: &str) {
    host.wait(&format!("the line \"{line}\""), || {
        text_log(host)
            .lines()
            .any(|found| found.split_once("Z ").is_some_and(|(_, rest)| rest.trim() == line))
            .then_some(())
    });
}

/// A text log; the harness reads bunyan's only.
fn serving_with_text_log() -> (Host, app_host_tests::Address) {
    let socket = "unix:socket";
    let host = telling().with("/log/format", "text").with("/listen", json!([socket]));
    host.spawn();
    host.wait("the workers to serve", || text_log(&host).contains("serving generation=1").then_some(()));
    let address = app_host_tests::Address::parse(&format!("unix:{}", host.path("socket").display())).unwrap();
    (host, address)
}

fn get(address: &app_host_tests::Address, path: &str) -> Option<u16> {
    app_host_tests::Connection::connect(address).unwrap().get(path).ok()
}

#[test]
fn events_keep_level_target_types_and_text_in_bunyans_format() {
    let host = telling().start();
    host.get("/event");
    let line = host.wait_for("counted 3", |_| true);
    let value = line.value();
    assert!(host.workers().contains(&line.pid()), "{}", line.text());
    assert_eq!((line.number("level"), line.str("target")), (Some(30), "telling"));
    let fields = [&value["count"], &value["delta"], &value["ratio"], &value["yes"], &value["text"], &value["pid_"]];
    assert_eq!(fields, [&json!(3), &json!(-1), &json!(0.5), &json!(true), &json!("a \"b\""), &json!(5)]);
    assert_eq!(line.value().get("spans"), None);
    let line = host.wait_for("", |line| line.str("target") == "elsewhere");
    assert_eq!((line.number("level"), line.str("error")), (Some(40), "Error"));
    assert_eq!(host.wait_for("an error", |_| true).number("level"), Some(50));
    let line = host.wait_for("by hand", |_| true);
    assert_eq!((line.str("target"), line.str("key")), ("app", "value"));
    assert!(host.lines_with("hidden at info").is_empty());
}

#[test]
fn events_tell_their_spans_over_awaits_and_threads() {
    let host = telling().start();
    host.get("/spans");
    let expected = json!([{ "name": "request", "method": "GET", "user": 7 }, { "name": "sell", "order": 42 }]);
    for msg in ["before the await", "on a thread", "after the await"] {
        assert_eq!(host.wait_for(msg, |_| true).value()["spans"], expected, "{msg}");
    }
}

#[test]
fn the_text_format_tells_the_same() {
    let (host, address) = serving_with_text_log();
    get(&address, "/event").unwrap();
    get(&address, "/spans").unwrap();
    let spans = "request{method=\"GET\" user=7}:sell{order=42}: ";
    for line in [
        "INFO telling: counted 3 count=3 delta=-1 ratio=0.5 yes=true text=\"a \\\"b\\\"\" pid=5",
        "WARN elsewhere: error=\"Error\"",
        "ERROR telling: an error",
        "INFO app: by hand key=\"value\"",
        &format!("INFO {spans}telling: on a thread"),
        &format!("INFO {spans}telling: after the await"),
    ] {
        wait_for_text(&host, line);
    }
}

#[test]
fn what_an_app_prints_is_in_the_log_to_its_last_word_in_bunyans_format() {
    let host = telling().start();
    let printed = |msg: &str| {
        let line = host.wait_for(msg, |_| true);
        assert_eq!((line.str("target"), line.number("level")), ("stdout", Some(30)), "{}", line.text());
        line.pid()
    };
    assert!(host.workers().contains(&printed("printed in the start")));
    host.get("/print");
    printed("printed by the app");
    host.get("/child");
    printed("printed by a child");
    printed("and once more");
    let mut connection = host.connect();
    assert!(connection.get("/abort").is_err());
    let dead = printed("last words");
    // Its connections are closed a little before it is gone.
    host.wait("its end", || (!process::is_alive(dead)).then_some(()));
    let lines = host.lines();
    let last_words = lines.iter().position(|line| line.msg() == "last words").unwrap();
    host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == dead);
    let exited = host.lines().iter().position(|line| line.msg() == said::WORKER_EXITED && line.worker_pid() == dead);
    assert!(Some(last_words) < exited, "first its words, then its end");
}

#[test]
fn what_an_app_prints_is_in_the_log_to_its_last_word_in_the_text_format() {
    let (host, address) = serving_with_text_log();
    wait_for_text(&host, "INFO stdout: printed in the start");
    get(&address, "/print").unwrap();
    wait_for_text(&host, "INFO stdout: printed by the app");
    get(&address, "/child").unwrap();
    wait_for_text(&host, "INFO stdout: printed by a child");
    assert_eq!(get(&address, "/abort"), None);
    wait_for_text(&host, "INFO stdout: last words");
}

#[test]
fn what_an_app_prints_goes_to_the_log_file_and_nowhere_else() {
    let host = telling().with("/log/file", "log-file");
    host.spawn();
    let read = || fs::read_to_string(host.path("log-file")).unwrap_or_default();
    let has =
        |msg: &str| read().lines().map(Line::parse).any(|line| line.msg() == msg && line.str("target") == "stdout");
    host.wait("what the start printed", || has("printed in the start").then_some(()));
    host.wait("the workers to serve", || read().contains("\"msg\":\"serving\"").then_some(()));
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert_eq!(text_log(&host), "", "nothing on standard output or standard error");
}

#[test]
fn what_is_printed_at_the_end_of_a_worker_or_by_an_orphan_is_not_lost() {
    let host = telling().start();
    for _ in 0..8 {
        host.get("/orphan");
    }
    // Some lines are still in the pipe when the drain ends.
    host.get("/flood/200");
    host.restart_completes();
    let line = host.wait_for("printed by an orphan", |_| true);
    assert!(!host.workers().contains(&line.pid()), "it has the number of its worker: {}", line.text());
    host.wait("all eight", || (host.lines_with("printed by an orphan").len() == 8).then_some(()));
    let flood = |line: &Line| line.msg().starts_with("flood ");
    assert_eq!(host.lines().iter().filter(|line| flood(line)).count(), 200);
    host.restart_completes();
}

#[test]
fn a_master_that_dies_leaves_workers_that_can_still_print() {
    let host = telling().start();
    let mut connection = host.connect();
    host.signal(Signal::SIGKILL);
    host.wait_exit();
    let _ = connection.get("/flood/500");
    host.wait("the lines of the orphaned worker", || {
        host.lines().iter().any(|line| line.msg().starts_with("flood 499 ")).then_some(())
    });
}

#[test]
fn nobody_can_forge_a_line_through_an_app() {
    let host = telling().start();
    host.get("/forge");
    host.wait("what was printed", || {
        host.lines().iter().any(|line| line.str("target") == "stdout" && line.msg().contains("\"v\":0")).then_some(())
    });
    for line in host.lines() {
        assert!(line.value() != &Value::Null && line.msg() != "forged", "{}", line.text());
    }
    let (host, address) = serving_with_text_log();
    get(&address, "/forge").unwrap();
    host.wait("what was printed", || text_log(&host).contains("stdout: {\"v\":0").then_some(()));
    for line in text_log(&host).lines() {
        assert!(!line.contains('\u{1b}') && !line.starts_with('{'), "{line}");
        assert!(!line.starts_with("2026-11-22T00:00:00.000000Z"), "{line}");
    }
}

#[test]
fn an_event_that_nobody_wants_costs_next_to_nothing() {
    let host = telling().start();
    let nanoseconds: f64 = host.get("/disabled/10000000").parse().unwrap();
    println!("a disabled event: {nanoseconds:.2} ns");
    // A call across the line would be 5 ns and more; a busy machine measures CPU time, not its own.
    assert!(nanoseconds < 5.0, "{nanoseconds} ns");
}
