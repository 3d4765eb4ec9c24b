//! Many of axum's examples in one app, each with its own routes, and what the runtime must be able to do.
//!
//! `app.config` has `files`, a directory that is served under `/files`; `fail`, which makes the start fail;
//! `linger`, milliseconds that a blocking call goes on behind the stop; `stop`, which makes the stop `fail` or `hang`.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use app_abi::{Host, Level, Resume, serde};
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Extension, Multipart, Path};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router, middleware};
use futures_util::{Stream, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tower_http::services::ServeDir;

#[derive(Default, serde::Deserialize)]
#[serde(crate = "app_abi::serde", default)]
struct Config {
    files: PathBuf,
    fail: bool,
    linger: u64,
    stop: String,
}

async fn router(host: Host) -> Result<Router, Box<dyn Error + Send + Sync>> {
    let config: Config = host.config()?;
    if config.fail {
        return Err("the site has nothing to show".into());
    }
    // The runtime is there already.
    tokio::time::sleep(Duration::from_millis(1)).await;
    if config.linger > 0 {
        tokio::task::spawn_blocking(move || block_for(Duration::from_millis(config.linger)));
    }
    // What a task holds is dropped when the runtime ends.
    tokio::spawn(async move {
        let _told = Told(host);
        std::future::pending::<()>().await;
    });
    let examples = Router::new()
        .route("/hello", get(hello))
        .route("/json", post(json))
        .route("/upload", post(upload).layer(DefaultBodyLimit::disable()))
        .route("/sse", get(events))
        .route("/numbers", get(numbers))
        .route("/echo", any(echo))
        .route("/resumable", any(resumable))
        .route("/kept", any(kept))
        .route("/trailers", post(trailers))
        .nest_service("/files", ServeDir::new(config.files));
    let runtime = Router::new()
        .route("/whoami", get(whoami))
        .route("/peer", get(peer))
        .route("/spawn", get(spawn))
        .route("/fetch/{address}", get(fetch))
        .route("/wait/{name}", get(wait))
        .route("/panic/{when}", get(panics))
        .route("/ended/{name}", get(ended))
        .route("/sent", get(|| async { SENT.load(Ordering::Relaxed).to_string() }))
        .route("/flood", any(flood))
        .route("/refused", any(|_: WebSocketUpgrade| async { StatusCode::FORBIDDEN }))
        .route("/hold", any(hold))
        .route("/polite", any(polite));
    let held = std::sync::Arc::new(Held(host));
    let held = Router::new()
        .route(
            "/held",
            get(|Extension(held): Extension<std::sync::Arc<Held>>| async move { held.0.slot().to_string() }),
        )
        .layer(Extension(held));
    Ok(examples.merge(runtime).merge(held).layer(middleware::map_response(|mut response: Response| async {
        response.headers_mut().insert("x-middleware", HeaderValue::from_static("seen"));
        response
    })))
}

async fn hello(host: Host) -> impl IntoResponse {
    let pid = host.worker_pid();
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("Hello from app-host, world! (pid {pid})\n"))
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(crate = "app_abi::serde")]
struct User {
    name: String,
    #[serde(default)]
    id: u64,
}

async fn json(Json(user): Json<User>) -> impl IntoResponse {
    (StatusCode::CREATED, Json(User { id: 1337, ..user }))
}

/// Counts the bytes of each field while they come.
async fn upload(mut multipart: Multipart) -> Result<String, (StatusCode, String)> {
    let bad = |error: axum::extract::multipart::MultipartError| (error.status(), error.body_text());
    let mut text = String::new();
    while let Some(mut field) = multipart.next_field().await.map_err(bad)? {
        let name = field.name().unwrap_or_default().to_owned();
        let mut length = 0;
        while let Some(chunk) = field.chunk().await.map_err(bad)? {
            length += chunk.len();
        }
        text.extend([&name, "=", &length.to_string(), ";"]);
    }
    Ok(text)
}

