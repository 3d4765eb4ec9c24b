//! The service at a machine's boot, where an address of its listener comes late.

use std::time::{Duration, Instant};

use serde_json::json;

use super::machine::Machine;
use super::plan::Plan;

/// An address that the machine gets later (RFC 5737).
const ADDRESS: &str = "192.0.2.7:8080";

const ADD: [&str; 7] = ["ip", "address", "add", "192.0.2.7/32", "dev", "lo", "noprefixroute"];

fn add_the_address(machine: &Machine) {
    machine.ok(&ADD);
}

fn answers(machine: &Machine) -> bool {
    machine.get_at(ADDRESS, "/whoami").is_ok_and(|(status, _)| status == 200)
}

#[test]
fn service_waits_for_the_network_that_the_system_waits_for() {
    let late = "[Unit]\nBefore=network-online.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
                ExecStart=/bin/sh -c 'sleep 3; ip address add 192.0.2.7/32 dev lo'\n";
    let machine = Plan::new()
        .with("/listen", json!([ADDRESS]))
        .with_file("etc/systemd/system/late.service", late)
        .wanted("late.service", "network-online.target")
        .enabled("app-host.service")
        .boot();
    assert!(answers(&machine));
    assert_eq!(machine.property("app-host.service", "NRestarts"), "0");
}

#[test]
fn service_is_started_again_until_its_address_comes_and_not_ten_times_a_second() {
    let machine = Plan::new().with("/listen", json!([ADDRESS])).enabled("app-host.service").boot_no_further();
    let began = Instant::now();
    // More often than a unit is started when nothing else is said: five times in ten seconds.
    machine.wait("the seventh start", || {
        let restarts: u32 = machine.property("app-host.service", "NRestarts").parse().unwrap();
        (restarts >= 6).then_some(())
    });
    let took = began.elapsed();
    assert!(took > Duration::from_secs(11), "{took:?}");
    let said = machine.ok(&["journalctl", "--no-pager", "-q", "-o", "cat", "-u", "app-host.service"]);
    assert!(said.contains("192.0.2.7:8080 can't be bound: this machine doesn't have the address"), "{said}");
    add_the_address(&machine);
    let began = Instant::now();
    machine.wait("the service", || answers(&machine).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn listener_with_freebind_is_there_before_its_address() {
    let listen =
        json!([{ "address": ADDRESS, "freebind": true }, { "address": "[2001:db8::7]:8080", "freebind": true }]);
    let machine = Plan::new().with("/listen", listen).enabled("app-host.service").boot();
    assert_eq!(machine.property("app-host.service", "ActiveState"), "active");
    assert_eq!(machine.property("app-host.service", "NRestarts"), "0");
    assert!(!answers(&machine));
    add_the_address(&machine);
    machine.ok(&["ip", "-6", "address", "add", "2001:db8::7/128", "dev", "lo", "nodad"]);
    assert!(answers(&machine));
    // The kernel makes the route a moment after the address.
    machine.wait("the other address", || {
        machine.get_at("[2001:db8::7]:8080", "/whoami").is_ok_and(|(status, _)| status == 200).then_some(())
    });
    // A worker's looks at its listeners find nothing wrong with them, and a restart keeps them.
    machine.ok(&["systemctl", "reload", "app-host.service"]);
    assert!(answers(&machine));
    let restarts = machine.lines_with("restart requested");
    assert_eq!(restarts.len(), 1, "{restarts:?}");
}
