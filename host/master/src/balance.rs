//! Evening out how many connections the workers have.
//!
//! Owns when the stats pages are looked at for that. What is uneven is decided in `restart`; which connections
//! move, and how, is the workers' business.

use std::time::Duration;

use tracing::debug;

use app_host_core::ids::Time;
use app_host_core::restart::{Machine, Shift, evened_out};

use super::effects::Effects;

/// How often workers are compared, and how rarely where that was in vain: what can't move doesn't, however often
/// it is asked for.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// When to look.
pub(super) struct Balance {
    next: Time,
    pause: Duration,
    last: Option<Shift>,
}

impl Balance {
    pub(super) const fn new() -> Self {
        Self { next: PAUSE, pause: PAUSE, last: None }
    }

    /// When to look next, while there is anything to even out.
    pub(super) fn deadline(&self, machine: &Machine, effects: &Effects) -> Option<Time> {
        let restart = effects.active().config.restart;
        (restart.handover && restart.balance && machine.peers().nth(1).is_some()).then_some(self.next)
    }

    /// Looks, if it is time for that.
    pub(super) fn look(&mut self, machine: &Machine, effects: &Effects, now: Time) {
        if self.deadline(machine, effects).is_none_or(|deadline| deadline > now) {
            return;
        }
        let workers = effects.workers();
        let held: Vec<_> = machine
            .peers()
            .filter_map(|worker| Some((worker, workers.stats(worker)?.sum(|thread| thread.connections))))
            .collect();
        let shift = evened_out(&held);
        let in_vain = shift.is_some() && shift == self.last;
        self.pause = if in_vain { (self.pause * 2).min(LONGEST_PAUSE) } else { PAUSE };
        self.next = now + self.pause;
        self.last = shift;
        if let Some(Shift { from, to, connections }) = shift {
            debug!(from = workers.pid(from), to = workers.pid(to), connections, "connections are evened out");
            workers.shift(from, to, connections);
        }
    }
}
