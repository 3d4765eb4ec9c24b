//! A restart that goes wrong leaves who can serve serving, and locks the master: no further restart,
//! no respawn, and an exit of its own when the last worker is gone.

use app_host_tests::{Host, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// After a failure in the first slot: nothing was drained, and the lock holds.
fn assert_locked_with_all_serving(host: &Host, before: &[u32]) {
    assert_eq!(host.serving(), before, "nothing may have been drained");
    assert!(host.lines_with(said::WORKER_DRAINS).is_empty());
    host.assert_all_serve(before);
    host.restart_is_refused("aborted restart");
    // A worker that dies now is not replaced: the refusal that follows its exit comes after any
    // respawn that the exit could have led to.
    let mark = host.mark();
    process::signal(before[0], Signal::SIGKILL);
    host.wait_after(mark, said::WORKER_EXITED, |line| line.worker_pid() == before[0]);
    host.restart_is_refused("aborted restart");
    let spawned = host.lines().into_iter().skip(mark).filter(|line| line.msg().contains("spawn"));
    assert_eq!(spawned.count(), 0, "a locked master respawns nobody");
    host.assert_all_serve(&before[1..]);
    // The end of the last one is the end of the master, with its own status.
    process::signal(before[1], Signal::SIGKILL);
    assert_eq!(host.wait_exit().code(), Some(3));
}

fn first_slot_fails(app_config: Value, restart: &[(&str, &str)], reason: &str) -> String {
    let mut host = Host::misbehaving().start();
    let before = host.serving();
    host.set("/app/config", app_config);
    for (key, value) in restart {
        host.set(&format!("/restart/{key}"), *value);
    }
    let detail = host.restart_fails(reason);
    assert_locked_with_all_serving(&host, &before);
    detail
}

#[test]
fn candidate_that_aborts_in_its_start_locks() {
    // FAULTS 8
    first_slot_fails(json!({ "on_start": "abort" }), &[], "worker died");
}

#[test]
fn candidate_that_exits_with_0_in_its_start_locks() {
    // FAULTS 8: an exit with 0 is no success.
    first_slot_fails(json!({ "on_start": "exit" }), &[], "worker died");
}

#[test]
fn candidate_whose_start_returns_an_error_locks_and_the_error_is_told() {
    let detail = first_slot_fails(json!({ "on_start": "error" }), &[], "app failed to start");
    assert!(detail.contains("start was told to fail"), "{detail}");
}

#[test]
fn candidate_whose_start_panics_locks_and_the_panic_is_told() {
    let detail = first_slot_fails(json!({ "on_start": "panic" }), &[], "app failed to start");
    assert!(detail.contains("start was told to panic"), "{detail}");
}

#[test]
fn candidate_whose_configuration_is_wrong_locks_and_the_key_is_told() {
    let detail = first_slot_fails(json!({ "unknown_key": 1 }), &[], "app failed to start");
    assert!(detail.contains("unknown_key"), "{detail}");
}

#[test]
fn candidate_that_hangs_in_its_start_is_killed_at_the_timeout_and_locks() {
    // FAULTS 7 and 8: a timeout is never taken for success.
    first_slot_fails(json!({ "on_start": "hang" }), &[("start_timeout", "400ms")], "not ready in time");
}

#[test]
fn candidate_that_is_never_ready_is_killed_at_the_timeout_and_locks() {
    // FAULTS 7
    first_slot_fails(json!({ "start_ms": 60_000 }), &[("start_timeout", "400ms")], "not ready in time");
}

#[test]
fn candidate_that_cannot_take_its_listeners_says_so_and_locks() {
    let detail = first_slot_fails(json!({ "on_start": "null_listeners" }), &[], "cannot listen");
    assert!(detail.contains("127.0.0.1"), "the detail should name the listener: {detail}");
}

#[test]
fn candidate_that_dies_in_its_probation_locks_and_nothing_was_drained() {
    // FAULTS 6
    first_slot_fails(json!({ "die_after_ms": 150 }), &[("probation", "10s")], "worker died");
}

#[test]
fn candidate_that_is_killed_after_it_was_ready_locks_and_nothing_was_drained() {
    // FAULTS 5, in the first slot.
    let mut host = Host::misbehaving().start();
    let before = host.serving();
    host.set("/restart/probation", "10s");
    host.signal(Signal::SIGUSR2);
    let ready = host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2));
    process::signal(ready.worker_pid(), Signal::SIGKILL);
    assert_eq!(host.verdict(1).verdict, "failed: worker died");
    host.wait_for("locked", |_| true);
    assert_locked_with_all_serving(&host, &before);
}

#[test]
fn failure_in_a_later_slot_leaves_all_others_serving() {
    // FAULTS 5, in a later slot.
    let mut host = Host::misbehaving().with("/workers", 3).start();
    let before = host.serving();
    host.set("/app/config", json!({ "on_start": "abort", "only_slot": 1 }));
    host.restart_fails("worker died");
    let first = host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2)).worker_pid();
    let expected = [first, before[1], before[2]];
    let mut serving = host.serving();
    serving.retain(|pid| *pid != before[0]);
    assert_eq!(serving, expected, "slots 1 and 2 have their active workers, slot 0 its candidate");
    host.assert_all_serve(&expected);
    host.restart_is_refused("aborted restart");
    host.stop();
}

#[test]
fn locked_master_still_stops_as_asked() {
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "on_start": "abort" }));
    host.restart_fails("worker died");
    host.stop();
}

#[test]
fn locked_master_says_what_to_do() {
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "on_start": "abort" }));
    host.restart_fails("worker died");
    let locked = host.wait_for("locked", |_| true);
    assert_eq!(locked.number("level"), Some(50), "an operator must act: {}", locked.text());
    assert!(locked.text().contains("restart the master"), "{}", locked.text());
}

#[test]
fn first_workers_that_cannot_start_end_the_master_with_1() {
    // FAULTS 8: there is nothing to fall back to.
    for (app_config, key) in [
        (json!({ "on_start": "abort" }), "abort"),
        (json!({ "on_start": "exit" }), "exit"),
        (json!({ "on_start": "error" }), "error"),
        (json!({ "on_start": "hang" }), "hang"),
        (json!({ "on_start": "null_listeners" }), "null_listeners"),
        (json!({ "on_start": "abort", "only_slot": 1 }), "abort in one slot"),
    ] {
        let host = Host::misbehaving().with("/app/config", app_config).with("/restart/start_timeout", "500ms");
        host.spawn();
        assert_eq!(host.wait_exit().code(), Some(1), "{key}");
        assert!(host.lines_with(said::SERVING).is_empty(), "{key}");
    }
}
