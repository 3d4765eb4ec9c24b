//! The line between host and app. **Frozen text**: the layout check compares every name here, the
//! names of parameters included, so even a renaming makes every library built before it
//! incompatible. What may change, and what then has to rise, is said at [`ABI`](crate::ABI).
//!
//! Owns every type that crosses. What host and app make of them is left to the host's `loader` and
//! to this crate's other modules.
//!
//! Rules of the line, for both sides:
//! - Every function may be called on any thread, and at the same time on several, except that what
//!   belongs to one handle or one stream is called by its one owner, one call at a time.
//! - No function blocks and none unwinds. What may panic in the app is caught on the app's side.
//! - A pointer that comes as a borrowed text lives as long as its handle does; texts of the host
//!   itself live as long as the process. Nothing is ever unloaded and an app is never freed.
//! - A table of functions grows at its end only, behind its `last_prefix_field`.
#![expect(
    missing_docs,
    clippy::must_use_candidate,
    clippy::expl_impl_clone_on_copy,
    reason = "the derived prefix types are not ours to word"
)]

mod body;
mod databank;
mod hints;
mod listener;
mod log;
mod request;
mod resume;
mod state;
mod upgrade;
mod workers;

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RSlice, RStr, RString};
use abi_stable::type_layout::TypeLayout;
use async_ffi::{FfiContext, FfiFuture};

pub use body::*;
pub use databank::*;
pub use hints::*;
pub use listener::*;
pub use log::*;
pub use request::*;
pub use resume::*;
pub use state::*;
pub use upgrade::*;
pub use workers::*;

// What the two sides rely on of async-ffi, as it is in 0.5.1 (src/lib.rs): a future is a pointer and two functions,
// and a context a pointer that is borrowed for the call. Each side calls functions that the other one has compiled,
// so neither layout may change under one number. The layouts are compared once more when a library is loaded
// (`StableAbi`), the number in the manifest. A panic in a future's `poll` comes as a value, and one in its `drop`
// or in a waker ends the process, which is why [`panics`](crate::panics) catches both before.
const _: () = assert!(
    async_ffi::ABI_VERSION == 2
        && size_of::<FfiFuture<()>>() == 3 * size_of::<usize>()
        && size_of::<FfiFuture<FfiResponse>>() == 3 * size_of::<usize>()
        && size_of::<FfiContext<'_>>() == size_of::<usize>(),
    "this release of `async-ffi` has another layout"
);

/// What every app exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = AppModuleRef)))]
#[sabi(missing_field(panic))]
pub struct AppModule {
    /// What the app needs of its host; called and checked before anything else.
    pub required_host: extern "C" fn() -> RSlice<'static, Required>,
    /// Starts the app, once a process. The error is for people.
    pub start: unsafe extern "C" fn(host: FfiHost) -> FfiFuture<RResult<FfiApp, RString>>,
    /// Answers one request. The app owns the request from here on and drops it when done.
    pub call: unsafe extern "C" fn(app: FfiApp, request: FfiRequest) -> FfiFuture<FfiResponse>,
    /// Notice that the worker drains: no new connections, the last requests are being finished.
    pub drain: unsafe extern "C" fn(app: FfiApp),
    /// Ends the app; the worker exits when the future is ready.
    pub stop: unsafe extern "C" fn(app: FfiApp) -> FfiFuture<()>,
    /// A later hook of the app by its number, null if the app has none.
    #[sabi(last_prefix_field)]
    pub extension: extern "C" fn(id: u32) -> *const (),
}

impl RootModule for AppModuleRef {
    abi_stable::declare_root_module_statics! {AppModuleRef}
    const BASE_NAME: &'static str = "app";
    const NAME: &'static str = "app";
    const VERSION_STRINGS: VersionStrings = abi_stable::package_version_strings!();
}

/// A service that the app needs of its host.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Required {
    /// The service's number, one of the `SERVICE_` constants.
    pub id: u32,
    /// The least minor of the service.
    pub minor: u32,
    /// The service's name, for messages.
    pub name: RStr<'static>,
    /// The layout of the service's table as the app knows it.
    pub layout: &'static TypeLayout,
}

/// What the host hands to an app at its start.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiHost {
    /// The host's own; the first argument of its functions.
    pub data: *const (),
    /// The table of a service, null if the host doesn't have it or only an older minor of it.
    pub service: unsafe extern "C" fn(data: *const (), id: u32, min_minor: u32) -> *const (),
}

/// A started app. Lives as long as the process.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiApp(pub *const ());

/// The number of [`InfoService`].
pub const SERVICE_INFO: u32 = 1;

/// Who the app is within the service: configuration and place.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = InfoServiceRef)))]
#[sabi(missing_field(panic))]
pub struct InfoService {
    /// `app.config` as JSON text.
    pub config: unsafe extern "C" fn(data: *const ()) -> RStr<'static>,
    pub slot: unsafe extern "C" fn(data: *const ()) -> u16,
    pub generation: unsafe extern "C" fn(data: *const ()) -> u64,
    #[sabi(last_prefix_field)]
    pub worker_pid: unsafe extern "C" fn(data: *const ()) -> u32,
}

/// Why the databank didn't do what it was asked to.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiFault {
    /// 1 not found, 2 already exists, 3 conflict, 4 unavailable, 5 invalid.
    pub code: u8,
    /// The cause, for people.
    pub text: RString,
}
