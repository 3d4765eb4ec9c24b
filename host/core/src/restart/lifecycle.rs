//! The workers' lives: spawned, ready or unfit, drained, killed, gone, and respawned.
//!
//! Owns the worker table's changes and the deadlines in it. Whether a worker's loss ends the start
//! or a restart is decided here as well, since only the worker's generation and the machine's state
//! decide it; what follows is the business of `roll` and `stop`.

use super::bequest::KeptState;
use super::machine::{Machine, State, Step};
use super::worker::{Life, Worker, WorkerState, WorkerView};
use super::{Action, ExitReason, Failure, KillReason, Report, Settings};
use crate::ids::{Ended, Generation, Slot, Time, WorkerId};

impl Machine {
    pub(super) fn spawn(&mut self, slot: Slot, generation: Generation, settings: Settings, step: &mut Step) {
        let until = step.now.saturating_add(settings.start_timeout);
        let Settings { shutdown_timeout, hang_timeout, state_timeout, .. } = settings;
        let life = Life::Starting { until };
        let worker = self.workers.add(Worker {
            slot,
            generation,
            shutdown_timeout,
            hang_timeout,
            kept: KeptState::new(state_timeout),
            pulse: None,
            life,
        });
        step.act(Action::Spawn { worker, slot, generation });
    }

    /// The worker, if it is known and still starting.
    pub(super) fn starting(&self, id: WorkerId) -> Option<WorkerView> {
        let worker = self.workers.get(id)?;
        worker.is_starting().then(|| worker.view(id))
    }

    pub(super) fn ready(&mut self, id: WorkerId, keeps_state: bool, step: &mut Step) {
        if let Some(view) = self.starting(id) {
            if let Some(kept) = self.workers.kept(id) {
                kept.is_kept = keeps_state;
            }
            self.workers.enter(id, Life::Ready { since: step.now });
            step.report(Report::WorkerReady(WorkerView { state: WorkerState::Ready, ..view }));
        }
    }

    /// A starting worker says that it can't serve; it is expected to exit by itself.
    pub(super) fn said_unfit(&mut self, id: WorkerId, step: &mut Step, failure: impl FnOnce(Slot) -> Failure) {
        if let Some(worker) = self.workers.get(id)
            && let Life::Starting { until } = worker.life
        {
            self.workers.enter(id, Life::Leaving { until });
            let view = WorkerView { state: WorkerState::Leaving, ..worker.view(id) };
            self.unfit(view, failure(view.slot), step);
        }
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId, error: String, step: &mut Step) {
        // A worker that has spoken has a process. One that is draining or killed may have been
        // given up while its spawn was still under way.
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        if !matches!(worker.life, Life::Starting { .. } | Life::Draining { .. } | Life::Killed) {
            return;
        }
        self.workers.remove(id);
        let slot = worker.slot;
        let failure = Failure::CannotSpawn { slot, error };
        self.unfit(worker.view(id), failure, step);
        self.schedule_respawn(&worker, step);
    }

    /// A worker will never be ready.
    fn unfit(&mut self, worker: WorkerView, failure: Failure, step: &mut Step) {
        step.report(Report::WorkerUnfit { worker, failure: failure.clone() });
        self.lost(worker.generation, failure, step);
    }

    pub(super) fn exited(&mut self, id: WorkerId, how: Ended, step: &mut Step) {
        let Some(worker) = self.workers.remove(id) else {
            return;
        };
        self.forget_heir(id, step.now);
        let expected = worker.is_going();
        step.report(Report::WorkerExited { worker: worker.view(id), how, expected });
        if !expected {
            let slot = worker.slot;
            let failure = Failure::WorkerDied { slot, how };
            self.lost(worker.generation, failure, step);
        }
        self.schedule_respawn(&worker, step);
    }

