//! A restart that begins while former workers still drain.
//!
//! A restart is over when its last former worker has gone, which can take as long as `shutdown_timeout`.
//! What undoes it must not wait that long: once every slot has its worker and nothing is left but drains,
//! a rollback may begin, and so may the healing of a listener; any other restart only where
//! `while_draining` says so. The restart before gets its verdict then, which counts the workers that drain.
//!
//! At most one generation rolls, and at most [`MOST`] former ones drain. Whatever begins in this way gets
//! its own verdict when all of them have gone.

use super::machine::{Machine, State, Step};
use super::roll::Roll;
use super::{Action, By};

/// How many former generations may drain when a restart begins; the last place is kept for what is urgent.
pub(super) const MOST: usize = 4;

impl Machine {
    /// Whether a request of this kind is kept from passing the gate by nothing but drains, and doesn't have
    /// to wait for them.
    pub(super) fn may_overtake(&self, by: By) -> bool {
        let only_drains_are_left = match &self.state {
            State::Rolling(roll) => self.is_rolled_over(roll),
            State::Returning(rollback) => self.has_returned(rollback),
            State::Serving => !self.outgoing.is_empty(),
            _ => false,
        };
        let room = if by.is_urgent() { MOST } else { MOST - 1 };
        only_drains_are_left && (by.is_urgent() || self.settings.while_draining) && self.former() <= room
    }

    /// Gives the restart in flight, of which only drains are left, its verdict.
    pub(super) fn overtake(&mut self, step: &mut Step) {
        match self.state.clone() {
            State::Rolling(roll) => self.complete(roll, step),
            State::Returning(rollback) => self.returned(rollback, step),
            _ => {}
        }
    }

    /// Whether every slot has its candidate, and whoever else there is goes.
    pub(super) fn is_rolled_over(&self, roll: &Roll) -> bool {
        roll.has_lived_through_probation()
            && self.all_candidates_ready(roll)
            && self.workers.all().all(|it| it.generation == roll.candidate || it.is_going())
    }

    /// How many generations drain, or would if the one that rolls were active.
    fn former(&self) -> usize {
        let serving = match &self.state {
            State::Rolling(roll) => roll.candidate,
            _ => self.active,
        };
        let mut former: Vec<_> = self.workers.all().map(|it| it.generation).filter(|it| *it != serving).collect();
        former.sort_unstable();
        former.dedup();
        former.len()
    }

    /// Lets go of each former generation whose last worker has gone.
    pub(super) fn discard_outgoing(&mut self, step: &mut Step) {
        let workers = &self.workers;
        self.outgoing.retain(|generation| {
            let is_there = workers.of(*generation).next().is_some();
            if !is_there {
                step.act(Action::Discard { generation: *generation });
            }
            is_there
        });
    }
}
