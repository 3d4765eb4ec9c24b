//! HTTP/2 between h2 and its transport, so that a connection can move to another worker and go on there.
//!
//! h2 knows nothing of it: for h2 a connection that leaves is dropped, and one that comes [begins anew](resume). In
//! between, what both sides have sent is [followed](observer), what comes in is [sorted](sorter) while it matters, and
//! the [steps](leave) on the way out are taken. A connection whose worker does not let it move is passed through.
//!
//! What must be true for a connection to leave: no stream is open, every frame that h2 was given it has read to the end,
//! and nothing is unanswered on either side. And the client must have given up its table of header fields (HPACK), because
//! the h2 that goes on has none: it is told to by a change of our settings, of which h2 is told nothing.

mod fields;
mod followed;
mod frames;
mod leave;
mod observer;
mod resume;
mod snapshot;
mod sorter;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::shared::Shared;
use super::super::state::PREFACE;
use super::super::transport::Transport;
use super::super::tunnel::lock;
use super::WINDOW;
use followed::Followed;
use frames::{GOAWAY, Head};
use observer::Observer;
use resume::Resume;

pub use snapshot::{FIRST_WINDOW, HEADER_TABLE_SIZE, Http2Snapshot, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, Settings};

/// What became of a connection that h2 has dropped.
pub enum Dropped<T> {
    /// It goes on elsewhere, with what h2 has not read.
    Left { transport: T, snapshot: Http2Snapshot, unread: Bytes },
    /// h2 did not go on as the client knows it, or can't read what the client sends. The client is to be told this.
    Mismatch { transport: T, goaway: Vec<u8> },
}

/// Where a connection is found when h2 has dropped it: h2 returns nothing.
pub(super) type Slot<T> = Arc<Mutex<Option<Dropped<T>>>>;

/// The transport that h2 gets.
pub(super) struct Moving<T> {
    /// `None` only while it is dropped.
    inner: Option<Transport<T>>,
    /// `None` where connections don't move.
    followed: Option<Box<Followed>>,
    shared: Arc<Shared>,
    slot: Slot<T>,
}

impl<T> Moving<T> {
    /// A connection whose client has sent nothing that h2 has read, or one that has come here with this snapshot.
    pub(super) fn new(inner: Transport<T>, snapshot: Option<&Http2Snapshot>, shared: Arc<Shared>) -> Self {
        let resumed = snapshot.map(|snapshot| Followed::new(Observer::new(0), Some(Resume::new(snapshot, WINDOW))));
        let new = || shared.state.may_move().then(|| Followed::new(Observer::new(PREFACE.len()), None));
        let followed = resumed.or_else(new).map(Box::new);
        Self { inner: Some(inner), followed, shared, slot: Slot::default() }
    }

    /// Where the connection is found when it has been dropped.
    pub(super) fn slot(&self) -> Slot<T> {
        Arc::clone(&self.slot)
    }

    /// The transport, what is followed, and what all share.
    fn parts(&mut self) -> io::Result<(&mut Transport<T>, Option<&mut Followed>, &Shared)> {
        let Self { inner, followed, shared, .. } = self;
        let inner = inner.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok((inner, followed.as_deref_mut(), shared))
    }
}

impl<T> Drop for Moving<T> {
    fn drop(&mut self) {
        let (Some(inner), Some(followed)) = (self.inner.take(), self.followed.take()) else { return };
        let dropped = if let Some(last) = followed.mismatch() {
            let mut goaway = Vec::new();
            // NO_ERROR: what the client has sent behind its last stream is safe to be sent again (RFC 9113, section 6.8).
            Head::write(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat(), &mut goaway);
            Dropped::Mismatch { transport: inner.into_parts().transport, goaway }
        } else if self.shared.state.has_left()
            && let Some((snapshot, mut unread)) = followed.leave()
        {
            let parts = inner.into_parts();
            unread.extend_from_slice(&parts.rewind);
            Dropped::Left { transport: parts.transport, snapshot, unread: unread.into() }
        } else {
            return;
        };
        *lock(&self.slot) = Some(dropped);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Moving<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (inner, followed, shared) = self.get_mut().parts()?;
        match followed {
            Some(followed) => followed.poll_read(inner, shared, cx, buf),
            None => Pin::new(inner).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Moving<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (inner, followed, shared) = self.get_mut().parts()?;
        let Some(followed) = followed else { return Pin::new(inner).poll_write(cx, bytes) };
        if let Some(swallowed) = followed.swallow(bytes, cx, shared) {
            return Poll::Ready(swallowed);
        }
        ready!(followed.poll_before_write(inner, shared, cx))?;
        let written = ready!(Pin::new(inner).poll_write(cx, bytes))?;
        followed.on_written(&[io::IoSlice::new(bytes)], written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (inner, followed, shared) = self.get_mut().parts()?;
        let Some(followed) = followed else { return Pin::new(inner).poll_write_vectored(cx, slices) };
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if let Some(swallowed) = followed.swallow(first, cx, shared) {
            return Poll::Ready(swallowed);
        }
        ready!(followed.poll_before_write(inner, shared, cx))?;
        let written = ready!(Pin::new(inner).poll_write_vectored(cx, slices))?;
        followed.on_written(slices, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (inner, followed, shared) = self.get_mut().parts()?;
        match followed {
            Some(followed) => followed.poll_flush(inner, shared, cx),
            None => Pin::new(inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (inner, ..) = self.get_mut().parts()?;
        Pin::new(inner).poll_shutdown(cx)
    }
}
