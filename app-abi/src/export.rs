//! What stands behind [`export_app!`](crate::export_app): the root module of an app.
//!
//! Owns the step from the frozen functions of [`abi`](crate::abi) to the methods of [`App`], and the
//! rule that no panic crosses the line.
#![expect(unsafe_code, reason = "the functions that the host calls")]

use crate::abi::{APP_EXTENSION_STATE, AppModule, AppModuleRef, FfiApp, FfiHost, FfiRequest, FfiResponse, FfiState};
use crate::about::{About, For};
use crate::panics::{self, Caught, Panic};
use crate::required::required_host;
use crate::runtime::Runs;
use crate::{App, Body, Level, arena, host::Host, log, request::Handle, state};
use abi_stable::{
    library::{CheckTypeLayout, RootModuleResult},
    marker_type::ErasedPrefix,
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RString},
};
use async_ffi::FfiFuture;
use http::{Response, StatusCode, header};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

pub use crate::runtime::Plain;
#[cfg(feature = "tokio")]
pub use crate::runtime::Tokio;
pub use abi_stable::library::LibHeader;

/// The header that the host finds in the library, as `#[export_root_module]` of `abi_stable` would
/// write it.
#[must_use]
pub const fn header<A: App, R: Runs>() -> LibHeader {
    // SAFETY: `root_module` gives an erased `AppModuleRef`.
    unsafe { LibHeader::from_constructor::<AppModuleRef>(root_module::<A, R>, CheckTypeLayout::Yes) }
}

/// What the host's functions are called with: the app and what it needs to take requests.
struct Running<A, R: 'static> {
    app: A,
    host: Host,
    runs: &'static R,
}

struct Module<A, R>(A, R);

impl<A: App, R: Runs> Module<A, R> {
    const TABLE: &'static WithMetadata<AppModule> = &WithMetadata::new(AppModule {
        required_host,
        start: start::<A, R>,
        call: call::<A, R>,
        drain: drain::<A, R>,
        stop: stop::<A, R>,
        extension: extension::<A, R>,
    });
    const STATE: &'static FfiState = &state::table::<A, R>();
}

/// The module itself, for a host in the same process.
#[cfg(feature = "testing")]
pub(crate) fn module<A: App>() -> AppModuleRef {
    AppModuleRef(Module::<A, Plain>::TABLE.static_as_prefix())
}

extern "C" fn root_module<A: App, R: Runs>() -> RootModuleResult {
    let module = Module::<A, R>::TABLE.static_as_prefix();
    // SAFETY: erasing the type; the header names it, and the host checks that before it uses it.
    ROk(unsafe { module.cast::<ErasedPrefix>() })
}

extern "C" fn extension<A: App, R: Runs>(id: u32) -> *const () {
    match id {
        APP_EXTENSION_STATE if A::KEEPS_STATE => std::ptr::from_ref(Module::<A, R>::STATE).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn start<A: App, R: Runs>(host: FfiHost) -> FfiFuture<RResult<FfiApp, RString>> {
    let host = match Host::connect(host) {
        Ok(host) => host,
        Err(error) => return FfiFuture::new(async move { RErr(error.into()) }),
    };
    log::install(host.log_service());
    panics::install_hook();
    #[cfg(feature = "tracing")]
    crate::trace::begin(host.log_service());
    // Never freed, as the app below: requests borrow both, and the process ends after `stop`.
    let runs: &'static R = match R::set_up() {
        Ok(runs) => Box::leak(Box::new(runs)),
        Err(error) => return FfiFuture::new(async move { RErr(error.into()) }),
    };
    let start = async move {
        match Caught::new(async move { A::start(host).await }).await {
            Ok(Ok(app)) => ROk(FfiApp(std::ptr::from_ref(Box::leak(Box::new(Running { app, host, runs }))).cast())),
            Ok(Err(error)) => RErr(error.to_string().into()),
            Err(panic) => {
                if panic.has_backtrace() {
                    panics::log(&panic, "app panicked in its start");
                }
                let Panic { message, place, .. } = panic;
                RErr(format!("the app panicked in its start: {message} ({place})").into())
            }
        }
    };
    #[cfg(feature = "tracing")]
    let start = crate::trace::Start(Box::pin(start));
    runs.run(start, || RErr("the app's runtime has ended".into()))
}

// SAFETY: by the rules of the line an app's functions may be called on any thread.
unsafe impl Send for FfiApp {}

/// What is behind a handle.
///
/// # Safety
/// `app` is what `start::<A, R>` gave to the host.
const unsafe fn place<A, R>(app: FfiApp) -> &'static Running<A, R> {
    // SAFETY: the caller's promise; what `start` leaked lives for ever.
    unsafe { &*app.0.cast::<Running<A, R>>() }
}

