//! An app that has a subscriber of its own, or none: what is logged when, and where it goes.

use std::fs;

use app_host_tests::{App, Host};
use serde_json::json;

const OF_THE_START: [&str; 3] = ["at the beginning of the start", "in a task of the start", "at the end of the start"];

/// A master whose app sets this subscriber; one request was answered.
fn served(set: &str) -> Host {
    let mut host = Host::new(&App::build().app("own_subscriber")).with("/log/level", "info");
    let own = host.path("own.log").display().to_string();
    host.set("/app/config", json!({ "set": set, "own": own }));
    let host = host.start();
    assert_eq!(host.get("/path").trim(), "true");
    host
}

fn own_log(host: &Host) -> String {
    fs::read_to_string(host.path("own.log")).unwrap_or_default()
}

/// How often the app itself has logged this, in the host's log.
fn count(host: &Host, msg: &str) -> usize {
    host.lines().iter().filter(|line| line.msg() == msg && line.str("target") == "own_subscriber").count()
}

fn assert_served_is_logged_with_its_span(host: &Host) {
    let line = host.wait_for("served", |line| line.msg() == "served");
    assert_eq!((line.str("target"), line.number("items")), ("own_subscriber", Some(3)), "{}", line.text());
    assert_eq!(line.value()["spans"][0]["name"], "request", "{}", line.text());
    assert_eq!(line.value()["spans"][0]["path"], "/path", "{}", line.text());
    host.wait_for("served by a task", |line| line.value()["spans"][0]["name"] == "outer");
}

#[test]
fn an_app_that_sets_no_subscriber_has_the_hosts_log_from_the_beginning_of_its_start() {
    let host = served("none");
    assert_served_is_logged_with_its_span(&host);
    for msg in OF_THE_START {
        assert_eq!(count(&host, msg), 2, "{msg}: once a worker");
    }
}

#[test]
fn a_subscriber_of_the_apps_own_sees_what_the_hosts_log_sees_beside_it() {
    let host = served("layers");
    assert_served_is_logged_with_its_span(&host);
    host.wait("both logs of its start", || {
        (count(&host, OF_THE_START[2]) == 2 && own_log(&host).matches(OF_THE_START[2]).count() == 2).then_some(())
    });
    for msg in &OF_THE_START[..2] {
        assert_eq!(count(&host, msg), 2, "{msg}: before there was another one it was in the host's log");
        assert!(!own_log(&host).contains(msg), "{msg}");
    }
    assert!(own_log(&host).contains("served\n") && own_log(&host).contains("served by a task\n"), "{}", own_log(&host));
    assert_eq!(count(&host, "served"), 1, "once");
}

#[test]
fn a_subscriber_that_prints_with_colours_leaves_none_in_the_log() {
    let host = served("fmt");
    let served = |host: &Host| host.lines().into_iter().find(|line| line.msg().ends_with("served items=3"));
    let line = host.wait("the printed line", || served(&host));
    assert_eq!(line.str("target"), "stdout");
    assert!(line.msg().contains("request{path=\"/path\"}"), "{}", line.msg());
    let printed = host.lines().into_iter().filter(|line| line.str("target") == "stdout");
    for line in printed {
        assert!(!line.msg().contains(['\u{1b}', '\u{9b}']) && !line.msg().contains("[0m"), "{}", line.text());
    }
    assert_eq!(count(&host, "served"), 0, "the app has chosen another place");
}
