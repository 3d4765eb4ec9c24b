//! How many workers there are, where somebody wants more or fewer than the configuration says.
//!
//! Owns what such a wish does and when. Outside a restart it does it at once: a slot more gets a worker,
//! and a slot that isn't wanted any more is drained as soon as as many others as are wanted serve. From
//! the roll of a restart until its verdict, and before the service serves, it is put by, and wishes that
//! come together become one: then the number changes under nobody who counts on it. What was reached
//! holds over restarts until the configuration's own number changes.

use super::machine::{Machine, State, Step};
use super::{Refusal, Report};
use crate::config::MAX_WORKERS;

/// A wish for another number of workers. The number never leaves 1 to [`MAX_WORKERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// So many more, or fewer.
    By(i32),
    /// This many.
    To(u16),
}

impl Scale {
    /// This wish and then another, as one.
    fn then(self, next: Self) -> Self {
        match (self, next) {
            (_, Self::To(_)) => next,
            (Self::To(_), Self::By(_)) => Self::To(next.applied_to(self.applied_to(0))),
            (Self::By(first), Self::By(second)) => {
                let most = i32::from(MAX_WORKERS);
                Self::By(first.saturating_add(second).clamp(-most, most))
            }
        }
    }

    /// How many workers are wanted where there were so many.
    fn applied_to(self, workers: u16) -> u16 {
        let wanted = match self {
            Self::To(wanted) => wanted.into(),
            Self::By(difference) => i32::from(workers).saturating_add(difference),
        };
        u16::try_from(wanted.clamp(1, MAX_WORKERS.into())).unwrap_or(MAX_WORKERS)
    }
}

impl Machine {
    /// Whether a wish for another number of workers is fulfilled, now or after the restart in flight.
    ///
    /// # Errors
    /// `aborted restart` when the master is locked, `stopping` when it is on its way out.
    pub const fn may_scale(&self) -> Result<(), Refusal> {
        match self.state {
            State::Locked { .. } => Err(Refusal::AbortedRestart),
            State::StopDelayed { .. } | State::Stopping { .. } | State::Exited => Err(Refusal::Stopping),
            _ => Ok(()),
        }
    }

    pub(super) fn scale(&mut self, wish: Scale, step: &mut Step) {
        match self.state {
            State::Locked { .. } | State::StopDelayed { .. } | State::Stopping { .. } | State::Exited => {
                step.report(Report::ScaleIgnored { phase: self.phase() });
            }
            // Fulfilled in this very step.
            State::Serving | State::Preflight { .. } => self.wish = Some(wish),
            State::Fresh | State::Starting(_) | State::Rolling(_) | State::Returning(_) => {
                self.wish = Some(self.wish.map_or(wish, |before| before.then(wish)));
                step.report(Report::ScalePutBy { phase: self.phase() });
            }
        }
    }

    /// Fulfils what somebody has wished for meanwhile.
    pub(super) fn fulfil_wish(&mut self, step: &mut Step) {
        let Some(wish) = self.wish.take() else {
            return;
        };
        let from = self.settings.workers;
        let to = wish.applied_to(from);
        self.settings.workers = to;
        step.report(Report::Scaled { from, to });
        self.back_offs.retain(|slot, _| slot.0 < to);
        self.fill_slots(step.now);
    }
}
