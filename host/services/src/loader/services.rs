//! The services that the host offers to an app, with their tables.
//!
//! Owns the list of services with their minor versions, and the tables `info` and `log`. The others are in the files of
//! their names; `trace` is in `log`. The service `log` is for apps that were built before there was `trace`.

use std::ptr;

use abi_stable::StableAbi;
use abi_stable::prefix_type::{PrefixRef, WithMetadata};
use abi_stable::std_types::RStr;
use abi_stable::type_layout::TypeLayout;
use app_abi::abi::{
    DatabankServiceRef, DispatchServiceRef, FfiHost, FfiRecord, InfoService, InfoServiceRef, ListenerServiceRef,
    LockServiceRef, LogService, LogServiceRef, RequestServiceRef, SERVICE_DATABANK, SERVICE_DISPATCH, SERVICE_INFO,
    SERVICE_LISTENER, SERVICE_LOCK, SERVICE_LOG, SERVICE_REQUEST, SERVICE_TRACE, TraceServiceRef,
};
use tracing::Level;

use super::app::HostInfo;
use super::{databank, dispatch, listener, lock, log as trace, request};

/// A service that this host offers.
pub(super) struct Offered {
    id: u32,
    minor: u32,
    /// The layout of its table.
    pub(super) layout: &'static TypeLayout,
    table: fn() -> *const (),
}

const OFFERED: &[Offered] = &[
    Offered {
        id: SERVICE_INFO,
        minor: 0,
        layout: <InfoServiceRef as StableAbi>::LAYOUT,
        table: || erase(INFO.static_as_prefix()),
    },
    Offered {
        id: SERVICE_LOG,
        minor: 0,
        layout: <LogServiceRef as StableAbi>::LAYOUT,
        table: || erase(LOG.static_as_prefix()),
    },
    Offered {
        id: SERVICE_REQUEST,
        minor: 0,
        layout: <RequestServiceRef as StableAbi>::LAYOUT,
        table: || erase(request::TABLE.static_as_prefix()),
    },
    Offered {
        id: SERVICE_DATABANK,
        minor: 0,
        layout: <DatabankServiceRef as StableAbi>::LAYOUT,
        table: || erase(databank::TABLE.static_as_prefix()),
    },
    Offered {
        id: SERVICE_DISPATCH,
        minor: 0,
        layout: <DispatchServiceRef as StableAbi>::LAYOUT,
        table: || erase(dispatch::TABLE.static_as_prefix()),
    },
    Offered {
        id: SERVICE_LISTENER,
        minor: 0,
        layout: <ListenerServiceRef as StableAbi>::LAYOUT,
        table: || erase(listener::TABLE.static_as_prefix()),
    },
    Offered {
        id: SERVICE_LOCK,
        minor: 0,
        layout: <LockServiceRef as StableAbi>::LAYOUT,
        table: || erase(lock::TABLE.static_as_prefix()),
    },
    Offered {
        id: SERVICE_TRACE,
        minor: 0,
        layout: <TraceServiceRef as StableAbi>::LAYOUT,
        table: || erase(trace::TABLE.static_as_prefix()),
    },
];

const INFO: &WithMetadata<InfoService> = &WithMetadata::new(InfoService { config, slot, generation, worker_pid });

const LOG: &WithMetadata<LogService> = &WithMetadata::new(LogService { enabled, log });

fn erase<P>(table: PrefixRef<P>) -> *const () {
    table.to_raw_ptr().cast()
}

/// The service with this number, in this minor version or a later one.
pub(super) fn offered(id: u32, min_minor: u32) -> Option<&'static Offered> {
    OFFERED.iter().find(|offered| offered.id == id && offered.minor >= min_minor)
}

/// What an app gets at its start. It lives as long as the process.
pub(super) fn host(info: HostInfo) -> FfiHost {
    FfiHost { data: ptr::from_ref::<HostInfo>(Box::leak(Box::new(info))).cast(), service }
}

unsafe extern "C" fn service(_data: *const (), id: u32, min_minor: u32) -> *const () {
    offered(id, min_minor).map_or(ptr::null(), |offered| (offered.table)())
}

/// The info that the app was started with.
///
/// # Safety
/// `data` is from `host`.
pub(super) unsafe fn info(data: *const ()) -> &'static HostInfo {
    // SAFETY: the caller guarantees it; what `host` leaks lives as long as the process.
    unsafe { &*data.cast::<HostInfo>() }
}

unsafe extern "C" fn config(data: *const ()) -> RStr<'static> {
    // SAFETY: the app passes the `data` that it got.
    RStr::from_str(unsafe { &info(data).config })
}

unsafe extern "C" fn slot(data: *const ()) -> u16 {
    // SAFETY: the app passes the `data` that it got.
    unsafe { info(data).slot }
}

unsafe extern "C" fn generation(data: *const ()) -> u64 {
    // SAFETY: the app passes the `data` that it got.
    unsafe { info(data).generation }
}

unsafe extern "C" fn worker_pid(data: *const ()) -> u32 {
    // SAFETY: the app passes the `data` that it got.
    unsafe { info(data).pid }
}

extern "C" fn enabled(level: u8) -> bool {
    match level {
        1 => tracing::enabled!(target: "app", Level::ERROR),
        2 => tracing::enabled!(target: "app", Level::WARN),
        3 => tracing::enabled!(target: "app", Level::INFO),
        4 => tracing::enabled!(target: "app", Level::DEBUG),
        _ => tracing::enabled!(target: "app", Level::TRACE),
    }
}

unsafe extern "C" fn log(record: *const FfiRecord<'_>) {
    // SAFETY: the app lends the record for this call.
    let record = unsafe { &*record };
    let message = record.message.as_str();
    let fields = fields_json(record);
    let fields = fields.as_deref();
    let from = Some(record.target.as_str()).filter(|target| !target.is_empty());
    match record.level {
        1 => tracing::error!(target: "app", fields, from, "{message}"),
        2 => tracing::warn!(target: "app", fields, from, "{message}"),
        3 => tracing::info!(target: "app", fields, from, "{message}"),
        4 => tracing::debug!(target: "app", fields, from, "{message}"),
        _ => tracing::trace!(target: "app", fields, from, "{message}"),
    }
}

/// The fields as a JSON object: their names are the app's, and `tracing` needs names at compile time.
fn fields_json(record: &FfiRecord<'_>) -> Option<String> {
    let fields = record.fields.as_slice();
    let pair = |text: RStr<'_>| serde_json::Value::from(text.as_str());
    let object: serde_json::Map<_, _> = fields.iter().map(|field| (field.key.to_string(), pair(field.value))).collect();
    (!object.is_empty()).then(|| serde_json::Value::from(object).to_string())
}
