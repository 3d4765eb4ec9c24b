//! The transport as hyper sees it.
//!
//! Owns what lies between a socket and hyper: bytes that were read before hyper came are given first,
//! request boundaries are watched, and the end is a lingering close. Knows nothing of HTTP beyond that.
//!
//! A lingering close sends the end of the stream and then goes on reading for a little: a socket that
//! is closed with unread bytes in it is reset, and a reset takes the response away from a client that
//! hasn't read it yet (RFC 9112, section 9.6).
//!
//! A connection that leaves for another worker is taken from hyper by its own rules: between two requests,
//! with every response flushed, a read reports the end of the stream, hyper ends, and its shutdown leaves
//! the transport as it is. What hyper had read of a further request comes back with it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::MAX_UNREAD;
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
    /// How many of its requests had ended when everything was flushed last. That no byte waits here says
    /// nothing of those that hyper has not written yet.
    flushed: u64,
    leave: Leave,
}

/// How far a connection has come that leaves for another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// It stays, or has a request in flight.
    NotYet,
    /// A read waits for a flush.
    HeldBack,
    /// hyper was told the end of the stream; it has so many bytes of a head.
    Left { head: usize },
}

/// What an [`Io`] was made of.
pub(super) struct Parts<T> {
    pub(super) transport: T,
    /// What was read before and hyper has not taken.
    pub(super) replay: Bytes,
    /// Set if hyper has ended because the connection leaves: how many bytes hyper has of a head that has
    /// not ended.
    pub(super) left: Option<usize>,
}

struct Closing {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<T> Io<T> {
    pub(super) fn new(inner: T, replay: Bytes, activity: Arc<Activity>, tracks: bool) -> Self {
        let flushed = activity.ended();
        Self {
            inner,
            replay,
            activity,
            tracks,
            ended: false,
            shut: false,
            closing: None,
            flushed,
            leave: Leave::NotYet,
        }
    }

    /// What this was made of.
    pub(super) fn into_parts(self) -> Parts<T> {
        let left = match self.leave {
            Leave::Left { head } => Some(head),
            Leave::NotYet | Leave::HeldBack => None,
        };
        Parts { transport: self.inner, replay: self.replay, left }
    }

    /// Whether hyper gets nothing more to read, because the connection leaves: the end of the stream when
    /// all has gone out, and until then nothing.
    fn leaves(&mut self) -> Option<Poll<io::Result<()>>> {
        if !self.tracks || !self.activity.is_leaving() {
            return None;
        }
        let head = self.activity.unfinished_head().filter(|head| *head <= MAX_UNREAD)?;
        if self.activity.is_idle() && self.flushed == self.activity.ended() {
            self.leave = Leave::Left { head };
            Some(Poll::Ready(Ok(())))
        } else {
            self.leave = Leave::HeldBack;
            Some(Poll::Pending)
        }
    }

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
        if let Some(polled) = this.leaves() {
            return polled;
        }
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
        this.activity.flushed();
        let ended = this.activity.ended();
        let is_answered = std::mem::replace(&mut this.flushed, ended) != ended;
        let is_held_back = this.leave == Leave::HeldBack;
        if is_held_back {
            this.leave = Leave::NotYet;
        }
        if is_held_back || (is_answered && this.activity.is_leaving()) {
            // hyper has read in vain while the request was in flight, and waits for the transport to wake it
            // before it reads again. A connection that leaves is not to wait for its client.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.leave, Leave::Left { .. }) {
            return Poll::Ready(Ok(()));
        }
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
