//! What is counted.

use std::sync::atomic::{AtomicBool, Ordering};

use app_host_tests::{App, Host, Metrics, process};
use nix::sys::signal::Signal;

use super::{host, metrics_when};

#[test]
fn requests_restarts_and_deaths_are_counted_and_no_counter_goes_backwards() {
    let host = host().start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whoever looks at any time, while workers come and go.
        scope.spawn(|| {
            let mut last = host.metrics();
            while !stop.load(Ordering::Relaxed) {
                let now = host.metrics();
                now.assert_grown_since(&last);
                last = now;
            }
        });
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| count(&host)));
        stop.store(true, Ordering::Relaxed);
        looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn count(host: &Host) {
    let before = host.metrics();
    assert_eq!(before.count("requests_total"), 0);
    assert_eq!(before.count("workers{state=\"ready\"}"), 2);
    assert_eq!(before.count("phase{phase=\"serving\"}"), 1);
    for _ in 0..5 {
        host.get("/whoami");
    }
    assert_eq!(host.connect().get("/sleep/60").unwrap(), 200);
    assert_eq!(host.connect().get("/panic").unwrap(), 500);
    let served = host.metrics();
    assert_eq!(served.count("requests_total"), 7);
    assert_eq!(served.count("responses_total{class=\"2xx\"}"), 6);
    assert_eq!(served.count("responses_total{class=\"5xx\"}"), 1);
    assert_eq!(served.count("request_duration_seconds_count"), 7);
    assert!(served.get("request_duration_seconds_sum") >= 0.06, "{served:?}");
    assert!(served.get("request_duration_seconds_bucket{le=\"0.05\"}") <= 6.0, "the slow one isn't among the quick");
    assert!(served.get("request_duration_seconds_bucket{le=\"0.05\"}") >= 1.0, "{served:?}");
    assert!(served.find("worker_cpu_seconds_total{slot=\"0\",generation=\"1\"}").is_some());
    assert!(served.get("worker_resident_memory_bytes{slot=\"1\",generation=\"1\"}") > 1e5);

    host.restart_completes();
    let restarted = host.metrics();
    assert_eq!(restarted.count("requests_total"), 7, "what the old workers have done is not forgotten");
    assert_eq!(restarted.count("request_duration_seconds_count"), 7);
    assert_eq!(restarted.count("restarts_total{verdict=\"complete\",reason=\"\"}"), 1);
    assert_eq!(restarted.count("active_generation"), 2);
    assert_eq!(restarted.count("worker_exits_total{expected=\"true\"}"), 2);
    for stage in ["preflight", "start", "probation", "roll", "drain"] {
        assert_eq!(restarted.count(&format!("restart_stage_seconds_count{{stage=\"{stage}\"}}")), 1, "{stage}");
    }
    assert!(restarted.get("restart_stage_seconds_sum{stage=\"probation\"}") >= 0.02);
    assert_eq!(restarted.find("worker_cpu_seconds_total{slot=\"0\",generation=\"1\"}"), None, "nothing lingers");

    host.write_config(b"{");
    host.restart_is_refused("bad config");
    host.restore_config();
    let refused = host.metrics();
    assert_eq!(refused.count("restarts_total{verdict=\"refused\",reason=\"bad config\"}"), 1);

    // A worker that is killed with a request in flight.
    let mut cut = host.connect();
    cut.ask("/never").unwrap();
    metrics_when(host, "a request in flight", |metrics| metrics.count("requests_in_flight") == 1);
    let cpu = |metrics: &Metrics, slot| {
        metrics.find(&format!("worker_cpu_seconds_total{{slot=\"{slot}\",generation=\"2\"}}"))
    };
    let used = host.metrics();
    for worker in host.serving() {
        process::signal(worker, Signal::SIGKILL);
    }
    let respawned = metrics_when(host, "the respawned", |metrics| {
        metrics.count("respawns_total") == 2 && metrics.count("workers{state=\"ready\"}") == 2
    });
    respawned.assert_grown_since(&used);
    assert_eq!(respawned.count("requests_in_flight"), 0, "a gauge of the dead does not linger");
    assert_eq!(respawned.count("connections"), 0);
    assert_eq!(respawned.count("requests_cut_total"), 1);
    assert_eq!(respawned.count("requests_total"), used.count("requests_total"));
    assert_eq!(respawned.count("worker_exits_total{expected=\"false\"}"), 2);
    for slot in 0..2 {
        assert!(cpu(&respawned, slot) >= cpu(&used, slot), "the successor's CPU time adds to that of the dead");
        assert!(cpu(&respawned, slot) > Some(0.0), "to load an app takes some");
    }
}

#[test]
fn upgraded_connections_and_what_nobody_times_are_not_in_the_histogram() {
    let host = Host::new(&App::build().app("axum_chat")).with("/admin", "127.0.0.1:0").start();
    let mut chat = host.connect();
    let upgrade = "GET /websocket HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    chat.send(upgrade.as_bytes()).unwrap();
    metrics_when(&host, "the upgrade", |metrics| metrics.count("responses_total{class=\"1xx\"}") == 1);
    drop(chat);
    let ended = metrics_when(&host, "its end", |metrics| metrics.count("requests_in_flight") == 0);
    assert_eq!(ended.count("requests_total"), 1);
    assert_eq!(ended.count("request_duration_seconds_count"), 0);
}
