//! Connections that go on with another protocol: WebSockets, CONNECT and their like.
//!
//! Owns the app's end of such a connection: a stream of bytes in both directions, read from and
//! written to the client's connection without a buffer in between. What is spoken on it is the app's.
#![expect(unsafe_code, reason = "calls into the host's table")]

use crate::abi::{FfiIo, FfiIoError, FfiMoved};
use abi_stable::std_types::{RErr, ROk, RResult, RString};
use async_ffi::{ContextExt, FfiContext, FfiFuture};
use http::{HeaderName, HeaderValue, Response};
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

/// A connection that will be the app's, once the client has been sent the answer that allows it: 101,
/// or 2xx to CONNECT. From [`RequestExt::upgrade`](crate::RequestExt::upgrade).
///
/// It doesn't come before the app's [`call`](crate::App::call) has returned that answer, so it is for a
/// task or a thread of the app's own to wait for it.
#[must_use = "nothing is upgraded unless this is awaited"]
pub struct Upgrade {
    begun: FfiFuture<RResult<FfiIo, RString>>,
    protocol: Option<Box<str>>,
}

/// The field by which a response says what [`resumable`] says. Of one that grants an upgrade, or whose length isn't known, it
/// never reaches the client.
pub const RESUMABLE: HeaderName = HeaderName::from_static("app-host-resumable");

/// Lets the WebSocket that this response grants, or the event stream that it is, outlive its worker: its client stays
/// connected over restarts.
///
/// In a restart the client's request is asked of the new version once more, which answers it as any other; what it answers
/// isn't sent, and what follows it is: the client sees nothing. [`EarlyHints`](crate::EarlyHints) there are none the second
/// time.
///
/// # WebSockets
/// The handler finds the end of its stream where a message has ended in both directions, as if the client had gone without a
/// word, and returns; so does what it has begun beside itself, a writer for one. Answer each message before the next is asked
/// for: behind the end axum's `WebSocket` sends nothing more ([`Upgraded`] does). The handler that the new version begins has
/// the connection from the next message on. No message is lost, doubled or out of order; what the handler knew is gone, but for
/// what it has [saved](crate::Resume), up to 64 KiB.
///
/// Where no other worker goes on, because the service ends, the client is told 1001 (going away) when the handler returns.
/// What can't go on so ends as without this word: where the handler doesn't return, or has begun to close; where an extension
/// was agreed on (`permessage-deflate`); over HTTP/2. If the new version doesn't grant the request, the client is told 1012
/// (service restart).
///
/// # Event streams
/// A response of status 200 and type `text/event-stream` ([WHATWG HTML, section 9.2]), whose body has no length that is known. It
/// is dropped between two events, at the end of a frame, and the new version is told in `Last-Event-ID` which event the client
/// has had last, if events have an `id`: begin behind that one. Its response must be an event stream as well; headers may differ.
///
/// The client must have asked so that it can be asked again: by GET, without a body, over HTTP/1.1, and with
/// `text/event-stream` in its `Accept`, as browsers do. Any other stream with this word, and one that the new version doesn't go
/// on with, ends there: an `EventSource` comes back by itself. Only a stream whose frames don't end with events, or which stops
/// within one, holds a restart up.
///
/// ```
/// use app_abi::{Body, Response, resumable};
///
/// # fn answer(granted: Response<Body>) -> Response<Body> {
/// // `granted` is what axum's `WebSocketUpgrade::on_upgrade` returns, its `Sse` as a response, or one of one's own.
/// resumable(granted)
/// # }
/// ```
///
/// [WHATWG HTML, section 9.2]: https://html.spec.whatwg.org/multipage/server-sent-events.html
#[must_use]
pub fn resumable<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(RESUMABLE, HeaderValue::from_static("1"));
    response
}

/// Why a connection did not become the app's: the app gave another answer than 101, or than 2xx to
/// CONNECT, or the client has gone.
#[derive(Debug, thiserror::Error)]
#[error("the connection was not upgraded: {reason}")]
pub struct UpgradeError {
    reason: String,
}

/// A connection that is the app's: bytes in both directions.
///
/// Its request counts as in flight until it is dropped. While the worker drains it lives on; shortly
/// before the shutdown timeout the host cuts it, which shows as an error of kind
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), and counts it as cut. Dropping it sends what
/// was written and ends the connection.
///
/// With feature `tokio` it implements tokio's `AsyncRead` and `AsyncWrite`. Reading and writing may be
/// waited for by two tasks.
pub struct Upgraded {
    io: FfiIo,
}

