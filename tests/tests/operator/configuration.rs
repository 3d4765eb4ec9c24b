//! What the configuration names: the app's own part and its secrets, the directory of the workers, and nothing new.

use std::fs;
use std::path::Path;

use app_host_tests::{App, Host};
use serde_json::{Value, json};

use super::{app_host, marker};

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
