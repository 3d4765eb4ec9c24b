//! What a worker serves: HTTP/1.1 and HTTP/2 with prior knowledge, over TCP and Unix sockets, with
//! bodies of any size as streams.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use app_host_tests::{Address, App, Connection, Host, process};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

/// A gibibyte, and the few MiB that a worker may take while it passes.
const GIBIBYTE: u64 = 1 << 30;
const FEW_MIB_IN_KIB: u64 = 8 * 1024;

fn peak(host: &Host) -> u64 {
    host.workers().into_iter().filter_map(process::peak_resident_kib).max().unwrap()
}

#[test]
fn example_app_is_served() {
    let host = Host::new(&App::build().example()).start();
    assert!(host.get("/").contains("Hello"));
    let answer: Value = serde_json::from_str(&host.get("/whoami")).unwrap();
    assert!(host.workers().iter().any(|pid| answer["pid"] == *pid), "{answer}");
    let mut connection = host.connect();
    assert_eq!(connection.post("/echo", b"said and done").unwrap(), 200);
    assert_eq!(connection.body(), b"said and done");
    assert_eq!(connection.get("/no-such-page").unwrap(), 404);
    assert_eq!(connection.get("/").unwrap(), 200, "the connection is kept");
}

#[test]
fn upload_of_a_gibibyte_passes_in_a_few_mib() {
    let host = Host::misbehaving().start();
    host.get("/whoami");
    let before = peak(&host);
    let mut connection = host.connect();
    let head = format!("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: {GIBIBYTE}\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    let chunk = vec![0; 1 << 20];
    for _ in 0..GIBIBYTE >> 20 {
        connection.send(&chunk).unwrap();
    }
    assert_eq!(connection.receive().unwrap(), 200);
    assert_eq!(connection.text(), GIBIBYTE.to_string());
    let after = peak(&host);
    assert!(after < before + FEW_MIB_IN_KIB, "KiB before: {before}, after: {after}");
}

#[test]
fn download_of_a_gibibyte_passes_in_a_few_mib() {
    let host = Host::misbehaving().start();
    host.get("/whoami");
    let before = peak(&host);
    for path in ["download", "stream"] {
        let mut connection = host.connect();
        connection.send(format!("GET /{path}/{GIBIBYTE} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.discard().unwrap(), (200, GIBIBYTE));
    }
    let after = peak(&host);
    assert!(after < before + FEW_MIB_IN_KIB, "KiB before: {before}, after: {after}");
}

#[test]
fn download_that_nobody_reads_is_not_produced() {
    let host = Host::misbehaving().start();
    host.get("/whoami");
    let before = peak(&host);
    let mut stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = host.connect();
            connection.send(format!("GET /download/{GIBIBYTE} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
            connection
        })
        .collect();
    // Others are served meanwhile, by every worker.
    host.assert_all_serve(&host.serving());
    let after = peak(&host);
    assert!(after < before + FEW_MIB_IN_KIB, "KiB before: {before}, after: {after}");
    assert!(!stuck[0].is_closed().unwrap());
}

#[test]
fn echo_of_a_body_larger_than_all_buffers_flows_both_ways_at_once() {
    let host = Host::misbehaving().start();
    let size = 64 << 20;
    let address = host.address().tcp();
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        write!(writer, "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n").unwrap();
        let chunk = vec![7; 1 << 20];
        for _ in 0..size >> 20 {
            writer.write_all(&chunk).unwrap();
        }
    });
    let mut connection = Connection::from(stream);
    let (status, length) = connection.discard().unwrap();
    assert_eq!((status, length), (200, size));
    sender.join().unwrap();
}

#[test]
fn unix_socket_serves_with_its_mode_and_goes_away_with_the_master() {
    let host = Host::misbehaving()
        .with("/listen", json!(["127.0.0.1:0", { "address": "unix:socket", "name": "local", "mode": "600" }]))
        .start();
    let path = host.path("socket");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(host.address_of("local"), Address::Unix(path.clone()));
    let mut connection = Connection::connect(&Address::Unix(path.clone())).unwrap();
    assert_eq!(connection.get("/connection").unwrap(), 200);
    assert!(connection.text().contains("local"), "{}", connection.text());
    host.restart_completes();
    let mut connection = Connection::connect(&Address::Unix(path.clone())).unwrap();
    assert_eq!(connection.get("/whoami").unwrap(), 200);
    drop(connection);
    host.stop();
    assert!(!path.exists());
}

#[test]
fn app_sees_peer_local_address_listener_scheme_and_protocol() {
    let host = Host::misbehaving().with("/listen", json!([{ "address": "127.0.0.1:0", "name": "public" }])).start();
    let text = host.get("/connection");
    for expected in ["127.0.0.1", &host.address().tcp().port().to_string(), "public", "http", "HTTP/1.1"] {
        assert!(text.contains(expected), "expected {expected}: {text}");
    }
}

#[test]
fn several_threads_of_a_worker_all_serve() {
    let host = Host::misbehaving().with("/threads", 3).start();
    host.assert_all_serve(&host.serving());
    host.restart_completes();
    host.assert_all_serve(&host.serving());
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_and_a_restart_loses_no_stream() {
    let host = tokio::task::spawn_blocking(|| Host::misbehaving().start()).await.unwrap();
    let stream = tokio::net::TcpStream::connect(host.address().tcp()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = |path: &str| {
        http::Request::get(format!("http://test{path}")).body(Empty::<Bytes>::new().map_err(no_error).boxed()).unwrap()
    };
    let answer = sender.send_request(request("/connection")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("HTTP/2.0"));
    let body = Full::new(Bytes::from(vec![1; 100_000])).map_err(no_error).boxed();
    let upload = http::Request::post("http://test/upload").body(body).unwrap();
    let answer = sender.send_request(upload).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "100000");
    // Many streams at once, in flight while a restart comes.
    let slow: Vec<_> = (0..20).map(|_| tokio::spawn(sender.send_request(request("/sleep/500")))).collect();
    // One more answer behind them shows that they have arrived.
    assert_eq!(sender.send_request(request("/whoami")).await.unwrap().status(), 200);
    let host = tokio::task::spawn_blocking(move || {
        host.restart_completes();
        host
    });
    for stream in slow {
        assert_eq!(stream.await.unwrap().unwrap().status(), 200);
    }
    let host = host.await.unwrap();
    // GOAWAY has ended the connection in order.
    tokio::time::timeout(Duration::from_secs(20), driver).await.unwrap().unwrap().unwrap();
    tokio::task::spawn_blocking(move || drop(host)).await.unwrap();
}

fn no_error(error: Infallible) -> std::io::Error {
    match error {}
}
