//! What a restart that completes does, and what a client sees of it: nothing.

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use app_host_tests::client::request;
use app_host_tests::{Address, Connection, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn other_content_at_the_same_path_with_the_same_magic_is_really_served() {
    // FAULTS 21
    let host = Host::answering("a").start();
    assert_eq!(host.get("/").trim(), "a");
    host.install(&app_host_tests::App::build().app("answer_b"));
    host.restart_completes();
    for _ in 0..20 {
        assert_eq!(host.get("/").trim(), "b");
    }
}

#[test]
fn library_without_any_change_restarts_when_an_operator_asks() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    host.restart_completes();
    let after = host.serving();
    assert!(before.iter().all(|pid| !after.contains(pid) && !process::is_alive(*pid)));
    host.assert_all_serve(&after);
}

#[test]
fn stages_are_logged_in_order_and_complete_is_the_last() {
    let host = Host::misbehaving().start();
    let mark = host.mark();
    host.restart_completes();
    let restart: Vec<String> = host
        .lines()
        .into_iter()
        .skip(mark)
        .map(|line| line.msg().to_owned())
        .filter(|msg| msg.contains("restart"))
        .collect();
    assert_eq!(
        restart,
        [
            "restart requested",
            "restart preflight passed",
            "restart roll started",
            "restart probation started",
            "restart probation passed",
            "zero-downtime restart complete"
        ]
    );
}

#[test]
fn first_candidate_serves_beside_all_active_workers_for_its_probation() {
    let mut host = Host::misbehaving().start();
    let before = host.serving();
    host.set("/restart/probation", "600ms");
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let ready = host.wait_after(mark, said::WORKER_READY, |_| true);
    host.assert_all_serve(&[before[0], before[1], ready.worker_pid()]);
    assert!(host.lines_with(said::WORKER_DRAINS).is_empty(), "nothing is drained in the probation");
    assert_eq!(host.verdict(1).verdict, "complete");
    let drained = host.wait_after(mark, said::WORKER_DRAINS, |_| true);
    let waited = drained.seconds().unwrap() - ready.seconds().unwrap();
    assert!(waited >= 0.6, "the probation lasted {waited} s");
    host.assert_served_since(mark);
}

#[test]
fn request_of_3_s_in_flight_is_answered_by_the_worker_that_took_it() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    let mut slow = host.connect();
    slow.ask("/sleep/3000").unwrap();
    host.assert_all_serve(&before);
    host.restart_completes();
    assert_eq!(slow.receive().unwrap(), 200);
    let answer: Value = serde_json::from_slice(slow.body()).unwrap();
    assert_eq!(answer["generation"], 1);
}

