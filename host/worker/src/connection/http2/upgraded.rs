//! A stream that is a tunnel (RFC 8441): bytes in both directions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream;

/// How many bytes are copied at a time: h2 sends them when the client's window has room.
const MAX_WRITE: usize = 16 * 1024;

pub(super) struct Upgraded {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What was received, and has not been read.
    unread: Bytes,
}

impl Upgraded {
    pub(super) const fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self { send, receive, unread: Bytes::new() }
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    let kind = match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(bytes)) => this.unread = bytes,
                Some(Err(error)) => {
                    // The client is done with the stream.
                    return Poll::Ready(match error.reason() {
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        _ => Err(broken(error)),
                    });
                }
            }
        }
        let length = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..length]);
        this.unread.advance(length);
        // An error says that the stream is over, which the next poll finds.
        let _ = this.receive.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // No more than what is sent at once: a writer that gives up would keep it from other streams.
        this.send.reserve_capacity(1);
        match ready!(stream::poll_claim(&mut this.send, cx)) {
            Some(Ok(())) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
        let length = bytes.len().min(MAX_WRITE);
        this.send.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    /// h2 writes by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // It may have been ended already, from either side.
        let _ = this.send.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}
