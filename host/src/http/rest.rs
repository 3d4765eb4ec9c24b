//! Resting: what a connection does that comes from another worker and is between two requests.
//!
//! Most that a restart moves are idle, and many come to the next one without having asked for anything. So nothing
//! is made for a request, neither hyper's part nor its buffers, until the first byte of one comes: a connection
//! that rests takes a tenth of the memory, and is handed on in a fraction of the time.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::activity::Opened;
use super::drain::{DrainSignal, Ending, Phase};
use super::driver::{Patience, Wakes};
use super::handover::{Handover, History, Spoken};
use crate::sys::stats::Lane;

/// How much is read at first, in bytes: most requests in one go.
const FIRST_READ: usize = 2048;

/// How a rest ended.
#[derive(Debug)]
pub enum Rested<T> {
    /// There is something to do: a request has begun, or the connection is to be closed.
    Wakes(Handover<T>),
    /// It is to go on in another worker.
    Leaves(Handover<T>),
    /// The client has closed it, or the drain has.
    Ended,
}

impl<T> Handover<T> {
    /// Whether there is nothing to do for this connection but to wait for its next request.
    pub fn is_idle(&self) -> bool {
        let History { spoken, requests, in_head, .. } = self.history;
        self.unread.is_empty() && spoken == Spoken::Http1 && requests > 0 && !in_head
    }
}

/// Waits until there is something to do for a connection that [is idle](Handover::is_idle). Must run inside a
/// runtime with timers.
pub async fn rest<T>(connection: Handover<T>, lane: &'static Lane, drain: DrainSignal) -> Rested<T>
where
    T: AsyncRead + Unpin,
{
    let _opened = Opened::new(lane);
    let Handover { mut transport, history, .. } = connection;
    let mut patience = Patience::resume(&history, Instant::now());
    let change = pin!(drain.clone().changed());
    let sleep = pin!(tokio::time::sleep_until(patience.due));
    let mut wakes = Wakes::new(drain, DrainSignal::changed, change, sleep);
    let mut looked = false;
    let rested = poll_fn(|cx| {
        let leaves = match wakes.news(cx) {
            Some(Phase::Cut) => {
                lane.dismissed();
                return Poll::Ready(None);
            }
            Some(Phase::Draining { ending: Ending::HandOver, .. }) => true,
            // Its end is a matter of HTTP.
            Some(Phase::Draining { ending: Ending::Close, .. }) => return Poll::Ready(Some((false, Bytes::new()))),
            // One that has just come here stays for a while.
            Some(Phase::Serving) => looked && wakes.takes_invitation(),
            None => false,
        };
        if leaves {
            return Poll::Ready(Some((true, Bytes::new())));
        }
        looked = true;
        let mut space = [MaybeUninit::uninit(); FIRST_READ];
        let mut first = ReadBuf::uninit(&mut space);
        match Pin::new(&mut transport).poll_read(cx, &mut first) {
            Poll::Ready(Ok(())) if !first.filled().is_empty() => {
                return Poll::Ready(Some((false, Bytes::copy_from_slice(first.filled()))));
            }
            Poll::Ready(_) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        while wakes.is_elapsed() {
            // What is done at the end of its patience is a matter of HTTP, too.
            let Some(due) = patience.rests_on(history.requests) else {
                return Poll::Ready(Some((false, Bytes::new())));
            };
            wakes.wait_until(due, cx);
        }
        Poll::Pending
    })
    .await;
    let Some((leaves, unread)) = rested else { return Rested::Ended };
    let history = patience.history(Spoken::Http1, history.requests, false);
    let connection = Handover { transport, unread, history };
    if leaves { Rested::Leaves(connection) } else { Rested::Wakes(connection) }
}
