//! The way back: from a failed roll to a service that is all of the active generation again.
//!
//! Owns what follows a failure under `"on_failure": "rollback"`. Every slot that has no worker of the
//! active generation any more gets one at once, and a candidate that serves is ordered to drain only
//! when its slot's active worker is ready and as many others as are wanted serve. What goes wrong on
//! the way is a crash like any other: the slot gets its next worker with back-off, and the candidates
//! that serve go on serving meanwhile, because they are better than nobody.
//!
//! No drain is forbidden for ever: once the active workers are all ready, they alone are as many as
//! wanted. The verdict waits until that is so, the last worker of another generation has exited, and the
//! quarantine is written down: whoever hears it may kill this master, and the next one must know.

use super::machine::{Machine, State, Step};
use super::{Action, Failure, Report, Verdict};
use crate::ids::{Generation, RequestId, Slot};

/// A restart between its failure and its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rollback {
    pub(super) request: RequestId,
    /// The generation that was the candidate.
    pub(super) failed: Generation,
    pub(super) failure: Failure,
    pub(super) recorded: Recorded,
}

/// Whether the quarantine is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorded {
    NotYet,
    Done,
}

impl Machine {
    pub(super) fn start_return(&mut self, rollback: Rollback, step: &mut Step) {
        let Rollback { request, failed, failure, .. } = &rollback;
        // Now and not with the verdict, which may be long in coming: a master that dies meanwhile must
        // not start with what has failed.
        step.act(Action::Quarantine { generation: *failed, failure: failure.clone() });
        step.report(Report::ReturnStarted { request: *request, from: *failed, to: self.active });
        self.state = State::Returning(rollback);
        self.fill_slots(step.now);
    }

    pub(super) fn written_down(&mut self, generation: Generation) {
        if let State::Returning(rollback) = &mut self.state
            && rollback.failed == generation
        {
            rollback.recorded = Recorded::Done;
        }
    }

    /// Takes every step of the return that is possible now.
    pub(super) fn advance_return(&mut self, step: &mut Step) {
        self.respawn_due(step);
        self.drain_spare(step);
        let State::Returning(rollback) = &self.state else {
            return;
        };
        if self.has_returned(rollback) && self.workers.all().all(|it| it.generation == self.active) {
            let rollback = rollback.clone();
            self.returned(rollback, step);
        }
    }

    /// Whether every slot is the active generation's again, and whoever else there is goes.
    pub(super) fn has_returned(&self, rollback: &Rollback) -> bool {
        (0..self.settings.workers).all(|slot| self.is_manned(Slot(slot)))
            && rollback.recorded == Recorded::Done
            && self.workers.all().all(|it| it.generation == self.active || it.is_going())
    }

    pub(super) fn returned(&mut self, rollback: Rollback, step: &mut Step) {
        let Rollback { request, failed, failure, .. } = rollback;
        self.state = State::Serving;
        self.outgoing.insert(failed);
        self.discard_outgoing(step);
        step.report(Report::ReturnEnded { request, generation: self.active });
        step.act(Action::Verdict { request, verdict: Verdict::Failed(failure) });
    }
}
