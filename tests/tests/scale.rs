//! SIGTTIN and SIGTTOU: one worker more or less, new before old, also in the middle of a restart.

use std::sync::Arc;
use std::time::Duration;

use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

fn wait_for_workers(host: &Host, count: usize) -> Vec<u32> {
    host.wait(&format!("{count} workers"), || {
        let serving = host.serving();
        (serving.len() == count && host.workers().len() == count).then_some(serving)
    })
}

/// Asks for a restart that must complete. How many must serve isn't what the configuration says here.
fn restart_completes(host: &Host) {
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "complete", "{}", verdict.line.text());
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers_under_load_without_a_failed_request() {
    let host = Host::misbehaving().with("/log/level", "info").start();
    let load = Load {
        address: host.address(),
        clients: 4,
        kind: Kind::ConnectionPerRequest,
        posts: Posts::None,
        path: "/whoami".to_owned(),
        limit: Duration::from_mins(1),
    };
    let running = load.start(&Arc::new(Allowed::default()));
    let first = host.serving();
    for (signal, count) in [
        (Signal::SIGTTIN, 3),
        (Signal::SIGTTIN, 4),
        (Signal::SIGTTOU, 3),
        (Signal::SIGTTOU, 2),
        (Signal::SIGTTOU, 1),
        (Signal::SIGTTIN, 2),
    ] {
        host.signal(signal);
        let serving = wait_for_workers(&host, count);
        assert_eq!(serving[0], first[0], "the highest slots come and go");
        host.assert_all_serve(&serving);
    }
    let outcome = running.stop();
    assert_eq!(outcome.failed, 0, "{:#?}", outcome.failures);
    host.stop();
}

#[test]
fn number_stays_at_least_1_and_a_crash_of_the_last_is_mended() {
    let host = Host::misbehaving().start();
    host.signal(Signal::SIGTTOU);
    let one = wait_for_workers(&host, 1);
    host.signal(Signal::SIGTTOU);
    host.wait_for("the number of workers stays", |line| line.number("workers") == Some(1));
    assert_eq!(host.serving(), one);
    process::signal(one[0], Signal::SIGKILL);
    host.wait("its successor", || (host.serving().len() == 1 && host.serving() != one).then_some(()));
    host.assert_all_serve(&host.serving());
}

#[test]
fn number_holds_over_restarts_until_the_configurations_own_changes() {
    let mut host = Host::misbehaving().start();
    host.signal(Signal::SIGTTIN);
    wait_for_workers(&host, 3);
    restart_completes(&host);
    assert_eq!(host.serving().len(), 3);
    // One after the other: signals that arrive together are one.
    for count in [2, 1] {
        host.signal(Signal::SIGTTOU);
        wait_for_workers(&host, count);
    }
    restart_completes(&host);
    assert_eq!(host.serving().len(), 1, "one is wanted, and two are configured");
    host.set("/workers", 4);
    restart_completes(&host);
    assert_eq!(host.serving().len(), 4);
    host.set("/workers", 2);
    restart_completes(&host);
    assert_eq!(host.serving().len(), 2);
}

#[test]
fn wishes_in_the_middle_of_a_roll_are_fulfilled_after_it() {
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "start_ms": 400 }));
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::ROLL_STARTED, |_| true);
    host.signal(Signal::SIGTTIN);
    host.wait_after(mark, said::WORKER_COUNT_DEFERRED, |_| true);
    assert_eq!(host.verdict(1).verdict, "complete");
    host.assert_served_since(mark);
    let serving = wait_for_workers(&host, 3);
    host.assert_all_serve(&serving);
    // And fewer.
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::ROLL_STARTED, |_| true);
    host.signal(Signal::SIGTTOU);
    host.wait_after(mark, said::WORKER_COUNT_DEFERRED, |_| true);
    assert_eq!(host.verdict(2).verdict, "complete");
    let serving = wait_for_workers(&host, 2);
    host.assert_all_serve(&serving);
    host.stop();
}

#[test]
fn locked_master_changes_no_number_of_workers() {
    let mut host = Host::misbehaving().start();
    let before = host.serving();
    host.set("/app/config", json!({ "on_start": "abort" }));
    host.restart_fails("worker died");
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU] {
        let mark = host.mark();
        host.signal(signal);
        host.wait_after(mark, "the number of workers can't change any more", |_| true);
    }
    assert_eq!(host.serving(), before);
    host.stop();
}
