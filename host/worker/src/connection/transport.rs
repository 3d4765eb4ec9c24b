//! The transport that hyper, or h2, reads and writes.
//!
//! Owns what lies between a socket and hyper: bytes that were read before hyper are read first, and the close lingers.
//! Tells the connection's [state](super::state) what goes in and out, and obeys it: the state decides whether a read is
//! made, and what a shutdown does.
//!
//! A lingering close sends the end of the stream and then goes on reading for a little: a socket that is closed with
//! unread bytes in it is reset, and a reset takes the response away from a client that hasn't read it yet (RFC 9112,
//! section 9.6).
//!
//! A connection that leaves for another worker is taken from hyper by hyper's own rules: between two requests, with every
//! response flushed, a read reports the end of the stream, hyper ends, and its shutdown leaves the transport as it is.
//! What hyper had read of a further request comes back with it. One that leaves in the midst of an
//! [event stream](super::event_stream) is taken when all that hyper had of it has gone out.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use app_host_core::not_resumed::LongLived;

use super::interim;
use super::shared::Shared;
use super::state::{ConnState, Found, REST, Read, Shutdown};

/// How long a lingering close reads.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// How many bytes it reads: all of an upload that an app has refused may be on its way.
const CLOSE_BYTES: usize = 1024 * 1024;

/// Up to how many bytes are copied into one piece, because the kernel takes one piece with less effort than several: the
/// head and the body of a small response.
const JOINED_BYTES: usize = 1024;

/// A transport under hyper, with bytes to read before it.
pub(super) struct Transport<T> {
    inner: T,
    /// What was read before, and is read first.
    rewind: Bytes,
    shared: Arc<Shared>,
    /// The rest of what the app sends before a response.
    interim: Bytes,
    /// Whether this side has been ended.
    shut: bool,
    closing: Option<Closing>,
    output: Output,
    /// Until then nothing is read of a client that floods.
    rest: Option<Pin<Box<Sleep>>>,
}

/// What a [`Transport`] was made of.
pub(super) struct Parts<T> {
    pub(super) transport: T,
    /// What was read before, and hyper has not read.
    pub(super) rewind: Bytes,
    /// Whether the client has had the answer that is still to be made.
    pub(super) swallows: bool,
}

/// What becomes of what HTTP writes.
enum Output {
    Sent,
    /// The client has had the head of this answer from another worker. So much has come of the empty line that ends it.
    Swallowed {
        matched: usize,
    },
    /// The client has had another answer than this one.
    Refused,
}

/// What ends a head.
const HEAD_END: &[u8; 4] = b"\r\n\r\n";

struct Closing {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<T> Transport<T> {
    pub(super) const fn new(inner: T, rewind: Bytes, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            rewind,
            shared,
            interim: Bytes::new(),
            shut: false,
            closing: None,
            output: Output::Sent,
            rest: None,
        }
    }

    /// The same for a connection whose client has had the head of the first answer from another worker.
    #[must_use]
    pub(super) fn swallowing(self) -> Self {
        Self { output: Output::Swallowed { matched: 0 }, ..self }
    }

    /// Takes it apart.
    pub(super) fn into_parts(self) -> Parts<T> {
        Parts { transport: self.inner, rewind: self.rewind, swallows: matches!(self.output, Output::Swallowed { .. }) }
    }

    /// What was read before, and HTTP has not read.
    pub(super) const fn rewind(&self) -> &Bytes {
        &self.rewind
    }

