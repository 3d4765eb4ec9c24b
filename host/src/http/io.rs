//! The transport as hyper sees it.
//!
//! Owns what lies between a socket and hyper: bytes that were read before hyper came are given first,
//! request boundaries are watched, and the end is a lingering close. Knows nothing of HTTP beyond that.
//!
//! A lingering close sends the end of the stream and then goes on reading for a little: a socket that
//! is closed with unread bytes in it is reset, and a reset takes the response away from a client that
//! hasn't read it yet (RFC 9112, section 9.6).
//!
//! Handing a connection over will need two more states here: reads that report the end of the stream
//! at a message boundary, and a `poll_shutdown` that leaves the transport as it is, for hyper's
//! `into_parts` to return.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::Activity;

/// How long a lingering close reads.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// How much it reads, in bytes: the upload that an app has refused may be on its way in full.
const CLOSE_BYTES: usize = 1024 * 1024;

/// How many bytes are copied into one piece, because the kernel takes one piece with less effort than
/// several: the head and the body of a small response.
const JOINED_BYTES: usize = 1024;

/// A transport under hyper.
pub(super) struct Io<T> {
    inner: T,
    /// What was read before and comes first.
    replay: Bytes,
    activity: Arc<Activity>,
    /// Whether this is HTTP/1, where requests have boundaries in the stream.
    tracks: bool,
    /// The client has ended its side.
    ended: bool,
    /// Our side has been ended.
    shut: bool,
    closing: Option<Closing>,
}

struct Closing {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<T> Io<T> {
    pub(super) fn new(inner: T, replay: Bytes, activity: Arc<Activity>, tracks: bool) -> Self {
        Self { inner, replay, activity, tracks, ended: false, shut: false, closing: None }
    }

    /// The transport, and what was read of it before and hyper has not taken.
    pub(super) fn into_parts(self) -> (T, Bytes) {
        (self.inner, self.replay)
    }
}

impl<T> Io<T> {
    /// Counts what a write has moved.
    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.activity.sent(bytes);
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Io<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.replay.is_empty() {
            let room = buf.remaining() > 0;
            let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
            let length = buf.filled().len() - before;
            this.activity.read(polled.is_ready().then_some(length));
            ready!(polled)?;
            this.ended |= room && length == 0;
        } else {
            let length = this.replay.len().min(buf.remaining());
            buf.put_slice(&this.replay.split_to(length));
        }
        if this.tracks {
            this.activity.boundary().delivered(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Io<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.activity.writes();
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.sent(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.activity.writes();
        let inner = Pin::new(&mut this.inner);
        if slices.iter().map(|slice| slice.len()).sum::<usize>() > JOINED_BYTES {
            let polled = inner.poll_write_vectored(cx, slices);
            return this.sent(polled);
        }
        let mut space = [0; JOINED_BYTES];
        let mut length = 0;
        for slice in slices {
            space[length..length + slice.len()].copy_from_slice(slice);
            length += slice.len();
        }
        let polled = inner.poll_write(cx, &space[..length]);
        this.sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        this.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.activity.closes();
        if !this.shut {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.shut = true;
        }
        if this.ended || (this.tracks && !this.activity.may_be_unread()) {
            return Poll::Ready(Ok(()));
        }
        let closing = this
            .closing
            .get_or_insert_with(|| Closing { until: Box::pin(tokio::time::sleep(CLOSE_TIME)), left: CLOSE_BYTES });
        while closing.left > 0 && closing.until.as_mut().poll(cx).is_pending() {
            let mut space = [0; 4096];
            let mut buf = ReadBuf::new(&mut space);
            // Whatever is wrong with a transport that is being closed: it is being closed.
            let read = ready!(pin!(&mut this.inner).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            closing.left = closing.left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