/// Four events, and then no more until the client goes.
async fn events(host: Host) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let guard = Given::new("sse", host);
    let ticks = tokio::time::interval(Duration::from_millis(5));
    let events = stream::unfold((0, ticks, guard), |(count, mut ticks, guard)| async move {
        if count == 4 {
            std::future::pending::<()>().await;
        }
        ticks.tick().await;
        Some((Ok(Event::default().event("count").data(count.to_string())), (count + 1, ticks, guard)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_millis(50)).text("still here"))
}

/// Numbers from the one behind the client's last on, each with the generation, in whichever version of the app.
async fn numbers(host: Host, headers: HeaderMap) -> Response {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let ticks = tokio::time::interval(Duration::from_millis(3));
    let events = stream::unfold((last.unwrap_or(0_u64), ticks), move |(last, mut ticks)| async move {
        ticks.tick().await;
        let event = Event::default().id((last + 1).to_string()).data(host.generation().to_string());
        Some((Ok::<_, Infallible>(event), (last + 1, ticks)))
    });
    app_abi::resumable(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Sends every message back, and answers the close.
async fn echo(socket: WebSocketUpgrade, host: Host) -> Response {
    socket.max_message_size(64 << 20).max_frame_size(64 << 20).on_upgrade(move |mut socket: WebSocket| async move {
        let _guard = Given::new("echo", host);
        while let Some(Ok(message)) = socket.recv().await {
            let answered = match message {
                Message::Text(_) | Message::Binary(_) => socket.send(message).await,
                // The answer to a close goes out with the next look for a message, of which there is none.
                Message::Close(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if answered.is_err() {
                break;
            }
        }
    })
}

/// Sends every text back with the generation before it, in whichever version of the app.
async fn resumable(socket: WebSocketUpgrade, host: Host) -> Response {
    app_abi::resumable(socket.on_upgrade(move |mut socket: WebSocket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let answered = match message {
                Message::Text(text) => socket.send(Message::text(format!("{} {text}", host.generation()))).await,
                message @ Message::Binary(_) => socket.send(message).await,
                Message::Close(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if answered.is_err() {
                break;
            }
        }
    }))
}

/// Remembers all that was said on a connection, in whichever version of the app, and sends back how long that is. `fill` makes
/// it as long as it may be.
async fn kept(socket: WebSocketUpgrade, resume: Option<Resume>) -> Response {
    let resume = resume.expect("the request can be asked again");
    app_abi::resumable(socket.on_upgrade(move |mut socket: WebSocket| async move {
        let mut said = resume.saved().unwrap_or_default();
        while let Some(Ok(Message::Text(text))) = socket.recv().await {
            said.extend_from_slice(text.as_bytes());
            if text == "fill" {
                said.resize(Resume::MOST, b'.');
            }
            let answer = match resume.save(&said) {
                Ok(()) => said.len().to_string(),
                Err(error) => error.to_string(),
            };
            if socket.send(Message::text(answer)).await.is_err() {
                break;
            }
        }
    }))
}

static SENT: AtomicU64 = AtomicU64::new(0);

/// Sends messages of 64 KiB for as long as the client takes them.
async fn flood(socket: WebSocketUpgrade) -> Response {
    socket.write_buffer_size(0).on_upgrade(|mut socket: WebSocket| async move {
        loop {
            if socket.send(Message::Binary(vec![b'x'; 64 * 1024].into())).await.is_err() {
                break;
            }
            SENT.fetch_add(64 * 1024, Ordering::Relaxed);
        }
    })
}

/// Upgrades, says so, and is silent until the client or the host ends it.
async fn hold(socket: WebSocketUpgrade, host: Host) -> Response {
    socket.on_upgrade(move |mut socket: WebSocket| async move {
        let _guard = Given::new("hold", host);
        let _ = socket.send(Message::text("held")).await;
        let end = socket.recv().await;
        host.log_with(Level::Info, "the held socket has ended", &[("end", &format!("{end:?}"))]);
    })
}

/// Upgrades, says so, and says goodbye when the worker drains.
async fn polite(socket: WebSocketUpgrade, host: Host) -> Response {
    socket.on_upgrade(move |mut socket: WebSocket| async move {
        let _guard = Given::new("polite", host);
        let _ = socket.send(Message::text("held")).await;
        host.draining().await;
        let goodbye = CloseFrame { code: close_code::AWAY, reason: "a new version is coming".into() };
        let _ = socket.send(Message::Close(Some(goodbye))).await;
        // Until the client has answered it.
        while let Some(Ok(_)) = socket.recv().await {}
    })
}

/// Answers with the request's trailers, as trailers.
async fn trailers(request: axum::extract::Request) -> Response {
    let mut body = request.into_body();
    let mut given = HeaderMap::new();
    while let Some(Ok(frame)) = http_body_util::BodyExt::frame(&mut body).await {
        if let Ok(trailers) = frame.into_trailers() {
            given = trailers;
        }
    }
    let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(given)];
    Response::new(Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)))))
}