/// The app behind a handle, and where it runs.
///
/// # Safety
/// `app` is what `start::<A, R>` gave to the host.
pub(crate) const unsafe fn running<A, R>(app: FfiApp) -> (&'static A, &'static R) {
    // SAFETY: the caller's promise.
    let running = unsafe { place::<A, R>(app) };
    (&running.app, running.runs)
}

unsafe extern "C" fn call<A: App, R: Runs>(app: FfiApp, request: FfiRequest) -> FfiFuture<FfiResponse> {
    // SAFETY: the host calls with what `start` gave it.
    let running = unsafe { place::<A, R>(app) };
    // SAFETY: the host hands over a request of its own, whose table it gave at the start.
    let handle = unsafe { Handle::new(request, running.host.requests) };
    // The request is made at the first poll, in its place within the box: one that is made here
    // would be copied into each future around the app's.
    let call = Caught::new(async move {
        let Some(request) = handle.into_request() else {
            running.host.log(Level::Error, "a request's head is not valid to the app's version of `http`");
            return encode(failure(), running.runs, About::default());
        };
        let about = About::of(&request, running.host.slot());
        let (response, about) = For::new(about, running.app.call(request)).await;
        encode(response, running.runs, about)
    });
    running.runs.run(Call { call }, || encode(failure(), &Plain, About::default()))
}

unsafe extern "C" fn drain<A: App, R: Runs>(app: FfiApp) {
    // SAFETY: the host calls with what `start` gave it.
    let running = unsafe { place::<A, R>(app) };
    running.host.drain.give();
    if let Err(panic) = panics::catch(|| running.runs.within(|| running.app.drain())) {
        panics::log(&panic, "app panicked in its drain");
    }
}

unsafe extern "C" fn stop<A: App, R: Runs>(app: FfiApp) -> FfiFuture<()> {
    // SAFETY: the host calls with what `start` gave it.
    let running = unsafe { place::<A, R>(app) };
    let stop = async {
        if let Err(panic) = Caught::new(async { running.app.stop().await }).await {
            panics::log(&panic, "app panicked in its stop");
        }
    };
    let stopped = running.runs.run(stop, || ());
    FfiFuture::new(async move {
        stopped.await;
        running.runs.end().await;
    })
}

/// One call of the app, which becomes a response whatever the app does.
struct Call<F> {
    call: Caught<F>,
}

impl<F: Future<Output = FfiResponse>> Future for Call<F> {
    type Output = FfiResponse;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<FfiResponse> {
        // SAFETY: the only field is pinned with the struct and never moved out of it.
        let call = unsafe { self.map_unchecked_mut(|this| &mut this.call) };
        call.poll(context).map(|outcome| {
            outcome.unwrap_or_else(|panic| {
                panics::log(&panic, "app panicked");
                encode(failure(), &Plain, About::default())
            })
        })
    }
}

/// A response of the app's, whose body is about the same request.
fn encode(response: Response<Body>, runs: &'static impl Runs, about: About) -> FfiResponse {
    let (head, body) = response.into_parts();
    FfiResponse {
        status: head.status.as_u16(),
        headers: arena::encode(&head.headers),
        body: body.hand_over(|stream| runs.stream(Box::pin(For::new(about, stream)))),
    }
}

