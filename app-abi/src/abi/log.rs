//! The host's log: events as text, and events with typed fields and spans.

use abi_stable::StableAbi;
use abi_stable::std_types::{RSlice, RStr};

/// The number of [`LogService`].
pub const SERVICE_LOG: u32 = 2;

/// The host's log. Levels: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = LogServiceRef)))]
#[sabi(missing_field(panic))]
pub struct LogService {
    pub enabled: extern "C" fn(level: u8) -> bool,
    #[sabi(last_prefix_field)]
    pub log: unsafe extern "C" fn(record: *const FfiRecord<'_>),
}

/// One event for the log.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiRecord<'a> {
    pub level: u8,
    /// Where in the app the event comes from; empty when it didn't say.
    pub target: RStr<'a>,
    pub message: RStr<'a>,
    pub fields: RSlice<'a, FfiField<'a>>,
}

/// One field of an event.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiField<'a> {
    pub key: RStr<'a>,
    pub value: RStr<'a>,
}

/// The number of [`TraceService`].
pub const SERVICE_TRACE: u32 = 5;

/// The host's log for events with typed fields and spans. Levels as in [`LogService`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = TraceServiceRef)))]
#[sabi(missing_field(panic))]
pub struct TraceService {
    /// The highest level that is written for any target; 0 when nothing is.
    pub max_level: unsafe extern "C" fn(data: *const ()) -> u8,
    /// Whether an event of this level and target would be written. The answer may be kept until
    /// `changed` is called.
    pub enabled: unsafe extern "C" fn(data: *const (), level: u8, target: RStr<'_>) -> bool,
    /// Has `changed` called, on any thread, after each change of what the two above answer.
    pub on_change: unsafe extern "C" fn(data: *const (), changed: FfiNotice),
    #[sabi(last_prefix_field)]
    pub event: unsafe extern "C" fn(data: *const (), event: *const FfiEvent<'_>),
}

/// A function of the app's that is called when something has changed.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiNotice {
    pub call: extern "C" fn(),
}

/// One event for the log, with everything around it.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiEvent<'a> {
    pub level: u8,
    /// Where in the app the event comes from.
    pub target: RStr<'a>,
    pub message: RStr<'a>,
    pub fields: RSlice<'a, FfiTraceField<'a>>,
    /// The spans that it is in, the outermost first.
    pub spans: RSlice<'a, FfiTraceSpan<'a>>,
}

/// A span around an event.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiTraceSpan<'a> {
    pub name: RStr<'a>,
    pub fields: RSlice<'a, FfiTraceField<'a>>,
}

/// One field of an event or of a span.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiTraceField<'a> {
    pub key: RStr<'a>,
    pub value: FfiTraceValue<'a>,
}

/// What a field says.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy)]
pub enum FfiTraceValue<'a> {
    Text(RStr<'a>),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
}
