//! Unit tests of an app, without a host: in the process of the test, with a databank in memory.
//!
//! ```
//! # use app_abi::{App, Body, Host, Request, Response, StartError};
//! use app_abi::serde_json::json;
//! use app_abi::testing::{TestApp, block_on};
//! # struct Hello(Host);
//! # impl App for Hello {
//! #     async fn start(host: Host) -> Result<Self, StartError> { Ok(Self(host)) }
//! #     async fn call(&self, request: Request<Body>) -> Response<Body> {
//! #         let _ = self.0.databank().increment("counter", "calls", "n", 1).await;
//! #         Response::new(format!("hello from {}\n", request.uri().path()).into())
//! #     }
//! # }
//!
//! block_on(async {
//!     let app = TestApp::<Hello>::start(json!({ "greeting": "hello" })).await?;
//!     let response = app.call(Request::get("/shop").body(Body::empty()).unwrap()).await;
//!     assert_eq!(response.status(), 200);
//!     assert_eq!(response.into_body().bytes(1000).await.unwrap(), "hello from /shop\n");
//!
//!     let calls = app.databank().read::<app_abi::serde_json::Value>("counter", "calls").await.unwrap();
//!     assert_eq!(calls.value["n"], 1);
//!     app.stop().await;
//!     Ok::<_, StartError>(())
//! })
//! # .unwrap();
//! ```
//! Requests, answers, events and documents go through the same functions and tables as between an app and
//! its host; a panic becomes a 500 as there. The databank has the limits, faults and orders of the host's
//! drivers: it is the host's driver `memory`. What a host adds to HTTP (`Content-Length`, `Date`,
//! answers to what is no valid request) isn't here. What `export_axum!` and `export_tower!` make an app of is
//! started by `start_service!`.
//!
//! An app of a test is never freed, as in a worker. Of several in one process, each has its own databank
//! and sees its own events, but those of threads that an app has made itself go to the one that was started
//! first; so does the panic hook's line of such a thread, which is printed as well.
//!
//! Owns the host's side of the line for tests. It knows no network and no runtime.
#![expect(unsafe_code, reason = "plays the host")]

mod dispatch;
mod events;
mod listener;
mod lock;
mod request;
#[cfg(feature = "tower")]
mod service;
mod state;

