//! The first bytes of a connection, which tell HTTP/2 from HTTP/1.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::drain::{Ending, Phase};
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

/// What came first.
pub(super) enum First {
    /// Bytes that tell the protocol.
    Told(Protocol, Bytes),
    /// Too few for that before the connection is to leave for another worker.
    Leaves(Bytes),
    /// The end of the client's, or of its time.
    Gone,
    /// The end of the drain's patience.
    Dismissed,
}

/// Reads until the protocol is known, behind what was read of it before, and until `late` at most.
pub(super) async fn first_bytes<T, F>(
    transport: &mut T,
    before: &[u8],
    late: Instant,
    wakes: &mut Wakes<'_, F>,
) -> First
where
    T: AsyncRead + Unpin,
    F: Future<Output = ()>,
{
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    buffer.extend_from_slice(before);
    let mut deadline = late;
    let told = poll_fn(|cx| {
        loop {
            match wakes.news(cx) {
                Some(Phase::Cut) => return Poll::Ready(Err(First::Dismissed)),
                Some(Phase::Draining { ending: Ending::HandOver, .. }) => {
                    return Poll::Ready(Err(First::Leaves(Bytes::new())));
                }
                Some(Phase::Draining { since, linger, ending: Ending::Close }) => deadline = late.min(since + linger),
                Some(Phase::Serving) | None => {}
            }
            match pin!(transport.read_buf(&mut buffer)).poll(cx) {
                Poll::Ready(Ok(1..)) => match tell(&buffer) {
                    Some(protocol) => return Poll::Ready(Ok(protocol)),
                    None => continue,
                },
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(First::Gone)),
                Poll::Pending => {}
            }
            if Instant::now() >= deadline {
                return Poll::Ready(Err(if deadline < late { First::Dismissed } else { First::Gone }));
            }
            if wakes.wait_until(deadline, cx) {
                return Poll::Pending;
            }
        }
    })
    .await;
    match told {
        Ok(protocol) => {
            wakes.repeat_news();
            First::Told(protocol, buffer.freeze())
        }
        Err(First::Leaves(_)) => First::Leaves(buffer.freeze()),
        Err(ended) => ended,
    }
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
