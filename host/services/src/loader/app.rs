//! A started app, and the calls into it.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use abi_stable::std_types::{RErr, ROk};
use app_abi::abi::{APP_EXTENSION_STATE, AppModuleRef, FfiApp, FfiState};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use app_host_platform::logging::AppLog;

use super::listener::AppListeners;
use super::request::{self, Connection, Offers};
use super::response::{self, AppBody, AppResponseError};
use super::{Library, services};
use crate::databank::Databank;
use crate::dispatch::Dispatch;

/// What an app is given by the worker that it runs in.
#[derive(Clone)]
pub struct HostInfo {
    /// `app.config` as JSON text.
    pub config: String,
    pub databank: Databank,
    pub dispatch: Dispatch,
    pub listeners: AppListeners,
    /// Where the app's events go.
    pub log: Arc<dyn AppLog>,
    /// The worker's slot.
    pub slot: u16,
    /// The worker's generation.
    pub generation: u64,
    /// The worker's process id.
    pub pid: u32,
}

/// Why an app didn't start. The worker can only report it and exit.
#[derive(Debug, thiserror::Error)]
pub enum AppStartError {
    /// What the app itself said, or where it panicked.
    #[error("{0}")]
    App(String),
}

/// A started app. Cheap to clone, and usable on every thread.
#[derive(Clone, Copy)]
pub struct LoadedApp {
    module: AppModuleRef,
    pub(super) app: FfiApp,
    /// How it hands on what it keeps in memory.
    pub(super) state: Option<&'static FfiState>,
}

// SAFETY: by the rules of the ABI an app's functions may be called on any thread, several at once, and the app lives as
// long as the process.
unsafe impl Send for LoadedApp {}
// SAFETY: as above.
unsafe impl Sync for LoadedApp {}

impl Library {
    /// Starts the app. May be called once a process. The caller sets the time limit.
    pub fn start(self, info: HostInfo) -> impl Future<Output = Result<LoadedApp, AppStartError>> + Send {
        let module = self.module;
        // SAFETY: the module was checked, and `host` makes the value that an app's start takes.
        let start = unsafe { module.start()(services::host(info)) };
        async move {
            match start.await {
                ROk(app) => {
                    let state = module.extension()(APP_EXTENSION_STATE);
                    // SAFETY: the number stands for this type, and what the app gives by it lives as long as the process.
                    let state = unsafe { state.cast::<FfiState>().as_ref() };
                    Ok(LoadedApp { module, app, state })
                }
                RErr(text) => Err(AppStartError::App(text.into())),
            }
        }
    }
}

impl LoadedApp {
    /// Calls the app for one request, with what it `offers` besides. Dropping the future tells the app that the client has
    /// gone.
    pub fn call<B>(
        &self,
        request: Request<B>,
        connection: Arc<Connection>,
        offers: Offers,
    ) -> impl Future<Output = Result<Response<AppBody>, AppResponseError>> + Send + use<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let request = request::into_ffi(request, connection, offers);
        // SAFETY: the app is the module's own, and takes over the request.
        let answer = unsafe { self.module.call()(self.app, request) };
        async move { response::decode(answer.await) }
    }

    /// Tells the app that the worker drains.
    pub fn drain(&self) {
        // SAFETY: the app is the module's own.
        unsafe { self.module.drain()(self.app) }
    }

    /// Stops the app, which isn't called any more after that.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        // SAFETY: the app is the module's own.
        unsafe { self.module.stop()(self.app) }
    }
}
