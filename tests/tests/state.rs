//! What an app keeps in memory goes from each worker to the one that comes after it in its slot, and a restart never waits for
//! that longer than it must.

use std::sync::Arc;
use std::time::{Duration, Instant};

use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{App, Host, machine, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn caching() -> Host {
    Host::new(&App::build().app("axum_cache")).with("/app/config", json!({ "format": 1 }))
}

/// One worker, which a restart replaces all the same.
fn single() -> Host {
    caching().with("/workers", 1).with("/restart/single", true)
}

fn seen(host: &Host) -> Value {
    serde_json::from_str(&host.get("/")).unwrap()
}

/// What the worker of this slot says of itself, in this generation.
fn seen_in(host: &Host, slot: u64, generation: u64) -> Value {
    host.wait("an answer of that worker", || {
        let seen = seen(host);
        (seen["slot"] == slot && seen["generation"] == generation).then_some(seen)
    })
}

/// Asks until the worker of this slot has put so many entries into its cache.
fn fill(host: &Host, slot: u64, generation: u64, entries: u64) {
    host.wait("a full cache", || {
        let mut connection = host.connect();
        assert_eq!(connection.get("/").unwrap(), 200);
        let seen: Value = serde_json::from_slice(connection.body()).unwrap();
        if seen["slot"] != slot || seen["generation"] != generation {
            return None;
        }
        assert_eq!(connection.get(&format!("/fill/{entries}")).unwrap(), 200);
        Some(())
    });
}

/// How many of 100 values are in the cache. A cold one has none.
fn hits(host: &Host) -> usize {
    (0..100).filter(|number| host.get(&format!("/value/key{:05}", number * 150)) == "hit").count()
}

#[test]
fn a_cache_of_64_mib_is_warm_after_a_restart_of_one_worker_or_two() {
    const ENTRIES: u64 = 16_000;
    // It tells times and peaks.
    let _alone = machine::alone();
    for workers in [1, 2] {
        let host = single().with("/workers", workers).with("/restart/state_timeout", "1m").start();
        for slot in 0..workers {
            fill(&host, slot, 1, ENTRIES - slot);
        }
        assert_eq!(hits(&host), 100);
        for restart in 1..=2 {
            let old = host.workers();
            let peak = |pid: &u32| process::peak_resident_kib(*pid).unwrap_or_default() / 1024;
            let before: Vec<_> = old.iter().map(peak).collect();
            let began = Instant::now();
            host.restart_completes();
            let took = began.elapsed();
            // The old worker's copy of the cache, and what lies in between; the new one's own, and that once more.
            assert!(before.iter().chain(&host.workers().iter().map(peak).collect::<Vec<_>>()).all(|it| *it < 260));
            let after: Vec<_> = host.workers().iter().map(peak).collect();
            let expected = usize::try_from(workers * restart).unwrap();
            let lines = |msg| host.wait("both lines", || Some(host.lines_with(msg)).filter(|it| it.len() == expected));
            let (left, inherited) = (lines(said::STATE_LEFT), lines(said::STATE_INHERITED));
            let bytes = left.last().unwrap().number("bytes").unwrap();
            assert!((60 << 20..64 << 20).contains(&bytes), "{bytes}");
            println!(
                "{workers} worker(s), restart {restart}: {took:?} in all; {} MiB of state: left in {} ms, of which \
                 inherited in {} ms; peak of old workers before {before:?} MiB, of new ones {after:?} MiB",
                bytes >> 20,
                left.last().unwrap().number("took_ms").unwrap(),
                inherited.last().unwrap().number("took_ms").unwrap(),
            );
            for slot in 0..workers {
                let seen = seen_in(&host, slot, restart + 1);
                // Each its own, and from the one before it.
                assert_eq!(seen["entries"], ENTRIES - slot);
                assert_eq!(seen["inherited"], format!("0.1.0 of {restart}"));
            }
        }
        assert_eq!(hits(&host), 100, "as before");
        assert_eq!(host.get("/value/other"), "miss");
        assert!(host.lines_with(said::STARTS_COLD).is_empty() && host.lines_with(said::STATE_NOT_LEFT).is_empty());
        host.stop();
        // The end of the service hands nothing on.
        assert_eq!(host.lines_with(said::STATE_LEFT).len(), usize::try_from(workers * 2).unwrap());
    }
}

#[test]
fn one_worker_is_restarted_under_load_without_a_failed_request() {
    let host = single().start();
    for kind in [Kind::KeepAlive, Kind::ConnectionPerRequest] {
        let load = Load {
            address: host.address(),
            clients: 4,
            kind,
            posts: Posts::None,
            path: "/".to_owned(),
            limit: Duration::from_mins(2),
        };
        let running = load.start(&Arc::new(Allowed::default()));
        for _ in 0..5 {
            host.get("/value/one");
            host.restart_completes();
        }
        let outcome = running.stop();
        assert_eq!((outcome.failed, outcome.closed), (0, 0), "{:?}", outcome.failures);
        assert!(outcome.answered > 100, "{outcome:?}");
    }
    host.wait("every inheritance", || (host.lines_with(said::STATE_INHERITED).len() == 10).then_some(()));
}

#[test]
fn a_version_that_cannot_read_it_starts_cold_and_says_so() {
    let mut host = single().start();
    host.get("/fill/10");
    host.set("/app/config/format", 2);
    host.restart_completes();
    let cold = host.wait_for(said::STARTS_COLD, |_| true);
    assert_eq!(cold.str("error"), "it has format 1, and only 2 is read");
    assert_eq!(cold.number("level"), Some(40));
    let not_taken = host.wait_for(said::STATE_NOT_LEFT, |_| true);
    assert_eq!(not_taken.str("error"), "the worker that comes after this one has not taken it");
    assert_eq!(seen(&host)["entries"], 0);
    assert_eq!(host.get("/value/key00001"), "miss");
    // From now on it is read.
    host.restart_completes();
    assert_eq!(seen(&host)["entries"], 1);
}

#[test]
fn a_crash_hands_nothing_on() {
    let host = single().start();
    host.get("/fill/10");
    let old = host.workers();
    process::signal(old[0], Signal::SIGKILL);
    host.wait_for(said::WORKER_READY, |line| line.worker_pid() != old[0]);
    assert_eq!(seen(&host)["entries"], 0);
    let all = [said::STATE_LEFT, said::STATE_NOT_LEFT, said::STATE_INHERITED, said::STARTS_COLD];
    assert!(all.iter().all(|said| host.lines_with(said).is_empty()));
}

#[test]
fn a_rollback_brings_it_back() {
    let mut host = caching().with("/restart/on_failure", "rollback").start();
    for slot in 0..2 {
        fill(&host, slot, 1, 10 + slot);
    }
    // Slot 0 has its new worker, which has inherited, when that of slot 1 fails.
    host.set("/app/config/fail_in", 1);
    assert_eq!(host.restart().verdict, "failed: app failed to start");
    host.wait("there and back", || {
        let inherited = host.lines_with(said::STATE_INHERITED);
        let way: Vec<_> = inherited.iter().map(|line| line.number("from_generation").unwrap()).collect();
        (way == [1, 2]).then_some(())
    });
    for slot in 0..2 {
        let seen = seen_in(&host, slot, 1);
        assert_eq!((&seen["entries"], &seen["misses"]), (&json!(10 + slot), &json!(if slot == 0 { 0 } else { 11 })));
    }

    // And where an operator goes back.
    host.set("/app/config", json!({ "format": 1, "leave": "" }));
    host.restart_completes();
    fill(&host, 1, 3, 20);
    assert!(host.ctl(&["rollback", "--wait"]).status.success());
    assert_eq!(seen_in(&host, 1, 4)["entries"], 20);
}

/// An app that blocks does so for a minute, and one that waits for ever.
const WELL_BEFORE: Duration = Duration::from_secs(25);

/// A restart in which this goes wrong, and which waits for no minute. Nothing has come over.
fn goes_wrong(host: &Host, how: &str) -> usize {
    host.get("/value/one");
    let (mark, began) = (host.mark(), Instant::now());
    host.restart_completes();
    assert!(began.elapsed() < WELL_BEFORE, "{how}: {:?}", began.elapsed());
    assert_eq!(seen(host)["entries"], 0, "{how}");
    mark
}

fn impatient() -> Host {
    single().with("/restart/state_timeout", "600ms")
}

#[test]
fn a_leave_that_fails_or_takes_too_long_is_given_up_and_the_restart_completes() {
    for (how, error) in [
        ("fail", "the secret key says no"),
        ("panic", "the app panicked: it panics ("),
        ("wait", "it took longer than 600ms"),
    ] {
        let host = if how == "wait" { impatient() } else { single() };
        let host = host.with("/app/config/leave", how).start();
        let mark = goes_wrong(&host, how);
        let line = host.wait_after(mark, said::STATE_NOT_LEFT, |_| true);
        assert!(line.str("error").starts_with(error), "{how}: {}", line.text());
        host.stop();
    }
    for how in ["block", "wait and block"] {
        let host = impatient().with("/app/config/leave", how).start();
        let old = host.workers();
        host.signal(Signal::SIGUSR2);
        host.wait_for("it goes wrong", |_| true);
        // Whoever has to wait in a handler is answered meanwhile, by either worker.
        let asked = Instant::now();
        while host.lines_with(said::HANDS_ON_NOTHING).is_empty() {
            assert_eq!(host.get("/sleep"), "slept");
        }
        assert!(asked.elapsed() < WELL_BEFORE, "{how}: {:?}", asked.elapsed());
        let late = host.wait_for(said::HANDS_ON_NOTHING, |_| true);
        assert_eq!((late.worker_pid(), late.number("level")), (old[0], Some(40)));
        host.wait_for(said::RESTART_COMPLETE, |_| true);
        let began = Instant::now();
        host.stop();
        assert!(began.elapsed() < WELL_BEFORE, "{how}: {:?}", began.elapsed());
    }
    let host = single().with("/restart/state_limit", 1000).start();
    let mark = goes_wrong(&host, "too much");
    let line = host.wait_after(mark, said::STATE_NOT_LEFT, |_| true);
    assert_eq!(line.str("error"), "more than 1000 bytes (restart.state_limit)");

    let host = single().with("/restart/state_limit", 0).start();
    let mark = goes_wrong(&host, "nobody is asked");
    assert!(host.look(mark, |new| new.iter().all(|line| line.msg() != said::STATE_NOT_LEFT)));
}

#[test]
fn an_inherit_that_fails_or_takes_too_long_is_a_cold_start_and_the_next_restart_waits_no_longer() {
    for (how, error) in [
        ("fail", "the secret key says no"),
        ("panic", "the app panicked: it panics ("),
        ("wait", "it took longer than 600ms"),
        ("block", "it took longer than 600ms"),
        ("wait and block", "it took longer than 600ms"),
    ] {
        let host = if error.contains("600ms") { impatient() } else { single() };
        let host = host.with("/app/config/inherit", how).start();
        for _ in 0..2 {
            let mark = goes_wrong(&host, how);
            let line = host.wait_after(mark, said::STARTS_COLD, |_| true);
            assert!(line.str("error").starts_with(error), "{how}: {}", line.text());
            host.wait_after(mark, said::STATE_NOT_LEFT, |_| true);
        }
        let began = Instant::now();
        host.stop();
        assert!(began.elapsed() < WELL_BEFORE, "{how}: {:?}", began.elapsed());
    }
}

#[test]
fn a_new_worker_that_dies_of_what_it_inherits_leaves_the_old_one_serving() {
    for on_failure in ["lock", "rollback"] {
        let host = single().with("/restart/on_failure", on_failure).with("/app/config/inherit", "abort").start();
        let old = host.workers();
        host.get("/value/one");
        assert_eq!(host.restart().verdict, "failed: worker died");
        assert_eq!(host.serving(), old);
        assert_eq!(host.get("/value/one"), "hit");
        assert!(host.lines_with(said::WORKER_DRAINS).is_empty(), "{on_failure}");
    }
}

#[test]
fn a_worker_that_is_told_to_end_or_has_done_enough_leaves_what_it_has() {
    let host = single().start();
    host.get("/fill/10");
    let first = host.workers();
    process::signal(first[0], Signal::SIGTERM);
    host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == first[0]);
    assert_eq!(seen(&host)["entries"], 10);

    let host = single().with("/recycle", json!({ "requests": 5, "min_uptime": "0s" })).start();
    host.get("/fill/10");
    let first = host.workers();
    host.wait("a recycled worker", || {
        host.get("/value/other");
        host.lines_with(said::WORKER_EXITED).iter().any(|line| line.worker_pid() == first[0]).then_some(())
    });
    assert!(seen(&host)["entries"].as_u64() >= Some(10));
}

