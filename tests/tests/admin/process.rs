//! The process that serves metrics: when there is one, what becomes of it, and what it holds.

use std::fs;

use app_host_tests::admin::get;
use app_host_tests::{Connection, Host, process, said};
use nix::sys::signal::Signal;

use super::host;

#[test]
fn process_that_serves_metrics_comes_back_and_its_death_is_nobody_elses() {
    let host = host().start();
    host.get("/whoami");
    let workers = host.serving();
    for round in 1..=2 {
        let first = host.wait("the process", || host.admin_process());
        assert_ne!(process::status(first, "PPid").as_deref(), Some("1"));
        process::signal(first, Signal::SIGKILL);
        host.wait("another one", || host.admin_process().filter(|pid| *pid != first));
        // Whoever comes meanwhile waits in the listener's queue, and what was counted is the master's.
        assert_eq!(host.metrics().count("requests_total"), 1);
        assert_eq!(host.lines_with("the process that serves metrics has ended").len(), round);
    }
    assert_eq!(host.serving(), workers);
    // A restart doesn't wait for it, nor replace it.
    let admin = host.admin_process().unwrap();
    process::signal(admin, Signal::SIGSTOP);
    host.restart_completes();
    process::signal(admin, Signal::SIGCONT);
    assert_eq!(host.metrics().count("active_generation"), 2);
    assert_eq!(host.admin_process(), Some(admin));
    // Nor does the end of the master wait for one that hangs.
    process::signal(admin, Signal::SIGSTOP);
    host.stop();
    assert!(!process::is_alive(admin));
}

#[test]
fn master_that_is_killed_takes_it_along() {
    let host = host().start();
    let (admin, address) = (host.admin_process().unwrap(), host.admin_address());
    process::signal(host.master(), Signal::SIGKILL);
    host.wait("its end", || (!process::is_alive(admin)).then_some(()));
    // Other threads of the master may still be on their way out.
    host.wait("the address to be free", || Connection::connect(&address).is_err().then_some(()));
}

#[test]
fn log_that_is_rotated_is_let_go_of() {
    let host = host().with("/log/file", "log").start();
    let (admin, address) = (host.admin_process().unwrap(), host.admin_address());
    let old = host.path("log.1");
    fs::rename(host.path("log"), &old).unwrap();
    host.signal(Signal::SIGUSR1);
    host.wait("the new file", || fs::exists(host.path("log")).unwrap().then_some(()));
    // It only has a pipe, which the master reads, and goes on.
    let holds_a_log = process::descriptors(admin).iter().any(|(_, target)| target.starts_with(host.directory()));
    assert!(!holds_a_log, "{:?}", process::descriptors(admin));
    assert_eq!(host.admin_process(), Some(admin));
    assert_eq!(get(&mut Connection::connect(&address).unwrap(), "/metrics").unwrap(), 200);
}

#[test]
fn without_the_setting_there_is_no_process_and_no_listener() {
    let host = Host::misbehaving().start();
    assert_eq!(host.admin_process(), None);
    assert_eq!(process::children(host.master()).len(), 2);
    assert_eq!(host.lines_with(said::ADMIN_LISTENING).len(), 0);
}