    /// Somebody else has told a worker to end (SIGTERM to it alone). Where a successor can come, it
    /// serves until that one is ready; in a roll its candidate is on the way already.
    pub(super) fn terminated(&mut self, id: WorkerId, step: &mut Step) {
        let Some(worker) = self.workers.get(id).filter(Worker::keeps_its_slot) else {
            return;
        };
        step.report(Report::WorkerTerminated(worker.view(id)));
        self.lost(worker.generation, Failure::WorkerTerminated { slot: worker.slot }, step);
        let successor_comes = self.respawns() || matches!(self.state, State::Rolling(_));
        match worker.life {
            Life::Ready { since } if successor_comes => drop(self.workers.enter(id, Life::Retiring { since })),
            // It doesn't serve yet, or nobody will come; the start's or the stop's own order comes first.
            _ => self.drain_once(id, step),
        }
        self.schedule_respawn(&worker, step);
    }

    /// Orders the drain of each worker that isn't needed any more, and without whom as many serve as
    /// are wanted: of the highest slot first.
    pub(super) fn drain_spare(&mut self, step: &mut Step) {
        let mut spare: Vec<(Slot, WorkerId)> =
            self.workers.iter().filter(|(id, it)| self.is_spare(*id, it)).map(|(id, it)| (it.slot, id)).collect();
        // Of a slot the oldest first, which has had what its app keeps in memory for the longest.
        spare.sort_unstable_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
        for (_, id) in spare {
            let Some(worker) = self.workers.get(id) else { continue };
            // The drain of one may leave another without whom it would be succeeded by.
            let is_needless = !worker.is_ready() || self.serving() > usize::from(self.settings.workers);
            if is_needless && self.is_spare(id, &worker) && self.has_handed_on(id, step) {
                self.drain(id, true, step);
            }
        }
    }

    /// Whether a worker's place is another's by now: it retires and its successor serves, it is of a
    /// generation that has failed, or its slot isn't wanted any more.
    fn is_spare(&self, id: WorkerId, worker: &Worker) -> bool {
        if worker.is_going() {
            false
        } else if worker.slot.0 >= self.settings.workers {
            true
        } else if worker.generation == self.active {
            worker.is_retiring() && self.is_succeeded(id, worker.slot)
        } else {
            worker.is_starting() || self.is_manned(worker.slot)
        }
    }

    /// Whether a worker that retires has a successor that serves, be it for as long as it takes to get one itself: else
    /// a slot whose workers are told to end one after the other would keep all of them. Somebody must stay, here or
    /// elsewhere, to whom its connections can go.
    fn is_succeeded(&self, id: WorkerId, slot: Slot) -> bool {
        let serving = || self.workers.iter().filter(|(_, it)| it.generation == self.active && it.is_ready());
        serving().any(|(other, it)| other > id && it.slot == slot) && serving().any(|(_, it)| !it.is_retiring())
    }

    fn drain_once(&mut self, id: WorkerId, step: &mut Step) {
        if self.workers.get(id).is_some_and(|it| it.keeps_its_slot()) {
            self.drain(id, true, step);
        }
    }

    /// A worker that was counted on doesn't serve: at the start and in a roll this decides.
    pub(super) fn lost(&mut self, generation: Generation, failure: Failure, step: &mut Step) {
        if let State::Starting(first) = &mut self.state
            && first.forgives(&failure)
        {
            return;
        }
        match &self.state {
            State::Starting(_) => {
                self.begin_stopping(ExitReason::StartFailed(failure), None, step);
            }
            State::Rolling(roll) if roll.candidate == generation => {
                self.fail_restart(*roll, failure, step);
            }
            _ => {}
        }
    }

    /// Whether empty slots get workers of the active generation.
    const fn respawns(&self) -> bool {
        matches!(self.state, State::Serving | State::Preflight { .. } | State::Returning(_))
    }

