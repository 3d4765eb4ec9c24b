//! The master is killed, however hard: its workers notice, close the listeners at once and leave in
//! time, and a new master takes over as soon as they have.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use app_host_tests::{App, Connection, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

/// A port that nobody listens on: the next master must be able to bind the same one.
fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn kill_master(host: &Host) {
    host.signal(Signal::SIGKILL);
    host.wait_exit();
}

#[test]
fn workers_of_a_killed_master_finish_what_is_in_flight_and_leave() {
    // FAULTS 28
    let host = Host::misbehaving().start();
    let address = host.address();
    let workers = host.workers();
    let mut slow = host.connect();
    slow.ask("/sleep/3000").unwrap();
    host.assert_all_serve(&host.serving());
    kill_master(&host);
    let began = Instant::now();
    host.wait("the listener's end", || {
        Connection::connect(&address).err().filter(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    assert_eq!(slow.receive().unwrap(), 200);
    host.wait("the workers' exit", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
}

#[test]
fn blocked_app_can_not_keep_the_listeners_open_and_a_new_master_binds() {
    // FAULTS 28
    let host =
        Host::misbehaving().with("/listen", json!([free_port()])).with("/restart/shutdown_timeout", "3s").start();
    let address = host.address();
    let workers = host.workers();
    // Every worker is blocked, so that none is left who could do the others' part. One that is can't
    // take the next connection, which is the other's.
    let blocked: Vec<_> = workers.iter().map(|_| host.block_a_thread()).collect();
    let blocked: BTreeSet<u32> = blocked.into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(blocked, workers.iter().copied().collect());
    let mark = host.mark();
    kill_master(&host);
    let began = Instant::now();
    host.wait("the listener's end", || {
        Connection::connect(&address).err().filter(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    assert!(workers.iter().all(|pid| process::is_alive(*pid)), "they shut it down, they did not just die");
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    host.assert_all_serve(&host.serving());
    host.wait("the orphans' exit", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(6), "it took {:?}", began.elapsed());
}

#[test]
fn new_master_with_another_magic_waits_for_the_orphans() {
    let host = Host::misbehaving().with("/listen", json!([free_port()])).start();
    let workers = host.workers();
    let mut slow = host.connect();
    slow.ask("/sleep/2000").unwrap();
    host.assert_all_serve(&host.serving());
    let mark = host.mark();
    kill_master(&host);
    host.install(&App::build().app("epoch_two"));
    host.spawn();
    host.wait_after(mark, said::WORKER_SPAWNED, |_| true);
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)), "another epoch must not run beside the old one");
    assert_eq!(slow.receive().unwrap(), 200);
    host.wait_after(mark, said::SERVING, |_| true);
    assert_eq!(host.get("/"), "two");
}

#[test]
fn new_master_with_the_same_magic_serves_beside_the_orphans() {
    let host = Host::misbehaving().with("/listen", json!([free_port()])).start();
    let mut slow = host.connect();
    slow.ask("/sleep/4000").unwrap();
    host.assert_all_serve(&host.serving());
    let mark = host.mark();
    kill_master(&host);
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert!(!slow.is_closed().unwrap(), "the orphan still works on its request");
    host.get("/whoami");
    assert_eq!(slow.receive().unwrap(), 200);
}

#[test]
fn orphans_of_a_restart_in_the_middle_leave_too() {
    let mut host = Host::misbehaving().start();
    host.set("/restart/probation", "30s");
    host.signal(Signal::SIGUSR2);
    host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2));
    let workers = host.workers();
    assert_eq!(workers.len(), 3);
    kill_master(&host);
    host.wait("the workers' exit", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
}