#[test]
fn idle_connection_lingers_for_its_next_request_which_is_answered_with_a_close() {
    let host = Host::misbehaving().with("/restart/handover", false).with("/restart/idle_linger", "5s").start();
    let mut idle = host.connect();
    assert_eq!(idle.get("/whoami").unwrap(), 200);
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    // Both know of it, whichever has the connection.
    host.wait_draining(mark, 2);
    assert!(!idle.is_closed().unwrap(), "an idle connection isn't closed under its client");
    assert_eq!(idle.get("/whoami").unwrap(), 200);
    let answer: Value = serde_json::from_slice(idle.body()).unwrap();
    assert_eq!(answer["generation"], 1);
    assert!(idle.announced_close());
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn idle_connection_is_closed_when_its_linger_ends() {
    let host = Host::misbehaving().with("/restart/handover", false).with("/restart/idle_linger", "300ms").start();
    let mut idle = host.connect();
    assert_eq!(idle.get("/whoami").unwrap(), 200);
    let began = Instant::now();
    host.restart_completes();
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert!(idle.is_closed().unwrap());
}

#[test]
fn pipelined_second_request_at_the_drain_is_answered() {
    // FAULTS 15
    let host = Host::misbehaving().start();
    let mut pipelined = host.connect();
    let requests = request("GET", "/sleep/600", &[]) + &request("GET", "/whoami", &[]);
    pipelined.send(requests.as_bytes()).unwrap();
    host.assert_all_serve(&host.serving());
    host.signal(Signal::SIGUSR2);
    assert_eq!(pipelined.receive().unwrap(), 200);
    assert_eq!(pipelined.receive().unwrap(), 200);
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn slow_loris_can_not_extend_the_drain() {
    // FAULTS 13: a head, and a body, that come a byte at a time.
    let host =
        Host::misbehaving().with("/restart/idle_linger", "200ms").with("/restart/shutdown_timeout", "1500ms").start();
    let mut head = host.connect();
    head.send(b"GET /whoami HTTP/1.1\r\nhost: te").unwrap();
    let mut body = host.connect();
    body.begin("POST", "/upload", &["content-length: 100000"]).unwrap();
    host.assert_all_serve(&host.serving());
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait("the verdict", || {
        // Errors are expected once the worker has cut them.
        let _ = head.send(b"s");
        let _ = body.send(b"x");
        host.lines().into_iter().skip(mark).find(|line| line.msg().starts_with("zero-downtime"))
    });
    assert_eq!(host.verdict(1).verdict, "complete");
    let ordered = host.wait_after(mark, said::WORKER_DRAINS, |_| true).seconds().unwrap();
    let lines = host.lines();
    let last = lines.iter().rev().find(|line| line.msg() == said::WORKER_EXITED).unwrap().seconds().unwrap();
    assert!(last - ordered < 2.5, "the drain took {} s", last - ordered);
}

#[test]
fn worker_that_ignores_its_drain_is_killed_and_the_restart_goes_on() {
    // FAULTS 11: stopped, a worker hears nothing.
    let host = Host::misbehaving().with("/restart/shutdown_timeout", "700ms").start();
    let deaf = host.serving()[0];
    process::signal(deaf, Signal::SIGSTOP);
    assert_eq!(host.restart().verdict, "complete");
    let exited = host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == deaf);
    assert_eq!(exited.str("status"), "signal 9");
    host.wait_for(said::WORKER_KILLED, |line| line.worker_pid() == deaf);
    host.assert_all_serve(&host.serving());
}

#[test]
fn worker_whose_serving_thread_is_blocked_is_gone_at_the_timeout() {
    // FAULTS 11: the app never gives the thread back.
    let host = Host::misbehaving().with("/restart/shutdown_timeout", "700ms").start();
    let before = host.serving();
    let (worker, mut blocked) = host.block_a_thread();
    let mark = host.mark();
    assert_eq!(host.restart().verdict, "complete");
    assert!(before.iter().all(|pid| !process::is_alive(*pid)));
    assert!(blocked.receive().is_err());
    let exited = host.wait_after(mark, said::WORKER_EXITED, |line| line.worker_pid() == worker);
    assert_eq!(exited.str("routes"), "GET /block", "what it was held with is told: {}", exited.text());
    assert_eq!(exited.number("cut"), Some(1), "{}", exited.text());
    let ordered = host.wait_after(mark, said::WORKER_DRAINS, |_| true).seconds().unwrap();
    let verdict = host.verdict(1).line.seconds().unwrap();
    assert!(verdict - ordered < 2.5, "it took {} s", verdict - ordered);
}

#[test]
fn drain_that_is_slow_does_not_hold_up_the_next_slot() {
    let host = Host::misbehaving().start();
    let mut slow = host.connect();
    slow.ask("/sleep/1500").unwrap();
    host.assert_all_serve(&host.serving());
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let second = host.wait_after(mark, said::WORKER_READY, |line| line.number("slot") == Some(1));
    assert!(slow.is_closed().is_ok_and(|closed| !closed), "the slow request is in flight");
    assert_eq!(slow.receive().unwrap(), 200);
    let verdict = host.verdict(1);
    assert_eq!(verdict.verdict, "complete");
    assert!(verdict.line.seconds().unwrap() - second.seconds().unwrap() > 0.5, "it waits for the last predecessor");
}

#[test]
fn active_worker_that_crashes_in_the_roll_gets_its_candidate_in_turn() {
    // FAULTS 16
    for slot in [0, 1] {
        let mut host = Host::misbehaving().start();
        let before = host.serving();
        host.set("/app/config", json!({ "start_ms": 300 }));
        let mark = host.mark();
        host.signal(Signal::SIGUSR2);
        host.wait_after(mark, said::WORKER_SPAWNED, |_| true);
        process::signal(before[slot], Signal::SIGKILL);
        assert_eq!(host.verdict(1).verdict, "complete");
        let spawned = host.lines().into_iter().skip(mark).filter(|line| line.msg() == said::WORKER_SPAWNED);
        assert!(spawned.into_iter().all(|line| line.number("generation") == Some(2)), "no respawn of the old");
        assert_eq!(host.serving().len(), 2);
        host.assert_all_serve(&host.serving());
    }
}

#[test]
fn worker_count_follows_the_configuration_up_and_down() {
    let mut host = Host::misbehaving().start();
    for workers in [4, 2, 3] {
        host.set("/workers", workers);
        host.restart_completes();
        assert_eq!(host.serving().len(), workers);
        assert_eq!(host.workers().len(), workers);
        host.assert_all_serve(&host.serving());
    }
}

#[test]
fn new_listener_is_bound_and_a_removed_one_closes() {
    let mut host = Host::misbehaving().start();
    let first = host.address();
    host.set("/listen", json!(["127.0.0.1:0", { "address": "127.0.0.1:0", "name": "second" }]));
    // The same address twice is refused; another one of the loopback isn't.
    host.restart_is_refused("bad config");
    host.set("/listen", json!(["127.0.0.1:0", { "address": "127.0.0.2:0", "name": "second" }]));
    host.restart_completes();
    assert_eq!(host.address(), first, "a listener that stays keeps its socket");
    let second = host.address_of("second");
    assert_eq!(Connection::connect(&second).unwrap().get("/whoami").unwrap(), 200);
    host.set("/listen", json!(["127.0.0.1:0"]));
    host.restart_completes();
    let error = host.wait("the second listener's end", || Connection::connect(&second).err());
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    host.assert_all_serve(&host.serving());
}

#[test]
fn app_configuration_is_that_of_the_generation_also_after_a_respawn() {
    let mut host = Host::misbehaving().with("/app/config", json!({ "marker": "one" })).start();
    host.set("/app/config", json!({ "marker": "two" }));
    // Nothing has asked for a restart: a respawn uses the active generation's snapshot.
    let before = host.serving();
    process::signal(before[0], Signal::SIGKILL);
    host.wait_for(said::WORKER_READY, |line| !before.contains(&line.worker_pid()));
    for _ in 0..20 {
        assert!(host.get("/whoami").contains("\"one\""));
    }
    host.restart_completes();
    assert!(host.get("/whoami").contains("\"two\""));
}

#[test]
fn killall_reaches_master_and_workers_and_is_as_safe_as_kill() {
    let host = Host::misbehaving().start();
    let mark = host.mark();
    let mut everyone = process::children(host.master());
    everyone.push(host.master());
    // What `killall -USR2 app-host` does: a signal to each process of that name.
    let named: Vec<u32> = everyone.into_iter().filter(|pid| process::name(*pid) == "app-host").collect();
    assert_eq!(named.len(), 3, "the master and both workers carry the name");
    let workers = host.workers();
    for pid in &named {
        process::signal(*pid, Signal::SIGUSR2);
    }
    for pid in &workers {
        host.wait_after(mark, said::SIGNAL_LEFT, |line| line.pid() == *pid && line.str("signal").contains("USR2"));
    }
    assert_eq!(host.verdict(1).verdict, "complete");
    host.assert_all_serve(&host.serving());
}

#[test]
fn no_signal_of_the_masters_kills_a_worker() {
    let host = Host::misbehaving().start();
    let workers = host.serving();
    for signal in [
        Signal::SIGUSR2,
        Signal::SIGUSR1,
        Signal::SIGHUP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ] {
        let mark = host.mark();
        for pid in &workers {
            process::signal(*pid, signal);
        }
        for pid in &workers {
            host.wait_after(mark, said::SIGNAL_LEFT, |line| line.pid() == *pid);
        }
    }
    assert_eq!(host.serving(), workers);
    host.assert_all_serve(&workers);
}

#[test]
fn candidates_in_their_start_survive_every_signal() {
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "start_ms": 500 }));
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let candidate = host.wait_after(mark, said::WORKER_SPAWNED, |_| true).worker_pid();
    // A storm from the candidate's first moment on, until it is ready.
    host.wait("the candidate to be ready", || {
        process::signal(candidate, Signal::SIGUSR2);
        host.lines().into_iter().skip(mark).find(|line| line.msg() == said::WORKER_READY)
    });
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn unix_listener_whose_file_was_removed_is_bound_anew_by_itself() {
    let host = Host::misbehaving().with("/listen", json!(["127.0.0.1:0", "unix:s"])).start();
    let path = host.path("s");
    for generation in 2..4 {
        fs::remove_file(&path).unwrap();
        host.wait_for("a listener's file was removed or replaced: its clients can't connect", |line| {
            line.str("listener") == "unix:s"
        });
        host.wait("a client", || Connection::connect(&Address::Unix(path.clone())).ok()?.get("/whoami").ok());
        host.wait_for(said::RESTART_COMPLETE, |line| {
            line.str("by") == "healing" && line.number("generation") == Some(generation)
        });
    }
    host.stop();
    assert!(!path.exists());
}
