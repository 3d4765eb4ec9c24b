//! The log can be read by people and by `bunyan`, on standard error and in a file.

use std::fs;

use app_host_tests::{Host, Line, process};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What bunyan insists on (<https://github.com/trentm/node-bunyan#core-fields>).
fn assert_bunyan(line: &Line) {
    let text = line.text();
    let field = |key: &str| line.value().get(key).unwrap_or_else(|| panic!("no {key}: {text}"));
    assert_eq!(field("v"), &Value::from(0), "{text}");
    assert!(field("name").is_string() && field("hostname").is_string() && field("msg").is_string(), "{text}");
    assert!(field("pid").as_u64().is_some_and(|pid| pid > 0), "{text}");
    assert!(matches!(field("level").as_u64(), Some(10 | 20 | 30 | 40 | 50 | 60)), "{text}");
    let time = field("time").as_str().unwrap();
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{text}");
    assert!(line.seconds().is_some(), "{text}");
}

#[test]
fn every_line_is_bunyans_and_the_last_of_a_restart_is_its_verdict() {
    let host = Host::misbehaving().start();
    host.get("/log");
    host.restart_completes();
    let lines = host.lines();
    lines.iter().for_each(assert_bunyan);
    let verdict = lines.iter().rposition(|line| line.number("request") == Some(1)).unwrap();
    assert_eq!(lines[verdict].msg(), "zero-downtime restart complete");
    assert_eq!(lines[verdict].str("verdict"), "complete");
    assert!(!lines[verdict].str("version").is_empty());
    assert_eq!(lines[verdict].number("generation"), Some(2));
    host.write_config(b"{");
    let refused = host.restart();
    assert_bunyan(&refused.line);
    assert_eq!(refused.line.str("reason"), "bad config");
    host.restore_config();
    host.stop();
    host.lines().iter().for_each(assert_bunyan);
}

#[test]
fn what_the_app_logs_is_a_line_of_its_worker() {
    let host = Host::misbehaving().start();
    host.get("/log");
    let line = host.wait_for("the app says something", |_| true);
    assert!(host.workers().contains(&line.pid()), "{}", line.text());
    assert_eq!(line.number("level"), Some(30));
    assert!(line.text().contains("value"), "its fields are kept: {}", line.text());
}

#[test]
fn log_file_gets_everyones_lines_and_standard_error_none() {
    let host = Host::misbehaving().with("/log/file", "log-file");
    host.spawn();
    let path = host.path("log-file");
    let read = || fs::read_to_string(&path).unwrap_or_default();
    host.wait("the workers to serve", || read().contains("\"msg\":\"serving\"").then_some(()));
    host.signal(Signal::SIGUSR2);
    host.wait("the verdict", || read().contains("zero-downtime restart complete").then_some(()));
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    let lines: Vec<Line> = read().lines().map(Line::parse).collect();
    lines.iter().for_each(assert_bunyan);
    assert!(lines.iter().any(|line| line.msg() == "drained"), "the workers' lines are there");
    assert_eq!(host.lines().len(), 0, "nothing on standard error");
}

#[test]
fn text_log_has_a_line_for_every_stage_and_no_colours_in_a_file() {
    let host = Host::misbehaving().with("/log/format", "text");
    host.spawn();
    let read = || fs::read_to_string(host.path("log")).unwrap_or_default();
    host.wait("the workers to serve", || read().contains("serving generation=1").then_some(()));
    host.signal(Signal::SIGUSR2);
    host.wait("the verdict", || read().contains("zero-downtime restart complete").then_some(()));
    let text = read();
    for stage in ["restart requested", "restart preflight passed", "restart roll started", "restart probation passed"] {
        assert!(text.contains(stage), "{stage}");
    }
    assert!(!text.contains('\u{1b}'), "no escape sequences");
}

#[test]
fn level_hides_what_is_below_it_and_changes_with_a_restart() {
    let mut host = Host::misbehaving().start();
    host.set("/log/level", "warn");
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let before = host.workers();
    host.wait("the old workers' exit", || before.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
    host.wait("the verdict", || {
        // From its completion on the master logs as the new configuration says; the workers do anyway.
        host.get("/log");
        let lines = host.lines();
        let workers = host.workers();
        assert!(lines.iter().skip(mark).all(|line| {
            line.number("level") >= Some(40) || !workers.contains(&line.pid()) || before.contains(&line.pid())
        }));
        (workers.len() == 2 && workers.iter().all(|pid| !before.contains(pid))).then_some(())
    });
}
