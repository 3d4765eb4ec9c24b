//! A connection that nobody serves, as this room sees it: where it has come to when it was let go of, and where
//! somebody goes on, here or in another worker.
//!
//! Leaves to others how it travels or rests, and who has it when.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::HEAD_TIMEOUT;
use super::patience::IDLE_TICKS;

/// A connection that nobody serves: a new one, or one that its worker has let go of between two requests.
#[derive(Debug)]
pub struct Handover<T> {
    /// The connection itself.
    pub transport: T,
    /// What has been read of it and belongs to a request that nobody has seen.
    pub unread: Bytes,
    /// What has been before.
    pub history: History,
}

/// Where a connection is to go that is let go of.
#[derive(Debug)]
pub enum Leaving<T> {
    /// To another worker.
    Moves(Handover<T>),
    /// Nowhere: it has been idle for so long that nobody needs to have it in hand before there is something to do.
    Rests(Handover<T>),
}

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

impl History {
    /// As another worker tells it, which may be anything: no number is larger than this worker itself would have it.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { ticks: self.ticks.min(IDLE_TICKS), next_tick: self.next_tick.min(HEAD_TIMEOUT), ..self }
    }

    /// Whether the connection waits for the begin of its next request, if nothing of it has been read.
    pub fn is_idle(&self) -> bool {
        self.spoken == Spoken::Http1 && self.requests > 0 && !self.in_head
    }

    /// One that [is idle](Self::is_idle) was looked at once more, in vain, as it was to be: whether it may go on
    /// waiting. If not, whoever serves it ends it at once.
    pub fn waits_on(&mut self) -> bool {
        let goes_on = self.ticks + 1 < IDLE_TICKS;
        if goes_on {
            self.ticks += 1;
        }
        self.next_tick = if goes_on { HEAD_TIMEOUT } else { Duration::ZERO };
        goes_on
    }
}

/// What is known of a connection's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoken {
    /// Nothing.
    Nothing,
    /// HTTP/1.
    Http1,
}

impl<T> Handover<T> {
    /// A connection that has just been accepted.
    pub const fn accepted(transport: T) -> Self {
        let history =
            History { spoken: Spoken::Nothing, requests: 0, in_head: false, ticks: 0, next_tick: HEAD_TIMEOUT };
        Self { transport, unread: Bytes::new(), history }
    }
}
