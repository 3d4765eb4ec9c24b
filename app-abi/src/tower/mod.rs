//! Any tower service is an app; an axum `Router` is one.
//!
//! Owns what stands behind `export_tower!` and `export_axum!`: the step between the app's requests and the
//! service's, and the end of both. The `forms` that the function may have which makes the service are told apart
//! by `told`. A request that asks for an upgrade is left to `seam`.

mod beside;
#[cfg(feature = "axum")]
mod extract;
mod forms;
mod hints;
mod told;

pub(crate) use beside::Beside;
pub use beside::{NothingToLeave, nothing_to_leave, nothing_to_stop};
pub use forms::{Ended, Explains, Form, Made, Maker, Makes, Outcome};
pub use hints::{WithEarlyHints, with_early_hints};
pub use told::Given;

/// For the macros: the traits whose methods they call.
#[doc(hidden)]
pub mod __told {
    pub use super::told::*;
}

use crate::export::failure;
use crate::runtime::Runs;
use crate::state::{KeepsState, SharedState};
use crate::{
    App, Body, BoxError, Bytes, Host, LeftState, Level, Request, RequestExt, Response, StartError, StateWriter, export,
    panics, seam,
};
use abi_stable::library::LibHeader;
use http_body::{Frame, SizeHint};
use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    mem,
    pin::Pin,
    sync::{PoisonError, RwLock},
    task::{Context, Poll, Waker},
};
use tower_service::Service;

/// A service that can be an app: `Service<Request<app_abi::Body>, Response = Response<_>>` that is
/// `Clone`, `Send` and `Sync`. Each request gets a clone of its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no tower service of HTTP requests that can be cloned and shared by threads",
    note = "expected `Service<Request<app_abi::Body>, Response = Response<_>> + Clone + Send + Sync + 'static`, \
            with a future that is `Send`, such as an `axum::Router`"
)]
pub trait Serves: Clone + Send + Sync + 'static {
    /// Answers one request. The error says why there is no answer.
    fn serve(self, request: Request<Body>) -> impl Future<Output = Result<Response<Body>, BoxError>> + Send + 'static;
}

impl<S, B> Serves for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn serve(mut self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        poll_fn(|context| self.poll_ready(context)).await.map_err(Into::into)?;
        let response = self.call(request).await.map_err(Into::into)?;
        Ok(response.map(begin))
    }
}

/// Makes a body of the app's of a service's. One that is there as a whole crosses as a whole: it needs
/// no further call into the app.
fn begin<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let Some(length) = body.size_hint().exact() else { return Body::stream(body) };
    if length == 0 && body.is_end_stream() {
        return Body::empty();
    }
    let mut body = Box::pin(body);
    // Whoever polls it next registers another waker.
    let first = body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop()));
    match first {
        Poll::Pending => Body::stream(body),
        Poll::Ready(None) => Body::empty(),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) if data.len() as u64 == length && body.is_end_stream() => data.into(),
            Ok(data) => Body::stream(Begun { first: Some(Ok(Frame::data(data))), rest: body }),
            Err(frame) => Body::stream(Begun { first: Some(Ok(frame)), rest: body }),
        },
        Poll::Ready(Some(Err(error))) => Body::stream(Begun { first: Some(Err(error.into())), rest: body }),
    }
}

/// A body whose first frame is here already.
struct Begun<B> {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: Pin<Box<B>>,
}

// Nothing in it is pinned but what has a box of its own.
impl<B> Unpin for Begun<B> {}

impl<B> http_body::Body for Begun<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.rest.as_mut().poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.size_hint();
        if let Some(Ok(frame)) = &self.first
            && let Some(data) = frame.data_ref()
        {
            let (lower, upper) = (hint.lower(), hint.upper());
            let length = data.len() as u64;
            hint = SizeHint::new();
            hint.set_lower(lower.saturating_add(length));
            if let Some(upper) = upper {
                hint.set_upper(upper.saturating_add(length));
            }
        }
        hint
    }
}

/// The app that a function's service is.
pub(crate) struct Served<F: Maker<M>, M, Z, N> {
    /// Until the app stops.
    service: RwLock<Option<F::Service>>,
    host: Host,
    _rest: PhantomData<fn() -> (Z, N)>,
}

