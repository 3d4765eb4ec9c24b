//! The workers whose exit hasn't been seen yet, and the only way in which one goes from state to state.
//!
//! Owns the table, the workers' numbers and which state may follow which. What a change means for a restart is decided
//! in `lifecycle`.

use std::collections::BTreeMap;

use super::bequest::KeptState;
use super::health::Pulse;
use super::worker::{Life, Worker, WorkerView};
use crate::ids::{Generation, Slot, Time, WorkerId};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkerTable {
    known: BTreeMap<WorkerId, Worker>,
    last: WorkerId,
}

impl WorkerTable {
    pub(super) const fn new() -> Self {
        Self { known: BTreeMap::new(), last: WorkerId(0) }
    }

    /// Adds a worker, under a number that no worker has had.
    pub(super) fn add(&mut self, worker: Worker) -> WorkerId {
        self.last.0 += 1;
        self.known.insert(self.last, worker);
        self.last
    }

    /// Takes a worker out, which has gone or has never been.
    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        self.known.remove(&id)
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<Worker> {
        self.known.get(&id).copied()
    }

    /// Has a worker be in another state; returns it as it was before. Nothing changes for one that has gone.
    pub(super) fn enter(&mut self, id: WorkerId, life: Life) -> Option<Worker> {
        let worker = self.known.get_mut(&id)?;
        let before = *worker;
        if !matches!(life, Life::Ready { .. } | Life::Retiring { .. }) {
            worker.kept.bequest = None;
        }
        debug_assert!(before.life.may_become(life), "{id}: {:?} becomes {life:?}", before.life);
        worker.life = life;
        Some(before)
    }

    /// Keeps what was seen of a worker.
    pub(super) fn note(&mut self, id: WorkerId, pulse: Pulse) {
        if let Some(worker) = self.known.get_mut(&id) {
            worker.pulse = Some(pulse);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// All workers, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.known.iter().map(|(&id, worker)| (id, worker))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Worker> {
        self.known.values()
    }

    pub(super) fn views(&self) -> impl Iterator<Item = WorkerView> {
        self.iter().map(|(id, worker)| worker.view(id))
    }

    pub(super) fn ids(&self) -> Vec<WorkerId> {
        self.known.keys().copied().collect()
    }

    /// How many serve.
    pub(super) fn serving(&self) -> usize {
        self.all().filter(|it| it.is_ready()).count()
    }

    /// Those of one generation.
    pub(super) fn of(&self, generation: Generation) -> impl Iterator<Item = &Worker> {
        self.all().filter(move |it| it.generation == generation)
    }

    /// Whether a worker of this generation serves in this slot and will stay there.
    pub(super) fn is_manned(&self, slot: Slot, generation: Generation) -> bool {
        self.of(generation).any(|it| it.slot == slot && matches!(it.life, Life::Ready { .. }))
    }

    /// What a worker's app keeps in memory.
    pub(super) fn kept(&mut self, id: WorkerId) -> Option<&mut KeptState> {
        self.known.get_mut(&id).map(|worker| &mut worker.kept)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.known.values_mut()
    }

    /// Who comes after a worker in its slot, and serves there. One that was there before has what it needs.
    pub(super) fn heir(&self, id: WorkerId) -> Option<WorkerId> {
        let slot = self.get(id)?.slot;
        let stays = |it: &Worker| it.slot == slot && matches!(it.life, Life::Ready { .. });
        self.known.range(id..).rev().find(|&(&other, it)| other != id && stays(it)).map(|(&other, _)| other)
    }

    /// Those that are to be killed by now.
    pub(super) fn overdue(&self, now: Time) -> Vec<WorkerId> {
        self.iter().filter(|(_, it)| it.deadline().is_some_and(|until| until <= now)).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Time = Duration::ZERO;

    #[test]
    fn a_state_is_followed_only_by_those_that_lead_to_the_end() {
        let lives = [
            Life::Starting { until: NOW },
            Life::Ready { since: NOW },
            Life::Retiring { since: NOW },
            Life::Leaving { until: NOW },
            Life::Draining { until: NOW },
            Life::Aborting { until: NOW },
            Life::Killed,
        ];
        let followers: Vec<Vec<usize>> =
            lives.iter().map(|from| (0..lives.len()).filter(|&to| from.may_become(lives[to])).collect()).collect();
        assert_eq!(
            followers,
            [vec![1, 3, 4, 6], vec![2, 4, 5, 6], vec![4, 5, 6], vec![6], vec![4, 6], vec![6], vec![]],
            "from starting, ready, retiring, leaving, draining, aborting, killed"
        );
    }

    #[test]
    fn a_number_is_never_used_again() {
        let mut table = WorkerTable::new();
        let worker = Worker {
            slot: Slot(0),
            generation: Generation(1),
            shutdown_timeout: Duration::ZERO,
            hang_timeout: None,
            kept: KeptState::new(None),
            pulse: None,
            life: Life::Starting { until: NOW },
        };
        let first = table.add(worker);
        assert_eq!(table.remove(first), Some(worker));
        assert_eq!((table.remove(first), table.enter(first, Life::Killed), table.len()), (None, None, 0));
        assert!(table.add(worker) > first);
    }
}
