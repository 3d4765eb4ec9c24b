//! When a crashed worker's slot gets its next worker: at once the first time, then with
//! exponential back-off for as long as it keeps happening.

use std::time::Duration;

use crate::ids::Time;

/// The first pause; it doubles with every further crash.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A worker that was ready for this long has ended its slot's series of crashes.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Doubling [`FIRST_PAUSE`] this often passes [`LONGEST_PAUSE`]; more would only overflow.
const MOST_DOUBLINGS: u32 = 9;

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
        let pause = match self.crashes.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(MOST_DOUBLINGS)).min(LONGEST_PAUSE),
        };
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
