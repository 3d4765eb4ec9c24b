//! The shipped socket unit: its clients wait while the service stops, starts, or has lost its master.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use app_host_tests::{Address, Connection, process};
use nix::sys::signal::Signal;
use serde_json::json;

use super::machine::Machine;
use super::plan::Plan;

/// The address that the unit as shipped has.
const ADDRESS: &str = "127.0.0.1:80";

fn plan() -> Plan {
    Plan::new().with("/listen", json!([{ "name": "web", "address": "[::]:80" }]))
}

/// Runs something while clients ask, with a connection each; each must be answered. Says how many were.
fn while_clients_ask(machine: &Arc<Machine>, act: impl FnOnce()) -> u64 {
    let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (machine, ends, answered) = (Arc::clone(machine), Arc::clone(&ends), Arc::clone(&answered));
            thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let answer = machine.get_at(ADDRESS, "/whoami");
                    assert_eq!(answer.expect("a client waits, and is answered").0, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    act();
    ends.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no client has failed"));
    answered.load(Ordering::Relaxed)
}

#[test]
fn clients_wait_over_stop_and_start_and_a_client_starts_the_service() {
    let machine = Arc::new(plan().enabled("app-host.socket").enabled("app-host.service").boot());
    assert_eq!(machine.get_at(ADDRESS, "/whoami").unwrap().0, 200);
    let first = machine.master();
    let answered = while_clients_ask(&machine, || {
        machine.ok(&["systemctl", "restart", "app-host.service"]);
        machine.ok(&["systemctl", "reload", "app-host.service"]);
        machine.ok(&["systemctl", "restart", "app-host.service"]);
    });
    println!("{answered} answers");
    assert!(answered > 20, "{answered}");
    assert!(!process::is_alive(first));
    machine.ok(&["systemctl", "stop", "app-host.service"]);
    assert_eq!(machine.property("app-host.service", "ActiveState"), "inactive");
    assert_eq!(machine.get_at(ADDRESS, "/whoami").unwrap().0, 200);
    machine
        .wait("the start to end", || (machine.property("app-host.service", "ActiveState") == "active").then_some(()));
}

#[test]
fn unix_listener_in_the_units_own_directory_is_served_and_comes_back_after_the_masters_death() {
    let listen = json!([{ "address": "unix:/run/app-host/web.sock", "mode": "0666" }]);
    let machine = Plan::new().with("/listen", listen).boot();
    machine.ok(&["systemctl", "start", "app-host.service"]);
    let get = || {
        let mut connection = Connection::connect(&Address::Unix(machine.path("/run/app-host/web.sock")))?;
        connection.get("/whoami")
    };
    assert_eq!(get().unwrap(), 200);
    let old = machine.master();
    machine.signal(old, Signal::SIGKILL);
    machine.wait("the next master", || {
        let active = machine.property("app-host.service", "ActiveState") == "active";
        (active && !process::is_alive(old) && get().is_ok()).then_some(())
    });
    machine.ok(&["systemctl", "restart", "app-host.service"]);
    assert_eq!(get().unwrap(), 200);
}

#[test]
fn clients_wait_while_a_killed_master_is_replaced() {
    let machine = Arc::new(plan().enabled("app-host.socket").enabled("app-host.service").boot());
    assert_eq!(machine.get_at(ADDRESS, "/whoami").unwrap().0, 200);
    let (old, workers) = (machine.master(), machine.workers());
    while_clients_ask(&machine, || {
        machine.signal(old, Signal::SIGKILL);
        machine.wait("the next master", || {
            let active = machine.property("app-host.service", "ActiveState") == "active";
            (active && workers.iter().all(|pid| !process::is_alive(*pid))).then_some(())
        });
    });
    assert_ne!(machine.master(), old);
}