/// The answer when the app has none.
pub(crate) fn failure() -> Response<Body> {
    let mut response = Response::new(Body::from("internal server error\n"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Makes a type that implements [`App`] the app of this library.
///
/// Call it once, in the root of a crate of type `cdylib`. The second argument is the app's **epoch**,
/// 1 if it is left out: raise it when the new code must not run beside the old. A restart into a
/// library with another epoch is refused.
///
/// ```no_run
/// use app_abi::{App, Body, Host, Request, Response, StartError};
///
/// struct Shop;
///
/// impl App for Shop {
///     async fn start(_host: Host) -> Result<Self, StartError> {
///         Ok(Self)
///     }
///
///     async fn call(&self, request: Request<Body>) -> Response<Body> {
///         Response::new(format!("{} is sold out\n", request.uri().path()).into())
///     }
/// }
///
/// app_abi::export_app!(Shop, epoch = 3);
/// # fn main() {}
/// ```
///
/// There is no runtime behind such an app: its futures are polled on the host's serving threads, and
/// what needs tokio finds none. For that there are, each behind a feature of its own name,
/// `export_tokio!(Shop)`, the same with a tokio runtime, `export_axum!(router)` and
/// `export_tower!(service)`.
#[macro_export]
macro_rules! export_app {
    ($app:ty) => {
        $crate::export_app!($app, epoch = 1);
    };
    ($app:ty, epoch = $epoch:expr) => {
        $crate::__export!($epoch, $crate::export::header::<$app, $crate::export::Plain>());
    };
}

/// Makes a type that implements [`App`] the app of this library, with a tokio runtime. Feature `tokio`.
///
/// As [`export_app!`](crate::export_app), and `tokio::spawn`, timers, sockets and whatever is built on
/// them work in all of the app's methods, in its bodies and in its tasks. `threads` is how many worker
/// threads the runtime has, 1 if it is left out.
///
/// ```no_run
/// use app_abi::{App, Body, Host, Request, Response, StartError};
///
/// struct Shop;
///
/// impl App for Shop {
///     async fn start(_host: Host) -> Result<Self, StartError> {
///         Ok(Self)
///     }
///
///     async fn call(&self, _request: Request<Body>) -> Response<Body> {
///         // …
///         # Response::default()
///     }
/// }
///
/// app_abi::export_tokio!(Shop, epoch = 3, threads = 2);
/// # fn main() {}
/// ```
///
/// A handler is polled on the host's serving thread first. If it has its answer then, that was all; if it
/// has to wait, it becomes a task of the runtime, which is aborted when the client goes away. Bodies are
/// polled on the serving thread, when the client can take more. When the worker ends, the runtime is shut
/// down after [`App::stop`]: tasks are dropped where they wait, and blocking calls that are still going on
/// are waited for up to a second.
///
/// # Blocking calls in a handler
/// A handler may call what blocks: read a file by `std::fs`, compute for a while, ask a database by a
/// client that isn't async. What that costs is the thread that it runs on, for as long as it takes.
///
/// - Before its first `.await` that waits, a handler runs on one of the host's serving threads, of which a
///   worker has one unless the configuration says otherwise (`threads`). While it is held, that thread
///   accepts no connection, reads no request and sends no answer, of this or any other client; the other
///   workers go on. Behind that `.await` it holds a thread of the app's runtime instead (`threads` of this
///   macro): then the other tasks of the app wait, and clients whose handlers need no waiting are served.
/// - A few hundred microseconds don't matter. A millisecond in each request means that a serving thread
///   answers a thousand of them a second and no more, and a second means that every client of that thread
///   may wait for a second.
/// - `tokio::task::spawn_blocking` moves a call to a thread of its own: the
///   handler waits, and nobody else. It is right for everything that may take longer than a few
///   milliseconds. It can't be given up once it has begun, even if its client has gone.
/// - More threads spread the cost: `threads` in the configuration for the serving threads, `threads` of
///   this macro for the runtime's.
/// - A thread that is held for too long is a worker that hangs. A drain waits for it until the shutdown
///   timeout (`restart.shutdown_timeout`), and then the worker ends with the request unanswered; the log
///   names the route if it is a serving thread. So the longest blocking call must be shorter than that.
#[cfg(feature = "tokio")]
#[macro_export]
macro_rules! export_tokio {
    ($app:ty $(, epoch = $epoch:expr)? $(, threads = $threads:expr)? $(,)?) => {
        $crate::__export!(
            $crate::__first!($($epoch,)? 1),
            $crate::export::header::<$app, $crate::export::Tokio<{ $crate::__first!($($threads,)? 1) }>>()
        );
    };
}

/// The first of one or two expressions.
#[doc(hidden)]
#[macro_export]
macro_rules! __first {
    ($first:expr $(, $default:expr)?) => {
        $first
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($epoch:expr, $header:expr) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!(
            "an app must be built with `panic = \"unwind\"`: \
             a panic becomes an answer with status 500 and must not end the worker"
        );
        const _: () = {
            #[unsafe(no_mangle)]
            pub static APP_ABI_MAGIC: u64 = $crate::magic($epoch);

            #[used]
            #[unsafe(link_section = ".note.app-abi")]
            static NOTE: $crate::manifest::Note =
                $crate::manifest::Note::new($epoch, ::core::env!("CARGO_PKG_NAME"), ::core::env!("CARGO_PKG_VERSION"));

            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static HEADER: $crate::export::LibHeader = $header;
        };
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_is_exported_under_the_name_that_abi_stable_looks_for() {
        let macro_text = include_str!("export.rs");
        let name = abi_stable::library::ROOT_MODULE_LOADER_NAME;
        assert!(macro_text.contains(&format!("export_name = \"{name}\"")), "{name}");
    }
}
