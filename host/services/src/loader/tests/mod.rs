//! Whole round trips over the line, with apps that live in the test binary.

mod databank;
mod dispatch;
mod listener;

use super::*;
use crate::databank::{Databank, Making};
use crate::dispatch::Dispatch;
use abi_stable::prefix_type::{PrefixRef, PrefixRefTrait, WithMetadata_};
use app_abi::{
    App, Body as AppSideBody, Host, RequestExt, StartError,
    abi::{FfiBody, FfiField, FfiHeaders, FfiRecord, FfiResponse, LogServiceRef, SERVICE_LOG},
    arena, export, serde_json,
};
use app_host_core::config::databank::{Setup, Store};
use app_host_platform::logging::{AppEvent, AppLog, Changed};
use app_host_platform::sys::packet;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use std::{
    cell::RefCell,
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    io::Write,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tracing::Level;

#[derive(app_abi::serde::Deserialize)]
#[serde(crate = "app_abi::serde", deny_unknown_fields)]
struct Config {
    greeting: String,
}

struct TestApp {
    greeting: String,
    host: Host,
}

impl App for TestApp {
    async fn start(host: Host) -> Result<Self, StartError> {
        let Config { greeting } = host.config()?;
        match &*greeting {
            "panic" => panic!("no greeting today"),
            "refuse" => Err(StartError::new("nobody to greet")),
            _ => Ok(Self { greeting, host }),
        }
    }

    async fn call(&self, request: Request<AppSideBody>) -> Response<AppSideBody> {
        match request.uri().path() {
            "/greet" => Response::new(format!("{} from {}", self.greeting, self.host.slot()).into()),
            "/head" => Response::new(describe(&request).into()),
            "/echo" => Response::new(request.into_body()),
            "/json" => {
                let value: Result<Vec<u32>, _> = request.into_body().json(20).await;
                Response::new(format!("{value:?}").into())
            }
            "/panic" => panic!("the handler gave up"),
            "/panic-in-body" => Response::new(AppSideBody::stream(Panicking)),
            "/hang" => {
                let _held = request;
                pending().await
            }
            "/draining" => {
                let before = self.host.is_draining();
                self.host.draining().await;
                Response::new(format!("{before} {}", self.host.is_draining()).into())
            }
            "/log" => {
                self.host.log_with(app_abi::Level::Warn, "low on paper", &[("tray", "2"), ("left", "\"3\"")]);
                Response::new(AppSideBody::empty())
            }
            _ => {
                let mut response = Response::new("not found".into());
                *response.status_mut() = StatusCode::NOT_FOUND;
                let value = HeaderValue::from_static("a");
                response.headers_mut().append("x-twice", value.clone());
                response.headers_mut().append("x-twice", value);
                response
            }
        }
    }

    async fn stop(&self) {
        panic!("the stop gave up");
    }

    fn drain(&self) {
        self.host.log(app_abi::Level::Info, &format!("drain noticed, {}", self.host.is_draining()));
    }
}

/// What an app sees of a request.
fn describe(request: &Request<AppSideBody>) -> String {
    let connection = request.connection();
    let (method, uri, version) = (request.method(), request.uri(), request.version());
    let ended = request.body().is_end_stream();
    format!("{method} {uri} {version:?} {:?} {ended} {connection:?}", request.headers())
}

/// A body of the app's that panics after its first frame, and once more when it is dropped.
struct Panicking;

impl Body for Panicking {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body gave up");
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        panic!("even the drop gave up");
    }
}

/// A body of the client's: frames one by one, and a count of how often it was asked.
#[derive(Default)]
struct Frames {
    queue: VecDeque<Frame<Bytes>>,
    asked: Arc<AtomicUsize>,
    fail: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let frame = self.queue.pop_front().map(Ok);
        Poll::Ready(match frame {
            None if self.fail => Some(Err(std::io::Error::other("the client has gone"))),
            frame => frame,
        })
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::default();
        hint.set_lower(7);
        hint
    }
}

