//! What the machine reports of itself, for the log, the events and the metrics.

use std::time::Duration;

use super::{Failure, KillReason, Phase, RecycleReason, WorkerView};
use crate::ids::{Ended, Generation, RequestId, Slot};

/// A fact for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The first workers are all ready.
    Serving {
        /// The first generation.
        generation: Generation,
        /// How many workers serve.
        workers: u16,
    },
    /// The process of a worker exists.
    WorkerSpawned(WorkerView),
    /// A worker is ready.
    WorkerReady(WorkerView),
    /// A starting worker will not become ready; for the reason see the failure.
    WorkerUnfit {
        /// The worker.
        worker: WorkerView,
        /// Why it won't.
        failure: Failure,
    },
    /// Somebody else has told a worker to end.
    WorkerTerminated(WorkerView),
    /// A worker's process has ended.
    WorkerExited {
        /// The worker as it was before it exited.
        worker: WorkerView,
        /// Its status.
        how: Ended,
        /// Whether it was draining, killed, or had said that it would exit.
        expected: bool,
    },
    /// A drain was ordered.
    DrainOrdered {
        /// The worker.
        worker: WorkerView,
        /// Whether other workers serve on.
        successor: bool,
        /// When it is killed, from now.
        timeout: Duration,
    },
    /// A worker's app has not left in time what it keeps in memory: it blocks. The worker drains without that.
    HandOnTimedOut(WorkerView),
    /// A worker has hung, and SIGABRT was ordered.
    WorkerHung {
        /// The worker as it was before.
        worker: WorkerView,
        /// How long it was seen to give no sign of life.
        silent: Duration,
    },
    /// A worker has done enough; it serves until its successor does.
    WorkerRecycled {
        /// The worker as it was before.
        worker: WorkerView,
        /// What was enough.
        why: RecycleReason,
    },
    /// SIGKILL was ordered.
    KillOrdered {
        /// The worker.
        worker: WorkerView,
        /// Why.
        why: KillReason,
    },
    /// A crashed worker's slot will get a new worker of the active generation.
    RespawnScheduled {
        /// The slot.
        slot: Slot,
        /// In how long; zero means at once.
        after: Duration,
    },
    /// Preflight passed, the roll begins.
    RollStarted {
        /// The request.
        request: RequestId,
        /// The active generation.
        from: Generation,
        /// The candidate.
        to: Generation,
        /// How many workers the candidate configures.
        workers: u16,
    },
    /// The first candidate worker is ready and must now live for this long.
    ProbationStarted {
        /// The request.
        request: RequestId,
        /// How long.
        probation: Duration,
    },
    /// The first candidate worker has lived through its probation.
    ProbationPassed {
        /// The request.
        request: RequestId,
    },
    /// The number of workers that are wanted has changed, or was at its bound already.
    Scaled {
        /// How many were wanted.
        from: u16,
        /// How many are.
        to: u16,
    },
    /// The number of workers changes when the service serves, or when the restart in flight has ended.
    ScalePutBy {
        /// Where the machine stands.
        phase: Phase,
    },
    /// The number of workers can't change any more.
    ScaleIgnored {
        /// Where the machine stands.
        phase: Phase,
    },
    /// A restart failed: every slot returns to the active generation.
    ReturnStarted {
        /// The request.
        request: RequestId,
        /// The generation that has failed.
        from: Generation,
        /// The active generation.
        to: Generation,
    },
    /// Every slot has a worker of the active generation again that serves.
    ReturnEnded {
        /// The request.
        request: RequestId,
        /// The active generation.
        generation: Generation,
    },
    /// A restart failed: no restart and no respawn any more until the master is restarted.
    Locked {
        /// How many workers serve on.
        serving: usize,
    },
    /// The service stops in so long, and serves until then.
    StopDelayed {
        /// How long.
        delay: Duration,
    },
    /// The service stops; living workers drain.
    Stopping,
    /// Another order to stop while workers drain: those that live are killed.
    StoppingAtOnce,
}

impl Report {
    /// The worker that it is about.
    pub const fn worker(&self) -> Option<&WorkerView> {
        match self {
            Self::WorkerSpawned(worker)
            | Self::WorkerReady(worker)
            | Self::WorkerTerminated(worker)
            | Self::HandOnTimedOut(worker)
            | Self::WorkerUnfit { worker, .. }
            | Self::WorkerExited { worker, .. }
            | Self::DrainOrdered { worker, .. }
            | Self::WorkerHung { worker, .. }
            | Self::WorkerRecycled { worker, .. }
            | Self::KillOrdered { worker, .. } => Some(worker),
            _ => None,
        }
    }
}