/// The header of a library whose app is the service that `maker` makes, whose last moment is `stop`, and which hands `state` on.
/// `form` is never called: its type says what form the maker has.
#[must_use]
pub const fn header<F, M, Z, A, K, T, B, R, G>(maker: F, stop: Z, state: T, form: G) -> LibHeader
where
    F: Maker<M>,
    G: Fn() -> M + Copy,
    M: 'static,
    Z: Makes<A, Made: Ended<K>>,
    A: 'static,
    K: 'static,
    T: Makes<B, Made: SharedState>,
    B: 'static,
    R: Runs,
{
    const {
        assert!(size_of::<F>() == 0, "the maker is a function, not a pointer to one and no closure with variables");
        assert!(size_of::<Z>() == 0, "`stop` is a function, not a pointer to one and no closure with variables");
        assert!(size_of::<T>() == 0, "`state` is a function, not a pointer to one and no closure with variables");
    };
    let _ = (maker, stop, state, form);
    export::header::<Served<F, M, Z, Beside<Z, A, K, T, B>>, R>()
}

impl<F, M, Z, A, K, T, B> App for Served<F, M, Z, Beside<Z, A, K, T, B>>
where
    F: Maker<M>,
    M: 'static,
    Z: Makes<A, Made: Ended<K>>,
    A: 'static,
    K: 'static,
    T: Makes<B, Made: SharedState>,
    B: 'static,
{
    const KEEPS_STATE: bool = <T::Made as SharedState>::IS_KEPT;

    async fn start(host: Host) -> Result<Self, StartError> {
        let service = function::<F>().make(host).await?;
        Ok(Self { service: RwLock::new(Some(service)), host, _rest: PhantomData })
    }

    async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        // Gone only when the app has stopped, and then no request comes.
        let Some(service) = self.service.read().unwrap_or_else(PoisonError::into_inner).clone() else {
            return failure();
        };
        let info = request.connection();
        let tls = info.filter(|info| info.scheme == "https").and_then(|_| request.tls());
        let client = request.body().told_client();
        let resume = request.resume();
        let extensions = request.extensions_mut();
        extensions.insert(self.host);
        if let Some(client) = client {
            extensions.insert(client);
        }
        if let Some(tls) = tls {
            extensions.insert(tls);
        }
        if let Some(resume) = resume {
            extensions.insert(resume);
        }
        if let Some(info) = info {
            extensions.insert(info);
            #[cfg(feature = "axum")]
            if let crate::Address::Tcp(peer) = info.peer {
                extensions.insert(axum::extract::ConnectInfo(peer));
            }
        }
        let served = match request.upgrade() {
            None => service.serve(request).await,
            // Boxed, so that the many requests that ask for none don't take its room.
            Some(upgrade) => Box::pin(seam::serve(request, upgrade, |request| service.serve(request))).await,
        };
        served.unwrap_or_else(|error| {
            let text = StartError::of(&*error).to_string();
            self.host.log_with(Level::Error, "the app's service failed", &[("error", &text)]);
            failure()
        })
    }

    async fn leave(&self, state: &mut StateWriter) -> Result<(), BoxError> {
        function::<T>().make(self.host).kept().leave(state).await
    }

    async fn inherit(&self, state: LeftState) -> Result<(), BoxError> {
        function::<T>().make(self.host).kept().inherit(state).await
    }

    /// As a `main` does behind its server: what is in the service goes first, then the rest.
    async fn stop(&self) {
        let service = self.service.write().unwrap_or_else(PoisonError::into_inner).take();
        panics::drop_guarded(service);
        if let Err(error) = function::<Z>().make(self.host).ended().await {
            self.host.log_with(Level::Error, "the app's stop failed", &[("error", &error.to_string())]);
        }
    }
}

/// A function that [`header`], or `testing::start`, was called with.
#[expect(unsafe_code, reason = "a function's type can't be named, so its value can't be kept in a static")]
fn function<F: Copy + 'static>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: `F` has no bytes and can be copied, and `header` and `testing::start`, the only ones to name
    // `Served<F, …>`, were given a value of it: this is a copy of that.
    unsafe { mem::zeroed() }
}

