//! Who hands its connections over to whom.
//!
//! Owns which workers are to be joined by a link at a moment, so that what a draining worker has can go to others.
//! Those that take are of the generation that is to serve from now on, as long as one of it serves; each draining
//! worker has the nearest slots, its own first, so that many workers need no more than a few links each.

use super::machine::{Machine, State};
use super::worker::{Life, Worker};
use crate::ids::WorkerId;

/// The least difference between two workers that is worth a move, and the least share of what the fuller one has.
const LEAST: u64 = 32;
const LEAST_SHARE: u64 = 4;

/// How many connections move at a time at most.
const MOST: u64 = 1024;

/// How many workers one gives its connections to at most.
pub const MAX_RECEIVERS: usize = 8;

/// Idle connections that are to move from one worker that serves to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// Who has the most.
    pub from: WorkerId,
    /// Who has the fewest.
    pub to: WorkerId,
    /// How many.
    pub connections: u64,
}

/// What evens out how many connections each worker has, if that is far from even: accepting is shared, so a worker
/// that has just been spawned, or was busy for a while, has fewer.
pub fn evened_out(held: &[(WorkerId, u64)]) -> Option<Shift> {
    let &(from, most) = held.iter().max_by_key(|(_, held)| *held)?;
    let &(to, fewest) = held.iter().min_by_key(|(_, held)| *held)?;
    let difference = most - fewest;
    let is_large = difference >= LEAST && difference >= most / LEAST_SHARE;
    is_large.then(|| Shift { from, to, connections: (difference / 2).min(MOST) })
}

impl Machine {
    /// Those among whom connections may be evened out: nobody, while workers come and go.
    pub fn peers(&self) -> impl Iterator<Item = WorkerId> {
        let serves = matches!(self.state, State::Serving | State::Preflight { .. });
        let stays = |it: &Worker| matches!(it.life, Life::Ready { .. }) && it.slot.0 < self.settings.workers;
        let all_stay = self.workers.all().all(stays);
        self.workers.iter().map(|(id, _)| id).filter(move |_| serves && all_stay)
    }

    /// Every pair of a worker that drains while others serve, and one that takes its connections.
    pub fn links(&self) -> Vec<(WorkerId, WorkerId)> {
        let target = match &self.state {
            State::Rolling(roll) => roll.candidate,
            State::Serving | State::Preflight { .. } | State::Returning(_) | State::Locked { .. } => self.active,
            // All end together.
            State::Fresh | State::Starting(_) | State::StopDelayed { .. } | State::Stopping { .. } | State::Exited => {
                return Vec::new();
            }
        };
        let stays = |it: &Worker| matches!(it.life, Life::Ready { .. });
        let is_wanted = |it: &Worker| target != self.active || it.slot.0 < self.settings.workers;
        let serves_on = |it: &Worker| stays(it) && it.generation == target && is_wanted(it);
        let of_target = self.workers.all().any(serves_on);
        let takes = |it: &Worker| if of_target { serves_on(it) } else { stays(it) };
        let mut receivers: Vec<_> =
            self.workers.iter().filter(|(_, it)| takes(it)).map(|(id, it)| (it.slot, id)).collect();
        receivers.sort_unstable();
        let draining = self.workers.iter().filter(|(_, it)| matches!(it.life, Life::Draining { .. }));
        draining
            .flat_map(|(from, it)| {
                let first = receivers.partition_point(|(slot, _)| *slot < it.slot);
                let nearest = receivers[first..].iter().chain(&receivers[..first]);
                nearest.take(MAX_RECEIVERS).map(move |&(_, to)| (from, to)).collect::<Vec<_>>()
            })
            .collect()
    }
}
