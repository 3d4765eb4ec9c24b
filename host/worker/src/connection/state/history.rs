//! What a connection has been through, kept while it is suspended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HEAD_TIMEOUT;
use super::timeouts::IDLE_TICKS;

/// What a connection has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The protocol, if it was detected.
    pub detected: Detected,
    /// How many requests it has had.
    pub requests: u64,
    /// Whether a head has begun.
    pub in_head: bool,
    /// How many ticks have passed while the connection waited for what it waits for now.
    pub ticks: u32,
    /// After how long the next tick is due.
    pub next_tick: Duration,
}

/// Whether a suspended connection's protocol was detected. One of HTTP/2 is never suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detected {
    /// Not yet.
    Nothing,
    /// It is HTTP/1.
    Http1,
}

impl History {
    /// The history of a connection that has just been accepted.
    pub const NEW: Self =
        Self { detected: Detected::Nothing, requests: 0, in_head: false, ticks: 0, next_tick: HEAD_TIMEOUT };

    /// Bounds a history that another worker has sent: no number is larger than this worker itself would have it.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { ticks: self.ticks.min(IDLE_TICKS), next_tick: self.next_tick.min(HEAD_TIMEOUT), ..self }
    }

    /// Whether a connection with these unread bytes may be parked: it waits for the first byte of a further request.
    pub fn may_park(&self, unread: &[u8]) -> bool {
        unread.is_empty() && self.detected == Detected::Http1 && self.requests > 0 && !self.in_head
    }

    /// A tick of a parked connection has passed. Returns whether it may go on waiting; if not, the task that resumes it
    /// closes it at once.
    pub fn waits_on(&mut self) -> bool {
        let goes_on = self.ticks + 1 < IDLE_TICKS;
        if goes_on {
            self.ticks += 1;
        }
        self.next_tick = if goes_on { HEAD_TIMEOUT } else { Duration::ZERO };
        goes_on
    }
}
