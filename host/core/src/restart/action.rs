//! What the machine orders: the effects carry it out, in order.

use std::time::Duration;

use super::{Failure, KillReason, Report, Verdict};
use crate::ids::{Generation, RequestId, Slot, WorkerId};

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the preflight; it answers with [`Event::PreflightPassed`](super::Event::PreflightPassed) or
    /// [`Event::PreflightRefused`](super::Event::PreflightRefused). A refused verdict of this request means that whatever it has
    /// prepared is to be dropped.
    Preflight {
        /// The request it belongs to.
        request: RequestId,
    },
    /// Nobody waits for this preflight any more. Its answer, should it still come, is ignored.
    CancelPreflight {
        /// The request it belongs to.
        request: RequestId,
    },
    /// Make a worker process; it answers with [`Event::Spawned`](super::Event::Spawned) or [`Event::SpawnFailed`](super::Event::SpawnFailed).
    Spawn {
        /// The new worker.
        worker: WorkerId,
        /// Its slot.
        slot: Slot,
        /// Its version and configuration.
        generation: Generation,
    },
    /// Have a worker's app leave what it keeps in memory to that of the newer one in its slot; both serve on. Answered by
    /// [`Event::HandedOn`](super::Event::HandedOn).
    HandOn {
        /// Who leaves, and drains next.
        from: WorkerId,
        /// Who inherits.
        to: WorkerId,
    },
    /// Tell a worker to drain. A worker that drains already can get it once more, without a
    /// successor and with what is left of its time, when the whole service stops.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// Whether other workers serve on; if not, the service stops.
        successor: bool,
        /// When it is killed, from now.
        timeout: Duration,
    },
    /// Send SIGABRT. Ordered at most once a worker.
    Abort {
        /// The worker.
        worker: WorkerId,
    },
    /// Send SIGKILL. Ordered at most once a worker.
    Kill {
        /// The worker.
        worker: WorkerId,
        /// Why.
        why: KillReason,
    },
    /// What the preflight of `request` prepared is now this generation, the candidate.
    Adopt {
        /// The request whose preflight passed.
        request: RequestId,
        /// The candidate.
        generation: Generation,
    },
    /// Every slot has a worker of this candidate, and nothing is left of its roll but drains, which may take long. A
    /// rollback is to outlive this master from now on.
    RolledOver {
        /// The candidate.
        generation: Generation,
    },
    /// Every slot has a worker of this generation that serves: close listeners that it doesn't
    /// configure, write down that it is active.
    Activate {
        /// The generation.
        generation: Generation,
    },
    /// This candidate has failed its roll, and its slots return to the active generation: write down
    /// that it is not to be tried again; answered by [`Event::WrittenDown`](super::Event::WrittenDown).
    Quarantine {
        /// The failed generation.
        generation: Generation,
        /// What the verdict will say.
        failure: Failure,
    },
    /// No worker belongs to this generation and none ever will again.
    Discard {
        /// The generation.
        generation: Generation,
    },
    /// Say to whoever sends clients that no more should come, and to clients that their connections
    /// aren't kept. New ones are served as ever.
    AnnounceStop,
    /// Stop listening: new clients are to be refused from now on.
    CloseListeners,
    /// Tell whoever waits for this request what became of it.
    Verdict {
        /// The request.
        request: RequestId,
        /// What became of it.
        verdict: Verdict,
    },
    /// A fact for the log; nothing is to be done.
    Report(Report),
    /// The master is to exit. Always the last action.
    Exit(ExitReason),
}

/// Why the master exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to.
    Stopped,
    /// One of the first workers didn't make it.
    StartFailed(Failure),
    /// The master is locked and its last worker has gone.
    LockedAndEmpty,
}
