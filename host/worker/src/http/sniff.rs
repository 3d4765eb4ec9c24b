//! Reads the first bytes of a connection, until its [state](FirstBytes) says what comes then.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::driver::Wakes;
use super::state::{Early, FirstBytes, Protocol};

/// How much is read at first, in bytes: most heads in one go.
const FIRST_READ: usize = 2048;

/// What came first: the bytes that tell the protocol, or what was read before an early end.
pub(super) type First = (Result<Protocol, Early>, Bytes);

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
    let mut state = FirstBytes::new(late.into_std());
    let told = poll_fn(|cx| {
        loop {
            if let Some(early) = wakes.news(cx).and_then(|phase| state.on_phase(phase)) {
                return Poll::Ready(Err(early));
            }
            match pin!(transport.read_buf(&mut buffer)).poll(cx) {
                Poll::Ready(Ok(1..)) => match Protocol::detect(&buffer) {
                    Some(protocol) => return Poll::Ready(Ok(protocol)),
                    None => continue,
                },
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Early::Gone)),
                Poll::Pending => {}
            }
            match state.on_timer(Instant::now().into_std()) {
                Err(early) => return Poll::Ready(Err(early)),
                Ok(deadline) if wakes.wait_until(deadline.into(), cx) => return Poll::Pending,
                Ok(_) => {}
            }
        }
    })
    .await;
    if told.is_ok() {
        wakes.repeat_news();
    }
    (told, buffer.freeze())
}
