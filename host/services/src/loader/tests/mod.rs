//! Whole round trips across the ABI, with apps that are compiled into the test.

mod databank;
mod dispatch;
mod lifecycle;
mod listener;
mod loading;
mod requests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use abi_stable::prefix_type::{PrefixRef, PrefixRefTrait, WithMetadata_};
use app_abi::abi::{FfiBody, FfiField, FfiHeaders, FfiRecord, FfiResponse, LogServiceRef, SERVICE_LOG};
use app_abi::{App, Body as AppSideBody, Host, RequestExt, StartError, arena, export, serde_json};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tracing::Level;

use app_host_core::config::databank::{Setup, Store};
use app_host_platform::logging::{AppEvent, AppLog, Changed};
use app_host_platform::sys::packet;

use super::*;
use crate::databank::{Databank, Making};
use crate::dispatch::Dispatch;

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
            "/client" => Response::new(format!("{:?}", request.client()).into()),
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
        tls: None,
        client: None,
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

/// Polls once, with a waker that does nothing.
fn futures_poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}
