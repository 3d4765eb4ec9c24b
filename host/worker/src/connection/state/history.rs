//! What a connection has been through, kept while it is suspended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use app_host_core::not_resumed::LongLived;

/// No time-out is longer: the longest that the configuration allows.
const LONGEST: Duration = Duration::from_hours(24);

/// What a connection has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The protocol, if it was detected.
    pub detected: Detected,
    /// How many requests it has had.
    pub requests: u64,
    /// Whether a head has begun.
    pub in_head: bool,
    /// For how long the connection has been seen to wait for what it waits for now.
    pub waited: Duration,
    /// After how long it is to be looked at; bounded by whoever goes on with it.
    pub next_look: Duration,
}

/// Whether a suspended connection's protocol was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detected {
    /// Nor has its proxy said whose it is: a header of the PROXY protocol comes first.
    Unannounced,
    /// Not yet.
    Nothing,
    /// It is HTTP/1.
    Http1,
    /// It is HTTP/2, and there is a snapshot.
    Http2,
    /// It is HTTP/1, or was, and its client has had the answer to the request that comes once more: the grant of a
    /// WebSocket, or the head of an event stream.
    Resumed(LongLived),
}

impl History {
    /// The history of a connection that has just been accepted.
    pub const NEW: Self =
        Self { detected: Detected::Nothing, requests: 0, in_head: false, waited: Duration::ZERO, next_look: LONGEST };

    /// The history of a connection that has had so many requests and goes on with what the last of them has begun.
    pub const fn resumed(what: LongLived, requests: u64) -> Self {
        // The last one comes once more.
        Self { detected: Detected::Resumed(what), requests: requests.saturating_sub(1), ..Self::NEW }
    }

    /// Bounds a history that another worker has sent: no time is longer than any configuration has it.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { waited: self.waited.min(LONGEST), next_look: self.next_look.min(LONGEST), ..self }
    }

    /// Whether a connection with these unread bytes may be parked: it waits for the first byte of a further request.
    pub fn may_park(&self, unread: &[u8]) -> bool {
        unread.is_empty() && self.detected == Detected::Http1 && self.requests > 0 && !self.in_head
    }

    /// A connection is parked, and looked at after [`next_look`](Self::next_look), which is at most `look`.
    pub fn park(&mut self, look: Duration) {
        self.next_look = self.next_look.min(look);
    }

    /// A parked connection is looked at. Returns whether it may go on waiting, `idle` being the longest that one may; if
    /// not, the task that resumes it closes it at once.
    pub fn waits_on(&mut self, look: Duration, idle: Duration) -> bool {
        self.unpark(Duration::ZERO);
        let left = idle.saturating_sub(self.waited);
        self.next_look = left.min(look);
        !left.is_zero()
    }

    /// A parked connection is resumed, or moves on, when it was to be looked at after `left`.
    pub fn unpark(&mut self, left: Duration) {
        self.waited = self.waited.saturating_add(self.next_look.saturating_sub(left)).min(LONGEST);
        self.next_look = left;
    }
}
