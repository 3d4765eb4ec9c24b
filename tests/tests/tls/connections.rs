//! What the app sees of a connection, which stays over restarts, and what a failed one is told.

use std::io::{Read, Write};
use std::net::TcpStream;

use app_host_tests::client::TIMEOUT;
use app_host_tests::tls::Authority;
use app_host_tests::{Address, Connection, Host, said};
use nix::sys::signal::Signal;
use rustls::HandshakeKind;

use super::{get, https, pid, usual};

fn counted(host: &Host, name: &str) -> u64 {
    host.metrics().count(&format!("{name}_total"))
}

#[test]
fn the_app_sees_how_its_client_came() {
    let (host, authority) = usual();
    let host = host.start();
    assert_eq!(get(&mut host.connect(), "/tls"), "http");
    let at = host.address_of("https").tcp();
    let mut newest = Connection::connect(&Address::Tls(at, authority.trust("localhost"))).unwrap();
    assert_eq!(get(&mut newest, "/tls"), "https TLSv1.3 localhost 0");
    let older = authority.trust_with("localhost", &[&rustls::version::TLS12], None);
    let mut older = Connection::connect(&Address::Tls(at, older)).unwrap();
    assert_eq!(get(&mut older, "/tls"), "https TLSv1.2 localhost 0");
    // And in the next worker as well.
    host.restart_completes();
    assert_eq!(get(&mut newest, "/tls"), "https TLSv1.3 localhost 0");
    assert_eq!(get(&mut older, "/tls"), "https TLSv1.2 localhost 0");
}

#[test]
fn connections_stay_over_restarts_idle_parked_or_in_the_middle_of_a_request() {
    let (host, authority) = usual();
    let host = host.start();
    let address = https(&host, &authority);
    let mut idle = Connection::connect(&address).unwrap();
    let before = pid(&mut idle);
    let mut half = Connection::connect(&address).unwrap();
    half.send(b"GET /whoami HTT").unwrap();
    let mut slow = Connection::connect(&address).unwrap();
    slow.ask("/sleep/700").unwrap();
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::RESTART_COMPLETE, |_| true);
    assert_eq!(slow.receive().unwrap(), 200);
    half.send(b"P/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(half.receive().unwrap(), 200);
    assert_ne!(pid(&mut idle), before);
    for _ in 0..5 {
        host.restart_completes();
    }
    let serving = host.serving();
    for connection in [&mut idle, &mut half, &mut slow] {
        assert!(serving.contains(&pid(connection)));
    }
}

#[test]
fn client_that_has_said_nothing_yet_shakes_hands_with_the_next_worker() {
    let (host, authority) = usual();
    let host = host.start();
    let at = host.address_of("https").tcp();
    let silent: Vec<_> = (0..6).map(|_| TcpStream::connect_timeout(&at, TIMEOUT).unwrap()).collect();
    // Until they have been accepted.
    host.wait("connections", || {
        let workers = host.control().ask_json("STATUS")["workers"].clone();
        let open: u64 = workers.as_array()?.iter().filter_map(|worker| worker["connections"].as_u64()).sum();
        (open >= 6).then_some(())
    });
    for _ in 0..3 {
        host.restart_completes();
    }
    let trust = authority.trust("localhost");
    for socket in silent {
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut stream = trust.shake(socket).unwrap();
        stream.write_all(b"GET /tls HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        // With a proper end, or else it is an error.
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("https TLSv1.3 localhost 0"), "{answer}");
    }
}

#[test]
fn client_comes_back_with_its_ticket_over_restarts() {
    let (host, authority) = usual();
    let host = host.with("/admin", "127.0.0.1:0").start();
    let address = https(&host, &authority);
    let kind = || {
        let mut connection = Connection::connect(&address).unwrap();
        assert_eq!(get(&mut connection, "/tls"), "https TLSv1.3 localhost 0");
        connection.tls().handshake_kind()
    };
    assert_eq!(kind(), Some(HandshakeKind::Full));
    for _ in 0..3 {
        host.restart_completes();
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
    }
    assert_eq!((counted(&host, "tls_handshakes"), counted(&host, "tls_handshakes_resumed")), (1, 3));
}

#[test]
fn who_speaks_plain_http_is_told_so_and_what_failed_is_logged() {
    let (host, authority) = usual();
    let host = host.with("/admin", "127.0.0.1:0").start();
    let mut plain = Connection::connect(&Address::Tcp(host.address_of("https").tcp())).unwrap();
    assert_eq!(plain.get("/").unwrap(), 400);
    assert_eq!(plain.text(), "This port speaks HTTPS, and you have sent HTTP.");
    let stranger = Authority::new(&host.path("state"));
    let refused = Connection::connect(&Address::Tls(host.address_of("https").tcp(), stranger.trust("localhost")));
    assert!(refused.unwrap_err().to_string().contains("UnknownIssuer"));
    host.wait_for("refused", |line| line.str("detail") == "it does not speak TLS");
    host.wait_for("refused", |line| line.str("detail").contains("UnknownCA") && !line.str("peer").is_empty());
    assert_eq!(counted(&host, "tls_handshakes_failed"), 2);
    drop(authority);
}