// SAFETY: by the rules of the line a stream is used by its one owner, on any thread.
unsafe impl Send for FfiIo {}
// SAFETY: nothing can be done with a shared one.
unsafe impl Sync for FfiIo {}

impl Drop for FfiIo {
    fn drop(&mut self) {
        // SAFETY: the stream owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}

impl Upgrade {
    pub(crate) fn new(begun: FfiFuture<RResult<FfiIo, RString>>, protocol: &str) -> Self {
        Self { begun, protocol: (!protocol.is_empty()).then(|| protocol.into()) }
    }

    /// What the client wants to speak, where HTTP/2 says so (`:protocol`, RFC 8441): `websocket`.
    /// In HTTP/1.1 the header `upgrade` says it.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }
}

impl Future for Upgrade {
    type Output = Result<Upgraded, UpgradeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.begun).poll(context).map(|begun| match begun {
            ROk(io) => Ok(Upgraded { io }),
            RErr(reason) => Err(UpgradeError { reason: reason.into() }),
        })
    }
}

impl Upgraded {
    /// Reads what is there, at most `buffer.len()` bytes; 0 at the end of the stream.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        // SAFETY: the slice is writable and borrowed for the call.
        unsafe { self.poll_read_raw(context, buffer.as_mut_ptr(), buffer.len()) }
    }

    /// Writes as much as the connection takes.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll_write = self.io.vtable.poll_write;
        // SAFETY: the bytes are borrowed for the call, and the stream is for this one call.
        self.call(context, |state, context| unsafe { poll_write(state, context, bytes.as_ptr(), bytes.len()) })
    }

    /// Sends what was written and not yet sent.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll_flush = self.io.vtable.poll_flush;
        // SAFETY: the stream is borrowed for this one call.
        self.call(context, |state, context| unsafe { poll_flush(state, context) }).map_ok(drop)
    }

    /// Ends the direction to the client, who can go on sending.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll_shutdown = self.io.vtable.poll_shutdown;
        // SAFETY: the stream is borrowed for this one call.
        self.call(context, |state, context| unsafe { poll_shutdown(state, context) }).map_ok(drop)
    }

    /// As [`Self::poll_read`], into memory that need not be initialized.
    ///
    /// # Safety
    /// `buffer` has room for `len` bytes.
    pub(crate) unsafe fn poll_read_raw(
        &mut self,
        context: &mut Context<'_>,
        buffer: *mut u8,
        len: usize,
    ) -> Poll<io::Result<usize>> {
        let poll_read = self.io.vtable.poll_read;
        // SAFETY: the caller's promise; the stream is borrowed for this one call.
        self.call(context, |state, context| unsafe { poll_read(state, context, buffer, len) }).map_ok(|read| {
            // More than there was room for would make others rely on memory that nobody wrote.
            read.min(len)
        })
    }

    fn call(
        &mut self,
        context: &mut Context<'_>,
        call: impl FnOnce(*mut (), *mut FfiContext<'_>) -> FfiMoved,
    ) -> Poll<io::Result<usize>> {
        let state = self.io.state;
        match context.with_ffi_context(|context| call(state, context)) {
            FfiMoved::Pending => Poll::Pending,
            FfiMoved::Done(bytes) => Poll::Ready(Ok(bytes)),
            FfiMoved::Error(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl From<FfiIoError> for io::Error {
    fn from(error: FfiIoError) -> Self {
        match error.code {
            0 => Self::other(String::from(error.text)),
            code => Self::from_raw_os_error(code),
        }
    }
}

impl From<io::Error> for FfiIoError {
    fn from(error: io::Error) -> Self {
        Self { code: error.raw_os_error().unwrap_or(0), text: error.to_string().into() }
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgraded")
    }
}

#[cfg(feature = "tokio")]
impl tokio::io::AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: the room is the buffer's own, and only what the call has filled is made part of it.
        unsafe {
            let room = buffer.unfilled_mut();
            let (pointer, len) = (room.as_mut_ptr().cast(), room.len());
            self.poll_read_raw(context, pointer, len).map_ok(|read| {
                buffer.assume_init(read);
                buffer.advance(read);
            })
        }
    }
}

#[cfg(feature = "tokio")]
impl tokio::io::AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(&mut self, context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(&mut self, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(&mut self, context)
    }
}
