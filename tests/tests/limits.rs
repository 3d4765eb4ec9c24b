//! Limits and time-outs: what exceeds one gets its answer, is seen, and hurts nobody else.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use app_host_tests::{Connection, Host};
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// How many clients were refused for this reason.
fn refused(host: &Host, reason: &str) -> u64 {
    host.metrics().count(&format!("requests_refused_total{{reason=\"{reason}\"}}"))
}

/// A service that logs requests, and whose metrics can be asked for.
fn logged() -> Host {
    Host::misbehaving().with("/access_log", json!(true)).with("/admin", "127.0.0.1:0")
}

#[test]
fn what_is_refused_below_the_app_is_a_line_of_the_access_log_and_counted() {
    let host = logged().start();
    let long_uri = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(20_000));
    let many_lines = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let rows = [
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400, "malformed request"),
        (long_uri, 414, "URI too long"),
        (many_lines, 431, "head too large"),
    ];
    for (text, status, reason) in rows {
        let mut client = host.connect();
        client.send(text.as_bytes()).unwrap();
        assert_eq!(client.receive().unwrap(), status, "{reason}");
        assert!(client.announced_close(), "{reason}");
        let line = host.wait_for("refused", |line| line.str("reason") == reason);
        assert_eq!(line.str("outcome"), "refused", "{}", line.text());
        assert!(line.str("peer").starts_with("127.0.0.1:") && !line.str("detail").is_empty(), "{}", line.text());
        assert_eq!(refused(&host, reason), 1, "{reason}");
    }
    assert!(host.get("/whoami").contains("pid"), "others are served");
    let mut gone: Connection = host.connect();
    gone.send(b"GET / HTTP/1.1\r\nho").unwrap();
    drop(gone);
    host.restart_completes();
    assert_eq!(host.lines_with("refused").len(), 3, "{}", host.report());
}

