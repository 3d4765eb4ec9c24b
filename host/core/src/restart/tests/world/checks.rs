//! What is allowed, by the world's own books, and whether the machine's are the same.

use super::*;

impl World {
    /// Whether nothing but drains keeps a request from its preflight, and it doesn't wait for them.
    pub(super) fn may_overtake(&self, by: By) -> bool {
        let goes = |it: &Process| !it.serves() && it.state != WorkerState::Starting;
        let newest = self.candidate.filter(|_| !self.returning).unwrap_or(self.active);
        let former: BTreeSet<_> = self.alive.values().map(|it| it.generation).filter(|it| *it != newest).collect();
        let others_go = self.alive.values().filter(|it| it.generation != newest).all(goes);
        let only_drains = match self.candidate {
            _ if self.end.is_some() || !self.has_served || self.preflight.is_some() => false,
            Some(_) if self.returning => self.unwritten.is_none() && self.is_manned() && others_go,
            Some(candidate) => {
                let ready = self.alive.values().filter(|it| it.generation == candidate && it.serves()).count();
                ready == usize::from(self.settings[&candidate].workers)
                    && others_go
                    && self.probation_has_passed(candidate)
            }
            None => !former.is_empty(),
        };
        let urgent = matches!(by, By::Rollback | By::Healing);
        let most = if urgent { 4 } else { 3 };
        only_drains && former.len() <= most && (urgent || self.settings[&self.active].while_draining)
    }

    /// Whether every slot has an active worker that serves and stays.
    pub(super) fn is_manned(&self) -> bool {
        let is_ready = |it: &Process| it.generation == self.active && it.state == WorkerState::Ready;
        let slots = (0..self.settings[&self.active].workers).map(Slot);
        slots.into_iter().all(|slot| self.alive.values().any(|it| it.slot == slot && is_ready(it)))
    }

    /// Whether this first worker may start now: in the first slot at first, in each other one when that one serves,
    /// and a second time when everybody else does.
    pub(super) fn may_start_first(&self, slot: Slot) -> bool {
        let spawned = self.first_spawns.get(&slot).copied().unwrap_or_default();
        let serves = |it: &Process| it.state == WorkerState::Ready;
        match spawned {
            0 if slot == Slot(0) => self.alive.is_empty(),
            0 => self.alive.values().any(|it| it.slot == Slot(0) && serves(it)),
            1 => slot != Slot(0) && self.failed_starts.contains(&slot) && self.alive.values().all(serves),
            _ => false,
        }
    }

    /// A drain of one while the others serve on.
    pub(super) fn allow_drain(&self, worker: WorkerId, process: &Process) {
        let ends = matches!(self.end, Some(End::Locked | End::Delayed { .. }));
        if process.told_to_end && (process.state == WorkerState::Starting || ends) {
            // It doesn't serve yet, or nobody will ever come in its place.
            return;
        }
        assert_eq!(self.end, None);
        let others = self.serving() - usize::from(process.serves());
        let configured = if self.returning {
            self.allow_return(worker, process);
            if process.state == WorkerState::Starting {
                // It doesn't serve and isn't wanted.
                return;
            }
            usize::from(self.settings[&self.active].workers)
        } else if let Some(candidate) = self.candidate {
            assert_ne!(process.generation, candidate);
            assert!(self.probation_has_passed(candidate));
            assert!(self.is_replaced(process.slot, candidate));
            self.configured(candidate)
        } else {
            let workers = self.settings[&self.active].workers;
            if process.slot.0 < workers {
                assert_eq!(process.state, WorkerState::Retiring, "only a roll drains whom nobody told to end");
                assert!(self.is_succeeded(worker, process), "new before old");
            } else if process.state == WorkerState::Starting {
                // It doesn't serve and isn't wanted.
                return;
            }
            usize::from(workers)
        };
        assert!(others >= configured, "{others} of {configured} serve on");
    }

    /// A drain while slots return: of a candidate, or of an active one that somebody else has told to end.
    pub(super) fn allow_return(&self, worker: WorkerId, process: &Process) {
        let mut manned = self.alive.values().filter(|it| it.generation == self.active);
        let is_manned = if process.generation == self.active {
            self.is_succeeded(worker, process)
        } else {
            manned.any(|it| it.slot == process.slot && it.state == WorkerState::Ready)
        };
        let is_wanted = process.slot.0 < self.settings[&self.active].workers;
        let is_candidate = Some(process.generation) == self.candidate;
        assert!(is_candidate || process.state == WorkerState::Retiring || !is_wanted);
        assert!(is_manned || !is_wanted || (is_candidate && process.state == WorkerState::Starting), "new before old");
    }

    /// Whether a younger worker of the same generation serves in the same slot, and one of them stays somewhere.
    pub(super) fn is_succeeded(&self, worker: WorkerId, process: &Process) -> bool {
        let others = || self.alive.iter().filter(|(_, it)| it.generation == process.generation && it.serves());
        let stays = others().any(|(_, it)| it.state == WorkerState::Ready);
        stays && others().any(|(&other, it)| other > worker && it.slot == process.slot)
    }