    /// Whether the client has had another answer than the one that HTTP has made.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self.output, Output::Refused)
    }

    fn state(&self) -> &ConnState {
        &self.shared.state
    }

    /// Whether the app sends something before its response.
    fn has_interim(&self) -> bool {
        !self.interim.is_empty() || self.shared.interim.as_ref().is_some_and(|interim| interim.is_queued())
    }

    /// Waits until a client that floods may have its next turn.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        Poll::Ready(())
    }

    /// Counts what a write has moved.
    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.state().on_write_blocked(polled.is_pending());
        if let Poll::Ready(Ok(bytes)) = polled {
            self.state().on_sent(bytes);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> Transport<T> {
    /// Takes what the client has had already, if it has, and returns how much. An answer that is another one than the client
    /// has had is the end.
    fn swallow(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let Output::Swallowed { matched } = &mut self.output else { return None };
        if !self.shared.state.is_granted_again() {
            self.output = Output::Refused;
            return Some(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let mut taken = 0;
        while *matched < HEAD_END.len() && taken < bytes.len() {
            *matched = match bytes[taken] {
                byte if byte == HEAD_END[*matched] => *matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            taken += 1;
        }
        // HTTP lets go of a transport that has been upgraded: nothing comes behind the head.
        if *matched == HEAD_END.len() && self.shared.resumed == Some(LongLived::EventStream) {
            self.output = Output::Sent;
        }
        Some(Ok(taken))
    }

    /// Writes what the app sends before its response, if it is the moment: hyper has nothing that it hasn't written.
    fn interject(&mut self, cx: &mut Context<'_>, is_flushed: bool) -> Poll<io::Result<()>> {
        let Some(queue) = &self.shared.interim else { return Poll::Ready(Ok(())) };
        if self.interim.is_empty() {
            // The rest of a response before this one goes first; with it comes this one's, if the app has answered.
            let wait = !is_flushed && queue.is_open();
            let hints = if wait { Vec::new() } else { queue.take() };
            if hints.is_empty() || !is_flushed {
                return Poll::Ready(Ok(()));
            }
            self.interim = interim::written(&hints).into();
        }
        while !self.interim.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &self.interim);
            let length = ready!(self.sent(written))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Transport<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx));
        match this.state().on_read_wanted() {
            Read::On => {}
            Read::Wait => return Poll::Pending,
            Read::Later => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Read::Rest => {
                this.rest = Some(Box::pin(sleep(REST)));
                ready!(this.poll_rest(cx));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Read::End => return Poll::Ready(Ok(())),
        }
        let before = buf.filled().len();
        if this.rewind.is_empty() {
            let room = buf.remaining() > 0;
            let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
            let length = buf.filled().len() - before;
            this.state().on_read(match &polled {
                Poll::Pending => Found::Nothing,
                Poll::Ready(Ok(())) if room && length == 0 => Found::End,
                Poll::Ready(_) => Found::Bytes(length),
            });
            ready!(polled)?;
            if room && length == 0 && this.state().hides_end() {
                return Poll::Pending;
            }
        } else {
            let length = this.rewind.len().min(buf.remaining());
            buf.put_slice(&this.rewind.split_to(length));
        }
        let read = &buf.filled()[before..];
        let delivered = this.state().may_deliver(read);
        if delivered < read.len() {
            // What isn't delivered now is read first next time.
            let mut rest = BytesMut::from(&read[delivered..]);
            rest.extend_from_slice(&this.rewind);
            this.rewind = rest.freeze();
            buf.set_filled(before + delivered);
        }
        if this.state().on_delivered(&buf.filled()[before..]) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk is malformed")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // hyper has something from now on, whatever goes before it.
        let is_flushed = this.state().is_flushed();
        this.state().on_write();
        if let Some(swallowed) = this.swallow(bytes) {
            return Poll::Ready(swallowed);
        }
        ready!(this.interject(cx, is_flushed))?;
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.sent(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let is_flushed = this.state().is_flushed();
        this.state().on_write();
        if let Output::Swallowed { .. } = this.output {
            let swallowed = slices.iter().try_fold(0, |sum, slice| Ok(sum + this.swallow(slice).unwrap_or(Ok(0))?));
            return Poll::Ready(swallowed);
        }
        ready!(this.interject(cx, is_flushed))?;
        let inner = Pin::new(&mut this.inner);
        if slices.iter().map(|slice| slice.len()).sum::<usize>() > JOINED_BYTES {
            let polled = inner.poll_write_vectored(cx, slices);
            return this.sent(polled);
        }
        // Not cleared beforehand, which takes longer than the copy of a small response.
        let mut space = [MaybeUninit::uninit(); JOINED_BYTES];
        let mut joined = ReadBuf::uninit(&mut space);
        for slice in slices {
            joined.put_slice(slice);
        }
        let polled = inner.poll_write(cx, joined.filled());
        this.sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.state().on_write_blocked(flushed.is_pending());
        ready!(flushed)?;
        if this.state().on_flushed() {
            cx.waker().wake_by_ref();
        }
        if this.has_interim() {
            ready!(this.interject(cx, true))?;
            ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shutdown = this.state().on_shutdown();
        if shutdown == Shutdown::Leave {
            return Poll::Ready(Ok(()));
        }
        if !this.shut {
            let polled = Pin::new(&mut this.inner).poll_shutdown(cx);
            this.state().on_write_blocked(polled.is_pending());
            ready!(polled)?;
            this.shut = true;
        }
        if shutdown == Shutdown::Close {
            return Poll::Ready(Ok(()));
        }
        let closing =
            this.closing.get_or_insert_with(|| Closing { until: Box::pin(sleep(CLOSE_TIME)), left: CLOSE_BYTES });
        while closing.left > 0 && closing.until.as_mut().poll(cx).is_pending() {
            let mut space = [0; 4096];
            let mut buf = ReadBuf::new(&mut space);
            // An error changes nothing: the transport is being closed.
            let read = ready!(pin!(&mut this.inner).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            closing.left = closing.left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
