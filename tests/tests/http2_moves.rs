//! Connections of HTTP/2 that a restart moves to the new workers (`restart.http2`), as their clients see it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use app_host_core::not_moved::NotMoved;
use app_host_tests::tls::Authority;
use app_host_tests::{App, Host, said};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{Method, Request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_rustls::TlsConnector;

const RESTARTS: u64 = 10;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A host whose HTTP/2 connections move, with the app that says what it has seen of a request.
fn mirror() -> Host {
    moving(Host::new(&App::build().app("axum_mirror")))
}

fn moving(host: Host) -> Host {
    host.with("/restart/http2", "move").with("/admin", "127.0.0.1:0")
}

/// One connection, and what drives it: that ends when the connection does.
struct Client {
    sender: SendRequest<Body>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap()).await
    }

    async fn on<T>(stream: T) -> Self
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Self { sender, driver: tokio::spawn(connection) }
    }

    /// Some requests at once, which begin with this number. Returns the generation that the last one was answered by.
    async fn ask(&self, first: u64, many: u64) -> u64 {
        let all = (first..first + many).map(|number| mirrored(self.sender.clone(), number, whole(number)));
        join_all(all).await.pop().expect("a request")
    }
}

/// The body of a request: there is none in every second one.
fn bytes(number: u64) -> Bytes {
    let length = if number.is_multiple_of(2) { 0 } else { usize::try_from(number % 3000).unwrap() };
    vec![number.to_le_bytes()[0]; length].into()
}

fn whole(number: u64) -> (Bytes, Body) {
    (bytes(number), Full::new(bytes(number)).boxed_unsync())
}

/// Asks with fields that are new, those that come again and those that are long, and checks all that comes back. Returns
/// the generation that has answered.
async fn mirrored(mut sender: SendRequest<Body>, number: u64, (expected, body): (Bytes, Body)) -> u64 {
    let method = if expected.is_empty() { Method::GET } else { Method::POST };
    let uri = format!("http://test/{}?{number}", number % 7);
    let fields = [
        ("x-number", number.to_string()),
        ("x-again", format!("value {}", number % 5)),
        ("x-long", "long".repeat(usize::try_from(number % 50).unwrap() + 1)),
    ];
    let mut request = Request::builder().method(&method).uri(&uri);
    for (name, value) in &fields {
        request = request.header(*name, value);
    }
    let asked = sender.send_request(request.body(body).unwrap());
    let answer = tokio::time::timeout(Duration::from_mins(1), asked).await.expect("it hangs");
    let answer = answer.unwrap_or_else(|error| panic!("request {number}: {error:?}"));
    let field = |name: &str| answer.headers().get(name).unwrap_or_else(|| panic!("{name}: {answer:?}")).clone();
    assert_eq!((answer.status().as_u16(), field("seen")), (200, format!("{method} {uri}").parse().unwrap()));
    for (name, value) in fields {
        assert_eq!(field(name), value, "request {number}");
    }
    let generation = field("generation").to_str().unwrap().parse().unwrap();
    let body = answer.into_body().collect().await.unwrap_or_else(|error| panic!("request {number}: {error:?}"));
    assert!(body.to_bytes() == expected, "request {number} has another body");
    generation
}

/// Runs what blocks, and gives the host back.
async fn with<T: Send + 'static>(host: &Arc<Host>, act: impl FnOnce(&Host) -> T + Send + 'static) -> T {
    let host = Arc::clone(host);
    spawn_blocking(move || act(&host)).await.unwrap()
}

/// How many connections were not moved, by reason.
fn not_moved(host: &Host) -> Vec<(&'static str, u64)> {
    let metrics = host.metrics();
    let count = |why: &NotMoved| {
        let series = format!("http2_connections_not_moved_total{{reason=\"{}\"}}", why.as_str());
        (why.as_str(), metrics.count(&series))
    };
    NotMoved::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
}

fn moved(host: &Host) -> u64 {
    host.metrics().count("http2_connections_moved_total")
}

