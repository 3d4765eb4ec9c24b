//! The roll: from a passed preflight to the verdict.
//!
//! Owns the order in which candidate workers are spawned and active ones drained, and what a
//! failure does. Candidates come slot by slot, the first alone and the others as many at a time as
//! configured; a drain is never waited for, except that the verdict waits for the last one, unless
//! another restart can't wait (see `draining`).
//!
//! A drain that isn't allowed yet is ordered later, and none is forbidden for ever: each candidate
//! becomes ready or fails the restart within its start timeout, and once all of them are ready they
//! alone are as many as configured, so every drain is allowed.

use super::machine::{Machine, State, Step};
use super::rollback::{Recorded, Rollback};
use super::worker::{Life, Worker};
use super::{Action, Failure, OnFailure, Report, Settings, Verdict};
use crate::ids::{Generation, RequestId, Slot, Time, WorkerId};

/// A restart between its preflight and its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roll {
    pub(super) request: RequestId,
    pub(super) candidate: Generation,
    /// As the machine's: with the number of workers that is wanted.
    settings: Settings,
    /// The candidate's own number of workers.
    configured: u16,
    /// Whether it is as the active generation is.
    unchanged: bool,
    probation: Probation,
    /// Whether it was said that only drains are left.
    rolled_over: bool,
}

/// The trial of the first candidate worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probation {
    /// It isn't ready yet.
    NotBegun,
    Running {
        until: Time,
    },
    Passed,
}

impl Roll {
    pub(super) fn has_lived_through_probation(&self) -> bool {
        self.probation == Probation::Passed
    }

    /// When the probation is over, if it is running.
    pub(super) const fn probation_ends(&self) -> Option<Time> {
        match self.probation {
            Probation::Running { until } => Some(until),
            Probation::NotBegun | Probation::Passed => None,
        }
    }
}

impl Machine {
    pub(super) fn start_roll(&mut self, request: RequestId, (settings, unchanged): (Settings, bool), step: &mut Step) {
        self.last_generation.0 += 1;
        let candidate = self.last_generation;
        // From here on an empty slot waits for its candidate, and the candidate's code deserves
        // a clean record.
        self.back_offs.clear();
        let configured = settings.workers;
        // What somebody has wanted since holds until the configuration says something else.
        let workers = if configured == self.configured { self.settings.workers } else { configured };
        let settings = Settings { workers, ..settings };
        let probation = Probation::NotBegun;
        let rolled_over = false;
        self.state =
            State::Rolling(Roll { request, candidate, settings, configured, unchanged, probation, rolled_over });
        step.act(Action::Adopt { request, generation: candidate });
        step.report(Report::RollStarted { request, from: self.active, to: candidate, workers: settings.workers });
        self.spawn(Slot(0), candidate, settings, step);
    }

    /// Takes every step of the roll that is possible now.
    pub(super) fn advance_roll(&mut self, roll: Roll, step: &mut Step) {
        let roll = self.advance_probation(roll, step);
        self.state = State::Rolling(roll);
        if roll.probation != Probation::Passed {
            return;
        }
        self.spawn_next_candidates(&roll, step);
        self.drain_predecessors(&roll, step);
        if self.all_candidates_ready(&roll) && self.candidates(&roll).count() == self.workers.len() {
            self.complete(roll, step);
        } else if !roll.rolled_over && self.is_rolled_over(&roll) {
            step.act(Action::RolledOver { generation: roll.candidate });
            self.state = State::Rolling(Roll { rolled_over: true, ..roll });
        }
    }

    fn advance_probation(&self, mut roll: Roll, step: &mut Step) -> Roll {
        let request = roll.request;
        // Before the probation has passed, the first candidate worker is the only one.
        let ready_since = self.candidates(&roll).find_map(|it| match it.life {
            Life::Ready { since } => Some(since),
            _ => None,
        });
        if let (Probation::NotBegun, Some(since)) = (roll.probation, ready_since) {
            let probation = roll.settings.probation;
            let until = since.saturating_add(probation);
            roll.probation = Probation::Running { until };
            step.report(Report::ProbationStarted { request, probation });
        }
        if roll.probation_ends().is_some_and(|until| until <= step.now) {
            roll.probation = Probation::Passed;
            step.report(Report::ProbationPassed { request });
        }
        roll
    }

    fn spawn_next_candidates(&mut self, roll: &Roll, step: &mut Step) {
        // Candidates come in the order of their slots and none goes before the verdict, so their
        // number is the next one's slot.
        let next = (0..roll.settings.workers).map(Slot).skip(self.candidates(roll).count());
        let starting = self.candidates(roll).filter(|it| !it.is_ready()).count();
        let room = usize::from(roll.settings.parallel.max(1)).saturating_sub(starting);
        for slot in next.take(room) {
            self.spawn(slot, roll.candidate, roll.settings, step);
        }
    }

    /// Orders every drain that is allowed now, lowest slot first.
    fn drain_predecessors(&mut self, roll: &Roll, step: &mut Step) {
        let all_ready = self.all_candidates_ready(roll);
        let configured = if all_ready { roll.settings.workers } else { self.settings.workers };
        let mut predecessors: Vec<(Slot, WorkerId)> = self
            .workers
            .iter()
            .filter(|(_, it)| it.generation != roll.candidate && !it.is_going())
            .filter(|(_, it)| all_ready || self.has_ready_candidate(roll, it.slot))
            .map(|(id, it)| (it.slot, id))
            .collect();
        predecessors.sort_unstable();
        for (_, id) in predecessors {
            let others_ready = self.serving() - usize::from(self.workers.get(id).is_some_and(|it| it.is_ready()));
            if others_ready >= usize::from(configured) && self.has_handed_on(id, step) {
                self.drain(id, true, step);
            }
        }
    }

    pub(super) fn complete(&mut self, roll: Roll, step: &mut Step) {
        let old = std::mem::replace(&mut self.active, roll.candidate);
        self.settings = roll.settings;
        self.configured = roll.configured;
        self.state = State::Serving;
        step.act(Action::Activate { generation: roll.candidate });
        self.outgoing.insert(old);
        self.discard_outgoing(step);
        let draining = self.workers.all().filter(|it| it.generation != self.active).count();
        let verdict = Verdict::Complete { unchanged: roll.unchanged, draining };
        step.act(Action::Verdict { request: roll.request, verdict });
    }

    /// Ends the roll without success.
    pub(super) fn fail_restart(&mut self, roll: Roll, failure: Failure, step: &mut Step) {
        let Roll { request, candidate, .. } = roll;
        match self.settings.on_failure {
            OnFailure::Lock => {
                self.wish = None;
                self.state = State::Locked { candidate: Some(candidate) };
                step.report(Report::Locked { serving: self.serving() });
                step.act(Action::Verdict { request, verdict: Verdict::Failed(failure) });
            }
            OnFailure::Rollback => {
                let recorded = Recorded::NotYet;
                self.start_return(Rollback { request, failed: candidate, failure, recorded }, step);
            }
        }
    }

    fn candidates(&self, roll: &Roll) -> impl Iterator<Item = &Worker> {
        self.workers.of(roll.candidate)
    }

    fn has_ready_candidate(&self, roll: &Roll, slot: Slot) -> bool {
        self.candidates(roll).any(|it| it.slot == slot && it.is_ready())
    }

    pub(super) fn all_candidates_ready(&self, roll: &Roll) -> bool {
        let ready = self.candidates(roll).filter(|it| it.is_ready()).count();
        ready == usize::from(roll.settings.workers)
    }
}