#[test]
fn a_service_that_stops_waits_for_no_state() {
    for pointer in ["/app/config/leave", "/app/config/inherit"] {
        let host = single().with("/restart/state_timeout", "5m").with("/restart/shutdown_timeout", "5m");
        let host = host.with(pointer, "wait").start();
        host.get("/value/one");
        host.signal(Signal::SIGUSR2);
        host.wait_for("it goes wrong", |_| true);
        // Both serve meanwhile.
        assert_eq!(host.serving().len(), 2);
        for _ in 0..20 {
            host.get("/");
        }
        let began = Instant::now();
        host.stop();
        assert!(began.elapsed() < WELL_BEFORE, "{pointer}: {:?}", began.elapsed());
    }
}

#[test]
fn memory_and_descriptors_are_given_back() {
    let host = single().start();
    let held = |pid: u32| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let files =
            process::descriptors(pid).into_iter().filter(|(_, path)| path.to_string_lossy().contains("app state"));
        (maps.lines().filter(|line| line.contains("app state")).count(), files.count(), process::descriptors(pid).len())
    };
    host.get("/fill/100");
    host.restart_completes();
    // What is on its way between two workers is still open for a moment.
    let settled = |pid: u32| {
        let mut fewest = usize::MAX;
        host.wait("as many descriptors as ever", || {
            let now = held(pid).2;
            let was = fewest;
            fewest = was.min(now);
            (was <= now && !host.lines_with(said::STATE_INHERITED).is_empty()).then_some(fewest)
        })
    };
    let descriptors = settled(host.workers()[0]);
    for restart in 2..6 {
        host.restart_completes();
        host.wait("the last inheritance", || (host.lines_with(said::STATE_INHERITED).len() == restart).then_some(()));
        let pid = host.workers()[0];
        host.wait("memory given back", || matches!(held(pid), (0, 0, now) if now <= descriptors).then_some(()));
    }
}

#[test]
fn without_the_word_one_worker_is_refused_as_ever() {
    let host = caching().with("/workers", 1).start();
    host.restart_is_refused("no workers");
}
