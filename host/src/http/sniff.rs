//! The first bytes of a connection, which tell HTTP/2 from HTTP/1.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::HEAD_TIMEOUT;
use super::drain::Phase;
use super::driver::Wakes;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at first, in bytes: most heads in one go.
const FIRST_READ: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is known. `None` when the connection ended, or has to end, before.
pub(super) async fn first_bytes<T, F>(transport: &mut T, wakes: &mut Wakes<'_, F>) -> Option<(Protocol, Bytes)>
where
    T: AsyncRead + Unpin,
    F: Future<Output = ()>,
{
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    let late = Instant::now() + HEAD_TIMEOUT;
    let mut deadline = late;
    let protocol = poll_fn(|cx| {
        loop {
            match wakes.news(cx) {
                Some(Phase::Cut) => return Poll::Ready(None),
                Some(Phase::Draining { since, linger }) => deadline = late.min(since + linger),
                Some(Phase::Serving) | None => {}
            }
            match pin!(transport.read_buf(&mut buffer)).poll(cx) {
                Poll::Ready(Ok(1..)) => match tell(&buffer) {
                    Some(protocol) => return Poll::Ready(Some(protocol)),
                    None => continue,
                },
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if Instant::now() >= deadline {
                return Poll::Ready(None);
            }
            if wakes.wait_until(deadline, cx) {
                return Poll::Pending;
            }
        }
    })
    .await?;
    wakes.repeat_news();
    Some((protocol, buffer.freeze()))
}

/// The protocol that begins with `bytes`, if that can be said.
fn tell(bytes: &[u8]) -> Option<Protocol> {
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] != PREFACE[..compared] {
        Some(Protocol::Http1)
    } else if compared == PREFACE.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_tells_when_it_differs() {
        assert_eq!(tell(b"G"), Some(Protocol::Http1));
        assert_eq!(tell(b"P"), None);
        assert_eq!(tell(b"PO"), Some(Protocol::Http1));
        assert_eq!(tell(&PREFACE[..23]), None);
        assert_eq!(tell(PREFACE), Some(Protocol::Http2));
        assert_eq!(tell(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"), Some(Protocol::Http2));
    }
}
