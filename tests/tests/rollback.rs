//! A restart that fails under `"on_failure": "rollback"` leaves the service as it was, and what has
//! failed isn't tried again, by this master or the next, until one of its two halves changes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::log::Line;
use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn rolling_back() -> Host {
    Host::misbehaving().with("/restart/on_failure", "rollback")
}

/// Slot and generation of every worker that serves, by slot.
fn seats(host: &Host) -> Vec<(u64, u64)> {
    let serving = host.serving();
    let ready = host.lines_with(said::WORKER_READY);
    let seat = |pid: &u32| {
        let line = ready.iter().find(|line| line.worker_pid() == *pid).expect("who serves was ready");
        (line.number("slot").unwrap(), line.number("generation").unwrap())
    };
    let mut seats: Vec<_> = serving.iter().map(seat).collect();
    seats.sort_unstable();
    seats
}

/// Asks for a restart that must fail for this reason and be rolled back, never with fewer workers
/// serving than before.
fn restart_rolls_back(host: &Host, reason: &str) {
    let (mark, before) = (host.mark(), seats(host));
    let verdict = host.restart();
    assert_eq!(verdict.verdict, format!("failed: {reason}"), "{}", verdict.line.text());
    assert_eq!(seats(host), before, "every slot is back");
    host.assert_served_since(mark);
    assert!(host.lines_with("locked").is_empty());
}

fn ledger(host: &Host) -> Value {
    serde_json::from_slice(&fs::read(host.path("state/generations.json")).unwrap()).unwrap()
}

/// Asks a master for a restart that isn't the first in this log: its requests count from 1 again.
fn verdict_of_new_master(host: &Host, mark: usize) -> Line {
    host.signal(Signal::SIGUSR2);
    let verdicts = ["complete", "refused", "failed"].map(|verdict| format!("zero-downtime restart {verdict}"));
    host.wait("a verdict", || {
        host.lines().into_iter().skip(mark).find(|line| verdicts.iter().any(|verdict| line.msg() == verdict))
    })
}

/// The version copies of the state directory.
fn copies(host: &Host) -> usize {
    let entries = fs::read_dir(host.path("state/versions")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".so")).count()
}

#[test]
fn candidate_that_dies_in_slot_2_of_3_lets_all_slots_return_under_load_without_a_failed_request() {
    // FAULTS 30
    for kind in [Kind::KeepAlive, Kind::ConnectionPerRequest] {
        let mut host = rolling_back().with("/workers", 3).with("/log/level", "info").start();
        let load = Load {
            address: host.address(),
            clients: 6,
            kind,
            posts: Posts::None,
            path: "/whoami".to_owned(),
            limit: Duration::from_mins(2),
        };
        let running = load.start(&Arc::new(Allowed::default()));
        for only_slot in [2, 1, 0] {
            host.set("/app/config", json!({ "on_start": "abort", "only_slot": only_slot, "marker": "bad" }));
            restart_rolls_back(&host, "worker died");
            assert_eq!(seats(&host), [(0, 1), (1, 1), (2, 1)]);
        }
        host.set("/app/config", json!({ "marker": "good" }));
        let mark = host.mark();
        let verdict = host.restart();
        assert_eq!(verdict.verdict, "complete", "{}", verdict.line.text());
        host.assert_served_since(mark);
        assert_eq!(seats(&host), [(0, 5), (1, 5), (2, 5)]);
        let outcome = running.stop();
        println!(
            "{kind:?}: {} answered, {} failed, longest gap {:?}",
            outcome.answered, outcome.failed, outcome.longest_gap
        );
        assert_eq!(outcome.failed, 0, "{:#?}", outcome.failures);
        assert!(outcome.answered > 100);
        assert!(host.get("/whoami").contains("good"));
        host.stop();
    }
}

