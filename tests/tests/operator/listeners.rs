//! Addresses of both families, and names of this machine.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use app_host_tests::{Address, Connection, Host, said};
use nix::sys::signal::Signal;
use serde_json::json;

/// A port that is free in both families; none where this machine has no IPv6.
fn free_port() -> Option<u16> {
    (0..100).find_map(|_| {
        let port = TcpListener::bind("0.0.0.0:0").ok()?.local_addr().ok()?.port();
        TcpListener::bind(("::", port)).ok().map(|_| port)
    })
}

/// What the app sees of a connection to this address.
fn seen(address: &str) -> String {
    let address = Address::Tcp(address.parse().unwrap());
    let mut connection = Connection::connect(&address).unwrap_or_else(|error| panic!("{address:?}: {error}"));
    assert_eq!(connection.get("/connection").unwrap(), 200);
    connection.text()
}

#[test]
fn both_families_are_served_however_they_are_configured_and_the_app_sees_which_listener_and_client_it_is() {
    let Some(port) = free_port() else { return };
    let (four, six) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    for (listen, name4, name6) in [
        (json!([format!("0.0.0.0:{port}"), format!("[::]:{port}")]), format!("0.0.0.0:{port}"), format!("[::]:{port}")),
        (json!([format!(":{port}")]), format!(":{port}"), format!(":{port}")),
        (json!([port]), port.to_string(), port.to_string()),
        (json!([{ "address": port.to_string(), "name": "web" }]), "web".to_owned(), "web".to_owned()),
    ] {
        let host = Host::misbehaving().with("/listen", listen.clone());
        host.spawn();
        host.wait_for(said::SERVING, |_| true);
        for _ in 0..2 {
            let answers = [(&four, &name4, "127.0.0.1"), (&six, &name6, "::1")].map(|(at, name, client)| {
                let text = seen(at);
                assert!(text.contains(&format!("\"{name}\"")), "{listen}: {text}");
                assert!(text.contains(client) && !text.contains("ffff"), "{listen}: {text}");
            });
            assert_eq!(answers.len(), 2);
            host.signal(Signal::SIGUSR2);
            assert_eq!(host.verdict(host.last_request().max(1)).verdict, "complete");
        }
        let said: Vec<_> =
            host.lines_with(said::LISTENING).iter().map(|line| line.str("listener").to_owned()).collect();
        assert_eq!(said, if name4 == name6 { vec![name4] } else { vec![name4, name6] }, "nothing is bound twice");
        host.stop();
    }
}

#[test]
fn localhost_is_every_loopback_address_that_it_has_and_stays_over_a_restart() {
    let host = Host::misbehaving().with("/listen", json!(["localhost:0"]));
    host.spawn();
    host.wait_for(said::SERVING, |_| true);
    let of_system: BTreeSet<_> = ("localhost", 0).to_socket_addrs().unwrap().map(|address| address.ip()).collect();
    let bound = host.lines_with(said::LISTENING);
    let addresses: Vec<SocketAddr> = bound.iter().map(|line| line.str("address").parse().unwrap()).collect();
    assert_eq!(addresses.iter().map(SocketAddr::ip).collect::<BTreeSet<_>>(), of_system);
    for _ in 0..2 {
        for address in &addresses {
            assert!(seen(&address.to_string()).contains("\"localhost:0\""));
        }
        host.signal(Signal::SIGUSR2);
        assert_eq!(host.verdict(host.last_request().max(1)).verdict, "complete");
    }
    assert_eq!(host.lines_with(said::LISTENING).len(), bound.len());
    host.stop();
}
