//! What an app may ask of its host.
//!
//! Owns [`Host`] and its small types. How requests reach the app is left to `request`.
#![expect(unsafe_code, reason = "calls into the tables of the host")]

use crate::abi::{
    DatabankServiceRef, DispatchServiceRef, FfiHost, InfoServiceRef, ListenerServiceRef, LockServiceRef,
    RequestServiceRef, SERVICE_DATABANK, SERVICE_DISPATCH, SERVICE_INFO, SERVICE_LISTENER, SERVICE_LOCK,
    SERVICE_REQUEST, SERVICE_TRACE,
};
use crate::databank::Databank;
use crate::drain::{DrainNotice, Draining};
use crate::log::{Level, Log};
use abi_stable::prefix_type::{PrefixRef, PrefixRefTrait, WithMetadata_};
use serde::de::DeserializeOwned;
use std::fmt;

/// The host, as the app sees it. Cheap to clone; works on every thread, as long as the process lives.
#[derive(Clone, Copy)]
pub struct Host {
    pub(crate) ffi: FfiHost,
    info: InfoServiceRef,
    log: Log,
    pub(crate) requests: RequestServiceRef,
    databank: DatabankServiceRef,
    pub(crate) dispatch: DispatchServiceRef,
    pub(crate) listeners: ListenerServiceRef,
    pub(crate) locks: LockServiceRef,
    /// Lives as long as the app does, which is never freed.
    pub(crate) drain: &'static DrainNotice,
}

// SAFETY: by the rules of the line, the host's functions may be called on any thread and `data`
// lives as long as the process.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

/// Why `app.config` could not be read into the type that the app asked for.
#[derive(Debug, thiserror::Error)]
#[error("app.config{} is not as the app expects it", if key == "." { String::new() } else { format!(".{key}") })]
pub struct ConfigError {
    /// The key's path within `app.config`, `.` for the whole of it.
    pub key: String,
    /// What was wrong. It has no line or column: the host has put the text of `app.config` together.
    #[source]
    pub source: serde_json::Error,
}

impl Host {
    /// Takes up the host's services. The error names the service that the host lacks.
    pub(crate) fn connect(ffi: FfiHost) -> Result<Self, String> {
        let table = |id, name: &str| {
            // SAFETY: `ffi` is what the host handed over at the start.
            let table = unsafe { (ffi.service)(ffi.data, id, 0) };
            if table.is_null() { Err(format!("the host has no service `{name}`")) } else { Ok(table) }
        };
        let info = table(SERVICE_INFO, "info")?;
        let trace = table(SERVICE_TRACE, "trace")?;
        let requests = table(SERVICE_REQUEST, "request")?;
        let databank = table(SERVICE_DATABANK, "databank")?;
        let dispatch = table(SERVICE_DISPATCH, "dispatch")?;
        let listeners = table(SERVICE_LISTENER, "listener")?;
        let locks = table(SERVICE_LOCK, "lock")?;
        // SAFETY: a service's number stands for its table's type, tables are static, and the host
        // has checked their layouts against those that this library asks for.
        unsafe {
            Ok(Self {
                ffi,
                info: table_ref(info),
                log: Log { data: ffi.data, table: table_ref(trace) },
                requests: table_ref(requests),
                databank: table_ref(databank),
                dispatch: table_ref(dispatch),
                listeners: table_ref(listeners),
                locks: table_ref(locks),
                drain: Box::leak(Box::default()),
            })
        }
    }

    /// The document store that all workers share.
    #[must_use]
    pub fn databank(&self) -> Databank {
        Databank { data: self.ffi.data, table: self.databank }
    }

    /// Ends when the worker begins to drain: no new connection comes, the last requests are being
    /// finished. The place to end what would otherwise go on: a stream of events, a WebSocket, a loop
    /// that accepts. It comes before [`App::drain`](crate::App::drain) is called, and as long as a
    /// blocked app holds the worker's first serving thread it doesn't come.
    ///
    /// Wait for it anywhere, on any thread, as often as you like:
    ///
    /// ```
    /// use app_abi::Host;
    ///
    /// async fn farewell(host: Host) {
    ///     host.draining().await;
    ///     println!("until soon, in generation {}", host.generation() + 1);
    /// }
    /// ```
    pub const fn draining(&self) -> Draining {
        self.drain.wait()
    }

    /// Whether the worker drains, see [`Self::draining`].
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_given()
    }

    /// Reads `app.config` into a type of the app's.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let config: serde_json::Value =
            serde_json::from_str(self.config_json()).map_err(|source| ConfigError { key: ".".to_owned(), source })?;
        serde_path_to_error::deserialize(config)
            .map_err(|error| ConfigError { key: error.path().to_string(), source: error.into_inner() })
    }

    /// `app.config` as it is: JSON text.
    #[must_use]
    pub fn config_json(&self) -> &str {
        // SAFETY: `data` is what the host handed over together with its services.
        unsafe { (self.info.config())(self.ffi.data) }.as_str()
    }

    /// The worker's seat, from 0.
    #[must_use]
    pub fn slot(&self) -> u16 {
        // SAFETY: as in `config_json`.
        unsafe { (self.info.slot())(self.ffi.data) }
    }

    /// The generation that this worker belongs to, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // SAFETY: as in `config_json`.
        unsafe { (self.info.generation())(self.ffi.data) }
    }

    /// The process id of the worker.
    #[must_use]
    pub fn worker_pid(&self) -> u32 {
        // SAFETY: as in `config_json`.
        unsafe { (self.info.worker_pid())(self.ffi.data) }
    }

    /// Whether a line of this level would be written: ask before you make an expensive one.
    #[must_use]
    pub fn log_enabled(&self, level: Level) -> bool {
        self.log.enabled(level)
    }

    /// Writes a line to the host's log.
    pub fn log(&self, level: Level, message: &str) {
        self.log.write(level, message, &[]);
    }

    /// Writes a line to the host's log, with fields. Keep the message constant and put what varies
    /// into the fields: then lines can be counted.
    pub fn log_with(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.log.write(level, message, fields);
    }

    pub(crate) fn log_service(&self) -> Log {
        self.log
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("slot", &self.slot())
            .field("generation", &self.generation())
            .field("worker_pid", &self.worker_pid())
            .finish_non_exhaustive()
    }
}

/// The table behind a pointer.
///
/// # Safety
/// `table` is a static table of the type that `R` refers to.
unsafe fn table_ref<R: PrefixRefTrait>(table: *const ()) -> R {
    let table = table.cast::<WithMetadata_<R::PrefixFields, R::PrefixFields>>();
    // SAFETY: the caller's promise.
    R::from_prefix_ref(unsafe { PrefixRef::from_raw(table) })
}
