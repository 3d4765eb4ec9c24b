//! What a worker serves: HTTP/1.1 and HTTP/2 with prior knowledge, over TCP and Unix sockets, with
//! bodies of any size as streams.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use app_host_tests::client::request;
use app_host_tests::{Address, Connection, Host, process};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

/// A gibibyte, and the few MiB that a worker may take while it passes.
const GIBIBYTE: u64 = 1 << 30;
const FEW_MIB_IN_KIB: u64 = 8 * 1024;

fn peak(host: &Host) -> u64 {
    host.workers().into_iter().filter_map(process::peak_resident_kib).max().unwrap()
}

#[test]
fn upload_of_a_gibibyte_passes_in_a_few_mib() {
    let host = Host::misbehaving().start();
    host.get("/whoami");
    let before = peak(&host);
    let mut connection = host.connect();
    let head = request("POST", "/upload", &[&format!("content-length: {GIBIBYTE}")]);
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
        connection.ask(&format!("/{path}/{GIBIBYTE}")).unwrap();
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
            connection.ask(&format!("/download/{GIBIBYTE}")).unwrap();
            connection
        })
        .collect();
    // Others are served meanwhile, by every worker.
    host.assert_all_serve(&host.serving());
    let after = peak(&host);
    assert!(after < before + FEW_MIB_IN_KIB, "KiB before: {before}, after: {after}");
    // What was made lies in the buffers of the sockets, which the kernel bounds.
    // Each worker tells of its own only, and one of them may have nothing to do with these.
    let made = host.wait("a worker that has made something", || {
        let mut connections: Vec<_> = (0..8).map(|_| host.connect()).collect();
        let made = connections.iter_mut().map(|connection| {
            assert_eq!(connection.get("/made").unwrap(), 200);
            connection.text().parse::<u64>().unwrap()
        });
        made.max().filter(|made| *made > 0)
    });
    assert!(made < GIBIBYTE / 16, "{made} bytes were made");
    assert!(!stuck[0].is_closed().unwrap());
}

#[test]
fn upload_that_the_app_does_not_read_is_not_taken() {
    let host = Host::misbehaving().start();
    host.get("/whoami");
    let before = peak(&host);
    let chunk = vec![b'x'; 1 << 20];
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(host.address().tcp()).unwrap();
            // Long enough for a worker to read on, if it did.
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let head = request("POST", "/never", &[&format!("content-length: {GIBIBYTE}")]);
            stream.write_all(head.as_bytes()).unwrap();
            let mut sent = 0;
            let refused = loop {
                match stream.write(&chunk) {
                    Ok(bytes) => sent += bytes as u64,
                    Err(error) => break error,
                }
            };
            assert_eq!(refused.kind(), ErrorKind::WouldBlock);
            assert!(sent < GIBIBYTE / 16, "{sent} bytes were taken");
            stream
        })
        .collect();
    host.assert_all_serve(&host.serving());
    let after = peak(&host);
    assert!(after < before + FEW_MIB_IN_KIB, "KiB before: {before}, after: {after}");
    drop(stuck);
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
        let head = request("POST", "/echo", &[&format!("content-length: {size}")]);
        writer.write_all(head.as_bytes()).unwrap();
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
    host.restart_completes();
    for pid in host.serving() {
        let names = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let names = names.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        assert_eq!(names.filter(|name| name.starts_with("serve-")).count(), 3);
    }
    // A thread that the app never gives back doesn't keep its worker from answering, nor do two.
    let workers = host.serving();
    let (mut blocked, mut kept) = (BTreeMap::new(), Vec::new());
    while blocked.values().all(|count| *count < 2) {
        let (worker, connection) = host.block_a_thread();
        *blocked.entry(worker).or_insert(0) += 1;
        kept.push(connection);
        host.assert_all_serve(&workers);
    }
}

#[test]
fn backlog_is_the_configured_one() {
    let backlog = 4;
    let host = Host::misbehaving()
        .with("/workers", 1)
        .with("/listen", json!([{ "address": "127.0.0.1:0", "name": "short", "backlog": backlog }]))
        .start();
    // Nobody accepts any more, so the queue fills; the kernel drops who comes when it is full, and
    // lets one more wait than was asked for (`sk_acceptq_is_full`).
    let (_, _blocked) = host.block_a_thread();
    let address = host.address().tcp();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        waiting.push(stream);
        assert!(waiting.len() <= backlog + 1, "more wait than were asked for");
    }
    assert!(waiting.len() >= backlog, "only {} wait", waiting.len());
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

#[tokio::test]
async fn http2_bodies_in_both_directions_survive_a_drain_at_the_clients_pace() {
    http2_drain(&["download", "stream"], true).await;
}

#[tokio::test]
async fn http2_body_that_the_app_gave_as_a_whole_survives_a_drain_at_the_clients_pace() {
    // Alone, so that no other stream keeps the connection busy.
    http2_drain(&["whole"], false).await;
}

/// A client whose window is the limit, and bodies that take far longer than connections linger.
async fn http2_drain(paths: &[&str], uploads: bool) {
    const BODY: usize = 1 << 20;
    const STEP: usize = 16 * 1024;
    let host = tokio::task::spawn_blocking(|| Host::misbehaving().with("/restart/idle_linger", "300ms").start());
    let host = host.await.unwrap();
    let stream = tokio::net::TcpStream::connect(host.address().tcp()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(u32::try_from(2 * STEP).unwrap())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let (upload, uploaded) = tokio::sync::mpsc::channel::<Bytes>(1);
    let request = http::Request::post("http://test/upload").body(StreamBody(uploaded).boxed()).unwrap();
    let uploading = uploads.then(|| tokio::spawn(sender.send_request(request)));
    let mut answers = Vec::new();
    for path in paths {
        let request = http::Request::get(format!("http://test/{path}/{BODY}"));
        let request = request.body(Empty::<Bytes>::new().map_err(no_error).boxed()).unwrap();
        answers.push(sender.send_request(request).await.unwrap().into_body());
    }
    let restart = tokio::task::spawn_blocking(move || {
        host.restart_completes();
        host
    });
    // At the pace of the slowest client that the host must wait for.
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    let download = async {
        let mut received = vec![0; answers.len()];
        for _ in 0.. {
            pace.tick().await;
            let mut open = false;
            for (body, received) in answers.iter_mut().zip(&mut received) {
                if let Some(frame) = body.frame().await {
                    *received += frame.unwrap().data_ref().map_or(0, Bytes::len);
                    open = true;
                }
            }
            if !open {
                break;
            }
        }
        received
    };
    let mut upload_pace = tokio::time::interval(Duration::from_millis(25));
    let send = async move {
        for _ in 0..if uploads { BODY / STEP } else { 0 } {
            upload_pace.tick().await;
            upload.send(Bytes::from(vec![b'x'; STEP])).await.unwrap();
        }
    };
    let (received, ()) = tokio::join!(download, send);
    assert_eq!(received, vec![BODY; paths.len()]);
    if let Some(uploading) = uploading {
        let answer = uploading.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, BODY.to_string());
    }
    let host = restart.await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), driver).await.unwrap().unwrap().unwrap();
    tokio::task::spawn_blocking(move || drop(host)).await.unwrap();
}

/// A body that a test gives piece by piece.
struct StreamBody(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for StreamBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }
}

fn no_error(error: Infallible) -> std::io::Error {
    match error {}
}
