//! Who is asking behind proxies: the PROXY protocol, `X-Forwarded-…` and `Forwarded`, whom they are believed, and that the
//! app, the access log and every worker see the same client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use app_host_tests::client::{TIMEOUT, request};
use app_host_tests::tls::Authority;
use app_host_tests::{Address, Connection, Host, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n";

/// A header of version 2 with these bytes behind its first 13.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length[..], rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

/// A host whose one listener believes the peers `trusted`, with `more` of its settings.
fn host(trusted: &Value, more: &Value) -> Host {
    let mut listen = json!({ "address": "127.0.0.1:0", "name": "front", "trusted_peers": trusted });
    listen.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Host::misbehaving().with("/restart/probation", "0s").with("/access_log", json!({})).with("/listen", json!([listen]))
}

fn proxied() -> Host {
    host(&json!(["127.0.0.1", "unix"]), &json!({ "proxy_protocol": "require" }))
}

fn get(connection: &mut Connection, path: &str) -> String {
    assert_eq!(connection.get(path).unwrap(), 200);
    connection.text()
}

/// What the app says of the client of a connection that begins with these bytes.
fn client_of(host: &Host, header: &[u8]) -> String {
    let mut connection = host.connect();
    connection.send(header).unwrap();
    get(&mut connection, "/client")
}

fn pid(connection: &mut Connection) -> u64 {
    serde_json::from_str::<Value>(&get(connection, "/whoami")).unwrap()["pid"].as_u64().unwrap()
}

#[test]
fn app_and_access_log_see_the_client_that_the_proxy_header_names() {
    let host = proxied().start();
    let mut connection = host.connect();
    connection.send(LINE).unwrap();
    assert_eq!(get(&mut connection, "/client"), "192.0.2.1:56324 http");
    let line = host.wait_for("request", |line| line.str("uri") == "/client");
    assert_eq!((line.str("client"), line.str("client_scheme")), ("192.0.2.1:56324", "http"));
    assert!(line.str("peer").starts_with("127.0.0.1:"), "the peer is the proxy");
    // And for every further request of the connection, in one piece with the header or not.
    assert_eq!(get(&mut connection, "/client"), "192.0.2.1:56324 http");
    assert_eq!(client_of(&host, b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n"), "[2001:db8::7]:1 http");
    let mut whole = host.connect();
    whole.send(&[LINE, request("GET", "/client", &[]).as_bytes()].concat()).unwrap();
    assert_eq!((whole.receive().unwrap(), whole.text()), (200, "192.0.2.1:56324 http".to_owned()));

    let inside = [tlv(0x21, b"TLSv1.3"), tlv(0x22, b"Ann")].concat();
    let tls = tlv(0x20, &[&[0b011, 0, 0, 0, 0], &inside[..]].concat());
    let all = [tlv(0x01, b"h2"), tlv(0x02, b"shop.example"), tls].concat();
    let ends = [192, 0, 2, 9, 10, 0, 0, 1, 0x9c, 0x40, 1, 0xbb];
    let header = binary(0x21, 0x11, &[&ends, &all[..]].concat());
    let mut secure = host.connect();
    secure.send(&header).unwrap();
    let expected = "192.0.2.9:40000 https  TLSv1.3 shop.example h2 Ann";
    assert_eq!(get(&mut secure, "/client"), expected);
    // In the next workers as well.
    for _ in 0..3 {
        host.restart_completes();
        assert_eq!(get(&mut secure, "/client"), expected);
        assert_eq!(get(&mut connection, "/client"), "192.0.2.1:56324 http");
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let host = proxied().start();
    for header in [&b"PROXY UNKNOWN\r\n"[..], &binary(0x20, 0, b"whatever"), &binary(0x21, 0, b"")] {
        let client = client_of(&host, header);
        assert!(client.starts_with("127.0.0.1:") && client.ends_with(" http"), "{client}");
    }
    assert_eq!(client_of(&host, &binary(0x21, 0x31, &[b'/'; 216])), "unix http");
    // A balancer that only connects is no fault.
    drop(TcpStream::connect(host.address().tcp()).unwrap());
    assert_eq!(client_of(&host, LINE), "192.0.2.1:56324 http");
    assert!(host.lines_with("refused").is_empty());
}

#[test]
fn what_is_no_proxy_header_and_who_is_no_proxy_is_refused_with_its_reason_and_counted() {
    let host = proxied().with("/admin", "127.0.0.1:0").start();
    let get = request("GET", "/", &[]);
    for (sent, detail) in [
        (get.as_bytes(), "the connection does not begin with a PROXY header"),
        (b"PROXY TCP4 1.2.3.4 nowhere 1 2\r\n", "the PROXY line is bad: an address is none of its protocol"),
        (&binary(0x21, 0x11, &[0; 9000]), "the PROXY header has more than 8192 bytes"),
        (&[b'P'; 200][..], "the connection does not begin with a PROXY header"),
    ] {
        let mark = host.mark();
        let mut client = host.connect();
        client.send(sent).unwrap();
        // Nothing is answered: who doesn't speak this protocol may speak any.
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        let line = host.wait_after(mark, "refused", |_| true);
        assert_eq!((line.str("reason"), line.str("detail")), ("bad proxy header", detail));
        assert_eq!(line.str("listener"), "front");
        assert!(line.str("peer").starts_with("127.0.0.1:"));
    }
    let mark = host.mark();
    let half = host.connect();
    drop({
        let mut half = half;
        half.send(&LINE[..9]).unwrap();
        half
    });
    let line = host.wait_after(mark, "refused", |_| true);
    assert_eq!(line.str("detail"), "the peer has gone within its PROXY header");
    assert_eq!(host.metrics().count("requests_refused_total{reason=\"bad proxy header\"}"), 5);

    let host = self::host(&json!(["192.0.2.0/24"]), &json!({ "proxy_protocol": "require" })).start();
    let mut client = host.connect();
    let _ = client.send(LINE);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(host.wait_for("refused", |_| true).str("reason"), "untrusted peer");
}

#[test]
fn a_header_that_never_ends_is_given_up_after_ten_seconds() {
    let host = proxied().start();
    let mut client = host.connect();
    let began = Instant::now();
    client.send(&LINE[..20]).unwrap();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert!(began.elapsed() >= Duration::from_millis(9_500));
    let line = host.wait_for("refused", |_| true);
    assert_eq!(line.str("detail"), "the PROXY header took longer than 10 seconds");
}

#[test]
fn half_a_header_goes_along_to_the_next_worker() {
    let host = proxied().start();
    let mut half = host.connect();
    half.send(&LINE[..20]).unwrap();
    let mut silent = host.connect();
    let mut told = host.connect();
    told.send(&[LINE, b"GET /clie"].concat()).unwrap();
    for _ in 0..3 {
        host.restart_completes();
    }
    half.send(&LINE[20..]).unwrap();
    silent.send(LINE).unwrap();
    told.send(b"nt HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!((told.receive().unwrap(), told.text()), (200, "192.0.2.1:56324 http".to_owned()));
    let serving: Vec<u64> = host.serving().into_iter().map(u64::from).collect();
    for connection in [&mut half, &mut silent, &mut told] {
        assert_eq!(get(connection, "/client"), "192.0.2.1:56324 http");
        assert!(serving.contains(&pid(connection)));
    }
}

#[test]
fn the_header_comes_before_tls_and_both_move_to_the_next_worker() {
    let host = proxied();
    let authority = Authority::new(host.directory());
    let tls = json!({ "certificates": [authority.localhost().config()] });
    let host = host.with("/listen/0/tls", tls).start();
    let connect = || {
        let mut socket = TcpStream::connect(host.address().tcp()).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.write_all(LINE).unwrap();
        socket
    };
    let ask = |stream: &mut dyn ReadWrite| {
        stream.write_all(request("GET", "/client", &[]).as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let mut length = 0;
        while !answer[..length].ends_with(b"https") {
            length += stream.read(&mut answer[length..]).unwrap();
        }
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let trust = authority.trust("localhost");
    let mut shaken = trust.shake(connect()).unwrap();
    assert!(ask(&mut shaken).ends_with("\r\n\r\n192.0.2.1:56324 https"));
    let waits = connect();
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::RESTART_COMPLETE, |_| true);
    assert!(ask(&mut shaken).ends_with("\r\n\r\n192.0.2.1:56324 https"));
    // Whose handshake had not begun.
    let mut waits = trust.shake(waits).unwrap();
    assert!(ask(&mut waits).ends_with("\r\n\r\n192.0.2.1:56324 https"));
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

#[test]
fn curl_speaks_the_protocol_as_we_do() {
    let host = proxied().start();
    let url = format!("http://{}/client", host.address().tcp());
    let curl =
        Command::new("curl").args(["-sS", "--max-time", "20", "--haproxy-protocol", &url, &url]).output().unwrap();
    let text = String::from_utf8(curl.stdout).unwrap();
    assert!(curl.status.success(), "{}", String::from_utf8_lossy(&curl.stderr));
    assert_eq!(text.matches("127.0.0.1:").count(), 2, "{text}");
    assert_eq!(host.lines_with("refused").len(), 0);
    let line = host.wait_for("request", |_| true);
    assert_eq!(line.str("peer"), line.str("client"), "curl tells its own address");
}

#[test]
fn header_fields_of_trusted_peers_say_who_the_client_is_and_nothing_else_gets_through() {
    let trusted = json!(["127.0.0.1", "10.0.0.0/8"]);
    let host = host(&trusted, &json!({ "forwarded": "x-forwarded" })).start();
    let ask = |host: &Host, path: &str, fields: &[&str]| {
        let mut connection = host.connect();
        connection.begin("GET", path, fields).unwrap();
        assert_eq!(connection.receive().unwrap(), 200);
        connection.text()
    };
    let fields = [
        "x-forwarded-for: 6.6.6.6, 192.0.2.1",
        "x-forwarded-for: 10.0.0.3",
        "x-forwarded-proto: https",
        "x-forwarded-host: shop.example",
        "forwarded: for=6.6.6.6",
    ];
    assert_eq!(ask(&host, "/client", &fields), "192.0.2.1:0 https shop.example");
    let line = host.wait_for("request", |_| true);
    assert_eq!((line.str("client"), line.str("client_scheme")), ("192.0.2.1", "https"));
    assert_eq!(ask(&host, "/header/x-forwarded-for", &fields), "192.0.2.1, 10.0.0.3");
    assert_eq!(ask(&host, "/header/forwarded", &fields), "");
    let client = ask(&host, "/client", &[]);
    assert!(client.starts_with("127.0.0.1:") && client.ends_with(" http"), "{client}");

    let standard = self::host(&trusted, &json!({ "forwarded": "forwarded" })).start();
    let fields =
        ["forwarded: for=6.6.6.6, for=\"[2001:db8::1]:80\";proto=https;host=a.example", "x-forwarded-for: 6.6.6.6"];
    assert_eq!(ask(&standard, "/client", &fields), "[2001:db8::1]:80 https a.example");
    assert_eq!(ask(&standard, "/header/x-forwarded-for", &fields), "");

    let stranger = self::host(&json!(["192.0.2.0/24"]), &json!({ "forwarded": "x-forwarded" })).start();
    let client = ask(&stranger, "/client", &["x-forwarded-for: 192.0.2.1"]);
    assert!(client.starts_with("127.0.0.1:"), "{client}");
    assert_eq!(ask(&stranger, "/header/x-forwarded-for", &["x-forwarded-for: 192.0.2.1"]), "");
    assert_eq!(ask(&stranger, "/header/x-forwarded-port", &["x-forwarded-port: 1"]), "");
    // What isn't asked for isn't touched.
    let plain = Host::misbehaving().start();
    assert_eq!(ask(&plain, "/header/x-forwarded-for", &["x-forwarded-for: 192.0.2.1"]), "192.0.2.1");
}

#[test]
fn a_listener_begins_and_ceases_to_believe_by_a_restart() {
    let mut host = Host::misbehaving().with("/listen", json!([{ "address": "127.0.0.1:0", "name": "front" }])).start();
    let mut before = host.connect();
    assert!(get(&mut before, "/client").starts_with("127.0.0.1:"));
    host.set("/listen/0/trusted_peers", json!(["127.0.0.1"]));
    host.set("/listen/0/proxy_protocol", "require");
    host.restart_completes();
    assert_eq!(client_of(&host, LINE), "192.0.2.1:56324 http");
    assert!(get(&mut before, "/client").starts_with("127.0.0.1:"), "it has begun before");
    let mut half = host.connect();
    half.send(&LINE[..9]).unwrap();
    host.set("/listen/0/proxy_protocol", Value::Null);
    host.restart_completes();
    let mut plain = Connection::connect(&Address::Tcp(host.address().tcp())).unwrap();
    assert!(get(&mut plain, "/client").starts_with("127.0.0.1:"));
}