use crate::abi::{
    AppModuleRef, DatabankServiceRef, FfiApp, FfiBody, FfiHost, FfiResponse, InfoService, SERVICE_DATABANK,
    SERVICE_DISPATCH, SERVICE_INFO, SERVICE_LISTENER, SERVICE_LOCK, SERVICE_REQUEST, SERVICE_TRACE, TraceServiceRef,
};
use crate::databank::Databank;
use crate::listener::AppListener;
use crate::log::{self, Log};
use crate::store::{
    memory::Memory,
    table::{Lend, Table},
};
use crate::{Address, App, Body, ConnectionInfo, StartError, arena, export, stream::Polled};
use abi_stable::{
    prefix_type::{PrefixRef, WithMetadata},
    std_types::{RErr, ROk, RStr},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use std::{
    future::Future,
    marker::PhantomData,
    pin::{Pin, pin},
    ptr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

#[cfg(feature = "tower")]
#[doc(inline)]
pub use crate::__start_service as start_service;
pub use events::{LogEvent, LogFields};
#[cfg(feature = "tower")]
#[doc(hidden)]
pub use service::start as __start;

/// A host for one app, before its start: what the app is to find.
#[derive(Debug, Clone)]
pub struct TestHost {
    config: String,
    slot: u16,
    generation: u64,
    memory: Memory,
    bus: dispatch::Bus,
    locks: lock::Locks,
    listeners: Vec<(String, Arc<AppListener>)>,
}

/// What an app is handed. Lives as long as the process.
struct TestWorker {
    host: TestHost,
    events: events::Events,
    /// The listeners that the app has asked for.
    taken: Mutex<Vec<String>>,
}

impl TestHost {
    /// A host with this `app.config`, an empty databank, slot 0 and generation 1.
    #[must_use]
    pub fn new(config: &serde_json::Value) -> Self {
        Self {
            config: config.to_string(),
            slot: 0,
            generation: 1,
            memory: Memory::default(),
            bus: dispatch::Bus::default(),
            locks: lock::Locks::default(),
            listeners: Vec::new(),
        }
    }

    /// With another [`Host::slot`](crate::Host::slot).
    #[must_use]
    pub fn slot(self, slot: u16) -> Self {
        Self { slot, ..self }
    }

    /// With another [`Host::generation`](crate::Host::generation).
    #[must_use]
    pub fn generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// With a listener that [`Host::listener`](crate::Host::listener) gives to each app under this name. Set it
    /// to be non-blocking, as a host's are.
    #[must_use]
    pub fn listener(mut self, name: &str, listener: AppListener) -> Self {
        self.listeners.push((name.to_owned(), Arc::new(listener)));
        self
    }

    /// The databank of all apps that this host, or a clone of it, starts: to lay out what they find, or to
    /// have two of them share it.
    #[must_use]
    pub fn databank(&self) -> Databank {
        TestWorker::leak(self.clone()).databank()
    }

    /// Starts an app.
    ///
    /// # Errors
    /// What the app's `start` says; what it panicked with.
    pub async fn start<A: App>(self) -> Result<TestApp<A>, StartError> {
        let place = TestWorker::leak(self);
        let module = export::module::<A>();
        // SAFETY: the place lives as long as the process, and its tables are of this very build.
        let start = unsafe { module.start()(place.ffi()) };
        match (Routed { log: place.log(), future: Box::pin(start) }).await {
            ROk(app) => Ok(TestApp { place, module, app, connection: TEST_CONNECTION, kind: PhantomData }),
            RErr(text) => Err(StartError::new(text)),
        }
    }
}

/// The connection that requests come on unless another one is set.
const TEST_CONNECTION: ConnectionInfo =
    ConnectionInfo { peer: Address::Unix, local: Address::Unix, listener: "test", scheme: "http" };

/// A started app.
pub struct TestApp<A> {
    place: &'static TestWorker,
    module: AppModuleRef,
    app: FfiApp,
    connection: ConnectionInfo,
    kind: PhantomData<fn() -> A>,
}

// SAFETY: by the rules of the line an app's functions may be called on any thread, several at once, and
// the app lives as long as the process.
unsafe impl<A> Send for TestApp<A> {}
// SAFETY: as above.
unsafe impl<A> Sync for TestApp<A> {}

impl<A: App> TestApp<A> {
    /// Starts the app with this `app.config`; see [`TestHost`] for more.
    ///
    /// # Errors
    /// What the app's `start` says; what it panicked with.
    pub async fn start(config: serde_json::Value) -> Result<Self, StartError> {
        TestHost::new(&config).start().await
    }

    /// Later requests come on this connection.
    pub fn set_connection(&mut self, connection: ConnectionInfo) {
        self.connection = connection;
    }

    /// Has the app answer one request. Dropping the future tells the app that the client has gone.
    ///
    /// # Panics
    /// When the app's answer has a status that HTTP doesn't have.
    pub fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send + use<A> {
        let request = request::hand_over(request, self.connection);
        // SAFETY: the app is the module's own, and takes over the request.
        let answer = unsafe { self.module.call()(self.app, request) };
        let log = self.place.log();
        let answer = Routed { log, future: Box::pin(answer) };
        async move { decode(answer.await, log) }
    }

    /// Tells the app that its worker drains.
    pub fn drain(&self) {
        // SAFETY: the app is the module's own.
        log::within(self.place.log(), || unsafe { self.module.drain()(self.app) });
    }

    /// Ends the app. It isn't to be called afterwards.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<A> {
        // SAFETY: the app is the module's own.
        let stop = unsafe { self.module.stop()(self.app) };
        Routed { log: self.place.log(), future: Box::pin(stop) }
    }

    /// The app's databank.
    #[must_use]
    pub fn databank(&self) -> Databank {
        self.place.databank()
    }

    /// What the app has logged so far, of every level; with the feature `tracing` its events too. Of more
    /// than 10,000 the oldest are left out.
    #[must_use]
    pub fn events(&self) -> Vec<LogEvent> {
        self.place.events.all()
    }
}

fn decode(response: FfiResponse, log: Log) -> Response<Body> {
    let FfiResponse { status, headers, body } = response;
    let mut response = Response::new(match body {
        FfiBody::Empty => Body::empty(),
        FfiBody::Full(chunk) => Body::from(Bytes::from(chunk)),
        FfiBody::Stream(stream) => Body::stream(AnsweredBody { stream, log }),
    });
    *response.status_mut() = StatusCode::from_u16(status).expect("the app answers with a status from 100 to 999");
    *response.headers_mut() = arena::decode(headers).expect("the app's headers cross the line");
    response
}

/// A body of the app's.
struct AnsweredBody {
    stream: crate::abi::FfiStream,
    log: Log,
}

/// The app's body broke off.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

impl http_body::Body for AnsweredBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled: Polled = log::within(self.log, || self.stream.poll(context));
        polled.map(|frame| frame.map(|frame| frame.map_err(Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

/// A future of the app's, whose lines go to the place that it was started in.
struct Routed<F> {
    log: Log,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Routed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let log = self.log;
        log::within(log, || self.future.as_mut().poll(context))
    }
}

impl TestWorker {
    fn leak(host: TestHost) -> &'static Self {
        Box::leak(Box::new(Self { host, events: events::Events::default(), taken: Mutex::default() }))
    }

    fn ffi(&'static self) -> FfiHost {
        FfiHost { data: ptr::from_ref(self).cast(), service }
    }

    fn log(&'static self) -> Log {
        let table = TraceServiceRef(events::Events::TABLE.static_as_prefix());
        Log { data: ptr::from_ref(self).cast(), table }
    }

    fn databank(&'static self) -> Databank {
        let table = DatabankServiceRef(Table::<Self>::TABLE.static_as_prefix());
        Databank { data: ptr::from_ref(self).cast(), table }
    }

    /// # Safety
    /// `data` is from [`Self::ffi`].
    unsafe fn of(data: *const ()) -> &'static Self {
        // SAFETY: the caller's promise; a place is never freed.
        unsafe { &*data.cast::<Self>() }
    }
}

// SAFETY: what is handed over beside the table is a place, which is never freed.
unsafe impl Lend for TestWorker {
    type Databank = Memory;

    unsafe fn databank(data: *const ()) -> &'static Memory {
        // SAFETY: the caller's promise.
        unsafe { &Self::of(data).host.memory }
    }
}

