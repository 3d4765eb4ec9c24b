//! When a crashed worker's slot gets its next worker: at once the first time, then with
//! exponential back-off for as long as it keeps happening.

use std::time::Duration;

use super::backoff::Exponential;
use crate::ids::Time;

/// The pauses from the second crash on.
const PAUSES: Exponential = Exponential { first: Duration::from_millis(100), longest: Duration::from_secs(30) };
/// A worker that was ready for this long has ended its slot's series of crashes.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The crash history of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BackOff {
    /// Crashes since a worker of the slot was last stable.
    crashes: u32,
    /// When the next worker is to be spawned; none while one is alive.
    due: Option<Time>,
}

impl BackOff {
    /// Takes note of a crash; returns how long the slot stays empty.
    pub(super) fn crashed(&mut self, was_ready_for: Duration, now: Time) -> Duration {
        if was_ready_for >= STABLE_AFTER {
            self.crashes = 0;
        }
        let pause = self.crashes.checked_sub(1).map_or(Duration::ZERO, |doublings| PAUSES.pause(doublings));
        self.crashes = self.crashes.saturating_add(1);
        self.due = Some(now.saturating_add(pause));
        pause
    }

    /// Has the slot get a worker now, because it is wanted and not because one has crashed.
    pub(super) const fn fill(&mut self, now: Time) {
        self.due = Some(now);
    }

    /// When the next worker is to be spawned.
    pub(super) const fn due(&self) -> Option<Time> {
        self.due
    }

    /// Whether the next worker is to be spawned now. Says so once.
    pub(super) fn take_due(&mut self, now: Time) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}
