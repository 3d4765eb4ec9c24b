//! A request on its way to the app.
//!
//! Owns the handle that the app gets for a request, and the table of functions it works with. The
//! head is laid down at once, as the app will have it, and copied into a buffer of the app's when it
//! asks; the body is polled when the app asks.
//!
//! hyper's own head holds on to the buffer that it was read into. As long as it lives, hyper must read on
//! into a new one of 8 KiB, and it reads on before the app is first asked: so it ends here.

use super::upgrade::{self, Upgrade};
use abi_stable::{prefix_type::WithMetadata, std_types::RStr};
use app_abi::{
    abi::{EXTENSION_UPGRADE, FfiConnection, FfiFrame, FfiHead, FfiRequest, FfiSizeHint, FfiSpan, RequestService},
    head,
};
use async_ffi::FfiContext;
use bytes::Bytes;
use http::Request;
use http_body::{Body, SizeHint};
use std::{error::Error, pin::Pin, ptr, sync::Arc, task::Context};

pub use app_abi::Address;

/// What a connection knows of itself, shared by all its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The other end.
    pub peer: Address,
    /// This end.
    pub local: Address,
    /// The listener as the configuration names it.
    pub listener: &'static str,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// The table that every app works with.
pub(super) const TABLE: &WithMetadata<RequestService> =
    &WithMetadata::new(RequestService { head, fill, connection, poll_frame, size_hint, extension, drop: drop_request });

/// What is behind a handle: first what is the same for every kind of body, so that one table serves
/// all kinds.
#[repr(C)]
struct Held<B> {
    common: Common,
    body: B,
}

struct Common {
    head: Head,
    connection: Arc<Connection>,
    /// Until the app begins it. Boxed, because hardly any request has one.
    upgrade: Option<Box<Upgrade>>,
    kind: &'static Kind,
}

/// A head as the app gets it.
struct Head {
    known: FfiHead,
    /// Has no elements, only room: the spans of the headers, and behind them the texts.
    room: Vec<FfiSpan>,
}

impl Head {
    fn lay_down<B>(request: Request<B>) -> (Self, B)
    where
        B: Body,
    {
        let (parts, body) = request.into_parts();
        let known = head::describe(&parts, body.is_end_stream());
        let count = known.header_count as usize;
        let mut room = Vec::<FfiSpan>::with_capacity(count + known.text_len.div_ceil(size_of::<FfiSpan>()));
        let spans = room.as_mut_ptr();
        // SAFETY: there is room for `count` spans, and behind them for `text_len` bytes, as `fill` wants it.
        unsafe { head::fill(&parts, spans.add(count).cast(), spans) }
        (Self { known, room }, body)
    }

    /// Copies it to where the app wants it.
    ///
    /// # Safety
    /// `buffer` has room for `text_len` bytes, and `spans` for `header_count` spans.
    unsafe fn copy(&self, buffer: *mut u8, spans: *mut FfiSpan) {
        let (count, laid_down) = (self.known.header_count as usize, self.room.as_ptr());
        // SAFETY: `lay_down` has written as many spans, and as many bytes behind them; the caller's promise.
        unsafe {
            ptr::copy_nonoverlapping(laid_down, spans, count);
            ptr::copy_nonoverlapping(laid_down.add(count).cast(), buffer, self.known.text_len);
        }
    }
}

/// What depends on the kind of the body. Each function takes the handle.
struct Kind {
    poll_frame: unsafe fn(*mut (), &mut Context<'_>) -> FfiFrame,
    size_hint: unsafe fn(*mut ()) -> SizeHint,
    drop: unsafe fn(*mut ()),
}

/// Makes a handle for the app, which drops it.
pub(super) fn hand_over<B>(request: Request<B>, connection: Arc<Connection>, upgrade: Option<Upgrade>) -> FfiRequest
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (head, body) = Head::lay_down(request);
    let upgrade = upgrade.map(Box::new);
    let common = Common { head, connection, upgrade, kind: Held::<B>::KIND };
    FfiRequest(Box::into_raw(Box::new(Held { common, body })).cast())
}

impl<B> Held<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    const KIND: &'static Kind = &Kind {
        poll_frame: |handle, context| {
            // SAFETY: a handle of `Held<B>` names this kind only; the app makes one call at a time.
            let held = unsafe { &mut *handle.cast::<Self>() };
            let polled = Pin::new(&mut held.body).poll_frame(context);
            polled.map(|frame| frame.map(|frame| frame.map_err(|e| chain(&*e.into())))).into()
        },
        size_hint: |handle| {
            // SAFETY: as above.
            let held = unsafe { &*handle.cast::<Self>() };
            held.body.size_hint()
        },
        drop: |handle| {
            // SAFETY: as above, and the app drops a handle once.
            drop(unsafe { Box::from_raw(handle.cast::<Self>()) });
        },
    };
}

/// An error's text with those of its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The common part of what is behind a handle.
///
/// # Safety
/// `request` is from `hand_over` and has not been dropped.
unsafe fn common<'a>(request: FfiRequest) -> &'a Common {
    // SAFETY: the caller's promise; `Held` is `repr(C)` and starts with its common part.
    unsafe { &*request.0.cast::<Common>() }
}

/// What a request can be upgraded to.
///
/// # Safety
/// As for `common`; and no other call on the request runs while this is borrowed.
pub(super) unsafe fn upgrade<'a>(request: FfiRequest) -> &'a mut Option<Box<Upgrade>> {
    // SAFETY: the caller's promise; `Held` is `repr(C)` and starts with its common part.
    unsafe { &mut (*request.0.cast::<Common>()).upgrade }
}

unsafe extern "C" fn head(request: FfiRequest, head: *mut FfiHead) {
    // SAFETY: the app owns the handle, and lends room for the head.
    unsafe { head.write(common(request).head.known) }
}

unsafe extern "C" fn fill(request: FfiRequest, buffer: *mut u8, spans: *mut FfiSpan) {
    // SAFETY: the app owns the handle, and lends as much room as `head` has said.
    unsafe { common(request).head.copy(buffer, spans) }
}

unsafe extern "C" fn connection(request: FfiRequest, connection: *mut FfiConnection) {
    // SAFETY: the app owns the handle.
    let known = unsafe { &common(request).connection };
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
        let poll_frame = common(request).kind.poll_frame;
        (*context).with_context(|context| poll_frame(request.0, context))
    }
}

unsafe extern "C" fn size_hint(request: FfiRequest) -> FfiSizeHint {
    // SAFETY: the app owns the handle.
    unsafe { (common(request).kind.size_hint)(request.0) }.into()
}

unsafe extern "C" fn extension(request: FfiRequest, id: u32) -> *const () {
    match id {
        // SAFETY: the app owns the handle.
        EXTENSION_UPGRADE => upgrade::table(unsafe { common(request) }.upgrade.as_deref()),
        _ => ptr::null(),
    }
}

unsafe extern "C" fn drop_request(request: FfiRequest) {
    // SAFETY: the app owns the handle and gives it up.
    unsafe { (common(request).kind.drop)(request.0) }
}
