//! The first start of a master: what an app does once in its start doesn't run against itself.

use std::time::{Duration, Instant};

use app_host_tests::{Host, said};
use nix::sys::signal::Signal;
use serde_json::json;

/// A master whose app takes so long to start.
fn starting_in(start_ms: u64, workers: u16) -> Host {
    Host::misbehaving().with("/workers", workers).with("/app/config", json!({ "start_ms": start_ms }))
}

#[test]
fn a_migration_in_the_apps_start_runs_alone_and_the_other_workers_start_together() {
    const START: Duration = Duration::from_millis(800);
    const WORKERS: u16 = 6;
    let host = starting_in(800, WORKERS);
    let began = Instant::now();
    let host = host.start();
    // One after the other they would take six times as long; the first and then the others take two.
    assert!(began.elapsed() < START * 4, "took {:?}", began.elapsed());
    let lines = host.lines();
    let at = |msg| -> Vec<usize> { (0..lines.len()).filter(|at| lines[*at].msg() == msg).collect() };
    let first_ready = at(said::WORKER_READY)[0];
    assert_eq!(lines[first_ready].number("slot"), Some(0));
    let spawned_before = |other: usize| at(said::WORKER_SPAWNED).into_iter().filter(|spawned| *spawned < other).count();
    assert_eq!(spawned_before(first_ready), 1, "the first is alone");
    assert_eq!(spawned_before(at(said::WORKER_READY)[1]), usize::from(WORKERS), "all others start together");
}

#[test]
fn a_start_that_can_never_run_beside_another_gets_every_worker_started_all_the_same() {
    let mut host = Host::misbehaving().with("/workers", 4);
    let migration = host.path("migration").display().to_string();
    host.set("/app/config", json!({ "start_ms": 200, "migration": migration }));
    let host = host.start();
    assert_eq!(host.serving().len(), 4);
    assert_eq!(host.restart().verdict, "complete");
}

#[test]
fn a_first_worker_that_fails_ends_the_start_before_another_is_spawned() {
    let host = Host::misbehaving().with("/workers", 4).with("/app/config", json!({ "on_start": "error" }));
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert_eq!(host.lines_with(said::WORKER_SPAWNED).len(), 1, "nobody else had to fail");
}

#[test]
fn sigterm_while_the_first_worker_starts_ends_the_master_and_spawns_no_other() {
    let host = starting_in(60_000, 4);
    host.spawn();
    host.wait_for(said::WORKER_SPAWNED, |_| true);
    host.signal(Signal::SIGTERM);
    // A start can't be broken off kindly; the second order kills it.
    host.wait_for(said::WORKER_DRAINS, |_| true);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert_eq!(host.lines_with(said::WORKER_SPAWNED).len(), 1);
}
