//! The first start: which of the first workers is spawned when.
//!
//! The worker of the first slot starts alone, so that what an app does once in its start (migrate its database, make
//! a directory) doesn't run against itself; all others start together when it is ready, so that a start takes as long
//! as two workers', however many there are. An app whose start can never run beside another's says so by failing: each
//! of the others that does gets a second try, alone. What else goes wrong ends the start.
//!
//! ```text
//!  alone ──▶ together ──▶ one by one: who has failed beside others
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use super::machine::{Machine, State, Step};
use super::worker::Worker;
use super::{Action, Failure, Report};
use crate::ids::Slot;

/// How far the first start has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FirstStart {
    /// Whether the others were spawned.
    together: bool,
    /// Slots whose app has failed to start beside others, and that are still to be tried alone.
    again: BTreeSet<Slot>,
    /// Slots that were tried twice.
    tried_twice: BTreeSet<Slot>,
}

impl FirstStart {
    /// Whether a loss doesn't end the start: its slot is tried again.
    pub(super) fn forgives(&mut self, failure: &Failure) -> bool {
        let Failure::AppFailedToStart { slot, .. } = *failure else { return false };
        // The first slot's worker had nobody beside it.
        slot != Slot(0) && self.tried_twice.insert(slot) && self.again.insert(slot)
    }
}

impl Machine {
    pub(super) fn begin(&mut self, step: &mut Step) {
        if self.state != State::Fresh {
            return;
        }
        self.state = State::Starting(FirstStart::default());
        // With no worker configured there is none to wait for.
        if self.settings.workers > 0 {
            self.spawn(Slot(0), self.active, self.settings, step);
        }
    }

    /// Spawns whoever may start now; then, if all are ready, the service serves.
    pub(super) fn advance_first_start(&mut self, step: &mut Step) {
        let all_are_ready = self.workers.all().all(Worker::is_ready);
        let State::Starting(first) = &mut self.state else { return };
        if !all_are_ready {
            return;
        }
        if !std::mem::replace(&mut first.together, true) {
            for slot in (1..self.settings.workers).map(Slot) {
                self.spawn(slot, self.active, self.settings, step);
            }
        } else if let Some(slot) = first.again.pop_first() {
            step.report(Report::RespawnScheduled { slot, after: Duration::ZERO });
            self.spawn(slot, self.active, self.settings, step);
        }
        if self.serving() == usize::from(self.settings.workers) {
            self.state = State::Serving;
            step.act(Action::Activate { generation: self.active });
            step.report(Report::Serving { generation: self.active, workers: self.settings.workers });
        }
    }
}
