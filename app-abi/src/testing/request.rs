//! A request of a test's on its way to the app: what the host's `loader` does with one of a client's.

use crate::abi::{FfiConnection, FfiFrame, FfiHead, FfiRequest, FfiSizeHint, FfiSpan, RequestService};
use crate::{Body, ConnectionInfo, arena::SENSITIVE};
use abi_stable::{prefix_type::WithMetadata, std_types::RStr};
use async_ffi::FfiContext;
use http::{Request, Version, request::Parts};
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

/// The texts of a head that come before its headers. The method's code is always 0, so it is one.
fn texts(parts: &Parts) -> [&str; 4] {
    let uri = &parts.uri;
    [
        parts.method.as_str(),
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", |authority| authority.as_str()),
        uri.path_and_query().map_or("", |path| path.as_str()),
    ]
}

fn len(text: &[u8]) -> u32 {
    u32::try_from(text.len()).expect("a test's texts are shorter than 4 GiB")
}

unsafe extern "C" fn head(request: FfiRequest, head: *mut FfiHead) {
    // SAFETY: the app owns the handle.
    let Held { parts, body, .. } = unsafe { held(request) };
    let texts = texts(parts);
    let [method_len, scheme_len, authority_len, path_len] = texts.map(|text| len(text.as_bytes()));
    let headers: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let value = FfiHead {
        method: 0,
        version: match parts.version {
            Version::HTTP_09 => 9,
            Version::HTTP_10 => 10,
            Version::HTTP_2 => 20,
            Version::HTTP_3 => 30,
            _ => 11,
        },
        ended: body.is_end_stream(),
        method_len,
        scheme_len,
        authority_len,
        path_len,
        header_count: u32::try_from(parts.headers.len()).unwrap_or(u32::MAX),
        text_len: texts.iter().map(|text| text.len()).sum::<usize>() + headers,
    };
    // SAFETY: the app lends room for the head.
    unsafe { head.write(value) }
}

unsafe extern "C" fn fill(request: FfiRequest, buffer: *mut u8, spans: *mut FfiSpan) {
    // SAFETY: the app owns the handle.
    let parts = unsafe { &held(request).parts };
    let mut at = buffer;
    let mut put = |text: &[u8]| {
        // SAFETY: the app lends room for as many bytes as `head` said, which is what all texts together
        // have; they are put down once each.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), at, text.len());
            at = at.add(text.len());
        }
    };
    for text in texts(parts) {
        put(text.as_bytes());
    }
    for (index, (name, value)) in parts.headers.iter().enumerate() {
        let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
        let name = name.as_str().as_bytes();
        put(name);
        put(value.as_bytes());
        let span = FfiSpan { name_len: len(name), value_len: len(value.as_bytes()) | flag };
        // SAFETY: the app lends room for as many spans as there are headers.
        unsafe { spans.add(index).write(span) }
    }
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
