//! Stopping the service under systemd: with work in flight, with what an app has left behind, and when it won't stop.

use std::thread;
use std::time::{Duration, Instant};

use app_host_tests::process;
use nix::sys::signal::Signal;

use super::plan::Plan;

#[test]
fn work_in_flight_is_answered_and_the_service_stops_with_success() {
    let machine = Plan::new().boot();
    machine.start();
    let mut slow = machine.connect("127.0.0.1:8080").unwrap();
    let in_flight = thread::spawn(move || slow.get("/sleep/2000"));
    machine.wait_for_a_request();
    machine.ok(&["systemctl", "stop", "app-host.service"]);
    assert_eq!(in_flight.join().unwrap().expect("it is answered"), 200);
    assert_eq!(machine.property("app-host.service", "Result"), "success");
    assert_eq!(machine.property("app-host.service", "ActiveState"), "inactive");
    assert!(machine.processes().is_empty());
    machine.start();
}

#[test]
fn what_the_app_has_started_does_not_outlive_a_stop() {
    let machine = Plan::new().boot();
    machine.start();
    machine.get("/orphan").unwrap();
    let before = machine.all_of_the_service();
    assert_eq!(before.len(), 4, "the master, two workers, and what one of them has started");
    machine.ok(&["systemctl", "stop", "app-host.service"]);
    // By itself it would go after a minute.
    let began = Instant::now();
    machine.wait("the last process to end", || before.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(machine.property("app-host.service", "ActiveState"), "inactive");
    machine.start();
}

#[test]
fn a_service_that_will_not_stop_is_killed_with_its_workers() {
    let unit = "[Service]\nTimeoutStopSec=3s\nWatchdogSec=0\n";
    let machine = Plan::new().with_file("etc/systemd/system/app-host.service.d/sooner.conf", unit).boot();
    machine.start();
    let (master, workers) = (machine.master(), machine.workers());
    for pid in workers.iter().chain([&master]) {
        machine.signal(*pid, Signal::SIGSTOP);
    }
    let said = thread::scope(|scope| {
        let stop = scope.spawn(|| machine.run(&["systemctl", "stop", "app-host.service"]));
        // systemd wakes whom it tells to end; this one falls asleep again, perhaps with some time asked for.
        machine.wait("the master to be woken", || (!process::is_stopped(master)).then_some(()));
        machine.signal(master, Signal::SIGSTOP);
        stop.join().unwrap()
    });
    assert!(said.took.as_secs() < 20, "{said:?}");
    assert_eq!(machine.property("app-host.service", "Result"), "timeout");
    machine.wait("the last process to end", || {
        workers.iter().chain([&master]).all(|pid| !process::is_alive(*pid)).then_some(())
    });
    machine.ok(&["systemctl", "reset-failed", "app-host.service"]);
    machine.start();
}

#[test]
fn ctl_stop_is_a_stop_that_systemd_accepts() {
    let machine = Plan::new().boot();
    machine.start();
    let said = machine.ctl(&["stop", "--wait"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    machine.wait("the unit to be inactive", || {
        (machine.property("app-host.service", "ActiveState") == "inactive").then_some(())
    });
    assert_eq!(machine.property("app-host.service", "Result"), "success");
    assert!(machine.all_of_the_service().is_empty());
    machine.start();
}