fn library() -> Library {
    static HEADER: LibHeader = export::header::<TestApp, export::Plain>();
    check(&HEADER).expect("an app of this very build fits")
}

fn info(greeting: &str) -> HostInfo {
    let config = serde_json::json!({ "greeting": greeting }).to_string();
    let (_, dispatch) = packet::pair().unwrap();
    let dispatch = Dispatch::open(dispatch).unwrap();
    let listeners = AppListeners::new(Vec::new());
    HostInfo { config, databank: memory(), log: Arc::new(Lines), dispatch, listeners, slot: 3, generation: 7, pid: 42 }
}

/// A databank of this test's own.
fn memory() -> Databank {
    let setup = Setup { store: Store::Memory, timeout: Duration::from_secs(5) };
    Databank::open(&setup, Making::IfMissing).expect("a thread can be made")
}

async fn app() -> LoadedApp {
    library().start(info("hello")).await.expect("the app starts")
}

fn connection() -> Arc<Connection> {
    Arc::new(Connection {
        peer: Address::Tcp("192.0.2.1:4711".parse().unwrap()),
        local: Address::Unix,
        listener: "127.0.0.1:8080",
        scheme: "http",
    })
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

async fn text(response: Response<AppBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

thread_local! {
    /// What was logged on this thread, which is one test's own: all apps of this process have one
    /// `app-abi`, and some of its lines go where the app that was started first said.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn lines() -> Vec<String> {
    LINES.take()
}

struct Lines;

impl AppLog for Lines {
    fn max_level(&self) -> Level {
        Level::INFO
    }

    fn enabled(&self, level: Level, _: &str) -> bool {
        level <= Level::INFO
    }

    fn on_change(&self, _: Changed) {}

    fn write(&self, event: &AppEvent<'_>) {
        let AppEvent { level, target, message, fields, spans } = event;
        let line = format!("{level} {target}: {message} {fields:?} {spans:?}");
        // The app's hook sees the panics of all tests of this process, and a failure is to be read.
        if *level == Level::ERROR {
            eprintln!("{line}");
        }
        LINES.with_borrow_mut(|lines| lines.push(line));
    }
}

#[tokio::test]
async fn the_app_learns_its_configuration_and_place() {
    let response = app().await.call(get("/greet"), connection(), None).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.body().size_hint().exact(), Some(12));
    assert_eq!(text(response).await, "hello from 3");
}

#[tokio::test]
async fn every_part_of_a_head_reaches_the_app() {
    let app = app().await;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::from_bytes(b"PROPFIND").unwrap();
    *request.uri_mut() = "https://example.org:1/head?q=%20".parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    for (name, value) in [("host", "a"), ("x-own", "b"), ("x-own", "c"), ("accept", "")] {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let mut secret = HeaderValue::from_static("s3cret");
    secret.set_sensitive(true);
    request.headers_mut().insert("authorization", secret);
    let expected = format!(
        "PROPFIND https://example.org:1/head?q=%20 HTTP/2.0 {:?} true {:?}",
        request.headers(),
        Some(app_abi::ConnectionInfo {
            peer: connection().peer,
            local: Address::Unix,
            listener: "127.0.0.1:8080",
            scheme: "http",
        })
    );
    assert!(expected.contains("Sensitive"));
    assert_eq!(text(app.call(request, connection(), None).await.unwrap()).await, expected);
}

#[tokio::test]
async fn a_head_with_more_headers_than_fit_on_the_stack_reaches_the_app() {
    let mut request = get("/head");
    for index in 0..100_u32 {
        let name: http::HeaderName = format!("x-{index}").parse().unwrap();
        request.headers_mut().insert(name, index.into());
    }
    let headers = format!("{:?}", request.headers());
    assert!(text(app().await.call(request, connection(), None).await.unwrap()).await.contains(&headers));
}

#[tokio::test]
async fn a_request_lets_go_of_what_it_was_read_into_before_the_app_is_asked() {
    let app = app().await;
    let read = Bytes::from(b"/greet".to_vec());
    let mut request = get("/");
    *request.uri_mut() = Uri::from_maybe_shared(read.clone()).unwrap();
    request.headers_mut().insert("x-own", HeaderValue::from_maybe_shared(read.slice(1..)).unwrap());
    assert!(!read.is_unique());
    let answer = app.call(request, connection(), None);
    assert!(read.is_unique());
    assert_eq!(text(answer.await.unwrap()).await, "hello from 3");
}

#[tokio::test]
async fn every_form_of_a_target_reaches_the_app() {
    let app = app().await;
    for target in ["*", "example.org:443"] {
        let mut request = get("/");
        *request.uri_mut() = target.parse().unwrap();
        let response = app.call(request, connection(), None).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
    }
}

#[tokio::test]
async fn headers_of_an_answer_keep_their_repetitions() {
    let response = app().await.call(get("/nowhere"), connection(), None).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers().get_all("x-twice").iter().count(), 2);
}

#[tokio::test]
async fn bodies_stream_both_ways_frame_by_frame_with_trailers_and_backpressure() {
    let asked = Arc::new(AtomicUsize::new(0));
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let body = Frames {
        queue: [Frame::data(chunk.clone()), Frame::data(chunk.clone()), Frame::trailers(trailers.clone())].into(),
        asked: Arc::clone(&asked),
        fail: false,
    };
    let request = Request::post("/echo").body(body).unwrap();
    let mut body = app().await.call(request, connection(), None).await.unwrap().into_body();
    assert_eq!(body.size_hint().lower(), 7, "the hint crosses twice");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing is read ahead");
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data.as_ptr(), chunk.as_ptr(), "no byte is copied");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_on_the_other_side() {
    let body = Frames { fail: true, ..Frames::default() };
    let request = Request::post("/echo").body(body).unwrap();
    let response = app().await.call(request, connection(), None).await.unwrap();
    let error = response.into_body().collect().await.err().unwrap();
    assert!(error.to_string().contains("the client has gone"), "{error}");
}

#[tokio::test]
async fn an_app_reads_json_up_to_its_limit() {
    let app = app().await;
    for (sent, answer) in
        [("[1, 2, 3]", "Ok([1, 2, 3])"), ("[1, 2, 3, 4, 5, 6, 7, 8, 9]", "Err(TooLarge { limit: 20 })")]
    {
        let (first, second) = sent.split_at(4);
        let frames = [first, second].map(|part| Frame::data(Bytes::copy_from_slice(part.as_bytes())));
        let body = Frames { queue: frames.into(), ..Frames::default() };
        let request = Request::post("/json").body(body).unwrap();
        assert_eq!(text(app.call(request, connection(), None).await.unwrap()).await, answer);
    }
}

#[tokio::test]
async fn a_panic_becomes_a_500_and_one_line_with_its_place() {
    let response = app().await.call(get("/panic"), connection(), None).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response).await, "internal server error\n");
    let [line] = &lines()[..] else { panic!("not that many lines") };
    assert!(line.starts_with("ERROR app: app panicked ["), "{line}");
    assert!(line.contains("the handler gave up") && line.contains("tests/mod.rs:"), "{line}");
}

