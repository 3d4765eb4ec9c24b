//! The lines of single requests, and whose ids are kept.

use std::io::Read;

use serde_json::{Value, json};

use app_host_core::config::{LogFormat, LogLevel};
use app_host_core::message::LogSetup;
use app_host_platform::logging::{self, Kind};

use super::*;

/// A log and its other end.
fn log(trusted: &[Trusted]) -> (Arc<AccessLog>, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let setup = LogSetup { format: LogFormat::Bunyan, level: LogLevel::Error, journal: None };
    let writer = LineWriter::open(Kind::Access, Some(writer.into())).unwrap();
    let lines = logging::app_lines(writer.clone(), setup, 7);
    let log = AccessLog::open(writer, lines, trusted.to_vec(), (Slot(1), Generation(3))).unwrap();
    (Arc::new(log), reader)
}

/// The log of a connection of this peer's.
fn of_peer(log: &Arc<AccessLog>, peer: &str) -> Arc<ConnectionLog> {
    log.connection(&Arc::new(connection(peer)))
}

fn connection(peer: &str) -> Connection {
    let peer = peer.parse().map_or(Address::Unix, Address::Tcp);
    Connection { peer, local: peer, listener: "main", tls: None, client: None }
}

fn lines(log: Arc<AccessLog>, mut reader: io::PipeReader) -> Vec<Value> {
    assert!(log.finish(Duration::from_secs(20)));
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn id_for(connection: &Arc<ConnectionLog>, ids: &[&str]) -> String {
    let mut request = Request::new(());
    for id in ids {
        request.headers_mut().append(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
    }
    connection.begin(&mut request);
    assert_eq!(request.headers().get_all(REQUEST_ID).iter().count(), 1);
    request.headers()[REQUEST_ID].to_str().unwrap().to_owned()
}

#[test]
fn a_line_says_what_came_and_what_went() {
    let (log, reader) = log(&[]);
    let connection = of_peer(&log, "10.0.0.9:5000");
    let mut request = Request::builder()
        .method("POST")
        .uri("/a?b=c")
        .header("host", "example.org")
        .header("user-agent", "x".repeat(10_000))
        .header("referer", HeaderValue::from_bytes(b"\xff\"").unwrap())
        .body(())
        .unwrap();
    let mut entry = connection.begin(&mut request);
    entry.received().fetch_add(5, Relaxed);
    entry.answered(StatusCode::CREATED, Some(7));
    entry.sent(3);
    entry.sent(4);
    entry.write(RequestEnd::Normal);
    drop((entry, connection));
    let [line] = &lines(log, reader)[..] else { panic!("one line") };
    for (key, value) in [
        ("msg", json!("request")),
        ("target", json!("access")),
        ("method", json!("POST")),
        ("uri", json!("/a?b=c")),
        ("version", json!("HTTP/1.1")),
        ("status", json!(201)),
        ("outcome", json!("complete")),
        ("received_bytes", json!(5)),
        ("sent_bytes", json!(7)),
        ("peer", json!("10.0.0.9:5000")),
        ("listener", json!("main")),
        ("slot", json!(1)),
        ("generation", json!(3)),
        ("host", json!("example.org")),
        ("user_agent", json!("x".repeat(MAX_TEXT))),
        ("referer", json!("\u{fffd}\"")),
        ("request_id", json!(request.headers()[REQUEST_ID].to_str().unwrap())),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
}

#[test]
fn what_did_not_end_well_is_told_apart() {
    let (log, reader) = log(&[]);
    let connection = of_peer(&log, "unix");
    let entry = || connection.begin(&mut Request::new(()));
    entry().write(RequestEnd::Normal);
    entry().write(RequestEnd::Cut);
    let mut half = entry();
    half.answered(StatusCode::OK, Some(2));
    half.sent(1);
    half.write(RequestEnd::Normal);
    let mut whole = entry();
    whole.answered(StatusCode::OK, None);
    whole.sent(1);
    whole.ended();
    whole.write(RequestEnd::Cut);
    drop((half, whole, connection));
    let lines = lines(log, reader);
    let told: Vec<_> = lines.iter().map(|line| (line["outcome"].as_str().unwrap(), &line["status"])).collect();
    let (none, ok) = (Value::Null, json!(200));
    assert_eq!(told, [("aborted", &none), ("cut", &none), ("aborted", &ok), ("complete", &ok)]);
}

#[test]
fn an_id_is_taken_over_only_from_trusted_peers_and_only_if_it_is_one() {
    let (log, _reader) = log(&[Trusted::Unix]);
    let trusted = of_peer(&log, "unix");
    let stranger = of_peer(&log, "127.0.0.1:1");
    assert_eq!(id_for(&trusted, &["Root=1-67891233-abc/+:@~_."]), "Root=1-67891233-abc/+:@~_.");
    let mut seen = std::collections::HashSet::from([id_for(&trusted, &[])]);
    let too_long = "x".repeat(MAX_ID + 1);
    for ids in [&["a b"][..], &["a\"b"], &["a", "b"], &[""], &[&too_long], &["é"]] {
        assert!(seen.insert(id_for(&trusted, ids)), "{ids:?}");
    }
    assert!(seen.insert(id_for(&stranger, &["mine"])));
    assert!(seen.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{seen:?}");
}

#[test]
fn a_client_is_who_its_proxies_say_for_the_connection_and_before_that_for_the_request() {
    let (log, reader) = log(&[]);
    let client = |address: &str, encrypted| {
        let address = Address::Tcp(address.parse().unwrap());
        Arc::new(Client { address, encrypted, host: None, tls: None })
    };
    let told = Connection { client: Some(client("192.0.2.1:4000", false)), ..connection("10.0.0.9:5000") };
    let told = log.connection(&Arc::new(told));
    told.begin(&mut Request::new(())).write(RequestEnd::Normal);
    let mut request = Request::new(());
    request.extensions_mut().insert(client("[2001:db8::1]:0", true));
    told.begin(&mut request).write(RequestEnd::Normal);
    of_peer(&log, "10.0.0.9:5000").begin(&mut Request::new(())).write(RequestEnd::Normal);
    drop(told);
    let found: Vec<_> =
        lines(log, reader).iter().map(|line| json!([line["peer"], line["client"], line["client_scheme"]])).collect();
    let expected = [
        json!(["10.0.0.9:5000", "192.0.2.1:4000", "http"]),
        json!(["10.0.0.9:5000", "2001:db8::1", "https"]),
        json!(["10.0.0.9:5000", null, null]),
    ];
    assert_eq!(found, expected);
}
