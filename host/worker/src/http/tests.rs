//! Connections from a client's side, over an in-memory transport and a clock that only moves when
//! everybody waits.

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

use super::*;
use app_host_platform::sys::stats::LaneSnapshot;

mod handover;
mod rest;

const LINGER: Duration = Duration::from_secs(5);

/// Answers by path; stands where an app would.
#[derive(Clone)]
struct Double {
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

impl Application for Double {
    type Body = BoxBody<Bytes, io::Error>;
    type Error = io::Error;

    async fn call(self, mut request: Request<Upload>) -> Result<Response<Self::Body>, io::Error> {
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

/// Serves a connection until it ends or moves. One that is to rest is gone on with at once, which its client is not
/// to notice; they are counted.
async fn serve(
    mut connection: Handover<DuplexStream>,
    app: Double,
    lane: &'static Lane,
    signal: DrainSignal,
    rests: Arc<AtomicUsize>,
) -> Option<Handover<DuplexStream>> {
    loop {
        match serve_connection(connection, app.clone(), lane, signal.clone(), None).await? {
            Leaving::Moves(connection) => return Some(connection),
            Leaving::Rests(resting) => {
                rests.fetch_add(1, Relaxed);
                connection = resting;
            }
        }
    }
}

struct Rig {
    client: DuplexStream,
    control: DrainControl,
    lane: &'static Lane,
    app: Double,
    rests: Arc<AtomicUsize>,
    served: JoinHandle<Option<Handover<DuplexStream>>>,
}

impl Rig {
    fn new() -> Self {
        let (client, transport) = tokio::io::duplex(64 * 1024);
        let (control, signal) = drain_signal();
        let lane: &'static Lane = Box::leak(Box::default());
        let app = Double { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
        let rests = Arc::<AtomicUsize>::default();
        let served = tokio::spawn(serve(Handover::accepted(transport), app.clone(), lane, signal, Arc::clone(&rests)));
        Self { client, control, lane, app, rests, served }
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

    /// Reads the end of the stream; says after how long it came.
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

    fn figures(&self) -> LaneSnapshot {
        self.lane.snapshot()
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

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let mut rig = Rig::new();
    assert_eq!(rig.get("/one").await, kept("/one"));
    rig.send(&(get("/two") + &post("/echo", "body") + &get("/three"))).await;
    assert_eq!(rig.answer().await, kept("/two"));
    assert_eq!(rig.answer().await, kept("body"));
    assert_eq!(rig.answer().await, kept("/three"));
    drop(rig.client);
    rig.served.await.unwrap();
    let figures = rig.lane.snapshot();
    assert_eq!((figures.requests, figures.in_flight, figures.connections, figures.cut), (4, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_byte_by_byte_is_answered() {
    let mut rig = Rig::new();
    for byte in get("/slow").chars() {
        rig.send(&byte.to_string()).await;
        rig.settle().await;
    }
    assert_eq!(rig.answer().await, kept("/slow"));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_gives_no_response_is_answered_for() {
    let mut rig = Rig::new();
    assert_eq!(rig.get("/fail").await, Answered { status: 500, ..kept("") });
    assert_eq!(rig.get("/next").await, kept("/next"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_length_than_it_says_is_none() {
    let lines = Lines::default();
    let _guard = lines.subscribe();
    let mut rig = Rig::new();
    assert_eq!(rig.get("/right").await, kept("body"));
    assert_eq!(lines.of_level("ERROR"), [""; 0]);
    assert_eq!(rig.get("/wrong").await, Answered { status: 500, ..kept("") });
    let [line] = &lines.of_level("ERROR")[..] else { panic!("{:?}", lines.of_level("ERROR")) };
    assert!(line.contains("content_length=Some(\"5\") length=4"), "{line}");
    // These have no body, so their length is that of another answer.
    for request in [get("/empty"), get("/wrong").replace("GET", "HEAD")] {
        rig.send(&(request + &get("/next"))).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(rig.client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 304") || head.contains("content-length: 5\r\n"), "{head}");
        assert_eq!(rig.answer().await, kept("/next"));
    }
    assert_eq!(lines.of_level("ERROR").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_its_client_breaks_off_is_no_error() {
    let lines = Lines::default();
    let _guard = lines.subscribe();
    let mut rig = Rig::new();
    rig.send("POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome").await;
    rig.settle().await;
    drop(rig.client);
    rig.served.await.unwrap();
    assert_eq!(lines.of_level("response body failed").len(), 1, "{:?}", lines.of_level(""));
    assert_eq!(lines.of_level("ERROR"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_the_app_breaks_off_is_an_error() {
    let lines = Lines::default();
    let _guard = lines.subscribe();
    let mut rig = Rig::new();
    rig.send(&get("/late")).await;
    rig.app.gate.close();
    rig.client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(lines.of_level("ERROR").len(), 1, "{:?}", lines.of_level(""));
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_announces_its_close() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.settle().await;
    assert_eq!(rig.figures().in_flight, 1);
    rig.drain();
    rig.settle().await;
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
    assert_eq!(rig.end().await, Duration::ZERO);
}

/// FAULTS 15.
#[tokio::test(start_paused = true)]
async fn a_pipelined_request_is_answered_at_drain_and_then_the_close_is_announced() {
    for gap in [false, true] {
        let mut rig = Rig::new();
        rig.send(&get("/hold")).await;
        if gap {
            rig.settle().await;
        }
        rig.send(&(post("/echo", "second") + &get("/third"))).await;
        rig.settle().await;
        rig.drain();
        rig.settle().await;
        rig.open_gate();
        assert_eq!(rig.answer().await, kept("held"), "gap {gap}");
        assert_eq!(rig.answer().await, kept("second"), "gap {gap}");
        assert_eq!(rig.answer().await, closing("/third"), "gap {gap}");
        assert_eq!(rig.end().await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_pipelined_request_is_waited_for() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.settle().await;
    let second = post("/echo", "second");
    rig.send(&second[..20]).await;
    rig.settle().await;
    rig.drain();
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("held"));
    rig.settle().await;
    rig.send(&second[20..]).await;
    assert_eq!(rig.answer().await, closing("second"));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn behind_a_chunked_body_the_close_is_announced_as_anywhere() {
    for (behind, answers) in [("", vec![closing("body")]), (&get("/next"), vec![kept("body"), closing("/next")])] {
        let mut rig = Rig::new();
        rig.send(&get("/hold")).await;
        rig.settle().await;
        rig.send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n").await;
        rig.send(behind).await;
        rig.drain();
        rig.settle().await;
        rig.open_gate();
        assert_eq!(rig.answer().await, kept("held"));
        for answer in answers {
            assert_eq!(rig.answer().await, answer);
        }
        rig.end().await;
    }
}

/// FAULTS 14.
#[tokio::test(start_paused = true)]
async fn a_request_on_an_idle_connection_that_races_the_drain_is_served() {
    for pause in [Duration::ZERO, LINGER / 2, LINGER / 100 * 99] {
        let mut rig = Rig::new();
        assert_eq!(rig.get("/first").await, kept("/first"));
        rig.drain();
        tokio::time::sleep(pause).await;
        rig.send(&post("/echo", "raced")).await;
        assert_eq!(rig.answer().await, closing("raced"), "after {pause:?}");
        assert_eq!(rig.end().await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_when_its_linger_is_over() {
    for first in [false, true] {
        let mut rig = Rig::new();
        if first {
            rig.get("/first").await;
            rig.settle().await;
        }
        let began = Instant::now();
        rig.drain();
        rig.end().await;
        let lingered = began.elapsed();
        assert!(lingered >= LINGER && lingered < LINGER + Duration::from_millis(20), "{lingered:?}");
        drop(rig.client);
        rig.served.await.unwrap();
    }
}

/// FAULTS 13.
#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_does_not_outlive_the_linger() {
    for first in [false, true] {
        let mut rig = Rig::new();
        if first {
            rig.get("/first").await;
        }
        rig.send("GET / HTTP/1.1\r\n").await;
        rig.settle().await;
        rig.drain();
        let began = Instant::now();
        while rig.client.write_all(b"x: y\r\n").await.is_ok() && began.elapsed() < LINGER * 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // A lingering close may take another half second.
        assert!(began.elapsed() < LINGER + Duration::from_secs(1), "{:?}", began.elapsed());
        rig.served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_preface_does_not_outlive_the_linger() {
    let mut rig = Rig::new();
    rig.send("PRI * HTTP/2.0\r\n").await;
    rig.settle().await;
    rig.drain();
    assert!(rig.end().await <= LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_head_is_out_goes_on_and_the_connection_lingers() {
    let mut rig = Rig::new();
    rig.send(&get("/late")).await;
    rig.settle().await;
    rig.drain();
    tokio::time::sleep(LINGER * 3).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("late"));
    tokio::time::sleep(LINGER / 2).await;
    assert_eq!(rig.get("/next").await, closing("/next"));
    assert_eq!(rig.end().await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_the_linger_a_close_is_announced_whatever_lies_behind() {
    let mut rig = Rig::new();
    rig.send(&(get("/hold") + &get("/behind"))).await;
    rig.settle().await;
    rig.drain();
    tokio::time::sleep(LINGER + Duration::from_millis(10)).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_accepted_during_the_drain_knows_it() {
    let (mut client, transport) = tokio::io::duplex(4096);
    let (control, signal) = drain_signal();
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    let app = Double { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let served =
        tokio::spawn(serve_connection(Handover::accepted(transport), app, Box::leak(Box::default()), signal, None));
    client.write_all(get("/queued").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut client).await, closing("/queued"));
    drop(client);
    served.await.unwrap();
}

/// FAULTS 12.
#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_the_cut_is_cut_and_counted() {
    let mut rig = Rig::new();
    rig.send(&(get("/hold") + &get("/behind"))).await;
    rig.settle().await;
    rig.drain();
    rig.settle().await;
    rig.control.begin(Phase::Cut);
    rig.served.await.unwrap();
    let figures = rig.lane.snapshot();
    assert_eq!((figures.cut, figures.in_flight, figures.connections), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_download_waits_for_its_client() {
    let mut rig = Rig::new();
    rig.send(&get("/endless")).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let made = rig.app.made.load(Relaxed) * CHUNK.len();
    assert!(made < 1024 * 1024, "{made} bytes were made for a client that reads nothing");
    let mut some = vec![0; 256 * 1024];
    rig.client.read_exact(&mut some).await.unwrap();
    assert!(rig.app.made.load(Relaxed) * CHUNK.len() > made);
}

#[tokio::test(start_paused = true)]
async fn an_upload_waits_for_its_app_and_comes_back_whole() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let mut rig = Rig::new();
    rig.send(&format!("POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut reading, mut writing) = tokio::io::split(rig.client);
    let progress = Arc::clone(&sent);
    let upload = tokio::spawn(async move {
        for _ in 0..LENGTH / 1024 {
            writing.write_all(&CHUNK).await.unwrap();
            progress.fetch_add(1024, Relaxed);
        }
        writing
    });
    // The echo can't go on before its client reads, and then nothing more may be taken from it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(sent.load(Relaxed) < LENGTH / 4, "{} bytes were taken", sent.load(Relaxed));
    let mut received = 0;
    let mut buffer = vec![0; 64 * 1024];
    while received < LENGTH {
        let length = reading.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the echo ended after {received} bytes");
        received += length;
    }
    upload.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_left_after_a_while() {
    let mut rig = Rig::new();
    assert_eq!(rig.end().await, HEAD_TIMEOUT);

    let mut rig = Rig::new();
    rig.send("GET / HT").await;
    rig.settle().await;
    assert!(rig.end().await <= HEAD_TIMEOUT);

    let mut rig = Rig::new();
    rig.get("/first").await;
    rig.send("GET / HT").await;
    let late = rig.end().await;
    assert!(late >= HEAD_TIMEOUT && late <= 2 * HEAD_TIMEOUT, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_longer_than_proxies_do() {
    let mut rig = Rig::new();
    rig.get("/first").await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(rig.get("/second").await, kept("/second"));
    let kept_for = rig.end().await;
    assert!(kept_for >= HEAD_TIMEOUT * 3 && kept_for <= HEAD_TIMEOUT * 4, "{kept_for:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_is_not_late() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    tokio::time::sleep(HEAD_TIMEOUT * 10).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("held"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_half_a_body_and_no_more_is_left_after_a_while() {
    for head in ["content-length: 100\r\n\r\nsome", "transfer-encoding: chunked\r\n\r\n4\r\nsome"] {
        let mut rig = Rig::new();
        rig.send(&format!("POST /echo HTTP/1.1\r\nhost: a\r\n{head}")).await;
        let late = rig.end().await;
        assert!(late >= 2 * HEAD_TIMEOUT && late <= 3 * HEAD_TIMEOUT, "{late:?}");
        rig.served.await.unwrap();
        assert_eq!(rig.lane.snapshot().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_slowly_is_waited_for() {
    let mut rig = Rig::new();
    rig.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n").await;
    for byte in ["s", "l", "o", "w"] {
        tokio::time::sleep(HEAD_TIMEOUT * 3 / 2).await;
        rig.send(byte).await;
    }
    assert_eq!(rig.answer().await, kept("slow"));
}

/// Neither has the client anything to send, nor does the app ask for it.
#[tokio::test(start_paused = true)]
async fn an_app_that_leaves_an_upload_unread_is_not_late() {
    for body in ["content-length: 100\r\n\r\nsome", "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n"] {
        let mut rig = Rig::new();
        rig.send(&format!("POST /hold HTTP/1.1\r\nhost: a\r\n{body}")).await;
        tokio::time::sleep(HEAD_TIMEOUT * 10).await;
        rig.open_gate();
        assert_eq!(rig.answer().await.body, "held");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_silent_after_a_whole_upload_is_not_late() {
    for body in ["content-length: 4\r\n\r\nsome", "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n"] {
        let mut rig = Rig::new();
        rig.send(&format!("POST /read HTTP/1.1\r\nhost: a\r\n{body}")).await;
        tokio::time::sleep(HEAD_TIMEOUT * 10).await;
        rig.open_gate();
        assert_eq!(rig.answer().await, kept("some"));
    }
}

/// FAULTS 14, over a real socket, where a close with unread bytes is a reset.
#[tokio::test]
async fn an_announced_close_resets_no_client_that_goes_on_sending() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (transport, _) = listener.accept().await.unwrap();
    let (control, signal) = drain_signal();
    let app = Double { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let lane: &'static Lane = Box::leak(Box::default());
    let served = tokio::spawn(serve_connection(Handover::accepted(transport), app.clone(), lane, signal, None));
    // An upload that the app refuses without reading it.
    let body = "x".repeat(300_000);
    client.write_all(&post("/ignore", &body).as_bytes()[..1000]).await.unwrap();
    while lane.snapshot().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: Duration::ZERO, ending: Ending::Close });
    app.gate.add_permits(1);
    client.readable().await.unwrap();
    client.write_all(&body.as_bytes()[..250_000]).await.unwrap();
    let answered = timeout(Duration::from_secs(5), read_answer(&mut client)).await.unwrap();
    assert_eq!(answered, closing("ignored"));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "a clean end, not a reset");
    drop(client);
    timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn http2_finishes_its_streams_at_drain_and_takes_no_new_ones() {
    let rig = Rig::new();
    let (control, lane, app, served) = (rig.control, rig.lane, rig.app, rig.served);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
    let client = tokio::spawn(connection);
    let request = |path: &str| Request::get(format!("http://test{path}")).body(Empty::<Bytes>::new()).unwrap();
    let first = sender.send_request(request("/first")).await.unwrap();
    assert_eq!(first.version(), http::Version::HTTP_2);
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "/first");

    let held = tokio::spawn(sender.send_request(request("/hold")));
    while lane.snapshot().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(sender.send_request(request("/new")).await.is_err());
    app.gate.add_permits(1);
    let held = held.await.unwrap().unwrap();
    assert_eq!(held.into_body().collect().await.unwrap().to_bytes(), "held");
    client.await.unwrap().unwrap();
    served.await.unwrap();
    let figures = lane.snapshot();
    assert_eq!((figures.requests, figures.in_flight, figures.connections), (2, 0, 0));
}

/// hyper says that such a response is complete as soon as its first byte has gone out.
#[tokio::test(start_paused = true)]
async fn http2_sends_all_of_a_response_at_drain_however_slowly_its_client_reads() {
    const WINDOW: u32 = 16 * 1024;
    let rig = Rig::new();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .handshake(TokioIo::new(rig.client))
        .await
        .unwrap();
    let client = tokio::spawn(connection);
    let request = Request::get("http://test/big").body(Empty::<Bytes>::new()).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    rig.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(LINGER / 2).await;
    }
    assert_eq!(received, BIG);
    client.await.unwrap().unwrap();
    rig.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_takes_no_more_of_a_response_does_not_outlive_the_linger() {
    let rig = Rig::new();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(16 * 1024)
        .handshake(TokioIo::new(rig.client))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://test/big").body(Empty::<Bytes>::new()).unwrap();
    let _unread = sender.send_request(request).await.unwrap();
    rig.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    timeout(LINGER + Duration::from_secs(1), rig.served).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn http2_without_streams_ends_at_drain() {
    let rig = Rig::new();
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(rig.client))
            .await
            .unwrap();
    let client = tokio::spawn(connection);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let began = Instant::now();
    rig.control.begin(Phase::Draining { since: began.into_std(), linger: LINGER, ending: Ending::Close });
    client.await.unwrap().unwrap();
    rig.served.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_ignores_the_goaway_does_not_outlive_the_linger() {
    let mut rig = Rig::new();
    rig.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // An empty SETTINGS frame, and never an answer to a PING.
    rig.client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    rig.settle().await;
    rig.drain();
    timeout(LINGER + Duration::from_secs(1), rig.served).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_route_in_hand_is_told_while_the_app_holds_the_thread() {
    /// Looks when it is called, when it works, and when it makes the body.
    #[derive(Clone)]
    struct Looks(&'static Lane);

    struct Seen(&'static Lane, Vec<String>, bool);

    impl Seen {
        fn look(&mut self) {
            self.1.extend(self.0.snapshot().route);
        }
    }

    impl Body for Seen {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if std::mem::replace(&mut self.2, true) {
                return std::task::Poll::Ready(None);
            }
            self.look();
            std::task::Poll::Ready(Some(Ok(Frame::data(self.1.join(", ").into()))))
        }

        // Also a body whose length is known may be made while it is sent.
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact("GET /where, GET /where, GET /where".len() as u64)
        }
    }

    impl Application for Looks {
        type Body = Seen;
        type Error = Infallible;

        fn call(self, _: Request<Upload>) -> impl Future<Output = Result<Response<Seen>, Infallible>> + Send {
            let mut seen = Seen(self.0, Vec::new(), false);
            seen.look();
            async move {
                seen.look();
                Ok(Response::new(seen))
            }
        }
    }

    let lane: &'static Lane = Box::leak(Box::default());
    let (mut client, transport) = tokio::io::duplex(4096);
    let (_control, signal) = drain_signal();
    tokio::spawn(serve_connection(Handover::accepted(transport), Looks(lane), lane, signal, None));
    client.write_all(get("/where?secret=1").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut client).await, kept("GET /where, GET /where, GET /where"));
    assert_eq!(lane.snapshot().route, None);
}

/// How often a phase is begun at another moment of a connection's life. Without its cures the race
/// showed after some hundred (a panic) and some thousand times (a lost wake-up).
const MOMENTS: u32 = 1_500;

/// Real threads and a real socket: phases are begun by the control thread, at any moment.
#[test]
fn a_phase_that_begins_at_any_moment_reaches_the_connection() {
    let (_page, file) = app_host_platform::sys::stats::StatsPage::create().unwrap();
    let lane = &app_host_platform::sys::stats::StatsPage::open(&file).unwrap().into_lanes()[0];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for moment in 0..MOMENTS {
        let (control, signal) = drain_signal();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                // As a serving thread does it: news told in the middle of a poll would be missed.
                let (signal, relay) = signal.here();
                tokio::spawn(relay);
                let app = Double { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
                let stream = tokio::net::TcpStream::from_std(server).unwrap();
                let outcome = tokio::spawn(serve_connection(Handover::accepted(stream), app, lane, signal, None)).await;
                done.send(outcome.is_ok()).unwrap();
            });
        });
        io::Write::write_all(&mut client, b"GET /hold HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let spin = |time| {
            let begin = std::time::Instant::now();
            while begin.elapsed() < time {
                std::hint::spin_loop();
            }
        };
        // From before the first poll of the connection until its request is held.
        spin(Duration::from_micros(u64::from(moment % 300)));
        if moment % 2 == 0 {
            // Heard by a connection that can't leave now, and that must hear what comes after it.
            control.invite(1);
            spin(Duration::from_micros(u64::from(moment % 50)));
        }
        control.begin(Phase::Draining {
            since: Instant::now().into_std(),
            linger: Duration::from_millis(1),
            ending: Ending::Close,
        });
        spin(Duration::from_millis(2));
        control.begin(Phase::Cut);
        let ok = ended.recv_timeout(Duration::from_secs(20));
        assert_eq!(ok, Ok(true), "moment {moment}");
    }
}

impl Rig {
    /// Upgrades the connection, with these bytes right behind the head, and reads the head of the answer.
    async fn upgrade(&mut self, early: &str) {
        self.send(&format!(
            "GET /tunnel HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n{early}"
        ))
        .await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.client.read_u8().await.expect("the connection ended in a response's head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    }

    async fn echo(&mut self, text: &str) {
        self.send(text).await;
        self.hear(text).await;
    }

    async fn hear(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        self.client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, text.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_has_no_time_outs_and_is_in_flight_until_its_end() {
    let mut rig = Rig::new();
    assert_eq!(rig.get("/first").await, kept("/first"));
    rig.upgrade("early").await;
    rig.hear("early").await;
    tokio::time::sleep(HEAD_TIMEOUT * 100).await;
    rig.echo("late").await;
    assert_eq!(rig.figures().in_flight, 1);
    // The client's end of stream is the app's, which lets go of the tunnel then.
    rig.client.shutdown().await.unwrap();
    rig.end().await;
    rig.served.await.unwrap();
    let figures = rig.lane.snapshot();
    assert_eq!((figures.in_flight, figures.connections, figures.requests, figures.cut), (0, 0, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_outlives_the_linger_and_is_cut_and_counted() {
    let mut rig = Rig::new();
    rig.upgrade("").await;
    rig.drain();
    tokio::time::sleep(LINGER * 10).await;
    rig.echo("still here").await;
    rig.control.begin(Phase::Cut);
    rig.end().await;
    rig.served.await.unwrap();
    let figures = rig.lane.snapshot();
    assert_eq!((figures.in_flight, figures.connections, figures.cut), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_nobody_asked_for_is_a_failure() {
    let mut rig = Rig::new();
    rig.send(&get("/tunnel")).await;
    assert_eq!(rig.answer().await.status, 500);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asked_in_vain_for_an_upgrade_is_closed_properly() {
    let mut rig = Rig::new();
    rig.send("GET /asked HTTP/1.1\r\nhost: test\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n").await;
    assert_eq!(rig.answer().await, closing("/asked"));
    rig.end().await;
    // The end of the stream has been sent, and bytes on their way are read for a little.
    rig.settle().await;
    assert!(!rig.served.is_finished());
    rig.client.shutdown().await.unwrap();
    rig.served.await.unwrap();
}