unsafe extern "C" fn service(_data: *const (), id: u32, min_minor: u32) -> *const () {
    fn erase<P>(table: PrefixRef<P>) -> *const () {
        table.to_raw_ptr().cast()
    }
    match id {
        _ if min_minor > 0 => ptr::null(),
        SERVICE_INFO => erase(INFO.static_as_prefix()),
        SERVICE_TRACE => erase(events::Events::TABLE.static_as_prefix()),
        SERVICE_REQUEST => erase(request::TABLE.static_as_prefix()),
        SERVICE_DATABANK => erase(Table::<TestWorker>::TABLE.static_as_prefix()),
        SERVICE_DISPATCH => erase(dispatch::TABLE.static_as_prefix()),
        SERVICE_LISTENER => erase(listener::TABLE.static_as_prefix()),
        SERVICE_LOCK => erase(lock::TABLE.static_as_prefix()),
        _ => ptr::null(),
    }
}

const INFO: &WithMetadata<InfoService> = &WithMetadata::new(InfoService { config, slot, generation, worker_pid });

unsafe extern "C" fn config(data: *const ()) -> RStr<'static> {
    // SAFETY: the app passes what it was handed; so in each function below.
    RStr::from_str(unsafe { &TestWorker::of(data).host.config })
}

unsafe extern "C" fn slot(data: *const ()) -> u16 {
    // SAFETY: see `config`.
    unsafe { TestWorker::of(data).host.slot }
}

unsafe extern "C" fn generation(data: *const ()) -> u64 {
    // SAFETY: see `config`.
    unsafe { TestWorker::of(data).host.generation }
}

unsafe extern "C" fn worker_pid(_data: *const ()) -> u32 {
    std::process::id()
}

/// Runs a future on this thread, which sleeps while the future waits. For tests that need no runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
