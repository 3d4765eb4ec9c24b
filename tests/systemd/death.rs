//! The master's death under systemd, by whatever kills it: what is in flight is answered, and the next one serves at once.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use app_host_tests::host::pause;
use app_host_tests::process;
use nix::sys::signal::Signal;

use super::machine::Machine;
use super::plan::Plan;

/// How long new connections may be turned away: systemd's pause of 0.1 s, and a start on a busy machine.
const GAP: Duration = Duration::from_millis(700);

/// Asks for `/whoami` with a connection each until the machine has a new master that answers. Says for how long
/// connections were refused; no request that was accepted may fail.
fn ask_until_restarted(machine: &Machine, old: u32) -> Duration {
    let deadline = Instant::now() + Duration::from_secs(90);
    let (mut refused_since, mut longest) = (None, Duration::ZERO);
    loop {
        assert!(Instant::now() < deadline, "nothing was restarted");
        match machine.get("/whoami") {
            Ok((status, _)) => {
                assert_eq!(status, 200);
                if let Some(since) = refused_since.take() {
                    longest = longest.max(Instant::elapsed(&since));
                }
                if !process::is_alive(old) && machine.property("app-host.service", "ActiveState") == "active" {
                    return longest;
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                refused_since.get_or_insert_with(Instant::now);
            }
            // The kernel resets what waits in a queue when its listener closes.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("a request failed: {error}"),
        }
        pause();
    }
}

#[test]
fn master_is_killed_and_what_is_in_flight_is_answered_while_the_next_one_serves() {
    let machine = Plan::new().boot();
    machine.start();
    let (old, workers) = (machine.master(), machine.workers());
    let mut slow = machine.connect("127.0.0.1:8080").unwrap();
    let in_flight = thread::spawn(move || slow.get("/sleep/3000").map(|status| (status, slow.text())));
    machine.wait_for_a_request();
    machine.signal(old, Signal::SIGKILL);
    let gap = ask_until_restarted(&machine, old);
    println!("refused for {gap:?}");
    assert!(gap < GAP, "refused for {gap:?}");
    assert!(!in_flight.is_finished(), "the old workers are still at it");
    assert_eq!(in_flight.join().unwrap().expect("it is answered").0, 200);
    machine.wait("the old workers to end", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
    assert_eq!(machine.property("app-host.service", "NRestarts"), "1");
}

#[test]
fn master_that_hangs_is_aborted_by_the_watchdog_and_its_workers_answer() {
    let unit = "[Service]\nWatchdogSec=3s\n";
    let machine = Plan::new().with_file("etc/systemd/system/app-host.service.d/sooner.conf", unit).boot();
    machine.start();
    let (old, workers) = (machine.master(), machine.workers());
    let mut slow = machine.connect("127.0.0.1:8080").unwrap();
    let in_flight = thread::spawn(move || slow.get("/sleep/6000").map(|status| (status, slow.text())));
    machine.signal(old, Signal::SIGSTOP);
    let gap = ask_until_restarted(&machine, old);
    println!("refused for {gap:?}");
    assert!(gap < GAP, "refused for {gap:?}");
    assert_eq!(in_flight.join().unwrap().expect("it is answered").0, 200);
    machine.wait("the old workers to end", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
    let said = machine.ok(&["journalctl", "--no-pager", "-q", "-o", "cat", "-u", "app-host.service"]);
    assert!(said.contains("Watchdog timeout") && said.contains("Failed with result 'watchdog'"), "{said}");
}

#[test]
fn worker_that_hangs_when_its_master_dies_ends_at_its_own_deadline() {
    let machine = Plan::new().with("/restart/shutdown_timeout", "3s").boot();
    machine.start();
    let (old, workers) = (machine.master(), machine.workers());
    let mut blocks = machine.connect("127.0.0.1:8080").unwrap();
    blocks.send(b"GET /block HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    machine.wait_for("the app blocks a thread", 1);
    machine.signal(old, Signal::SIGKILL);
    ask_until_restarted(&machine, old);
    let began = Instant::now();
    machine.wait("the old workers to end", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    machine.assert_serves();
}
