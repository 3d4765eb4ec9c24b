//! The host's log, as this library reaches it.
//!
//! Owns the way of a line across the line of the ABI, and which host the lines of this library go to:
//! the one that it was started with. What is logged is for others: [`Host`](crate::Host)'s functions,
//! `panics`, and the feature `tracing`.
#![expect(unsafe_code, reason = "calls into the table of the host")]

#[cfg(feature = "tracing")]
use crate::abi::FfiNotice;
use crate::abi::{FfiEvent, FfiTraceField, FfiTraceValue, TraceServiceRef};
use abi_stable::std_types::{RSlice, RStr};
use std::sync::OnceLock;

/// How urgent a line in the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Somebody must act.
    Error = 1,
    /// Something is degraded.
    Warn = 2,
    /// Part of the normal course of things.
    Info = 3,
    /// For whoever looks for a fault.
    Debug = 4,
    /// Every step.
    Trace = 5,
}

/// What the lines of [`Host::log`](crate::Host::log) have as their target.
const TARGET: &str = "app";

/// The log of a host.
#[derive(Clone, Copy)]
pub(crate) struct Log {
    pub(crate) data: *const (),
    pub(crate) table: TraceServiceRef,
}

// SAFETY: by the rules of the line, the host's functions may be called on any thread and `data`
// lives as long as the process.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl Log {
    pub(crate) fn enabled(self, level: Level) -> bool {
        self.enabled_for(level, TARGET)
    }

    pub(crate) fn enabled_for(self, level: Level, target: &str) -> bool {
        // SAFETY: `data` came together with the table.
        unsafe { (self.table.enabled())(self.data, level as u8, RStr::from_str(target)) }
    }

    /// The highest level that is written for any target; 0 when nothing is.
    #[cfg(feature = "tracing")]
    pub(crate) fn max_level(self) -> u8 {
        // SAFETY: as in `enabled_for`.
        unsafe { (self.table.max_level())(self.data) }
    }

    /// Has `changed` called after each change of what is enabled.
    #[cfg(feature = "tracing")]
    pub(crate) fn on_change(self, changed: extern "C" fn()) {
        // SAFETY: as in `enabled_for`.
        unsafe { (self.table.on_change())(self.data, FfiNotice { call: changed }) }
    }

    /// Writes a line whose fields are texts, if its level is enabled.
    pub(crate) fn write(self, level: Level, message: &str, fields: &[(&str, &str)]) {
        if !self.enabled(level) {
            return;
        }
        let fields: Vec<_> =
            fields.iter().map(|(key, value)| (*key, FfiTraceValue::Text(RStr::from_str(value)))).collect();
        self.write_values(level, message, &fields);
    }

    /// Writes a line, if its level is enabled.
    pub(crate) fn write_values(self, level: Level, message: &str, fields: &[(&str, FfiTraceValue<'_>)]) {
        if !self.enabled(level) {
            return;
        }
        let fields: Vec<_> =
            fields.iter().map(|(key, value)| FfiTraceField { key: RStr::from_str(key), value: *value }).collect();
        self.event(&FfiEvent {
            level: level as u8,
            target: RStr::from_str(TARGET),
            message: RStr::from_str(message),
            fields: fields.as_slice().into(),
            spans: RSlice::EMPTY,
        });
    }

    pub(crate) fn event(self, event: &FfiEvent<'_>) {
        // SAFETY: the event and what it borrows live until the call returns, which is all that the
        // host may use it for.
        unsafe { (self.table.event())(self.data, std::ptr::from_ref(event)) }
    }
}

#[cfg(feature = "testing")]
thread_local! {
    /// The log of the app that this thread runs at the moment: a test has several.
    static WITHIN: std::cell::Cell<Option<Log>> = const { std::cell::Cell::new(None) };
}

/// Runs `body` with the lines of this library going to `log`.
#[cfg(feature = "testing")]
pub(crate) fn within<T>(log: Log, body: impl FnOnce() -> T) -> T {
    struct Back(Option<Log>);
    impl Drop for Back {
        fn drop(&mut self) {
            WITHIN.set(self.0);
        }
    }
    let _back = Back(WITHIN.replace(Some(log)));
    body()
}

static STARTED_WITH: OnceLock<Log> = OnceLock::new();

/// Makes `log` the one of this library, if it is the first.
pub(crate) fn install(log: Log) {
    let _ = STARTED_WITH.set(log);
}

/// The log of this library: none before its start.
pub(crate) fn current() -> Option<Log> {
    #[cfg(feature = "testing")]
    if let Some(log) = WITHIN.get() {
        return Some(log);
    }
    STARTED_WITH.get().copied()
}
