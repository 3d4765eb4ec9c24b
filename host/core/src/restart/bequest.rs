//! What an app keeps in memory goes to the worker that comes after it, before the one that had it is told to drain.
//!
//! Owns who leaves something to whom, and for how long a drain waits for that. It comes first, while both serve: an heir that
//! dies of what it inherits is replaced as any other, and the worker before it is still there. Whether a worker may drain at
//! all is decided elsewhere, before and behind it.

use std::time::Duration;

use super::machine::{Machine, Step};
use super::{Action, Report};
use crate::ids::{Time, WorkerId};

/// How much longer than the two workers the machine waits: they say by themselves what has become of it, unless an app blocks.
const LATER: Duration = Duration::from_millis(250);

/// What a worker's app has, and who is to have it next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptState {
    /// How long leaving something to this worker may take; it is left nothing, when absent.
    pub(super) timeout: Option<Duration>,
    /// Whether the app can leave something, and inherit.
    pub(super) is_kept: bool,
    /// Whether another worker was told to leave it something.
    pub(super) is_heir: bool,
    pub(super) bequest: Option<Bequest>,
}

/// A worker was told to leave what its app has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bequest {
    heir: WorkerId,
    /// Until when its drain waits; it doesn't any more, when absent.
    until: Option<Time>,
}

impl KeptState {
    /// Nothing is known of the app yet.
    pub(super) const fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, is_kept: false, is_heir: false, bequest: None }
    }

    /// Until when a drain waits.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.bequest.and_then(|bequest| bequest.until)
    }
}

impl Machine {
    /// Whether a worker that may drain has left what it has to the one after it, or has nothing or nobody to leave it to.
    /// If it has, that is ordered now. Each is an heir once: the oldest of several comes first, which had it the longest.
    pub(super) fn has_handed_on(&mut self, id: WorkerId, step: &mut Step) -> bool {
        let Some((worker, heir)) = self.workers.get(id).zip(self.workers.heir(id)) else { return true };
        // Where one heir after the other is told to end, nobody waits, lest a slot get more and more workers.
        let same_slot = self.workers.all().filter(|it| it.slot == worker.slot);
        if same_slot.filter(|it| it.is_retiring()).count() > 1 {
            return true;
        }
        if let Some(bequest) = worker.kept.bequest.filter(|bequest| bequest.heir == heir) {
            return bequest.until.is_none();
        }
        let is_able = worker.is_ready() && worker.kept.is_kept;
        let Some(next) = self.workers.kept(heir).filter(|it| is_able && it.is_kept && !it.is_heir) else { return true };
        let Some(timeout) = next.timeout else { return true };
        next.is_heir = true;
        let until = step.now.saturating_add(timeout).saturating_add(LATER);
        if let Some(own) = self.workers.kept(id) {
            own.bequest = Some(Bequest { heir, until: Some(until) });
        }
        step.act(Action::HandOn { from: id, to: heir });
        false
    }

    /// A worker says that it is done with what it was told to leave to this heir.
    pub(super) fn handed_on(&mut self, id: WorkerId, heir: WorkerId) {
        if let Some(bequest) = self.workers.kept(id).and_then(|kept| kept.bequest.as_mut())
            && bequest.heir == heir
        {
            bequest.until = None;
        }
    }

    /// Nothing can be left to a worker that has gone. One that was to go, and whose heir may have died of what it was left,
    /// leaves nothing any more: its slot would lose one after the other.
    pub(super) fn forget_heir(&mut self, heir: WorkerId, now: Time) {
        for worker in self.workers.all_mut() {
            let is_retiring = worker.is_retiring();
            if let Some(bequest) = worker.kept.bequest.take_if(|bequest| bequest.heir == heir) {
                let was_pending = bequest.until.is_some_and(|until| until > now);
                worker.kept.is_kept &= !(is_retiring && was_pending);
            }
        }
    }

    /// Waits no longer for those that have had their time.
    pub(super) fn end_late_bequests(&mut self, step: &mut Step) {
        for id in self.workers.ids() {
            let Some(view) = self.workers.get(id).map(|worker| worker.view(id)) else { continue };
            if let Some(bequest) = self.workers.kept(id).and_then(|kept| kept.bequest.as_mut())
                && bequest.until.is_some_and(|until| until <= step.now)
            {
                bequest.until = None;
                step.report(Report::HandOnTimedOut(view));
            }
        }
    }
}
