//! One worker as the machine sees it: its slot, its generation, and how far its life has come.

use std::time::Duration;

use super::bequest::KeptState;
use super::health::Pulse;
use crate::ids::{Generation, Slot, Time, WorkerId};
use crate::words::words;

words! {
    /// How far a worker's life has come.
    pub enum WorkerState {
        /// Spawned, not ready yet.
        Starting = "starting",
        /// It serves.
        Ready = "ready",
        /// Somebody else has told it to end; it serves until its successor is ready.
        Retiring = "retiring",
        /// It said that it can't serve and is expected to exit.
        Leaving = "leaving",
        /// It was told to drain.
        Draining = "draining",
        /// It has hung and SIGABRT was ordered; its exit is still to come.
        Aborting = "aborting",
        /// SIGKILL was ordered; its exit is still to come.
        Killed = "killed",
    }
}

/// A worker as the status and the log see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Its slot.
    pub slot: Slot,
    /// Its version and configuration.
    pub generation: Generation,
    /// How far its life has come.
    pub state: WorkerState,
}

/// A worker whose exit hasn't been seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// Its own generation's, which may be neither active nor candidate by the time it drains.
    pub(super) shutdown_timeout: Duration,
    /// Its own generation's.
    pub(super) hang_timeout: Option<Duration>,
    /// What its app keeps in memory.
    pub(super) kept: KeptState,
    /// What was seen of it since it became ready, if anything.
    pub(super) pulse: Option<Pulse>,
    pub(super) life: Life,
}

/// The states of a worker with the moments that matter in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Starting { until: Time },
    Ready { since: Time },
    Retiring { since: Time },
    Leaving { until: Time },
    Draining { until: Time },
    Aborting { until: Time },
    Killed,
}

impl Life {
    /// Whether a worker in this state may be in that one next.
    pub(super) const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Starting { .. } => {
                matches!(next, Self::Ready { .. } | Self::Leaving { .. } | Self::Draining { .. } | Self::Killed)
            }
            Self::Ready { .. } => {
                matches!(next, Self::Retiring { .. } | Self::Draining { .. } | Self::Aborting { .. } | Self::Killed)
            }
            Self::Retiring { .. } => matches!(next, Self::Draining { .. } | Self::Aborting { .. } | Self::Killed),
            Self::Draining { .. } => matches!(next, Self::Draining { .. } | Self::Killed),
            Self::Leaving { .. } | Self::Aborting { .. } => matches!(next, Self::Killed),
            Self::Killed => false,
        }
    }
}

impl Worker {
    /// When this worker is to be killed, if nothing happens until then.
    pub(super) const fn deadline(&self) -> Option<Time> {
        match self.life {
            Life::Starting { until }
            | Life::Leaving { until }
            | Life::Draining { until }
            | Life::Aborting { until } => Some(until),
            Life::Ready { .. } | Life::Retiring { .. } | Life::Killed => None,
        }
    }

    pub(super) const fn is_starting(&self) -> bool {
        matches!(self.life, Life::Starting { .. })
    }

    /// Whether it serves.
    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.life, Life::Ready { .. } | Life::Retiring { .. })
    }

    /// Whether it serves, and only until its successor does.
    pub(super) const fn is_retiring(&self) -> bool {
        matches!(self.life, Life::Retiring { .. })
    }

    /// Whether its slot needs no other worker.
    pub(super) const fn keeps_its_slot(&self) -> bool {
        matches!(self.life, Life::Starting { .. } | Life::Ready { .. })
    }

    /// Whether its exit surprises nobody.
    pub(super) const fn is_going(&self) -> bool {
        matches!(self.life, Life::Leaving { .. } | Life::Draining { .. } | Life::Aborting { .. } | Life::Killed)
    }

    /// Whether a signal was sent to it that nobody survives, sooner or later.
    pub(super) const fn is_dying(&self) -> bool {
        matches!(self.life, Life::Aborting { .. } | Life::Killed)
    }

    /// How long it has been ready without a break until now.
    pub(super) const fn ready_for(&self, now: Time) -> Duration {
        match self.life {
            Life::Ready { since } | Life::Retiring { since } => now.saturating_sub(since),
            _ => Duration::ZERO,
        }
    }

    pub(super) const fn view(&self, id: WorkerId) -> WorkerView {
        WorkerView {
            id,
            slot: self.slot,
            generation: self.generation,
            state: match self.life {
                Life::Starting { .. } => WorkerState::Starting,
                Life::Ready { .. } => WorkerState::Ready,
                Life::Retiring { .. } => WorkerState::Retiring,
                Life::Leaving { .. } => WorkerState::Leaving,
                Life::Draining { .. } => WorkerState::Draining,
                Life::Aborting { .. } => WorkerState::Aborting,
                Life::Killed => WorkerState::Killed,
            },
        }
    }
}