#[tokio::test]
async fn a_panic_in_a_body_or_its_drop_breaks_only_the_body() {
    let app = app().await;
    let response = app.call(get("/panic-in-body"), connection(), None).await.unwrap();
    let error = response.into_body().collect().await.err().unwrap();
    assert!(error.to_string().contains("panicked while it produced the body"), "{error}");
    assert_eq!(app.call(get("/greet"), connection(), None).await.unwrap().status(), StatusCode::OK);
    let [body, drop] = &lines()[..] else { panic!("not that many lines") };
    assert!(body.starts_with("ERROR app: app panicked in a body ["), "{body}");
    assert!(drop.starts_with("ERROR app: app panicked in a drop ["), "{drop}");
}

#[tokio::test]
async fn a_failed_start_says_why() {
    let failure = async |info| library().start(info).await.err().unwrap().to_string();
    assert_eq!(failure(info("refuse")).await, "nobody to greet");
    let text = failure(info("panic")).await;
    assert!(text.starts_with("the app panicked in its start: no greeting today ("), "{text}");
    assert!(text.contains("tests/mod.rs:"), "{text}");
    let config = r#"{ "greeting": 7 }"#.to_owned();
    let text = failure(HostInfo { config, ..info("") }).await;
    assert!(text.starts_with("app.config.greeting is not as the app expects it: invalid type"), "{text}");
    assert!(text.contains("line 1 column"), "{text}");
}

