//! Where it listens.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use app_host_tests::{Address, Connection, Host};
use serde_json::{Value, json};

use super::host;

#[test]
fn listener_beyond_this_machine_answers_to_any_name_and_is_warned_of() {
    let host = Host::misbehaving().with("/admin", "0.0.0.0:0").start();
    host.wait_for("admin listens beyond this machine", |line| line.str("advice").contains("asks nobody"));
    let mut connection = host.admin();
    connection.send(b"GET /healthz HTTP/1.1\r\nhost: metrics.example\r\n\r\n").unwrap();
    assert_eq!(connection.receive().unwrap(), 200);
}

#[test]
fn listener_moves_with_a_restart_or_the_restart_is_refused() {
    let mut host = host().start();
    let first = host.admin_address();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    host.set("/admin", taken.local_addr().unwrap().to_string());
    let detail = host.restart_is_refused("cannot bind");
    assert!(detail.contains(&taken.local_addr().unwrap().to_string()), "{detail}");
    assert_eq!(host.ask_admin("/healthz").0, 200);
    // On a Unix socket, which is for whom its mode says.
    let socket = host.path("admin.sock");
    host.set("/admin", json!({ "address": format!("unix:{}", socket.display()), "mode": "600" }));
    host.restart_completes();
    assert_eq!(
        host.wait("the move", || Some(host.admin_address()).filter(|now| *now != first)),
        Address::Unix(socket.clone())
    );
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(host.metrics().count("active_generation"), 2);
    host.wait("the old one's end", || Connection::connect(&first).is_err().then_some(()));
    // Its address stays, and so does its process.
    let admin = host.admin_process();
    host.restart_completes();
    assert_eq!(host.metrics().count("active_generation"), 3);
    assert_eq!(host.admin_process(), admin);
    host.set("/admin", Value::Null);
    host.restart_completes();
    host.wait("its end", || host.admin_process().is_none().then_some(()));
    // The master removes it once it has seen that end.
    host.wait("the end of its socket", || (!socket.exists()).then_some(()));
    host.stop();
}
