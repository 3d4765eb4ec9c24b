//! The transport that hyper reads and writes.
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
//! What hyper had read of a further request comes back with it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::shared::Shared;
use super::state::{ConnState, Found, Read, Shutdown};

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
    /// Whether this side has been ended.
    shut: bool,
    closing: Option<Closing>,
}

/// What a [`Transport`] was made of.
pub(super) struct Parts<T> {
    pub(super) transport: T,
    /// What was read before, and hyper has not read.
    pub(super) rewind: Bytes,
}

struct Closing {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<T> Transport<T> {
    pub(super) const fn new(inner: T, rewind: Bytes, shared: Arc<Shared>) -> Self {
        Self { inner, rewind, shared, shut: false, closing: None }
    }

    /// Takes it apart.
    pub(super) fn into_parts(self) -> Parts<T> {
        Parts { transport: self.inner, rewind: self.rewind }
    }

    fn state(&self) -> &ConnState {
        &self.shared.state
    }

    /// Counts what a write has moved.
    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.state().on_sent(bytes);
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Transport<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state().on_read_wanted() {
            Read::On => {}
            Read::Wait => return Poll::Pending,
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
        } else {
            let length = this.rewind.len().min(buf.remaining());
            buf.put_slice(&this.rewind.split_to(length));
        }
        this.state().on_delivered(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.state().on_write();
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.sent(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.state().on_write();
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
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        if this.state().on_flushed() {
            cx.waker().wake_by_ref();
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
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.shut = true;
        }
        if shutdown == Shutdown::Close {
            return Poll::Ready(Ok(()));
        }
        let closing = this
            .closing
            .get_or_insert_with(|| Closing { until: Box::pin(tokio::time::sleep(CLOSE_TIME)), left: CLOSE_BYTES });
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
