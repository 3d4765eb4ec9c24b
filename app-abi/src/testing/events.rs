//! What an app logs in a test.

use super::{TestWorker, lock};
use crate::Level;
use crate::abi::{FfiEvent, FfiNotice, FfiTraceField, FfiTraceValue, TraceService};
use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RSlice, RStr},
};
use serde_json::{Value, json};
use std::{collections::VecDeque, sync::Mutex};

/// How many are kept.
const MOST: usize = 10_000;

/// One line that an app has logged.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEvent {
    /// How urgent it is.
    pub level: Level,
    /// Where it comes from; `app` for those of [`Host::log`](crate::Host::log).
    pub target: String,
    /// What it says.
    pub message: String,
    /// Its fields.
    pub fields: LogFields,
    /// The names and fields of the spans that it is in, the outermost first.
    pub spans: Vec<(String, LogFields)>,
}

/// The fields of an event or a span, in their order: texts, numbers and truth values.
pub type LogFields = Vec<(String, Value)>;

impl LogEvent {
    /// The value of its field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

#[derive(Default)]
pub(super) struct Events(Mutex<VecDeque<LogEvent>>);

impl Events {
    pub(super) const TABLE: &'static WithMetadata<TraceService> =
        &WithMetadata::new(TraceService { max_level, enabled, on_change, event });

    pub(super) fn all(&self) -> Vec<LogEvent> {
        lock(&self.0).iter().cloned().collect()
    }
}

unsafe extern "C" fn max_level(_data: *const ()) -> u8 {
    Level::Trace as u8
}

unsafe extern "C" fn enabled(_data: *const (), _level: u8, _target: RStr<'_>) -> bool {
    true
}

/// It never changes.
unsafe extern "C" fn on_change(_data: *const (), _changed: FfiNotice) {}

unsafe extern "C" fn event(data: *const (), event: *const FfiEvent<'_>) {
    // SAFETY: the app passes what it was handed, and lends the event for this call.
    let (place, event) = unsafe { (TestWorker::of(data), &*event) };
    let spans = event.spans.as_slice();
    let event = LogEvent {
        level: match event.level {
            1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            4 => Level::Debug,
            _ => Level::Trace,
        },
        target: event.target.to_string(),
        message: event.message.to_string(),
        fields: fields(event.fields),
        spans: spans.iter().map(|span| (span.name.to_string(), fields(span.fields))).collect(),
    };
    let mut events = lock(&place.events.0);
    if events.len() == MOST {
        events.pop_front();
    }
    events.push_back(event);
}

fn fields(fields: RSlice<'_, FfiTraceField<'_>>) -> LogFields {
    let value = |value: &FfiTraceValue<'_>| match value {
        FfiTraceValue::Text(text) => json!(text.as_str()),
        FfiTraceValue::Int(number) => json!(number),
        FfiTraceValue::Uint(number) => json!(number),
        FfiTraceValue::Float(number) if number.is_finite() => json!(number),
        FfiTraceValue::Float(number) => json!(number.to_string()),
        FfiTraceValue::Bool(truth) => json!(truth),
    };
    fields.as_slice().iter().map(|field| (field.key.to_string(), value(&field.value))).collect()
}
