//! SIGTERM, SIGINT and SIGQUIT end the service in order: nothing in flight is lost, nobody is left behind.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use app_host_tests::{Connection, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn request_in_flight_is_answered_before_the_master_exits() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let host = Host::misbehaving().start();
        let address = host.address();
        let mut slow = host.connect();
        slow.ask("/sleep/700").unwrap();
        host.assert_all_serve(&host.serving());
        let workers = host.workers();
        host.signal(signal);
        // New clients are refused at once, rather than queued and reset.
        host.wait("the listener's end", || {
            Connection::connect(&address).err().filter(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        assert!(host.try_exit().is_none(), "the request is still in flight");
        assert_eq!(slow.receive().unwrap(), 200);
        assert!(slow.announced_close(), "the answer announces the close");
        assert_eq!(host.wait_exit().code(), Some(0), "after {signal}");
        assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
        assert_eq!(host.lines_with("the app has stopped").len(), 2, "each worker runs the app's stop");
        for line in host.lines_with(said::WORKER_EXITED) {
            assert_eq!(line.str("status"), "exit 0", "{}", line.text());
        }
        host.wait_for(said::STOPPED, |_| true);
    }
}

#[test]
fn connection_waiting_in_the_accept_queue_is_answered() {
    let host = Host::misbehaving().with("/workers", 2).start();
    // Stopped workers can't accept, so that the connection waits in the queue.
    let workers = host.workers();
    for pid in &workers {
        process::signal(*pid, Signal::SIGSTOP);
    }
    let mut waiting = host.connect();
    waiting.ask("/whoami").unwrap();
    host.signal(Signal::SIGTERM);
    host.wait_for(said::STOPPING, |_| true);
    for pid in &workers {
        process::signal(*pid, Signal::SIGCONT);
    }
    assert_eq!(waiting.receive().unwrap(), 200);
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn sigterm_in_the_middle_of_a_roll_gives_it_up_without_a_lock() {
    // FAULTS 3
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "start_ms": 5_000 }));
    host.signal(Signal::SIGUSR2);
    host.wait_for(said::WORKER_SPAWNED, |line| line.number("generation") == Some(2));
    host.signal(Signal::SIGTERM);
    assert_eq!(host.verdict(1).verdict, "failed: stopped");
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(host.lines_with("locked").is_empty());
}

#[test]
fn sigterm_with_both_generations_serving_drains_both() {
    // FAULTS 3
    let mut host = Host::misbehaving().start();
    host.set("/restart/probation", "10s");
    let mut slow = host.connect();
    slow.ask("/sleep/800").unwrap();
    host.signal(Signal::SIGUSR2);
    host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2));
    host.signal(Signal::SIGTERM);
    assert_eq!(slow.receive().unwrap(), 200);
    assert_eq!(host.verdict(1).verdict, "failed: stopped");
    assert_eq!(host.wait_exit().code(), Some(0));
    assert_eq!(host.lines_with("the app has stopped").len(), 3);
}

#[test]
fn second_signal_while_draining_stops_at_once() {
    // FAULTS 4
    for second in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let host = Host::misbehaving().with("/restart/shutdown_timeout", "5m").start();
        let workers = host.workers();
        let mut never = host.connect();
        never.ask("/never").unwrap();
        host.assert_all_serve(&host.serving());
        host.signal(Signal::SIGTERM);
        host.wait_for(said::STOPPING, |_| true);
        host.signal(second);
        assert_eq!(host.wait_exit().code(), Some(0));
        assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
    }
}

#[test]
fn request_that_outlives_the_timeout_is_cut_and_counted() {
    // FAULTS 12
    let host = Host::misbehaving().with("/restart/shutdown_timeout", "3s").start();
    let mut never = host.connect();
    never.ask("/never").unwrap();
    host.assert_all_serve(&host.serving());
    let began = Instant::now();
    host.signal(Signal::SIGTERM);
    assert!(never.receive().is_err(), "there is no answer");
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
    let cut: u64 = host.lines_with(said::WORKER_EXITED).iter().filter_map(|line| line.number("cut")).sum();
    assert_eq!(cut, 1);
    // The worker cuts by itself, before it is killed, so that the app's stop runs.
    assert_eq!(host.lines_with("the app has stopped").len(), 2);
    assert!(host.lines_with(said::WORKER_KILLED).is_empty());
}

#[test]
fn worker_whose_stop_hangs_is_gone_at_the_timeout() {
    // FAULTS 11
    let host = Host::misbehaving()
        .with("/app/config", json!({ "on_stop": "hang" }))
        .with("/restart/shutdown_timeout", "700ms")
        .start();
    let workers = host.workers();
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
fn worker_terminated_alone_serves_until_its_successor_does() {
    let mut host = Host::misbehaving().start();
    let before = host.serving();
    // A respawn uses the snapshot of the active generation, so it takes a restart to slow it down.
    host.set("/app/config", json!({ "start_ms": 700 }));
    assert_eq!(host.restart().verdict, "complete");
    let serving = host.serving();
    assert!(serving.iter().all(|pid| !before.contains(pid)));
    let mark = host.mark();
    process::signal(serving[0], Signal::SIGTERM);
    let successor = host.wait_after(mark, said::WORKER_SPAWNED, |_| true).worker_pid();
    // It takes 700 ms to start, and its predecessor serves all the while.
    host.assert_all_serve(&serving);
    let exited = host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == serving[0]);
    assert_eq!(exited.str("status"), "exit 0");
    let lines = host.lines();
    let at = |msg: &str, pid: u32| lines.iter().position(|line| line.msg() == msg && line.worker_pid() == pid);
    assert!(at(said::WORKER_READY, successor) < at(said::WORKER_DRAINS, serving[0]), "new before old");
    assert_eq!(host.serving().len(), 2);
    host.assert_all_serve(&host.serving());
}

#[test]
fn worker_terminated_twice_does_not_wait_for_its_successor() {
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "start_ms": 5_000 }));
    assert_eq!(host.restart().verdict, "complete");
    let serving = host.serving();
    process::signal(serving[0], Signal::SIGTERM);
    host.wait_for("worker told to stop by another process", |line| line.worker_pid() == serving[0]);
    process::signal(serving[0], Signal::SIGTERM);
    let exited = host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == serving[0]);
    assert_eq!(exited.str("status"), "exit 0");
    host.assert_all_serve(&serving[1..]);
}
