//! Whether the service is ready, and whether its master is healthy.

use std::time::{Duration, Instant};

use app_host_tests::{Connection, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{host, metrics_when};

#[test]
fn readiness_follows_the_master_from_its_start_to_its_end() {
    let mut host = host().with("/app/config", json!({ "start_ms": 1500 }));
    host.spawn();
    assert_eq!(host.ask_admin("/readyz"), (503, "not ready: starting, 0 of 2 workers\n".to_owned()));
    assert_eq!(host.ask_admin("/healthz"), (200, "ok\n".to_owned()));
    host.wait_for(said::SERVING, |_| true);
    assert_eq!(host.ask_admin("/readyz"), (200, "ready: serving, 2 of 2 workers\n".to_owned()));

    host.set("/app/config", json!({ "on_start": "exit" }));
    host.restart_fails("worker died");
    assert_eq!(host.ask_admin("/readyz"), (200, "ready: locked, 2 of 2 workers\n".to_owned()));
    let metrics = host.metrics();
    assert_eq!(metrics.count("phase{phase=\"locked\"}"), 1);
    assert_eq!(metrics.count("restarts_total{verdict=\"failed\",reason=\"worker died\"}"), 1);
    // The last but one of a locked master is enough.
    process::signal(host.serving()[0], Signal::SIGKILL);
    host.wait_for(said::WORKER_EXITED, |line| {
        line.flag("expected") == Some(false) && line.number("generation") == Some(1)
    });
    assert_eq!(host.ask_admin("/readyz"), (200, "ready: locked, 1 of 2 workers\n".to_owned()));

    // What is in flight keeps it from its end.
    let mut busy = host.connect();
    busy.ask("/never").unwrap();
    metrics_when(&host, "a request in flight", |metrics| metrics.count("requests_in_flight") == 1);
    host.signal(Signal::SIGTERM);
    host.wait_for(said::STOPPING, |_| true);
    assert_eq!(host.ask_admin("/readyz"), (503, "not ready: stopping, 0 of 2 workers\n".to_owned()));
    assert_eq!(host.ask_admin("/healthz").0, 200);
    let admin = host.admin_process().expect("it answers to the end");
    // Somebody ends all processes of this name: the master is meant, and says so.
    process::signal(admin, Signal::SIGTERM);
    assert_eq!(host.ask_admin("/healthz").0, 200);
    assert_eq!(host.admin_process(), Some(admin));
    let address = host.admin_address();
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(!process::is_alive(admin), "it ends before its master");
    assert!(Connection::connect(&address).is_err());
}

#[test]
fn master_that_stands_still_is_not_healthy_and_whoever_asks_is_told_in_time() {
    let host = host().start();
    assert_eq!(host.ask_admin("/healthz").0, 200);
    process::signal(host.master(), Signal::SIGSTOP);
    let begin = Instant::now();
    let (status, text) = host.ask_admin("/healthz");
    assert_eq!((status, text.as_str()), (503, "the master doesn't answer\n"));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(host.ask_admin("/metrics").0, 503);
    process::signal(host.master(), Signal::SIGCONT);
    host.wait("health", || (host.ask_admin("/healthz").0 == 200).then_some(()));
    host.assert_all_serve(&host.serving());
}
