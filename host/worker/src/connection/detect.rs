//! Detects the protocol of a connection by reading its first bytes, until its [state](FirstBytes) decides.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::driver::Wakeups;
use super::state::{Early, FirstBytes, Protocol};

/// How many bytes are read at first: most heads in one call.
const FIRST_READ: usize = 2048;

/// The protocol and the bytes that tell it, or an early end and what was read before.
pub(super) type First = (Result<Protocol, Early>, Bytes);

/// Reads until the protocol is known, or until `late`. `before` was read already, by another worker, or
/// with what came before HTTP.
pub(super) async fn first_bytes<T, F>(
    transport: &mut T,
    before: &[u8],
    late: Instant,
    wakeups: &mut Wakeups<'_, F>,
) -> First
where
    T: AsyncRead + Unpin,
    F: Future<Output = ()>,
{
    if let Some(protocol) = Protocol::detect(before) {
        return (Ok(protocol), Bytes::copy_from_slice(before));
    }
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    buffer.extend_from_slice(before);
    let mut state = FirstBytes::new(late.into_std());
    let result = poll_fn(|cx| {
        loop {
            if let Some(early) = wakeups.new_phase(cx).and_then(|phase| state.on_phase(phase)) {
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
                Ok(deadline) if wakeups.wait_until(deadline.into(), cx) => return Poll::Pending,
                Ok(_) => {}
            }
        }
    })
    .await;
    if result.is_ok() {
        wakeups.repeat_phase();
    }
    (result, buffer.freeze())
}
