//! What was moved or removed under a service that runs.

use std::fs;

use app_host_tests::{Host, said};
use serde_json::json;

use super::is_respawned;

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