#[tokio::test]
async fn drain_and_stop_reach_the_app_and_a_panic_there_is_logged() {
    let app = app().await;
    app.drain();
    app.stop().await;
    let [drain, stop] = &lines()[..] else { panic!("not that many lines") };
    assert_eq!(drain, "INFO app: drain noticed, true [] []", "the notice comes first");
    assert!(stop.starts_with("ERROR app: app panicked in its stop ["), "{stop}");
}

#[tokio::test]
async fn drain_notice_ends_what_waits_for_it_and_those_that_come_later_at_once() {
    let app = app().await;
    let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(app.call(get("/draining"), connection(), None))).collect();
    for call in &mut waiting {
        assert!(futures_poll(call.as_mut()).is_pending());
    }
    // One whose client goes meanwhile.
    drop(waiting.pop());
    app.drain();
    let all = async {
        for call in waiting {
            assert_eq!(text(call.await.unwrap()).await, "false true");
        }
        assert_eq!(text(app.call(get("/draining"), connection(), None).await.unwrap()).await, "true true");
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the notice comes soon");
}

#[tokio::test]
async fn lines_of_the_app_keep_level_and_fields() {
    app().await.call(get("/log"), connection(), None).await.unwrap();
    let [line] = &lines()[..] else { panic!("not that many lines") };
    let fields = r#"[("tray", Text("2")), ("left", Text("\"3\""))]"#;
    assert_eq!(*line, format!("WARN app: low on paper {fields} []"));
}

#[test]
fn an_app_from_before_the_service_trace_logs_as_it_did() {
    let host = services::host(info(""));
    // SAFETY: the host's own tables, called as such an app calls them.
    unsafe {
        type Fields = <LogServiceRef as PrefixRefTrait>::PrefixFields;
        let table = (host.service)(host.data, SERVICE_LOG, 0).cast::<WithMetadata_<Fields, Fields>>();
        let log = LogServiceRef(PrefixRef::from_raw(table));
        let fields = [FfiField { key: "tray".into(), value: "2".into() }];
        let record =
            FfiRecord { level: 2, target: "".into(), message: "low on paper".into(), fields: fields[..].into() };
        let text = Written::default();
        let writer = text.clone();
        let format = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).without_time();
        tracing::subscriber::with_default(format.finish(), || {
            assert!(log.enabled()(3));
            log.log()(&raw const record);
        });
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.trim(), r#"WARN app: low on paper fields="{\"tray\":\"2\"}""#);
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_dropped_call_releases_the_request() {
    let app = app().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let body = || Frames { asked: Arc::clone(&asked), ..Frames::default() };
    let connection = connection();

    // Before its first poll, and in the middle.
    drop(app.call(Request::post("/hang").body(body()).unwrap(), Arc::clone(&connection), None));
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (1, 1));
    let mut call = Box::pin(app.call(Request::post("/hang").body(body()).unwrap(), Arc::clone(&connection), None));
    assert!(futures_poll(call.as_mut()).is_pending());
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (2, 2));
    drop(call);
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (1, 1));

    // And a response that nobody reads.
    let echo = Request::post("/echo").body(body()).unwrap();
    let response = app.call(echo, Arc::clone(&connection), None).await.unwrap();
    assert_eq!(Arc::strong_count(&asked), 2);
    drop(response);
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (1, 1));
}

