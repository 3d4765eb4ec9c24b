//! What is watched, and what isn't: as the configuration of the last restart says.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use app_host_tests::{Host, Line, process, said};
use serde_json::json;

use super::{fresh, has_looked, is_brought_in, is_refused, requests_since, settled, stall, watching};

/// Waits for the next verdict on a request of the watcher behind a mark.
fn verdict_since(host: &Host, mark: usize) -> Line {
    host.wait("a verdict on a request of the watcher", || {
        let lines = host.lines();
        let mut verdicts = lines.into_iter().skip(mark).filter(|line| line.msg().starts_with("zero-downtime restart"));
        verdicts.find(|line| line.str("by") == "watcher")
    })
}

fn watcher_threads(host: &Host) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", host.master())).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name == "watcher" || name.contains("notify")).collect()
}

#[test]
fn nothing_is_watched_unless_it_is_asked_for_and_a_restart_changes_that() {
    let mut host = Host::misbehaving().start();
    host.install_bytes(&fresh());
    assert_eq!(watcher_threads(&host), [""; 0], "nobody looks");
    host.restart_completes();
    assert_eq!(host.verdict(1).line.str("by"), "SIGUSR2");
    let mark = host.mark();
    host.set("/watch", true);
    host.restart_completes();
    host.wait_after(mark, said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_brought_in(&host, mark, &bytes);
    let descriptors = process::descriptors(host.master()).len();
    host.set("/watch", false);
    host.restart_completes();
    host.wait_after(mark, said::NOTHING_WATCHED, |_| true);
    host.wait("the end of the watcher", || watcher_threads(&host).is_empty().then_some(()));
    host.wait("the end of its descriptors", || (process::descriptors(host.master()).len() < descriptors).then_some(()));
    let mark = host.mark();
    host.install_bytes(&fresh());
    // A restart that is asked for later finds it, and nobody has asked before.
    host.restart_completes();
    assert_eq!(requests_since(&host, mark).len(), 1);
}

#[test]
fn another_path_is_watched_once_it_is_configured() {
    let mut host = settled(watching());
    let elsewhere = host.path("elsewhere/app.so");
    fs::create_dir(host.path("elsewhere")).unwrap();
    fs::write(&elsewhere, fresh()).unwrap();
    let old = host.library_path();
    host.set("/app/library", "elsewhere/app.so");
    let mark = host.mark();
    host.restart_completes();
    host.wait_after(mark, said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    let mark = host.mark();
    fs::write(old, fresh()).unwrap();
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_brought_in(&host, mark, &bytes);
    has_looked(&host);
    assert_eq!(requests_since(&host, mark).len(), 1);
}

#[test]
fn configuration_is_watched_where_that_is_asked_for() {
    let mut host = settled(Host::misbehaving().with("/watch", json!({ "config": true })));
    let mark = host.mark();
    host.set("/app/config", json!({ "marker": "two" }));
    assert_eq!(verdict_since(&host, mark).str("verdict"), "complete");
    assert!(host.get("/whoami").contains("\"two\""));
    // One that isn't valid is refused once, and is tried again when it changes.
    let mark = host.mark();
    host.write_config(b"{");
    is_refused(&host, mark, "bad config");
    stall(Duration::from_millis(1_200));
    has_looked(&host);
    assert_eq!(requests_since(&host, mark).len(), 1);
    let mark = host.mark();
    host.set("/app/config", json!({ "marker": "three" }));
    assert_eq!(verdict_since(&host, mark).str("verdict"), "complete");
    assert!(host.get("/whoami").contains("\"three\""));
    // What is active by now asks for nothing.
    let mark = host.mark();
    host.restore_config();
    has_looked(&host);
    assert!(requests_since(&host, mark).is_empty());
}

#[test]
fn configuration_that_is_not_watched_asks_for_nothing_but_lets_a_refused_build_in_when_it_is_mended() {
    let mut host = settled(watching());
    let mark = host.mark();
    host.set("/app/config", json!({ "marker": "two" }));
    has_looked(&host);
    assert!(requests_since(&host, mark).is_empty());
    host.write_config(b"{");
    has_looked(&host);
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, mark, "bad config");
    host.restore_config();
    is_brought_in(&host, mark, &bytes);
    assert!(host.get("/whoami").contains("\"two\""));
}

#[test]
fn locked_master_watches_nothing_any_more() {
    let mut host = settled(watching());
    host.set("/app/config", json!({ "on_start": "error" }));
    let mark = host.mark();
    host.install_bytes(&fresh());
    assert_eq!(verdict_since(&host, mark).str("verdict"), "failed: app failed to start");
    host.wait_after(mark, said::NOTHING_WATCHED, |_| true);
    host.wait("the end of the watcher", || watcher_threads(&host).is_empty().then_some(()));
    host.set("/app/config", json!({}));
    host.install_bytes(&fresh());
    assert_eq!(host.restart().verdict, "refused: aborted restart");
    assert_eq!(requests_since(&host, mark).len(), 2, "the operator's is the second");
}

#[test]
fn workers_inherit_nothing_of_the_watcher() {
    let host = settled(watching());
    let mark = host.mark();
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_brought_in(&host, mark, &bytes);
    let is_inotify = |(_, target): &(u32, PathBuf)| target.to_string_lossy().contains("inotify");
    assert!(process::descriptors(host.master()).iter().any(&is_inotify));
    for worker in host.workers() {
        assert!(!process::descriptors(worker).iter().any(&is_inotify), "{worker}");
    }
    host.stop();
}
