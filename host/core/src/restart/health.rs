//! What looks at the workers lead to: one that has hung is aborted, one that has done enough is recycled.
//!
//! Owns what silence is, and when a worker's time has come. Who looks reports what there is to see, and
//! how often it looks is said here too.
//!
//! **Silence** is what the master itself has seen: look after look at the same sign of life. A look counts
//! for at most the time that should lie between two of them, so that a master which was paused together
//! with its workers (a suspended machine, SIGSTOP, a frozen container) blames nobody for that time: they
//! move before enough looks have come together. Clocks of different processes are never compared.
//!
//! A worker that hangs gets SIGABRT, and SIGKILL when it is still there after [`ABORT_GRACE`]. Its slot
//! gets the next worker at once, like after a crash. Where a process doesn't even die of that, because the
//! kernel waits for a disk, its successor isn't aborted: each would leave one more behind.
//!
//! **Recycling** puts a successor of the same generation beside a worker, which retires. It is for when
//! nothing else goes on, and for one at a time: all wanted workers are ready, and nobody else is there.

use std::time::Duration;

use super::machine::{Machine, State, Step};
use super::worker::{Life, Worker};
use super::{Action, Failure, Recycle, Report};
use crate::ids::{Time, WorkerId};

/// How long a worker that was aborted may take to die; it may write a core dump meanwhile.
pub(super) const ABORT_GRACE: Duration = Duration::from_secs(5);

/// No silence is believed before so many looks have heard it.
pub(super) const LOOKS: u32 = 4;

/// The longest time between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often one must look at a worker, and the worker give a sign of life, where it may be silent for at
/// most `hang_timeout`.
pub fn look_interval(hang_timeout: Option<Duration>) -> Duration {
    hang_timeout.map_or(LONGEST_PAUSE, |timeout| (timeout / LOOKS).min(LONGEST_PAUSE))
}

/// What there is to see of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// The last sign of life of the serving thread that has been silent for the longest. It means nothing
    /// but that the next one is another.
    pub beat: Option<Duration>,
    /// How many requests it has handed to its app.
    pub requests: u64,
    /// How much memory it has resident, in bytes, where that matters and is known.
    pub memory: Option<u64>,
}

/// Why a worker is recycled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecycleReason {
    /// It has handed so many requests to its app, and `limit` are enough.
    Requests {
        /// How many.
        served: u64,
        /// How many are enough.
        limit: u64,
    },
    /// It has so much memory resident, more than `limit`; in bytes.
    Memory {
        /// How much.
        resident: u64,
        /// How much it may have.
        limit: u64,
    },
}

impl RecycleReason {
    fn of(limits: &Recycle, signs: &Signs) -> Option<Self> {
        let served = signs.requests;
        let requests = limits.requests.filter(|limit| served >= *limit);
        let memory = limits.memory.zip(signs.memory).filter(|(limit, resident)| resident > limit);
        let requests = requests.map(|limit| Self::Requests { served, limit });
        requests.or_else(|| memory.map(|(limit, resident)| Self::Memory { resident, limit }))
    }
}

/// What looks at one worker have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pulse {
    beat: Option<Duration>,
    looked: Time,
    silent: Duration,
}

impl Pulse {
    fn after(before: Option<Self>, beat: Option<Duration>, every: Duration, now: Time) -> Self {
        let silent = before.filter(|before| before.beat == beat).map_or(Duration::ZERO, |before| {
            before.silent.saturating_add(now.saturating_sub(before.looked).min(every))
        });
        Self { beat, looked: now, silent }
    }
}

impl Machine {
    /// How often [`Event::Looked`](super::Event::Looked) is wanted; never, when absent.
    pub fn check_interval(&self) -> Option<Duration> {
        if !self.acts_on_looks() {
            return None;
        }
        let timeouts = self.workers.all().filter_map(|it| it.hang_timeout);
        let recycles = self.settings.recycle.is_wanted().then_some(LONGEST_PAUSE);
        timeouts.map(|timeout| look_interval(Some(timeout))).chain(recycles).min()
    }

    /// Whether what is seen matters: nobody is replaced any more once the master is locked or stops.
    const fn acts_on_looks(&self) -> bool {
        !matches!(
            self.state,
            State::Fresh | State::Locked { .. } | State::StopDelayed { .. } | State::Stopping { .. } | State::Exited
        )
    }

    pub(super) fn looked(&mut self, found: &[(WorkerId, Signs)], step: &mut Step) {
        for (id, signs) in found {
            // One that is aborted may end a restart, and then nobody else is.
            if self.acts_on_looks() {
                self.listen(*id, signs, step);
            }
        }
        if self.state == State::Serving && self.settings.databank_shared {
            self.recycle(found, step);
        }
    }

    /// Takes note of what is seen of a worker that serves, and aborts it when that has been the same for
    /// too long. One that starts, leaves or drains has its deadline.
    fn listen(&mut self, id: WorkerId, signs: &Signs, step: &mut Step) {
        let Some(worker) = self.workers.get(id).filter(Worker::is_ready) else {
            return;
        };
        let Some(timeout) = worker.hang_timeout else {
            return;
        };
        let pulse = Pulse::after(worker.pulse, signs.beat, look_interval(Some(timeout)), step.now);
        self.workers.note(id, pulse);
        let another_dies = self.workers.all().any(|it| it.slot == worker.slot && it.is_dying());
        if pulse.silent >= timeout && !another_dies {
            self.abort(id, &worker, pulse.silent, step);
        }
    }

    fn abort(&mut self, id: WorkerId, worker: &Worker, silent: Duration, step: &mut Step) {
        self.workers.enter(id, Life::Aborting { until: step.now.saturating_add(ABORT_GRACE) });
        step.report(Report::WorkerHung { worker: worker.view(id), silent });
        step.act(Action::Abort { worker: id });
        self.lost(worker.generation, Failure::WorkerHung { slot: worker.slot }, step);
        self.schedule_respawn(worker, step);
    }

    /// Has the oldest worker retire that has done enough, if all is quiet.
    fn recycle(&mut self, found: &[(WorkerId, Signs)], step: &mut Step) {
        let limits = self.settings.recycle;
        let wanted = self.settings.workers;
        let is_quiet = |it: &Worker| matches!(it.life, Life::Ready { .. }) && it.slot.0 < wanted;
        if !self.workers.all().all(is_quiet) || self.workers.len() != usize::from(wanted) {
            return;
        }
        let due = self.workers.iter().find_map(|(id, worker)| {
            let (_, signs) = found.iter().find(|(seen, _)| *seen == id)?;
            let why = RecycleReason::of(&limits, signs)?;
            (worker.ready_for(step.now) >= limits.min_uptime).then_some((id, *worker, why))
        });
        if let Some((id, worker, why)) = due {
            step.report(Report::WorkerRecycled { worker: worker.view(id), why });
            let since = step.now.saturating_sub(worker.ready_for(step.now));
            self.workers.enter(id, Life::Retiring { since });
            // The next one would have as much from the start.
            if let RecycleReason::Memory { .. } = why
                && let Some(kept) = self.workers.kept(id)
            {
                kept.is_kept = false;
            }
            self.back_offs.entry(worker.slot).or_default().fill(step.now);
        }
    }
}