/// Polls once, with nobody to wake.
fn futures_poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}

#[test]
fn an_answer_that_is_not_valid_is_an_error() {
    let decode = |status, headers| {
        let answer = FfiResponse { status, headers, body: FfiBody::Empty };
        response::decode(answer).err().map(|error| error.to_string())
    };
    let none = || arena::encode(&HeaderMap::new());
    assert_eq!(decode(200, none()), None);
    assert_eq!(decode(42, none()).unwrap(), "the app answered with status 42, expected 100 to 999");
    let cut = FfiHeaders { count: 1, arena: vec![1, 0].into() };
    assert_eq!(decode(200, cut).unwrap(), "the app's headers are not valid");
}

/// One table in several forms.
#[expect(
    dead_code,
    clippy::cast_ptr_alignment,
    clippy::expl_impl_clone_on_copy,
    clippy::trivially_copy_pass_by_ref,
    reason = "derived code, and only the layout is looked at"
)]
mod tables {
    pub(super) mod old {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = TableRef)))]
        #[sabi(missing_field(panic))]
        pub(in super::super) struct Table {
            #[sabi(last_prefix_field)]
            pub(in super::super) first: extern "C" fn(count: u32),
        }
    }

    pub(super) mod new {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = TableRef)))]
        #[sabi(missing_field(panic))]
        pub(in super::super) struct Table {
            #[sabi(last_prefix_field)]
            pub(in super::super) first: extern "C" fn(count: u32),
            pub(in super::super) second: extern "C" fn(),
        }
    }

    pub(super) mod other {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = TableRef)))]
        #[sabi(missing_field(panic))]
        pub(in super::super) struct Table {
            #[sabi(last_prefix_field)]
            pub(in super::super) first: extern "C" fn(count: u64),
        }
    }
}

#[test]
fn a_table_may_grow_and_a_refusal_names_the_field() {
    let (old, new, other) =
        (tables::old::TableRef::LAYOUT, tables::new::TableRef::LAYOUT, tables::other::TableRef::LAYOUT);
    assert_eq!(layout::compare(old, new), Ok(()), "an old app runs on a new host");
    let refusal = layout::compare(new, old).unwrap_err();
    assert!(refusal.contains("field `second` is missing"), "{refusal}");
    let refusal = layout::compare(other, old).unwrap_err();
    assert!(refusal.contains("field `first`") && refusal.contains("u64"), "{refusal}");
    assert_eq!(refusal.lines().count(), 1, "{refusal}");
}

#[test]
fn a_file_that_is_no_library_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libapp.so");
    std::fs::write(&path, "not a library").unwrap();
    let error = open(&path, &path, Magic(app_abi::magic(1))).err().unwrap();
    assert!(!error.is_incompatibility());
    assert_eq!(error.to_string(), format!("the library {} is refused", path.display()));
    let reason = error.source.to_string();
    assert!(reason.starts_with("the dynamic linker cannot load it: "), "{reason}");
}

#[test]
fn a_library_that_is_not_found_beside_the_copy_is_said_to_be_looked_for_there() {
    let directory = tempfile::tempdir().unwrap();
    let reason = "libneighbour.so: cannot open shared object file: No such file or directory";
    for (runpath, is_said) in [("/opt/lib", false), ("$ORIGIN/../lib", true), ("${ORIGIN}", true)] {
        let path = directory.path().join("copy");
        std::fs::write(&path, format!("\x7fELF…\0{runpath}\0…")).unwrap();
        let text = super::not_opened(reason, &path, Path::new("app.so")).to_string();
        assert_eq!(text.contains("where the version's copy lies"), is_said, "{text}");
        assert!(text.contains(reason));
        assert!(!super::not_opened("undefined symbol: x", &path, &path).to_string().contains("hint"));
    }
}
