//! `systemctl reload`: a restart without downtime, which succeeds and fails with its verdict, however long it takes.

use std::fs;
use std::time::Duration;

use app_host_tests::App;

use super::machine::Machine;
use super::plan::Plan;

/// Puts another version of the app in its place.
fn change_the_library(machine: &Machine) {
    let mut library = fs::read(App::build().app("misbehaving")).unwrap();
    library.extend(b"another");
    let path = machine.path("/usr/local/share/app.so");
    fs::write(path.with_extension("new"), library).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

#[test]
fn good_one_succeeds_and_serves_the_new_version() {
    let machine = Plan::new().boot();
    machine.start();
    let (master, workers) = (machine.master(), machine.workers());
    change_the_library(&machine);
    machine.ok(&["systemctl", "reload", "app-host.service"]);
    assert_eq!(machine.master(), master);
    assert!(machine.workers().iter().all(|pid| !workers.contains(pid)));
    machine.assert_serves();
    let status = machine.property("app-host.service", "StatusText");
    assert!(status.starts_with("restart complete: generation 2"), "{status}");
    assert_eq!(machine.lines_with("zero-downtime restart complete").len(), 1);
}

#[test]
fn bad_one_fails_with_its_reason_and_the_service_serves_on() {
    let machine = Plan::new().boot();
    machine.start();
    let workers = machine.workers();
    machine.write("/usr/local/share/app.so", "no library");
    let said = machine.run(&["systemctl", "reload", "app-host.service"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(machine.property("app-host.service", "ActiveState"), "active");
    assert_eq!(machine.workers(), workers);
    machine.assert_serves();
    let status = machine.property("app-host.service", "StatusText");
    assert!(status.contains("restart refused: bad artifact"), "{status}");
    // And it is no obstacle to a good one.
    change_the_library(&machine);
    machine.ok(&["systemctl", "reload", "app-host.service"]);
}

#[test]
fn slow_start_and_slow_reload_take_longer_than_their_time_out_and_succeed() {
    let unit = "[Service]\nTimeoutStartSec=4s\n";
    let machine = Plan::new()
        .with("/app/config", serde_json::json!({ "start_ms": 5000 }))
        .with_file("etc/systemd/system/app-host.service.d/sooner.conf", unit);
    let machine = machine.boot();
    machine.start();
    let said = machine.run(&["systemctl", "reload", "app-host.service"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.took > Duration::from_secs(10), "{said:?}");
    assert_eq!(machine.property("app-host.service", "NRestarts"), "0");
}

#[test]
fn reload_that_takes_longer_than_any_default_of_systemds_succeeds() {
    // 90 s (DefaultTimeoutStartSec=, systemd-system.conf(5)).
    let mut machine = Plan::new().boot();
    machine.start();
    machine.set("/app/config", serde_json::json!({ "start_ms": 48_000 }));
    machine.set("/restart/start_timeout", "60s");
    let said = machine.run_for(180, &["systemctl", "reload", "app-host.service"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.took > Duration::from_secs(92), "{said:?}");
    machine.assert_serves();
}

#[test]
fn start_that_never_ends_is_ended_by_the_masters_own_deadline_and_said() {
    let machine = Plan::new()
        .with("/app/config", serde_json::json!({ "on_start": "hang" }))
        .with("/restart/start_timeout", "2s")
        .boot();
    let said = machine.run(&["systemctl", "start", "app-host.service"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.took < Duration::from_secs(20), "{said:?}");
    assert!(!machine.journal("err").is_empty());
}

#[test]
fn stop_takes_as_long_as_it_is_configured_whatever_the_unit_says() {
    let unit = "[Service]\nTimeoutStopSec=3s\n";
    let machine = Plan::new().with_file("etc/systemd/system/app-host.service.d/sooner.conf", unit).boot();
    machine.start();
    let mut slow = machine.connect("127.0.0.1:8080").unwrap();
    let in_flight = std::thread::spawn(move || slow.get("/sleep/8000"));
    machine.wait_for_a_request();
    machine.ok(&["systemctl", "stop", "app-host.service"]);
    assert_eq!(in_flight.join().unwrap().expect("it is answered"), 200);
    assert_eq!(machine.property("app-host.service", "Result"), "success");
}