    /// A worker has gone or will; outside a restart's roll its slot gets another of the active
    /// generation, unless that one is there or due already, or the slot is not wanted any more.
    pub(super) fn schedule_respawn(&mut self, gone: &Worker, step: &mut Step) {
        let slot = gone.slot;
        // What becomes of a failed candidate is nothing that the slot's own record is about.
        if self.respawns() && gone.generation == self.active && self.lacks_a_worker(slot) {
            let back_off = self.back_offs.entry(slot).or_default();
            let after = back_off.crashed(gone.ready_for(step.now), step.now);
            step.report(Report::RespawnScheduled { slot, after });
        }
    }

    /// Has every wanted slot get a worker of the active generation that has none.
    pub(super) fn fill_slots(&mut self, now: Time) {
        for slot in (0..self.settings.workers).map(Slot) {
            if self.lacks_a_worker(slot) {
                self.back_offs.entry(slot).or_default().fill(now);
            }
        }
    }

    /// Whether a wanted slot has no worker of the active generation that stays, and none is due.
    fn lacks_a_worker(&self, slot: Slot) -> bool {
        let taken = self.workers.of(self.active).any(|it| it.slot == slot && it.keeps_its_slot());
        let is_due = self.back_offs.get(&slot).is_some_and(|it| it.due().is_some());
        slot.0 < self.settings.workers && !taken && !is_due
    }

    /// Whether a worker of the active generation serves in this slot that will stay there.
    pub(super) fn is_manned(&self, slot: Slot) -> bool {
        self.workers.is_manned(slot, self.active)
    }

    pub(super) fn respawn_due(&mut self, step: &mut Step) {
        let due: Vec<Slot> = self
            .back_offs
            .iter_mut()
            .filter_map(|(&slot, back_off)| back_off.take_due(step.now).then_some(slot))
            .collect();
        for slot in due {
            self.spawn(slot, self.active, self.settings, step);
        }
    }

    pub(super) fn kill_overdue(&mut self, step: &mut Step) {
        for id in self.workers.overdue(step.now) {
            let Some(worker) = self.workers.get(id) else { continue };
            match worker.life {
                Life::Starting { .. } => {
                    let slot = worker.slot;
                    self.kill(id, KillReason::NotReadyInTime, step);
                    let failure = Failure::NotReadyInTime { slot };
                    self.unfit(worker.view(id), failure, step);
                }
                Life::Leaving { .. } => self.kill(id, KillReason::StayedUnfit, step),
                // The failure of one worker may have given another a new deadline meanwhile.
                Life::Draining { until } if until <= step.now => {
                    self.kill(id, KillReason::DrainTimedOut, step);
                }
                Life::Aborting { .. } => self.kill(id, KillReason::SurvivedAbort, step),
                Life::Draining { .. } | Life::Ready { .. } | Life::Retiring { .. } | Life::Killed => {}
            }
        }
    }

    pub(super) fn kill(&mut self, id: WorkerId, why: KillReason, step: &mut Step) {
        if let Some(worker) = self.workers.get(id)
            && worker.life != Life::Killed
        {
            self.workers.enter(id, Life::Killed);
            step.report(Report::KillOrdered { worker: worker.view(id), why });
            step.act(Action::Kill { worker: id, why });
        }
    }

    /// Orders a drain, or tells a worker that drains already that it has no successor any more.
    /// Its deadline is never moved.
    pub(super) fn drain(&mut self, id: WorkerId, successor: bool, step: &mut Step) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let until = match worker.life {
            Life::Starting { .. } | Life::Ready { .. } | Life::Retiring { .. } => {
                step.now.saturating_add(worker.shutdown_timeout)
            }
            Life::Draining { until } => until,
            Life::Leaving { .. } | Life::Aborting { .. } | Life::Killed => return,
        };
        let timeout = until.saturating_sub(step.now);
        step.report(Report::DrainOrdered { worker: worker.view(id), successor, timeout });
        self.workers.enter(id, Life::Draining { until });
        step.act(Action::Drain { worker: id, successor, timeout });
    }
}
