//! What stands behind [`export_app!`](crate::export_app): the root module of an app.
//!
//! Owns the step from the frozen functions of [`abi`](crate::abi) to the methods of [`App`], and the
//! rule that no panic crosses the line.
#![expect(unsafe_code, reason = "the functions that the host calls")]

use crate::abi::{
    AppModule, AppModuleRef, DatabankServiceRef, DispatchServiceRef, FfiApp, FfiBody, FfiHost, FfiRequest, FfiResponse,
    InfoServiceRef, ListenerServiceRef, RequestServiceRef, Required, SERVICE_DATABANK, SERVICE_DISPATCH, SERVICE_INFO,
    SERVICE_LISTENER, SERVICE_REQUEST, SERVICE_TRACE, TraceServiceRef,
};
use crate::panics::{self, Caught, Panic};
use crate::{App, Body, Level, arena, host::Host, log, request::Handle};
use abi_stable::{
    StableAbi,
    library::{CheckTypeLayout, RootModuleResult},
    marker_type::ErasedPrefix,
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RSlice, RStr, RString},
};
use async_ffi::FfiFuture;
use http::{Response, header};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

pub use abi_stable::library::LibHeader;

/// The header that the host finds in the library, as `#[export_root_module]` of `abi_stable` would
/// write it.
#[must_use]
pub const fn header<A: App>() -> LibHeader {
    // SAFETY: `root_module` gives an erased `AppModuleRef`.
    unsafe { LibHeader::from_constructor::<AppModuleRef>(root_module::<A>, CheckTypeLayout::Yes) }
}

/// What the host's functions are called with: the app and what it needs to take requests.
struct Running<A> {
    app: A,
    host: Host,
}

struct Module<A>(A);

impl<A: App> Module<A> {
    const TABLE: &'static WithMetadata<AppModule> = &WithMetadata::new(AppModule {
        required_host,
        start: start::<A>,
        call: call::<A>,
        drain: drain::<A>,
        stop: stop::<A>,
        extension,
    });
}

/// The module itself, for a host in the same process.
#[cfg(feature = "testing")]
pub(crate) fn module<A: App>() -> AppModuleRef {
    AppModuleRef(Module::<A>::TABLE.static_as_prefix())
}

extern "C" fn root_module<A: App>() -> RootModuleResult {
    let module = Module::<A>::TABLE.static_as_prefix();
    // SAFETY: erasing the type; the header names it, and the host checks that before it uses it.
    ROk(unsafe { module.cast::<ErasedPrefix>() })
}

extern "C" fn required_host() -> RSlice<'static, Required> {
    const REQUIRED: &[Required] = &[
        Required {
            id: SERVICE_INFO,
            minor: 0,
            name: RStr::from_str("info"),
            layout: <InfoServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_REQUEST,
            minor: 0,
            name: RStr::from_str("request"),
            layout: <RequestServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_DATABANK,
            minor: 0,
            name: RStr::from_str("databank"),
            layout: <DatabankServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_DISPATCH,
            minor: 0,
            name: RStr::from_str("dispatch"),
            layout: <DispatchServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_LISTENER,
            minor: 0,
            name: RStr::from_str("listener"),
            layout: <ListenerServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_TRACE,
            minor: 0,
            name: RStr::from_str("trace"),
            layout: <TraceServiceRef as StableAbi>::LAYOUT,
        },
    ];
    RSlice::from_slice(REQUIRED)
}

extern "C" fn extension(_id: u32) -> *const () {
    std::ptr::null()
}

unsafe extern "C" fn start<A: App>(host: FfiHost) -> FfiFuture<RResult<FfiApp, RString>> {
    let host = match Host::connect(host) {
        Ok(host) => host,
        Err(error) => return FfiFuture::new(async move { RErr(error.into()) }),
    };
    if log::install(host.log_service()) {
        panics::install_hook();
    }
    #[cfg(feature = "tracing")]
    crate::trace::install(host.log_service());
    let start = Caught::new(async move { A::start(host).await });
    FfiFuture::new(async move {
        match start.await {
            // Never freed: requests borrow the app, and the process ends after `stop`.
            Ok(Ok(app)) => ROk(FfiApp(std::ptr::from_ref(Box::leak(Box::new(Running { app, host }))).cast())),
            Ok(Err(error)) => RErr(error.to_string().into()),
            Err(Panic { message, place }) => RErr(format!("the app panicked in its start: {message} ({place})").into()),
        }
    })
}

/// The app behind a handle.
///
/// # Safety
/// `app` is what `start::<A>` gave to the host.
unsafe fn running<A>(app: FfiApp) -> &'static Running<A> {
    // SAFETY: the caller's promise; what `start` leaked lives for ever.
    unsafe { &*app.0.cast::<Running<A>>() }
}

unsafe extern "C" fn call<A: App>(app: FfiApp, request: FfiRequest) -> FfiFuture<FfiResponse> {
    // SAFETY: the host calls with what `start` gave it.
    let running = unsafe { running::<A>(app) };
    // SAFETY: the host hands over a request of its own, whose table it gave at the start.
    let handle = unsafe { Handle::new(request, running.host.requests) };
    // The request is made at the first poll, in its place within the box: one that is made here
    // would be copied into each future around the app's.
    let call = Caught::new(async move {
        let Some(request) = handle.into_request() else {
            running.host.log(Level::Error, "a request's head is not valid to the app's version of `http`");
            return failure();
        };
        encode(running.app.call(request).await)
    });
    FfiFuture::new(Call { call })
}

unsafe extern "C" fn drain<A: App>(app: FfiApp) {
    // SAFETY: the host calls with what `start` gave it.
    let running = unsafe { running::<A>(app) };
    running.host.drain.give();
    if let Err(panic) = panics::catch(|| running.app.drain()) {
        panics::log(&panic, "app panicked in its drain");
    }
}

unsafe extern "C" fn stop<A: App>(app: FfiApp) -> FfiFuture<()> {
    // SAFETY: the host calls with what `start` gave it.
    let running = unsafe { running::<A>(app) };
    let stop = Caught::new(async { running.app.stop().await });
    FfiFuture::new(async move {
        if let Err(panic) = stop.await {
            panics::log(&panic, "app panicked in its stop");
        }
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
                failure()
            })
        })
    }
}

fn encode(response: Response<Body>) -> FfiResponse {
    let (head, body) = response.into_parts();
    FfiResponse { status: head.status.as_u16(), headers: arena::encode(&head.headers), body: body.into() }
}

/// The answer when the app has none.
fn failure() -> FfiResponse {
    let mut headers = header::HeaderMap::new();
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    FfiResponse {
        status: 500,
        headers: arena::encode(&headers),
        body: FfiBody::from(Body::from("internal server error\n")),
    }
}

/// Makes a type that implements [`App`] the app of this library.
///
/// Call it once, in the root of a crate of type `cdylib`. The second argument is the app's **epoch**,
/// 1 if it is left out: raise it when the new code must not run beside the old. A restart into a
/// library with another epoch is refused.
///
/// ```ignore
/// app_abi::export_app!(Shop);
/// app_abi::export_app!(Shop, epoch = 3);
/// ```
#[macro_export]
macro_rules! export_app {
    ($app:ty) => {
        $crate::export_app!($app, epoch = 1);
    };
    ($app:ty, epoch = $epoch:expr) => {
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
            pub static HEADER: $crate::export::LibHeader = $crate::export::header::<$app>();
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