async fn whoami(Extension(host): Extension<Host>) -> impl IntoResponse {
    let (pid, slot, generation) = (host.worker_pid(), host.slot(), host.generation());
    Json(app_abi::serde_json::json!({ "pid": pid, "slot": slot, "generation": generation }))
}

async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
    peer.to_string()
}

/// What a plain tokio program can do.
async fn spawn() -> Result<String, String> {
    let task = tokio::spawn(async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        std::thread::current().name().unwrap_or_default().to_owned()
    });
    let blocking = tokio::task::spawn_blocking(|| 6 * 7);
    let late = tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await.is_err();
    let thread = task.await.map_err(|error| error.to_string())?;
    let answer = blocking.await.map_err(|error| error.to_string())?;
    Ok(format!("{thread} {answer} {late}"))
}

/// Asks another server, here this one, by reqwest.
async fn fetch(Path(address): Path<SocketAddr>) -> Result<String, String> {
    let fetched = async { reqwest::get(format!("http://{address}/hello")).await?.error_for_status()?.text().await };
    fetched.await.map_err(|error| error.to_string())
}

/// Never answers. Its end is told by the log.
async fn wait(Path(name): Path<String>, host: Host) {
    let _guard = Given::new(&name, host);
    tokio::time::sleep(Duration::from_hours(1)).await;
}

async fn panics(Path(when): Path<String>) {
    if when == "late" {
        tokio::time::sleep(Duration::from_millis(5)).await;
        panic!("the handler gave up late");
    }
    if when == "task" {
        let _ = tokio::spawn(async { panic!("the task gave up") }).await;
        return;
    }
    panic!("the handler gave up at once");
}

/// How many of this name have ended.
async fn ended(Path(name): Path<String>) -> String {
    ENDED.lock().map(|ended| ended.iter().filter(|ended| **ended == name).count().to_string()).unwrap_or_default()
}

static ENDED: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

/// Says in the log when it is dropped, where a runtime must be found.
struct Given(String, Host);

impl Given {
    fn new(name: &str, host: Host) -> Self {
        host.log_with(Level::Info, "begun", &[("what", name)]);
        Self(name.to_owned(), host)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let entered = tokio::runtime::Handle::try_current().is_ok();
        self.1.log_with(Level::Info, "ended", &[("what", &self.0), ("entered", &entered.to_string())]);
        if let Ok(mut ended) = ENDED.lock() {
            ended.push(std::mem::take(&mut self.0));
        }
    }
}

/// Says in the log when the runtime drops its task.
struct Told(Host);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.log(Level::Info, "the task was dropped");
    }
}

#[expect(clippy::disallowed_methods, reason = "a blocking call is what is tried")]
fn block_for(time: Duration) {
    std::thread::sleep(time);
}

/// What the Router holds.
struct Held(Host);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.log(Level::Info, "what the router holds is dropped");
    }
}

async fn flush(host: Host) -> Result<(), Box<dyn Error>> {
    // The runtime is there still.
    tokio::time::sleep(Duration::from_millis(1)).await;
    host.log(Level::Info, "the stop has flushed");
    match host.config::<Config>()?.stop.as_str() {
        "fail" => Err("nothing can be flushed".into()),
        "hang" => std::future::pending().await,
        _ => Ok(()),
    }
}

app_abi::export_axum!(router, threads = 2, stop = flush);