#[test]
fn every_way_to_fail_is_rolled_back() {
    let mut host = rolling_back().start();
    for (app_config, reason) in [
        (json!({ "on_start": "exit" }), "worker died"),
        (json!({ "on_start": "error" }), "app failed to start"),
        (json!({ "on_start": "panic", "only_slot": 1 }), "app failed to start"),
        (json!({ "on_start": "null_listeners", "only_slot": 1 }), "cannot listen"),
    ] {
        host.set("/app/config", app_config);
        restart_rolls_back(&host, reason);
    }
    host.set("/app/config", json!({ "on_start": "hang", "only_slot": 1 }));
    host.set("/restart/start_timeout", "400ms");
    restart_rolls_back(&host, "not ready in time");
    host.set("/app/config", json!({}));
    host.set("/restart/start_timeout", "10s");
    host.restart_completes();
    // A worker that crashes later is respawned as ever.
    let before = host.serving();
    process::signal(before[0], Signal::SIGKILL);
    host.wait("its successor", || (host.serving().len() == 2 && host.serving() != before).then_some(()));
    host.stop();
}

#[test]
fn stop_while_slots_return_is_an_ordinary_stop() {
    // FAULTS 3. The active generation can't come back while the file is there.
    let mut host = rolling_back();
    let file = host.path("die");
    host.set("/app/config", json!({ "die_if": file }));
    let mut host = host.start();
    host.set("/app/config", json!({ "on_start": "abort", "only_slot": 1, "start_ms": 1000 }));
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    // The first active worker drains before the second candidate dies.
    host.wait_after(mark, said::WORKER_DRAINS, |_| true);
    fs::write(&file, "").unwrap();
    host.wait_after(mark, "restart rollback started", |_| true);
    host.wait_after(mark, said::RESPAWN_SCHEDULED, |_| true);
    assert!(host.serving().len() >= 2, "the candidate serves on");
    host.signal(Signal::SIGUSR2);
    assert_eq!(host.verdict(2).verdict, "refused: restart in flight");
    host.stop();
    assert_eq!(host.verdict(1).verdict, "failed: worker died");
}

