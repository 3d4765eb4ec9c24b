//! The phases of a worker, as each of its connections sees them.

use std::time::{Duration, Instant};

/// What a connection has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serve.
    Serving,
    /// Come to an end.
    Draining {
        /// When the drain began.
        since: Instant,
        /// How long an idle connection waits for its next request.
        linger: Duration,
        /// What becomes of connections that may be handed over.
        ending: Ending,
    },
    /// End now, whatever is in flight.
    Cut,
}

/// How a connection leaves a worker that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// To another worker, which goes on with it; what can't be handed over is closed.
    HandOver,
    /// By a close that is announced where it can be.
    Close,
}

impl Phase {
    /// The phase for a connection that no other worker has accepted: every drain ends it by a close.
    #[must_use]
    pub fn without_transfer(self) -> Self {
        match self {
            Self::Draining { since, linger, ending: Ending::HandOver } => {
                Self::Draining { since, linger, ending: Ending::Close }
            }
            phase => phase,
        }
    }
}