/// Asks without a pause, so many at a time, while the host is restarted. The answers of one round have come before the
/// next begins: without such a gap it depends on the machine's speed whether the connection moves.
async fn is_not_noticed(host: Host, client: Client, many: u64) {
    let host = Arc::new(host);
    let first = client.ask(0, many).await;
    let ends = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let ends = Arc::clone(&ends);
        async move {
            let (mut next, mut last) = (many, first);
            while !ends.load(Ordering::Relaxed) {
                last = client.ask(next, many).await;
                next += many;
            }
            (client, last, next)
        }
    });
    with(&host, |host| (0..RESTARTS).for_each(|_| drop(host.restart_completes()))).await;
    ends.store(true, Ordering::Relaxed);
    let (client, _, next) = asking.await.unwrap();
    assert_eq!(client.ask(next, many).await, first + RESTARTS, "the newest worker has answered");
    assert!(!client.driver.is_finished());
    with(&host, move |host| {
        host.wait("the last move", || (moved(host) == RESTARTS).then_some(()));
        assert_eq!(not_moved(host), []);
        assert_eq!(host.metrics().count("connections_accepted_total"), 1, "for {next} requests");
    })
    .await;
    drop(client);
    with(&host, Host::stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_tls_does_not_notice_restarts() {
    for many in [1, 10] {
        let host = spawn_blocking(|| mirror().start()).await.unwrap();
        let client = Client::connect(host.address().tcp()).await;
        is_not_noticed(host, client, many).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_tls_does_not_notice_restarts() {
    for many in [1, 10] {
        let host = mirror();
        let authority = Authority::new(host.directory());
        let tls = json!({ "certificates": [authority.localhost().config()] });
        let listen = json!([{ "address": "127.0.0.1:0", "tls": tls }]);
        let host = spawn_blocking(move || host.with("/listen", listen).start()).await.unwrap();
        let (config, name) = authority.trust("localhost").parts();
        let mut config = rustls::ClientConfig::clone(&config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpStream::connect(host.address().tcp()).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        is_not_noticed(host, Client::on(stream).await, many).await;
    }
}

/// A body of 1 MiB, a piece of it each 15 ms: a second in all.
fn slow_upload() -> (Bytes, Body) {
    const PIECE: usize = 16 * 1024;
    let whole: Bytes = (0..1 << 20).map(|at: usize| (at * 31 % 251).to_le_bytes()[0]).collect();
    let pieces = stream::unfold(whole.clone(), |mut left| async move {
        tokio::time::sleep(Duration::from_millis(15)).await;
        let piece = left.split_to(left.len().min(PIECE));
        (!piece.is_empty()).then(|| (Ok(Frame::data(piece)), left))
    });
    (whole, StreamBody::new(pieces).boxed_unsync())
}

/// 10 MiB, which take the app a second.
async fn slow_download(mut sender: SendRequest<Body>) {
    const PIECES: usize = 1024;
    const PIECE: usize = 10 * 1024;
    let request = Request::get("http://test/").header("x-make", PIECES).body(whole(0).1).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), PIECES * PIECE);
    for (number, piece) in body.chunks(PIECE).enumerate() {
        assert!(piece.iter().all(|byte| *byte == number.to_le_bytes()[0]), "piece {number}");
    }
}

/// A connection with a long upload and a long download, and one with short requests, over restarts. The first is returned
/// when its streams have ended and the restarts too.
async fn long_and_short(host: &Arc<Host>, restarts: u64) -> (Client, Client) {
    let address = host.address().tcp();
    let (long, short) = (Client::connect(address).await, Client::connect(address).await);
    // One that has never asked for anything does not move.
    long.ask(0, 1).await;
    short.ask(0, 1).await;
    let upload = tokio::spawn(mirrored(long.sender.clone(), 1, slow_upload()));
    let download = tokio::spawn(slow_download(long.sender.clone()));
    let restarting = tokio::spawn({
        let host = Arc::clone(host);
        async move { with(&host, move |host| (0..restarts).for_each(|_| drop(host.restart_completes()))).await }
    });
    let mut next = 2;
    while !(upload.is_finished() && download.is_finished() && restarting.is_finished()) {
        short.ask(next, 1).await;
        next += 1;
    }
    upload.await.unwrap();
    download.await.unwrap();
    restarting.await.unwrap();
    (long, short)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_moves_when_its_long_streams_have_ended() {
    let host = spawn_blocking(|| mirror().with("/restart/idle_linger", "20s").start()).await.unwrap();
    let host = Arc::new(host);
    let (long, short) = long_and_short(&host, 3).await;
    assert_eq!((long.ask(1000, 10).await, short.ask(1000, 10).await), (4, 4));
    with(&host, |host| {
        host.wait("both to move each time", || (moved(host) == 6).then_some(()));
        assert_eq!(not_moved(host), []);
    })
    .await;
    with(&host, Host::stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_outlast_the_linger_end_on_the_old_worker_and_their_connection_is_told_to_go() {
    let host = spawn_blocking(|| mirror().with("/restart/idle_linger", "100ms").start()).await.unwrap();
    let host = Arc::new(host);
    let (long, short) = long_and_short(&host, 1).await;
    tokio::time::timeout(Duration::from_mins(1), long.driver).await.unwrap().unwrap().unwrap();
    assert_eq!(short.ask(1000, 10).await, 2);
    assert!(!short.driver.is_finished());
    with(&host, |host| {
        host.wait("the counters", || (moved(host) == 1).then_some(()));
        assert_eq!(not_moved(host), [("streams", 1)]);
        let count = |key| host.lines_with(said::WORKER_EXITED).iter().filter_map(|line| line.number(key)).sum::<u64>();
        host.wait("the old worker's end", || (count("http2_not_moved") == 1).then_some(()));
        host.stop();
        // One that has moved is counted where it has come to.
        assert_eq!((count("http2_moved"), count("cut")), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_was_said_of_it_no_connection_moves() {
    let host = spawn_blocking(|| mirror().without("/restart/http2").start()).await.unwrap();
    let host = Arc::new(host);
    let client = Client::connect(host.address().tcp()).await;
    client.ask(0, 10).await;
    with(&host, Host::restart_completes).await;
    tokio::time::timeout(Duration::from_mins(1), client.driver).await.unwrap().unwrap().unwrap();
    assert_eq!(with(&host, |host| (moved(host), not_moved(host))).await, (0, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_to_workers_that_are_rolled_back_and_on_to_those_that_serve() {
    let host = moving(Host::misbehaving()).with("/restart/on_failure", "rollback");
    let mut host = spawn_blocking(|| host.start()).await.unwrap();
    let mut clients = Vec::new();
    // They are spread over both workers.
    for _ in 0..8 {
        clients.push(Client::connect(host.address().tcp()).await);
    }
    for round in 0..3_u64 {
        if round > 0 {
            // The other slot's worker has begun to drain by then, or both serve in vain.
            let only = 2 - round;
            host.set("/app/config", json!({ "on_start": "abort", "only_slot": only }));
            let verdict;
            (host, verdict) = spawn_blocking(move || {
                let verdict = host.restart();
                (host, verdict)
            })
            .await
            .unwrap();
            assert!(verdict.verdict.starts_with("failed: "), "{}", verdict.line.text());
        }
        for (client, number) in clients.iter().zip(1_u64..) {
            let request = Request::get(format!("http://test/header/x-number?{round}")).header("x-number", number);
            let answer = client.sender.clone().send_request(request.body(whole(0).1).unwrap()).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, number.to_string(), "round {round}");
            assert!(!client.driver.is_finished());
        }
    }
    let host = Arc::new(host);
    let (moved, not_moved) = with(&host, |host| (moved(host), not_moved(host))).await;
    assert!(moved > 0 && not_moved.is_empty(), "{moved} {not_moved:?}");
    drop(clients);
    with(&host, Host::stop).await;
}
