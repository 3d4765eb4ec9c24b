//! Connections from a client's side, over an in-memory transport and a clock that only moves when all tasks wait.

mod app;
mod drain;
mod early_hints;
mod event_streams;
mod frames_client;
mod http2;
mod http2_requests;
mod lifetime;
mod moving;
mod moving_frames;
mod moving_tables;
mod parking;
mod refused;
mod requests;
mod resumed;
mod rules;
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
use app::{CHUNK, TestApp};

const LINGER: Duration = Duration::from_secs(5);

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

/// Serves a connection until it ends or moves. One that is to be parked is counted and resumed at once, which its client
/// must not notice.
async fn serve(
    mut connection: Suspended<DuplexStream>,
    app: TestApp,
    stats: &'static ThreadStats,
    signal: DrainSignal,
    parks: Arc<AtomicUsize>,
    limits: &'static Limits,
) -> Option<Suspended<DuplexStream>> {
    loop {
        match serve_connection(connection, app.clone(), stats, signal.clone(), None, limits).await? {
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
        Self::with(&Limits::TEST)
    }

    fn with(limits: &'static Limits) -> Self {
        let (client, transport) = tokio::io::duplex(64 * 1024);
        let (control, signal) = drain_signal();
        let stats: &'static ThreadStats = Box::leak(Box::default());
        let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
        let parks = Arc::<AtomicUsize>::default();
        let served =
            tokio::spawn(serve(Suspended::accepted(transport), app.clone(), stats, signal, Arc::clone(&parks), limits));
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

    /// Reads the one answer that a client gets who is refused for this reason, and the end behind it. Returns after how
    /// long it came.
    async fn refused_with(&mut self, status: u16, why: Refused) -> Duration {
        let began = Instant::now();
        let answer = self.answer().await;
        let late = began.elapsed();
        assert_eq!(answer, Answered { status, closes: true, body: String::new() });
        self.end().await;
        assert_eq!(self.figures().refused[why as usize], 1);
        late
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