#[test]
fn quarantined_pair_is_refused_until_the_library_or_the_configuration_changes() {
    let mut host = rolling_back().start();
    host.set("/app/config", json!({ "on_start": "error" }));
    restart_rolls_back(&host, "app failed to start");
    let detail = host.restart_is_refused("bad artifact");
    assert!(detail.contains("quarantined since 20") && detail.contains("start was told to fail"), "{detail}");
    // The same bytes put there again are the same.
    host.restore_config();
    host.install(&App::build().app("misbehaving"));
    host.restart_is_refused("bad artifact");
    host.install_fresh(&App::build().app("misbehaving"));
    restart_rolls_back(&host, "app failed to start");
    host.restart_is_refused("bad artifact");
    host.set("/app/config", json!({}));
    host.restart_completes();
    assert_eq!(ledger(&host)["ledger"]["quarantined"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_active_is_not_quarantined_when_new_workers_of_the_same_fail() {
    let mut host = rolling_back();
    let file = host.path("die");
    host.set("/app/config", json!({ "die_if": file }));
    let host = host.start();
    fs::write(&file, "").unwrap();
    restart_rolls_back(&host, "worker died");
    fs::remove_file(&file).unwrap();
    host.restart_completes();
}

#[test]
fn master_that_finds_a_quarantined_pair_starts_the_last_active_generation_and_says_so() {
    let mut host = rolling_back().with("/app/config", json!({ "marker": "good" })).start();
    host.install_fresh(&App::build().app("misbehaving"));
    host.restart_completes();
    let good = host.lines_with(said::RESTART_COMPLETE).pop().unwrap().str("version").to_owned();
    host.install_fresh(&App::build().app("misbehaving"));
    host.set("/app/config", json!({ "marker": "bad", "on_start": "abort", "only_slot": 1 }));
    restart_rolls_back(&host, "worker died");
    // Killed, so that nothing but what was written down at once is there.
    for start in 0..2 {
        host.signal(Signal::SIGKILL);
        host.wait_exit();
        let mark = host.mark();
        host.spawn();
        let line = host.wait_after(mark, said::EARLIER_GENERATION_STARTED, |_| true);
        assert_eq!((line.number("level"), line.str("version")), (Some(50), good.as_str()), "{start}: {}", line.text());
        assert!(line.text().contains("worker died"), "{}", line.text());
        assert_eq!(host.wait_after(mark, said::SERVING, |_| true).str("version"), good);
        assert!(host.get("/whoami").contains("good"));
        let refused = verdict_of_new_master(&host, mark);
        assert_eq!(refused.str("verdict"), "refused: bad artifact", "{}", refused.text());
        assert!(refused.str("detail").contains("quarantined"), "{}", refused.text());
    }
    // One of the two changes.
    host.set("/app/config", json!({ "marker": "mended" }));
    let verdict = verdict_of_new_master(&host, host.mark());
    assert_eq!(verdict.str("verdict"), "complete", "{}", verdict.text());
    host.stop();
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert!(host.get("/whoami").contains("mended"));
    assert!(host.lines().iter().skip(mark).all(|line| line.msg() != said::EARLIER_GENERATION_STARTED));
}

#[test]
fn damaged_ledger_is_said_loudly_and_keeps_no_master_from_starting() {
    for damage in ["", "{\"form\":1,\"ledger\":{\"kept\":[]", "null", "\u{7f}ELF"] {
        let host = rolling_back().start();
        host.stop();
        fs::write(host.path("state/generations.json"), damage).unwrap();
        let mark = host.mark();
        host.spawn();
        let line = host.wait_after(mark, said::HISTORY_LOST, |_| true);
        assert_eq!(line.number("level"), Some(50), "{}", line.text());
        host.wait_after(mark, said::SERVING, |_| true);
        assert_eq!(fs::read_to_string(host.path("state/generations.json.damaged")).unwrap(), damage);
        host.stop();
        assert_eq!(ledger(&host)["ledger"]["kept"].as_array().unwrap().len(), 1, "a new one is written");
    }
    // Something that is no file at all.
    let host = rolling_back();
    fs::create_dir_all(host.path("state/generations.json/full")).unwrap();
    let host = host.start();
    host.wait_for(said::HISTORY_LOST, |_| true);
    host.restart_completes();
}

#[test]
fn watcher_does_not_ask_for_a_quarantined_pair_again() {
    let host = rolling_back().with("/watch", true).with("/app/config", json!({ "die_if": "never" })).start();
    let good = fs::read(host.library_path()).unwrap();
    // Its manifest is whole and its layout too; it dies only when it starts as a worker.
    let mut host = host;
    host.set("/app/config", json!({ "on_start": "abort" }));
    host.install_fresh(&App::build().app("misbehaving"));
    assert_eq!(host.verdict(1).verdict, "failed: worker died");
    let bad = fs::read(host.library_path()).unwrap();
    host.install_bytes(&good);
    // The old library with the new configuration is another pair.
    host.signal(Signal::SIGUSR2);
    assert_eq!(host.verdict(2).verdict, "failed: worker died");
    let mark = host.mark();
    host.install_bytes(&bad);
    host.wait_after(mark, said::LIBRARY_SEEN, |_| true);
    host.install_bytes(&good);
    host.wait("it is seen again", || {
        (host.lines().iter().skip(mark).filter(|line| line.msg() == said::LIBRARY_SEEN).count() >= 2).then_some(())
    });
    assert_eq!(host.restart().verdict, "refused: bad artifact");
    assert_eq!(host.last_request(), 3, "nobody else has asked");
    // A new one is asked for.
    host.set("/app/config", json!({}));
    host.install_fresh(&App::build().app("misbehaving"));
    assert_eq!(host.verdict(4).verdict, "complete");
}

#[test]
fn as_many_version_copies_are_kept_as_configured() {
    let mut host = rolling_back().with("/versions_kept", 2).start();
    let fresh = |host: &Host| {
        host.install_fresh(&App::build().app("misbehaving"));
        host.restart_completes();
    };
    for _ in 0..4 {
        fresh(&host);
    }
    host.wait("two and the active one", || (copies(&host) == 3).then_some(()));
    // Those that have failed aren't kept.
    host.set("/app/config", json!({ "on_start": "error" }));
    for _ in 0..3 {
        host.install_fresh(&App::build().app("misbehaving"));
        restart_rolls_back(&host, "app failed to start");
    }
    host.wait("two and the active one", || (copies(&host) == 3).then_some(()));
    host.set("/app/config", json!({}));
    host.set("/versions_kept", 4);
    for _ in 0..3 {
        fresh(&host);
    }
    host.wait("four and the active one", || (copies(&host) == 5).then_some(()));
    host.set("/versions_kept", 0);
    host.restart_is_refused("bad config");
    host.set("/versions_kept", 4);
    host.stop();
    host.spawn();
    host.wait("it serves again", || (host.lines_with(said::SERVING).len() == 2).then_some(()));
    assert_eq!(copies(&host), 5, "the next master keeps them");
}

#[test]
fn master_holds_to_a_rollback_until_what_lies_on_disk_changes() {
    let host = Host::answering("a").with("/watch", true).start();
    host.install(&App::build().app("answer_b"));
    assert_eq!(host.verdict(1).verdict, "complete");
    host.stop();
    // What a rollback writes down, without the command that asks for one.
    let mut written = ledger(&host);
    let kept = written["ledger"]["kept"].as_array().unwrap().clone();
    let (earlier, later) = (&kept[0]["pair"], &kept[1]["pair"]);
    assert_eq!(written["ledger"]["active"], *later);
    written["ledger"]["active"] = earlier.clone();
    written["ledger"]["held"] = later.clone();
    fs::write(host.path("state/generations.json"), written.to_string()).unwrap();
    for _ in 0..2 {
        let mark = host.mark();
        host.spawn();
        let line = host.wait_after(mark, said::EARLIER_GENERATION_STARTED, |_| true);
        assert_eq!(line.str("reason"), "rolled back", "{}", line.text());
        host.wait_after(mark, said::SERVING, |_| true);
        host.wait_after(mark, said::LIBRARY_SEEN, |_| true);
        assert_eq!(host.get("/").trim(), "a");
        host.stop();
        assert!(host.lines().iter().skip(mark).all(|line| line.msg() != said::RESTART_REQUESTED), "nobody asks for it");
        assert_eq!(ledger(&host)["ledger"]["held"], *later);
    }
    // Another library is asked for by the watcher, and ends it.
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    host.install_fresh(&App::build().app("answer_b"));
    host.wait_after(mark, said::RESTART_COMPLETE, |_| true);
    assert_eq!(host.get("/").trim(), "b");
    host.stop();
    assert_eq!(ledger(&host)["ledger"]["held"], Value::Null);
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert_eq!(host.get("/").trim(), "b");
}

#[test]
fn last_active_generation_whose_copy_has_gone_is_no_reason_not_to_start() {
    let mut host = rolling_back().start();
    host.set("/app/config", json!({ "on_start": "abort", "die_if": "x" }));
    restart_rolls_back(&host, "worker died");
    host.stop();
    for entry in fs::read_dir(host.path("state/versions")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mark = host.mark();
    host.spawn();
    let line = host.wait_after(mark, "the last active generation can't be had: what lies on disk is tried", |_| true);
    assert_eq!(line.number("level"), Some(50), "{}", line.text());
    assert_eq!(host.wait_exit().code(), Some(1), "what lies there is as bad as it was");
}
