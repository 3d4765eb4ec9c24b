//! A client's stream in a serving thread's runtime, with TLS or without, and its shutdown when another process may still
//! hold the socket.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{Layer, SuspendedTls};

/// A socket that can be registered with a runtime and taken out of it.
pub(super) trait Socket: AsyncRead + AsyncWrite + AsFd + Unpin + Send + Sized + 'static {
    /// Registers a non-blocking socket. Must be called inside a runtime.
    fn enter(socket: OwnedFd) -> io::Result<Self>;

    /// Takes the socket out of the runtime.
    fn leave(self) -> io::Result<OwnedFd>;
}

impl Socket for TcpStream {
    fn enter(socket: OwnedFd) -> io::Result<Self> {
        Self::from_std(socket.into())
    }

    fn leave(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

impl Socket for UnixStream {
    fn enter(socket: OwnedFd) -> io::Result<Self> {
        Self::from_std(socket.into())
    }

    fn leave(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

/// A connection. One that came from another worker is shut down when it is dropped: that worker's duplicate may live a
/// little longer, and would keep the client waiting.
#[derive(Debug)]
pub(super) struct Stream<S: Socket> {
    /// `None` once it was taken out.
    socket: Option<S>,
    shared: bool,
    /// What is between the socket and plaintext, where there is TLS.
    layer: Option<Box<Layer>>,
}

/// A connection that was taken out of the runtime.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) socket: OwnedFd,
    /// Its TLS, if it has one.
    pub(super) tls: Option<SuspendedTls>,
    /// What TLS had opened, and nobody has read.
    pub(super) plain: Vec<u8>,
}

impl<S: Socket> Stream<S> {
    /// A connection that this process has accepted.
    pub(super) const fn own(socket: S) -> Self {
        Self { socket: Some(socket), shared: false, layer: None }
    }

    /// A connection that another process has sent. Must be called inside a runtime.
    pub(super) fn shared(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Some(S::enter(socket)?), shared: true, layer: None })
    }

    /// The same connection, behind its handshake.
    pub(super) fn encrypted(self, layer: Layer) -> Self {
        let mut this = self;
        this.layer = Some(Box::new(layer));
        this
    }

    /// Takes the connection out of the runtime, open.
    ///
    /// # Errors
    /// `NotConnected` where TLS has been closed by one side, and there is nothing to go on with.
    pub(super) fn leave(mut self) -> io::Result<Left> {
        let (tls, plain) = match self.layer.take() {
            None => (None, Vec::new()),
            Some(layer) => {
                let (tls, plain) = layer.suspend().ok_or_else(gone)?;
                (Some(tls), plain)
            }
        };
        Ok(Left { socket: self.socket.take().ok_or_else(gone)?.leave()?, tls, plain })
    }

    /// The socket, and what is between it and plaintext.
    fn parts(&mut self) -> io::Result<(&mut S, Option<&mut Layer>)> {
        let Self { socket, layer, .. } = self;
        Ok((socket.as_mut().ok_or_else(gone)?, layer.as_deref_mut()))
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<S: Socket> Drop for Stream<S> {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.shared) {
            let socket = SockRef::from(socket);
            // Errors change nothing at the end of a connection. The other process may have set a linger, which would make
            // the last close wait.
            let _ = socket.set_linger(None);
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl<S: Socket> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.parts()? {
            (socket, None) => Pin::new(socket).poll_read(cx, buf),
            (socket, Some(layer)) => layer.poll_read(socket, cx, buf),
        }
    }
}

impl<S: Socket> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.parts()? {
            (socket, None) => Pin::new(socket).poll_write(cx, bytes),
            (socket, Some(layer)) => layer.poll_write(socket, cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.parts()? {
            (socket, None) => Pin::new(socket).poll_write_vectored(cx, slices),
            (socket, Some(layer)) => layer.poll_write(socket, cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.layer.is_some() || self.socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.parts()? {
            (socket, None) => Pin::new(socket).poll_flush(cx),
            (socket, Some(layer)) => layer.poll_flush(socket, cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.parts()? {
            (socket, None) => Pin::new(socket).poll_shutdown(cx),
            (socket, Some(layer)) => layer.poll_shutdown(socket, cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_another_worker_has_had_ends_although_that_has_it_still() {
        for shared in [true, false] {
            let (mut client, ours) = UnixStream::pair().unwrap();
            let ours = ours.into_std().unwrap();
            let duplicate = ours.try_clone().unwrap();
            let stream = if shared {
                Stream::shared(ours.into()).unwrap()
            } else {
                Stream::own(UnixStream::from_std(ours).unwrap())
            };
            drop(stream);
            let ended = timeout(std::time::Duration::from_millis(50), client.read(&mut [0])).await;
            assert_eq!(ended.is_ok(), shared);
            if shared {
                assert_eq!(ended.unwrap().unwrap(), 0);
            }
            drop(duplicate);
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_taken_out_does_not_end() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let stream = Stream::<UnixStream>::shared(ours.into_std().unwrap().into()).unwrap();
        let _left = stream.leave().unwrap();
        assert!(timeout(std::time::Duration::from_millis(50), client.read(&mut [0])).await.is_err());
    }
}