    /// Whether every slot has an active worker that serves, and nobody else is left.
    pub(super) fn is_back(&self) -> bool {
        let workers = self.settings[&self.active].workers;
        let serves = |slot| self.alive.values().any(|it| it.slot == slot && it.state == WorkerState::Ready);
        (0..workers).map(Slot).all(serves) && self.alive.values().all(|it| it.generation == self.active)
    }

    /// How many workers must serve: as many as before, until the candidate is there in full.
    pub(super) fn configured(&self, candidate: Generation) -> usize {
        let ready =
            self.alive.values().filter(|it| it.generation == candidate && it.state == WorkerState::Ready).count();
        let new = usize::from(self.settings[&candidate].workers);
        let old = usize::from(self.settings[&self.active].workers);
        if ready == new { new } else { old }
    }

    /// Whether the slot's candidate serves; a slot that goes is replaced by all of them together.
    pub(super) fn is_replaced(&self, slot: Slot, candidate: Generation) -> bool {
        let mut ready = self.alive.values().filter(|it| it.generation == candidate && it.state == WorkerState::Ready);
        let workers = self.settings[&candidate].workers;
        if slot.0 < workers { ready.any(|it| it.slot == slot) } else { ready.count() == usize::from(workers) }
    }

    pub(super) fn probation_has_passed(&self, candidate: Generation) -> bool {
        let probation = self.settings[&candidate].probation;
        let mut workers = self.alive.values();
        let first = workers.find(|it| it.generation == candidate && it.slot == Slot(0));
        let ready_since = first.and_then(|it| it.ready_since);
        ready_since.is_some_and(|since| since + probation <= self.now)
    }

    pub(super) fn has_lost_a_candidate(&self) -> bool {
        let good = self.alive.values().filter(|it| {
            let lives = matches!(it.state, WorkerState::Starting | WorkerState::Ready);
            Some(it.generation) == self.candidate && lives && !it.told_to_end
        });
        self.candidate.is_some() && good.count() < self.candidates_spawned
    }

    /// The machine's books are the world's.
    pub(super) fn compare(&self) {
        let books = self.alive.iter().map(|(&id, process)| WorkerView {
            id,
            slot: process.slot,
            generation: process.generation,
            state: process.state,
        });
        assert!(self.machine.workers().eq(books), "{:?}", self.machine);
        let is_starting = self.end.is_none() && !self.has_served;
        let someone_comes_or_goes = self.alive.values().any(|it| it.state != WorkerState::Ready);
        assert!(!is_starting || someone_comes_or_goes, "somebody else may start");
        assert_eq!(self.machine.serving(), self.serving());
        assert_eq!(self.machine.active(), self.active);
        assert_eq!(self.machine.is_locked(), self.end == Some(End::Locked));
        let stopping = matches!(self.end, Some(End::Delayed { .. } | End::Stopping | End::StoppingAtOnce));
        assert_eq!(self.machine.phase() == Phase::Stopping, stopping);
        assert_eq!(self.machine.phase() == Phase::Exited, self.is_over());
        assert!(self.end.is_some() || self.returning || !self.has_lost_a_candidate());
        assert_eq!(self.machine.phase() == Phase::Returning, self.returning);
        let is_free = matches!(self.machine.phase(), Phase::Serving | Phase::Preflight);
        assert!(!is_free || self.wish.is_none(), "wanted and nothing in the way");
        assert!(self.settings.len() <= 6, "at most one candidate, and four that drain");
        // A slot has one that stays and one that retires, or as many serve as are wanted, and those above the number that is wanted now go
        // when enough others serve; how many drain is bounded by the back-off.
        let staying = self.alive.values().filter(|it| it.serves() || it.state == WorkerState::Starting).count();
        // One more retires where an heir is told to end before it has inherited.
        assert!(staying <= 3 * usize::from(self.most_wanted), "bounded memory");
        if let Some(deadline) = self.machine.deadline() {
            assert!(deadline > self.now, "the machine would be called for ever");
        }
        self.compare_links();
        for process in self.alive.values() {
            let waits = !process.serves() && process.state != WorkerState::Killed;
            assert!(!waits || process.deadline > self.now, "not killed in time");
        }
    }

    /// Whoever drains while others serve on has somebody to give its connections to, who stays.
    pub(super) fn compare_links(&self) {
        let links = self.machine.links();
        let is_ready = |it: &Process| it.state == WorkerState::Ready;
        assert!(links.iter().all(|(_, to)| is_ready(&self.alive[to])), "{links:?}");
        let serves_on = !matches!(self.machine.phase(), Phase::Starting | Phase::Stopping | Phase::Exited);
        let is_taken = serves_on && self.alive.values().any(is_ready);
        for (from, process) in &self.alive {
            let takers = links.iter().filter(|(giver, _)| giver == from).count();
            let expected = is_taken && process.state == WorkerState::Draining;
            assert_eq!(takers > 0, expected, "{from:?}: {links:?}");
            assert!(takers <= 8, "{links:?}");
        }
    }
}
