//! Sockets that a service manager has bound and passed on: served by name over restarts, left to their
//! owner when the service stops, and refused where they can't be what is meant.
//!
//! The manager is `launch --pass`; the real one is in `system.rs`.

use app_host_tests::{Address, Connection, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

/// A master that is passed these sockets, with these listeners.
fn host(passed: &[&str], listen: serde_json::Value) -> Host {
    let arguments: Vec<&str> = passed.iter().flat_map(|socket| ["--pass", *socket]).collect();
    Host::misbehaving().with("/listen", listen).launched_with(&arguments)
}

#[test]
fn passed_socket_is_served_over_restarts_and_its_clients_wait_while_the_service_is_down() {
    let mut host = host(&["web=127.0.0.1:0"], json!([{ "name": "web", "address": "127.0.0.2:0" }])).start();
    let address = host.address();
    assert_eq!(address.tcp().ip().to_string(), "127.0.0.1", "where the manager listens, not what is configured");
    host.restart_completes();
    host.assert_all_serve(&host.serving());
    // A listener of ours beside it is bound, and gone with the service.
    host.set("/listen", json!([{ "name": "web", "address": "127.0.0.2:0" }, "127.0.0.3:0"]));
    host.restart_completes();
    let ours = host.address_of("127.0.0.3:0");
    assert!(Connection::connect(&ours).is_ok());

    let mark = host.mark();
    let (master, workers) = (host.master(), host.workers());
    // In flight when the service is told to stop: answered.
    let mut slow = Connection::connect(&address).unwrap();
    slow.ask("/sleep/700").unwrap();
    host.assert_all_serve(&host.serving());
    host.signal(Signal::SIGTERM);
    host.wait_after(mark, said::STOPPING, |_| true);
    assert_eq!(slow.receive().unwrap(), 200);
    host.wait("the master's end", || (!process::is_alive(master)).then_some(()));
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
    assert!(Connection::connect(&ours).is_err(), "ours is gone");

    // The manager goes on listening: whoever comes now waits, and is what the service is started for.
    let mut patient = Connection::connect(&address).unwrap();
    assert_eq!(patient.get("/whoami").unwrap(), 200);
    host.wait_after(mark, said::SERVING, |_| true);
}

#[test]
fn nobody_whose_connection_waits_when_the_service_stops_is_reset() {
    let host = host(&["web=127.0.0.1:0"], json!([{ "name": "web", "address": "127.0.0.2:0" }])).start();
    let address = host.address();
    let mark = host.mark();
    // Every worker is busy for a while, so that clients wait in the queue at the moment of the stop.
    let workers = host.workers();
    for pid in &workers {
        process::signal(*pid, Signal::SIGSTOP);
    }
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut client = Connection::connect(&address).unwrap();
            client.ask("/whoami").unwrap();
            client
        })
        .collect();
    host.signal(Signal::SIGTERM);
    host.wait_after(mark, said::STOPPING, |_| true);
    for pid in &workers {
        process::signal(*pid, Signal::SIGCONT);
    }
    // By this service or by the next one.
    for client in &mut waiting {
        assert_eq!(client.receive().unwrap(), 200);
    }
}

#[test]
fn passed_unix_socket_keeps_its_file_and_is_found_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s").display().to_string();
    let host = host(&[&format!("any.socket={path}")], json!([format!("unix:{path}")])).start();
    host.restart_completes();
    host.assert_all_serve(&host.serving());
    let master = host.master();
    host.signal(Signal::SIGTERM);
    host.wait("the master's end", || (!process::is_alive(master)).then_some(()));
    assert!(std::fs::exists(&path).unwrap(), "the file is the manager's");
    let mut next = Connection::connect(&Address::parse(&format!("unix:{path}")).unwrap()).unwrap();
    assert_eq!(next.get("/whoami").unwrap(), 200);
}

#[test]
fn passed_socket_that_is_for_no_listener_or_no_stream_keeps_the_service_from_starting() {
    let listen = json!([{ "name": "web", "address": "127.0.0.1:0" }]);
    for (passed, error) in [
        (
            &["web=127.0.0.1:0", "wed=127.0.0.1:0"][..],
            "no listener is for what was passed to us: descriptor 4 (\"wed\", 127.0.0.1:",
        ),
        (
            &["web=udp:127.0.0.1:0"][..],
            "the passed descriptor 3 (\"web\") is no stream socket: say ListenStream= in its unit",
        ),
    ] {
        let host = host(passed, listen.clone());
        host.spawn();
        assert_eq!(host.wait_exit().code(), Some(1));
        let log = std::fs::read_to_string(host.path("log")).unwrap();
        assert!(log.contains(&error.replace('"', "\\\"")) || log.contains(error), "{log}");
    }
}

#[test]
fn what_was_passed_to_another_process_is_not_touched_and_the_apps_children_get_nothing_of_it() {
    // As a child of an activated process sees it: the variables are there, and mean its parent.
    let host = Host::misbehaving().with_variable("LISTEN_PID", "1").with_variable("LISTEN_FDS", "7").start();
    host.assert_all_serve(&host.serving());
    drop(host);
    let host = self::host(&["web=127.0.0.1:0"], json!([{ "name": "web", "address": "127.0.0.2:0" }])).start();
    for pid in host.workers() {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));
    }
    let child = host.get("/child");
    assert!(!child.contains("socket:"), "{child}");
}
