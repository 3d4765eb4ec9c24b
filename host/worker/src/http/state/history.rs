//! What a connection has been through, which it takes along to another worker and into its rest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HEAD_TIMEOUT;
use super::timeouts::IDLE_TICKS;

/// What a connection has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Which protocol it speaks, as far as that is known.
    pub spoken: Spoken,
    /// How many requests it has had.
    pub requests: u64,
    /// Whether a head has begun.
    pub in_head: bool,
    /// How often it was looked at in vain while it waited for what it waits for now.
    pub ticks: u32,
    /// When it is to be looked at again, from now.
    pub next_tick: Duration,
}

/// What is known of a connection's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoken {
    /// Nothing.
    Nothing,
    /// HTTP/1.
    Http1,
}

impl History {
    /// That of a connection which has just been accepted.
    pub const NEW: Self =
        Self { spoken: Spoken::Nothing, requests: 0, in_head: false, ticks: 0, next_tick: HEAD_TIMEOUT };

    /// As another worker tells it, which may be anything: no number is larger than this worker itself would have it.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { ticks: self.ticks.min(IDLE_TICKS), next_tick: self.next_tick.min(HEAD_TIMEOUT), ..self }
    }

    /// Whether a connection that has nothing else unread than `unread` may be parked: it waits for the first byte of a
    /// further request.
    pub fn may_park(&self, unread: &[u8]) -> bool {
        unread.is_empty() && self.spoken == Spoken::Http1 && self.requests > 0 && !self.in_head
    }

    /// A parked connection was looked at once more, in vain, as it was to be: whether it may go on waiting. If not,
    /// the worker that serves it ends it at once.
    pub fn waits_on(&mut self) -> bool {
        let goes_on = self.ticks + 1 < IDLE_TICKS;
        if goes_on {
            self.ticks += 1;
        }
        self.next_tick = if goes_on { HEAD_TIMEOUT } else { Duration::ZERO };
        goes_on
    }
}