/// Four clients owe something, and one waits for an app that takes longer than clients may.
#[test]
fn one_client_that_reads_nothing_does_not_hold_up_a_restart() {
    let host = logged().with("/restart/stall_timeout", "500ms").with("/restart/shutdown_timeout", "30s").start();
    let mut silent: Vec<Connection> = (0..3).map(|_| host.connect()).collect();
    for client in &mut silent {
        client.ask("/stream/1000000000").unwrap();
    }
    let mut half = host.connect();
    half.send(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").unwrap();
    let mut computes = host.connect();
    computes.ask("/sleep/2000").unwrap();
    host.wait("the requests", || (host.metrics().count("requests_in_flight") == 5).then_some(()));
    let workers = host.workers();
    let began = Instant::now();
    host.restart_completes();
    host.wait("the old workers to end", || workers.iter().all(|old| !host.workers().contains(old)).then_some(()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "the drain took {took:?}");
    assert_eq!(half.receive().unwrap(), 408);
    assert_eq!(computes.receive().unwrap(), 200, "an app may take its time");
    host.wait("four lines", || (host.lines_with("refused").len() == 4).then_some(()));
    assert!(host.lines_with("refused").iter().all(|line| line.str("reason") == "stalled"), "{}", host.report());
    let metrics = host.metrics();
    let counted = metrics.count("requests_refused_total{reason=\"stalled\"}");
    assert_eq!((counted, metrics.count("requests_cut_total")), (4, 4));
}

/// Sends `text`, and returns the status of what comes back.
fn status_of(host: &Host, text: &str) -> u16 {
    let mut client = host.connect();
    client.send(text.as_bytes()).unwrap();
    client.receive().unwrap()
}

#[test]
fn limits_of_a_request_are_those_of_the_configuration_and_a_restart_brings_in_others() {
    let http = json!({
        "max_head": "4KiB", "max_headers": 5, "max_uri": 256, "max_body": 10, "max_requests": 2,
        "head_timeout": "1s", "min_rate_grace": "1s"
    });
    let mut host = logged().with("/http", http).start();
    let get = |uri: &str, lines: &str| format!("GET {uri} HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
    let long = format!("/whole/1?{}", "x".repeat(300));
    assert_eq!(status_of(&host, &get(&long, "")), 414);
    assert_eq!(status_of(&host, &get("/", &"a: b\r\n".repeat(5))), 431);
    assert_eq!(status_of(&host, &get("/", &format!("a: {}\r\n", "x".repeat(5000)))), 431);
    assert_eq!(status_of(&host, "POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n"), 413);
    assert_eq!(status_of(&host, "GET / HTTP/1.1\r\nho"), 408);
    assert_eq!(status_of(&host, "POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1"), 408);
    let mut twice = host.connect();
    for last in [false, true] {
        assert_eq!(twice.get("/whoami").unwrap(), 200);
        assert_eq!(twice.announced_close(), last);
    }
    for (reason, count) in [
        ("URI too long", 1),
        ("head too large", 2),
        ("body too large", 1),
        ("head timed out", 1),
        ("body timed out", 1),
    ] {
        assert_eq!(refused(&host, reason), count, "{reason}");
        assert_eq!(host.lines_with("refused").iter().filter(|line| line.str("reason") == reason).count() as u64, count);
    }
    host.set("/http", json!({}));
    host.restart_completes();
    assert_eq!(status_of(&host, &get(&long, &"a: b\r\n".repeat(50))), 200);
}

#[test]
fn requests_beyond_those_in_flight_are_told_to_come_back() {
    let host = logged().with("/workers", 1).with("/http", json!({ "max_in_flight": 2 })).start();
    let mut slow: Vec<Connection> = (0..2).map(|_| host.connect()).collect();
    for client in &mut slow {
        client.ask("/sleep/1500").unwrap();
    }
    host.wait("the requests", || (host.metrics().count("requests_in_flight") == 2).then_some(()));
    let mut third = host.connect();
    assert_eq!(third.get("/whoami").unwrap(), 503);
    assert_eq!((third.header("retry-after"), third.announced_close()), (Some("1"), false));
    assert_eq!(refused(&host, "too many in flight"), 1);
    for client in &mut slow {
        assert_eq!(client.receive().unwrap(), 200);
    }
    assert_eq!(third.get("/whoami").unwrap(), 200, "on the same connection");
}

/// A connection of another client.
fn connect_from(host: &Host, source: [u8; 4]) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&host.address().tcp().into()).unwrap();
    Connection::from(TcpStream::from(socket))
}

/// Nobody else is turned away for it, and a restart turns none away that is there.
#[test]
fn a_client_has_so_many_connections_and_others_have_theirs() {
    let connections = json!({ "max_per_address": 2 });
    let host = logged().with("/workers", 2).with("/restart/probation", "0s").with("/connections", connections).start();
    // However the workers share them: at most four in all, and two in one alone.
    let mut kept: Vec<Connection> = (0..8).map(|_| host.connect()).collect();
    kept.retain_mut(|client| client.get("/whoami").is_ok_and(|status| status == 200));
    assert!((2..=4).contains(&kept.len()), "{}", kept.len());
    let turned_away = 8 - kept.len() as u64;
    assert_eq!(refused(&host, "too many connections"), turned_away);
    let line = host.wait_for("refused", |line| line.str("reason") == "too many connections");
    assert!(line.str("peer").starts_with("127.0.0.1:"), "{}", line.text());
    let mut elsewhere = connect_from(&host, [127, 0, 0, 77]);
    assert_eq!(elsewhere.get("/whoami").unwrap(), 200, "another client");
    host.restart_completes();
    for client in kept.iter_mut().chain([&mut elsewhere]) {
        assert_eq!(client.get("/whoami").unwrap(), 200, "on the same connection");
    }
    // Where they are now they count as well.
    drop(kept);
    host.wait("room", || {
        let mut client = host.connect();
        client.get("/whoami").is_ok_and(|status| status == 200).then_some(())
    });
}

#[test]
fn a_connection_is_open_for_so_long_in_whichever_worker() {
    let host = logged().with("/connections", json!({ "max_lifetime": "3s" })).start();
    let (mut busy, mut idle) = (host.connect(), host.connect());
    assert_eq!(idle.get("/whoami").unwrap(), 200);
    let began = Instant::now();
    assert_eq!(busy.get("/whoami").unwrap(), 200);
    assert!(!busy.announced_close());
    host.restart_completes();
    while !busy.announced_close() {
        assert!(began.elapsed() < Duration::from_secs(20), "it lives for ever");
        assert_eq!(busy.get("/sleep/100").unwrap(), 200);
    }
    let lived = began.elapsed();
    assert!(lived >= Duration::from_millis(2900), "{lived:?}");
    host.wait("the end of the other", || idle.is_closed().unwrap().then_some(()));
}

/// They are neither refused nor reset, and those that were there first notice nothing.
#[test]
fn clients_beyond_the_connections_of_a_worker_wait() {
    let host = logged().with("/workers", 1).with("/connections", json!({ "max_per_worker": 2 })).start();
    let mut kept: Vec<Connection> = (0..2).map(|_| host.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/whoami").unwrap(), 200);
    }
    let mut waits = host.connect();
    waits.ask("/whoami").unwrap();
    host.wait_for("connections are at their limit; clients wait", |line| line.number("connections") == Some(2));
    for client in &mut kept {
        assert_eq!(client.get("/whoami").unwrap(), 200);
    }
    drop(kept.pop());
    assert_eq!(waits.receive().unwrap(), 200);
}
