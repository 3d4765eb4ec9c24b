//! The service `trace` of the ABI, an app's log: its table, and the values that cross it.
//!
//! Owns the conversion to [`AppEvent`]. Where events go, and which ones, is for [`AppLog`]: `tracing` needs the names of
//! fields at compile time, so an app's events can't be events of the host's.

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RSlice, RStr};
use app_abi::abi::{FfiEvent, FfiNotice, FfiTraceField, FfiTraceValue, TraceService};
use tracing::Level;

use app_host_platform::logging::{AppEvent, AppField, AppLog, AppValue};

use super::services::info;

pub(super) const TABLE: &WithMetadata<TraceService> =
    &WithMetadata::new(TraceService { max_level, enabled, on_change, event });

const fn level(number: u8) -> Level {
    match number {
        0 | 1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

const fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// The log of the worker.
///
/// # Safety
/// `data` is what the app got at its start.
unsafe fn log(data: *const ()) -> &'static dyn AppLog {
    // SAFETY: the caller guarantees it.
    unsafe { &*info(data).log }
}

unsafe extern "C" fn max_level(data: *const ()) -> u8 {
    // SAFETY: the app passes the `data` that it got; so in each function below.
    number(unsafe { log(data) }.max_level())
}

unsafe extern "C" fn enabled(data: *const (), number: u8, target: RStr<'_>) -> bool {
    // SAFETY: see `max_level`.
    unsafe { log(data) }.enabled(level(number), target.as_str())
}

unsafe extern "C" fn on_change(data: *const (), changed: FfiNotice) {
    // SAFETY: see `max_level`.
    unsafe { log(data) }.on_change(Box::new(move || (changed.call)()));
}

unsafe extern "C" fn event(data: *const (), event: *const FfiEvent<'_>) {
    // SAFETY: the app lends the event for this call.
    let event = unsafe { &*event };
    let spans = event.spans.as_slice();
    // SAFETY: see `max_level`.
    unsafe { log(data) }.write(&AppEvent {
        level: level(event.level),
        target: event.target.as_str(),
        message: event.message.as_str(),
        fields: fields(event.fields),
        spans: spans.iter().map(|span| (span.name.as_str(), fields(span.fields))).collect(),
    });
}

fn fields<'a>(fields: RSlice<'a, FfiTraceField<'a>>) -> Vec<AppField<'a>> {
    let value = |field: &FfiTraceField<'a>| match field.value {
        FfiTraceValue::Text(text) => AppValue::Text(text.as_str()),
        FfiTraceValue::Int(number) => AppValue::Int(number),
        FfiTraceValue::Uint(number) => AppValue::Uint(number),
        FfiTraceValue::Float(number) => AppValue::Float(number),
        FfiTraceValue::Bool(truth) => AppValue::Bool(truth),
    };
    fields.as_slice().iter().map(|field| (field.key.as_str(), value(field))).collect()
}