/// Makes a tower service the app of this library. Feature `tower`.
///
/// The argument is a function that makes the service, in whatever form is at hand: `fn() -> S`,
/// `fn(Host) -> S`, either of them returning `Result<S, E>`, and any of these as `async fn`. `S` is a
/// `Service<Request<app_abi::Body>, Response = Response<_>>` that is `Clone`, `Send` and `Sync`. An error
/// fails the start, as one of [`App::start`] does; `E` is any error, a boxed one, `anyhow::Error` or a
/// text, and need be neither `Send` nor `Sync`.
///
/// `epoch` and `threads` are those of `export_tokio!`, whose runtime is behind these apps as well; what
/// blocking costs is said there.
///
/// # The last moment
/// When the last request has been answered, the service and what is in it is dropped, as behind a server of
/// one's own. Then the function that `stop = flush` names is called, if there is one: `fn()`, `fn(Host)`, either of
/// them as `async fn`, with or without a `Result<(), E>`. Each worker does so: with two of them it is called twice. Both run in the runtime, which ends after them; then the
/// process exits as a program does that returns from its `main`: what was registered by `atexit(3)` runs, C's streams
/// are flushed, and a library built with `-C instrument-coverage` writes its profile. All of it must be done at the
/// shutdown timeout (`restart.shutdown_timeout`), when the worker is killed. Background threads that the app has
/// not ended are still there meanwhile.
///
/// # What is kept in memory
/// `state = cache` names a function, `fn() -> S` or `fn(Host) -> S`, that gives what is to be handed on to the worker that comes
/// after this one: `S` is an `Arc` or a `&'static` of what implements [`KeepsState`](crate::KeepsState), and the same each time,
/// because it is called for each use: what handlers use as well, in a `static` for instance.
///
/// [`Host`] and [`ConnectionInfo`](crate::ConnectionInfo) are among the extensions of each request, and
/// [`TlsInfo`](crate::TlsInfo) of those that came by TLS, and [`ClientInfo`](crate::ClientInfo) where a trusted proxy has told
/// of the client. A request that asks for an upgrade carries hyper's `OnUpgrade`, as in a server of hyper's own.
#[macro_export]
macro_rules! export_tower {
    ($maker:expr $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__export_service!(
            ($maker) (1) (1) ($crate::tower::nothing_to_stop) ($crate::tower::nothing_to_leave)
            $(, $option = $value)*
        );
    };
}

/// Takes the options one by one: the maker, the epoch, the threads, the stop, the state.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_service {
    ($maker:tt $epoch:tt $threads:tt $stop:tt $state:tt, epoch = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__export_service!($maker ($value) $threads $stop $state $(, $($rest)*)?);
    };
    ($maker:tt $epoch:tt $threads:tt $stop:tt $state:tt, threads = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__export_service!($maker $epoch ($value) $stop $state $(, $($rest)*)?);
    };
    ($maker:tt $epoch:tt $threads:tt $stop:tt $state:tt, stop = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__export_service!($maker $epoch $threads ($value) $state $(, $($rest)*)?);
    };
    ($maker:tt $epoch:tt $threads:tt $stop:tt $state:tt, state = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__export_service!($maker $epoch $threads $stop ($value) $(, $($rest)*)?);
    };
    ($maker:tt $epoch:tt $threads:tt $stop:tt $state:tt, $option:ident = $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "there is no option `",
            ::core::stringify!($option),
            "`: there are `epoch`, `threads`, `stop` and `state`"
        ));
    };
    (($maker:expr) ($epoch:expr) ($threads:expr) ($stop:expr) ($state:expr)) => {
        $crate::__export!($epoch, {
            #[allow(unused_imports)]
            use $crate::tower::__told::*;
            $crate::tower::header::<_, _, _, _, _, _, _, $crate::export::Tokio<{ $threads }>, _>($maker, $stop, $state, || {
                (&&&&(&&&&&(&&&(&&&$crate::tower::Given::new(&$maker)).called()).awaited()).unwrapped()).form()
            })
        });
    };
}

/// Makes an axum `Router` the app of this library. Feature `axum`.
///
/// The argument is the function that makes the router, which need not change for it:
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// fn router() -> Router {
///     Router::new().route("/", get(|| async { "Hello" }))
/// }
///
/// app_abi::export_axum!(router);
/// # fn main() {}
/// ```
///
/// It may also be `fn(Host) -> Router`, return a `Result<Router, E>`, and be an `async fn`; `epoch` and
/// `threads` are those of `export_tokio!`:
///
/// ```no_run
/// use app_abi::Host;
/// use axum::{Router, routing::get};
///
/// async fn router(host: Host) -> Result<Router, Box<dyn std::error::Error>> {
///     let greeting: String = host.config()?;
///     Ok(Router::new().route("/", get(move || async move { greeting })))
/// }
///
/// # async fn flush() {}
/// app_abi::export_axum!(router, epoch = 3, threads = 2, stop = flush);
/// # fn main() {}
/// ```
///
/// What `stop` is for, and what happens at an app's end, is said at [`export_tower!`](crate::export_tower).
///
/// Handlers and middleware work as in a server of axum's own: `tokio::spawn`, timers, streaming bodies,
/// SSE, uploads, trailers, and WebSockets by axum's own extractor. [`Host`] is an extractor, and
/// `ConnectInfo<SocketAddr>` is there for peers that come over TCP. [`ClientInfo`](crate::ClientInfo), an extractor as well, is
/// who is asking behind all proxies that are trusted. A Router within middleware that
/// makes another type of it (`NormalizePath<Router>`) will do as well.
///
/// A WebSocket lives on while its worker drains; shortly before the shutdown timeout it is cut.
#[cfg(feature = "axum")]
#[macro_export]
macro_rules! export_axum {
    ($($argument:tt)*) => {
        $crate::export_tower!($($argument)*);
    };
}

#[cfg(test)]
mod tests;
