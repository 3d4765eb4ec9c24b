//! A request of a test's on its way to the app: what the host's `loader` does with one of a client's.

use crate::abi::{FfiConnection, FfiFrame, FfiHead, FfiRequest, FfiSizeHint, FfiSpan, RequestService};
use crate::{Body, ConnectionInfo, head};
use abi_stable::{prefix_type::WithMetadata, std_types::RStr};
use async_ffi::FfiContext;
use http::{Request, request::Parts};
use http_body::Body as _;
use std::{pin::Pin, ptr};

pub(super) const TABLE: &WithMetadata<RequestService> =
    &WithMetadata::new(RequestService { head, fill, connection, poll_frame, size_hint, extension, drop: drop_request });

/// What is behind a handle.
struct Held {
    parts: Parts,
    body: Body,
    connection: ConnectionInfo,
}

/// Makes a handle for the app, which drops it.
pub(super) fn hand_over(request: Request<Body>, connection: ConnectionInfo) -> FfiRequest {
    let (parts, body) = request.into_parts();
    FfiRequest(Box::into_raw(Box::new(Held { parts, body, connection })).cast())
}

/// # Safety
/// `request` is from `hand_over` and has not been dropped; no other borrow of it lives.
unsafe fn held<'a>(request: FfiRequest) -> &'a mut Held {
    // SAFETY: the caller's promise.
    unsafe { &mut *request.0.cast::<Held>() }
}

unsafe extern "C" fn head(request: FfiRequest, head: *mut FfiHead) {
    // SAFETY: the app owns the handle, and lends room for the head.
    unsafe {
        let Held { parts, body, .. } = held(request);
        head.write(head::describe(parts, body.is_end_stream()));
    }
}

unsafe extern "C" fn fill(request: FfiRequest, buffer: *mut u8, spans: *mut FfiSpan) {
    // SAFETY: the app owns the handle, and lends as much room as `head` has said.
    unsafe { head::fill(&held(request).parts, buffer, spans) }
}

unsafe extern "C" fn connection(request: FfiRequest, connection: *mut FfiConnection) {
    // SAFETY: the app owns the handle.
    let known = unsafe { held(request).connection };
    let value = FfiConnection {
        peer: known.peer.into(),
        local: known.local.into(),
        listener: RStr::from_str(known.listener),
        scheme: RStr::from_str(known.scheme),
    };
    // SAFETY: the app lends room for the struct.
    unsafe { connection.write(value) }
}

unsafe extern "C" fn poll_frame(request: FfiRequest, context: *mut FfiContext<'_>) -> FfiFrame {
    // SAFETY: the app owns the handle and lends the context for this call.
    unsafe {
        let body = &mut held(request).body;
        let polled = (*context).with_context(|context| Pin::new(body).poll_frame(context));
        polled.map(|frame| frame.map(|frame| frame.map_err(|error| error.to_string()))).into()
    }
}

unsafe extern "C" fn size_hint(request: FfiRequest) -> FfiSizeHint {
    // SAFETY: the app owns the handle.
    unsafe { held(request).body.size_hint() }.into()
}

unsafe extern "C" fn extension(_request: FfiRequest, _id: u32) -> *const () {
    ptr::null()
}

unsafe extern "C" fn drop_request(request: FfiRequest) {
    // SAFETY: the app owns the handle and gives it up.
    drop(unsafe { Box::from_raw(request.0.cast::<Held>()) });
}
