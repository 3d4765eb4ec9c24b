//! Connections from a client's side, over an in-memory transport and a clock that only moves when all tasks wait.

mod drain;
mod http2;
mod parking;
mod requests;
mod timeouts;
mod transfer;
mod transfer_properties;
mod tunnel;

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use app_host_platform::sys::stats::ThreadSnapshot;

use super::*;

const LINGER: Duration = Duration::from_secs(5);

/// Answers by path, in an app's place.
#[derive(Clone)]
struct TestApp {
    /// A permit lets one request to `/hold` go on.
    gate: Arc<Semaphore>,
    /// Chunks that `/endless` has made.
    made: Arc<AtomicUsize>,
}

const CHUNK: Bytes = Bytes::from_static(&[b'x'; 1024]);

/// A body without end.
struct Endless(Arc<AtomicUsize>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(1, Relaxed);
        std::task::Poll::Ready(Some(Ok(Frame::data(CHUNK))))
    }
}

fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, io::Error> {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

impl Application for TestApp {
    type Body = BoxBody<Bytes, io::Error>;
    type Error = io::Error;

    async fn call(self, mut request: Request<RequestBody>) -> Result<Response<Self::Body>, io::Error> {
        let path = request.uri().path().to_owned();
        if path == "/tunnel" {
            if let Some(upgrade) = request.body_mut().upgrade() {
                tokio::spawn(async move {
                    let mut tunnel = upgrade.tunnel().await.unwrap();
                    let mut byte = [0];
                    while let Ok(1) = tunnel.read(&mut byte).await {
                        tunnel.write_all(&byte).await.unwrap();
                    }
                });
            }
            let mut response = Response::new(full(""));
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            return Ok(response);
        }
        Ok(Response::new(match path.as_str() {
            "/hold" => {
                self.gate.acquire().await.unwrap().forget();
                full("held")
            }
            // The head goes out at once, the rest when the gate opens.
            "/late" => {
                let gate = Arc::clone(&self.gate);
                let stream = async move {
                    gate.acquire_owned().await.map_err(io::Error::other)?.forget();
                    Ok::<_, io::Error>(Bytes::from_static(b"late"))
                };
                Late(Box::pin(stream)).boxed()
            }
            "/echo" => {
                let body = request.into_body().collect().await.map_err(io::Error::other)?;
                full(body.to_bytes())
            }
            "/stream" => request.into_body().map_err(io::Error::other).boxed(),
            "/read" => {
                let body = request.into_body().collect().await.map_err(io::Error::other)?;
                self.gate.acquire().await.unwrap().forget();
                full(body.to_bytes())
            }
            "/ignore" => {
                self.gate.acquire().await.unwrap().forget();
                drop(request);
                full("ignored")
            }
            // More than any window, handed over at once.
            "/big" => full(vec![b'x'; BIG]),
            // A response that an app passes on with a length that is another body's.
            "/wrong" | "/right" | "/empty" => {
                let mut response = Response::new(full("body"));
                let length = if path == "/right" { "4" } else { "5" };
                response.headers_mut().insert("content-length", length.parse().unwrap());
                if path == "/empty" {
                    *response.body_mut() = full("");
                    *response.status_mut() = http::StatusCode::NOT_MODIFIED;
                }
                return Ok(response);
            }
            "/endless" => Endless(Arc::clone(&self.made)).map_err(|never| match never {}).boxed(),
            "/fail" => return Err(io::Error::other("the app's head is missing")),
            path => full(path.to_owned()),
        }))
    }
}

const BIG: usize = 1024 * 1024;

/// Keeps the lines that this thread logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn subscribe(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || lines.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn of_level(&self, level: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(level)).map(str::to_owned).collect()
    }
}

/// A body of one chunk that comes later.
struct Late<F>(std::pin::Pin<Box<F>>);

impl<F: Future<Output = Result<Bytes, io::Error>>> Body for Late<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.as_mut().poll(cx).map(|chunk| Some(chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(4)
    }
}

/// Serves a connection until it ends or moves. One that is to be parked is counted and resumed at once, which its client
/// must not notice.
async fn serve(
    mut connection: Suspended<DuplexStream>,
    app: TestApp,
    stats: &'static ThreadStats,
    signal: DrainSignal,
    parks: Arc<AtomicUsize>,
) -> Option<Suspended<DuplexStream>> {
    loop {
        match serve_connection(connection, app.clone(), stats, signal.clone(), None).await? {
            Leaving::Transfer(connection) => return Some(connection),
            Leaving::Park(suspended) => {
                parks.fetch_add(1, Relaxed);
                connection = suspended;
            }
        }
    }
}

struct Rig {
    client: DuplexStream,
    control: DrainControl,
    stats: &'static ThreadStats,
    app: TestApp,
    parks: Arc<AtomicUsize>,
    served: JoinHandle<Option<Suspended<DuplexStream>>>,
}

impl Rig {
    fn new() -> Self {
        let (client, transport) = tokio::io::duplex(64 * 1024);
        let (control, signal) = drain_signal();
        let stats: &'static ThreadStats = Box::leak(Box::default());
        let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
        let parks = Arc::<AtomicUsize>::default();
        let served =
            tokio::spawn(serve(Suspended::accepted(transport), app.clone(), stats, signal, Arc::clone(&parks)));
        Self { client, control, stats, app, parks, served }
    }

    fn drain(&self) {
        self.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    }

    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> Answered {
        self.send(&get(path)).await;
        self.answer().await
    }

    /// Reads one response with a length.
    async fn answer(&mut self) -> Answered {
        read_answer(&mut self.client).await
    }

    /// Lets the server do all that it can.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Reads the end of the stream. Returns after how long it came.
    async fn end(&mut self) -> Duration {
        let began = Instant::now();
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        began.elapsed()
    }

    fn open_gate(&self) {
        self.app.gate.add_permits(1);
    }

    fn figures(&self) -> ThreadSnapshot {
        self.stats.snapshot()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answered {
    status: u16,
    closes: bool,
    body: String,
}

fn kept(body: &str) -> Answered {
    Answered { status: 200, closes: false, body: body.to_owned() }
}

fn closing(body: &str) -> Answered {
    Answered { closes: true, ..kept(body) }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn read_answer(client: &mut (impl AsyncRead + Unpin)) -> Answered {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("the connection ended in a response's head"));
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).expect("a length").split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body).await.unwrap();
    Answered {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        closes: head.contains("\r\nconnection: close\r\n"),
        body: String::from_utf8(body).unwrap(),
    }
}
