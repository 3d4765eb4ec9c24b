//! No client loses a request over many restarts at full load that opens a connection for each. Those that keep their
//! connections are in `handover.rs` here.
//!
//! Two compiled versions with different answers alternate, each answer is checked against the
//! versions that may give it at that moment, and the serving workers are counted throughout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use app_host_tests::host::pause;
use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::restart::Serving;
use app_host_tests::{App, Host, machine, process, said};

/// How many restarts each load sees.
const RESTARTS: usize = 50;

fn restarts_under_load(posts: Posts, unix: bool) {
    let kind = Kind::ConnectionPerRequest;
    let _alone = machine::alone();
    let mut host = Host::answering("a").with("/restart/probation", "10ms").with("/log/level", "info");
    if unix {
        host.set("/listen", serde_json::json!(["unix:socket"]));
    }
    let host = host.start();
    let allowed = Arc::new(Allowed::default());
    allowed.set("a");
    let load =
        Load { address: host.address(), clients: 8, kind, posts, path: "/".to_owned(), limit: Duration::from_mins(3) };
    let running = load.start(&allowed);
    let sampling = AtomicBool::new(true);
    let (samples, least_alive) = std::thread::scope(|scope| {
        // As seen from outside, at any time: never fewer worker processes than configured, those that
        // drain included. Which of them serve is what the log is read for afterwards.
        let sampler = scope.spawn(|| {
            let (mut samples, mut least) = (0, usize::MAX);
            while sampling.load(Ordering::Relaxed) {
                // What `/proc` shows is no snapshot: it counts if nothing came or went meanwhile.
                let before = process::children(host.master());
                let workers = host.workers().len();
                if before == process::children(host.master()) {
                    samples += 1;
                    least = least.min(workers);
                }
                pause();
            }
            (samples, least)
        });
        for number in 0..RESTARTS {
            let next = if number.is_multiple_of(2) { "b" } else { "a" };
            host.install(&App::build().app(&format!("answer_{next}")));
            allowed.set("ab");
            let verdict = host.restart();
            assert_eq!(verdict.verdict, "complete", "restart {number}: {}", verdict.line.text());
            allowed.set(next);
        }
        sampling.store(false, Ordering::Relaxed);
        sampler.join().unwrap()
    });
    let outcome = running.stop();
    println!(
        "{kind:?}, {posts:?}: {} answered, {} failed, {:.0} a second; closed {} unannounced and {} \
         announced; longest gap {:?}; latency p50 {:?}, p99 {:?}, p99.9 {:?}",
        outcome.answered,
        outcome.failed,
        outcome.rate(),
        outcome.closed,
        outcome.announced,
        outcome.longest_gap,
        outcome.percentile(0.5),
        outcome.percentile(0.99),
        outcome.percentile(0.999),
    );
    assert_eq!(outcome.failed, 0, "{:#?}", outcome.failures);
    assert!(outcome.letters[0] > 0 && outcome.letters[1] > 0, "both versions have answered");
    assert!(samples >= RESTARTS, "only {samples} looks at the processes");
    assert!(least_alive >= 2, "only {least_alive} workers were alive");
    assert_new_before_old(&host);
}

/// At every step that the log tells of, two workers serve.
fn assert_new_before_old(host: &Host) {
    let mut serving = Serving::default();
    let mut begun = false;
    for line in host.lines() {
        serving.see(&line);
        begun |= line.msg() == said::SERVING;
        assert!(!begun || serving.count() >= 2, "{} serve after {}", serving.count(), line.text());
    }
}

#[test]
fn clients_with_a_connection_a_request_lose_none_over_50_restarts() {
    restarts_under_load(Posts::None, false);
}

#[test]
fn clients_with_a_connection_a_post_lose_none_over_50_restarts() {
    restarts_under_load(Posts::Sized(3_000), false);
}

#[test]
fn clients_of_a_unix_socket_lose_no_request_over_50_restarts() {
    restarts_under_load(Posts::None, true);
}
