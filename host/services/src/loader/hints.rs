//! Early hints, as the app sends them.
//!
//! Owns the host's end of an [`FfiHintSender`]: what of the app's fields is passed on.

use std::ptr;
use std::sync::Arc;

use abi_stable::std_types::RSlice;
use app_abi::abi::{FfiEarlyHints, FfiHint, FfiHintSender, FfiHintSenderVtable, FfiRequest};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};

/// Where early hints go: a connection, which may have had other requests before, and may have others later, or a stream.
pub trait HintSink: Send + Sync {
    /// Sends them for the request with this number, unless it is too late. Returns whether they are on their way.
    fn send(&self, request: u64, fields: &HeaderMap) -> bool;
}

/// The way to send early hints for one request.
#[derive(Clone)]
pub struct Hints {
    sink: Arc<dyn HintSink>,
    request: u64,
}

impl Hints {
    /// Those of the request that has this number on its connection.
    pub fn new(sink: Arc<dyn HintSink>, request: u64) -> Self {
        Self { sink, request }
    }
}

/// The table by which an app asks for the way.
static TABLE: FfiEarlyHints = FfiEarlyHints { sender };

static SENDER: FfiHintSenderVtable = FfiHintSenderVtable { send, drop: drop_sender };

unsafe extern "C" fn sender(request: FfiRequest) -> FfiHintSender {
    // SAFETY: the app owns the handle.
    let hints: Option<Hints> = unsafe { super::request::hints(request) }.cloned();
    FfiHintSender { state: Box::into_raw(Box::new(hints)).cast(), vtable: &SENDER }
}

unsafe extern "C" fn send(state: *const (), fields: RSlice<'_, FfiHint<'_>>) -> bool {
    // SAFETY: `sender` made the box, and the app has not dropped it.
    let Some(hints) = (unsafe { &*state.cast::<Option<Hints>>() }) else { return false };
    let fields = passed_on(&fields);
    !fields.is_empty() && hints.sink.send(hints.request, &fields)
}

unsafe extern "C" fn drop_sender(state: *mut ()) {
    // SAFETY: the app drops a sender once; `sender` made the box.
    drop(unsafe { Box::from_raw(state.cast::<Option<Hints>>()) });
}

/// The fields that are passed on: those that say nothing of the message or the connection (RFC 9110, sections 6.4.1, 7.6.1).
fn passed_on(fields: &[FfiHint<'_>]) -> HeaderMap {
    let withheld = [CONNECTION, CONTENT_LENGTH, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let field = |field: &FfiHint<'_>| {
        let name = HeaderName::from_bytes(field.name.as_str().as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value.as_slice()).ok()?;
        (!withheld.contains(&name) && name != "keep-alive" && name != "proxy-connection").then_some((name, value))
    };
    // One name may have several fields: `extend` by names appends.
    let mut passed = HeaderMap::new();
    passed.extend(fields.iter().filter_map(field));
    passed
}

/// The table as the app gets it: null if nothing can be sent before the response.
pub(super) fn table(hints: Option<&Hints>) -> *const () {
    hints.map_or(ptr::null(), |_| ptr::from_ref(&TABLE).cast())
}
