//! The restart logic: a pure state machine from events to actions.
//!
//! Owns the answer to every "may this happen now?": which requests are refused, when a worker is
//! spawned, drained, killed or respawned, and what a restart's verdict is. Leaves to others: the
//! clock (each call says what time it is), processes, listeners, files and logs. Who calls
//! [`Machine::handle`] turns the returned [`Action`]s into effects, in their order, and calls again
//! with [`Event::Tick`] at [`Machine::deadline`]. Every timer is derived from a stored deadline, so
//! a tick that comes early or late does no harm and a stale one doesn't exist.
//!
//! ```text
//!  Begin                all ready                 Request
//! ───────▶ starting ───────────────▶ serving ◀──────────────▶ preflight
//!             │                       ▲  │     refused           │
//!             │ a first worker is     │  │ Stop                  │ passed
//!             │ lost, or Stop      ▲  │  │                       ▼
//!             │                    │  └──┼──────────────────── rolling
//!             │           all back │     │      complete       │     │ failed, to be
//!             │                 returning ◀────────────────────┘     │ locked
//!             ▼                          ▼ failed, to be rolled back ▼
//!          stopping ◀──────────── Stop: from everywhere ────────── locked
//!             │                                                      │
//!             │ the last worker has exited                           │ the last worker has exited
//!             ▼                                                      ▼
//!           exited ◀─────────────────────────────────────────────────┘
//! ```
//!
//! A worker is starting, then ready, then draining; it is *retiring* when somebody else has told it to
//! end, or it is recycled, and it serves until its successor is ready, *leaving* when it has said that it
//! can't serve, *aborting* when it has hung and SIGABRT was ordered, and *killed* when SIGKILL was, and its
//! exit is still to come. Whatever a worker
//! says that doesn't fit its state, or that comes from an unknown worker, changes nothing.
//!
//! What is kept at every step: no drain with a successor is ordered unless as many other workers as
//! configured are ready; each request gets one verdict; at most one candidate generation exists;
//! nothing is spawned when locked or stopping; each adopted generation is either activated or
//! discarded; [`Action::Exit`] comes once and last. While slots return, candidates that serve go on
//! serving until the active generation has as many ready workers as are wanted.

mod draining;
mod first;
mod heal;
mod health;
pub mod history;
mod lifecycle;
mod links;
mod machine;
mod respawn;
mod retreat;
mod roll;
mod scale;
mod stop;
#[cfg(test)]
mod tests;
mod verdict;
mod watch;
mod worker;

use std::time::Duration;

use crate::ids::{Ended, Generation, RequestId, Slot, WorkerId};
use crate::words::words;

pub use crate::config::{OnFailure, Recycle};
pub use heal::Healing;
pub use health::{RecycleReason, Signs, look_interval};
pub use links::{Shift, evened_out};
pub use machine::Machine;
pub use scale::Scale;
pub use verdict::{Failure, FailureReason, Refusal, RefusalReason, Verdict};
pub use watch::{Judged, Pair, Watch};
pub use worker::{WorkerState, WorkerView};

/// What the machine needs to know of a generation's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many slots there are, if nobody wants more or fewer.
    pub workers: u16,
    /// Whether processes may share the databank.
    pub databank_shared: bool,
    /// How long a spawned worker may take to become ready.
    pub start_timeout: Duration,
    /// How long the first candidate worker must stay alive once it is ready, before any active
    /// worker is drained.
    pub probation: Duration,
    /// How long a drain may take before the worker is killed.
    pub shutdown_timeout: Duration,
    /// What happens after a failed restart. The active generation's word counts, not that of the
    /// candidate that has just failed.
    pub on_failure: OnFailure,
    /// How long a worker that serves may give no sign of life; for ever, when absent.
    pub hang_timeout: Option<Duration>,
    /// What a worker may have done, or become, before another takes its place.
    pub recycle: Recycle,
    /// Whether any restart may begin while former generations do nothing but drain. Where not, only
    /// what undoes or mends may. The active generation's word counts.
    pub while_draining: bool,
    /// How many candidate workers may start side by side, once the first of them has lived through its
    /// probation; at least 1.
    pub parallel: u16,
    /// How long the service goes on serving, while it says that it is about to stop.
    pub shutdown_delay: Duration,
}

words! {
    /// Who asks for a restart.
    pub enum By {
        /// Somebody who has sent SIGUSR2.
        Signal = "SIGUSR2",
        /// Somebody who has sent SIGHUP.
        Hangup = "SIGHUP",
        /// Somebody at the control socket.
        Control = "control socket",
        /// The watcher, which has seen something new.
        Watcher = "watcher",
        /// Somebody who wants an earlier generation back.
        Rollback = "rollback",
        /// The master itself, which has found a listener that only new workers can accept on.
        Healing = "healing",
    }
}

impl By {
    /// Whether what is asked for undoes a restart or mends what is broken, and must not wait for clients
    /// that are slow to go.
    const fn is_urgent(self) -> bool {
        matches!(self, Self::Rollback | Self::Healing)
    }
}

/// What has happened in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first generation is prepared: spawn its workers.
    Begin,
    /// Somebody asks for a restart. The number must be new.
    Request {
        /// The number that the verdict will carry.
        request: RequestId,
        /// Who asks.
        by: By,
    },
    /// The preflight found nothing wrong.
    PreflightPassed {
        /// Whose preflight this was.
        request: RequestId,
        /// The candidate's settings.
        settings: Settings,
        /// Whether it has the version, the configuration and the secrets of the active generation.
        unchanged: bool,
    },
    /// The preflight found a reason to refuse.
    PreflightRefused {
        /// Whose preflight this was.
        request: RequestId,
        /// The reason.
        refusal: Refusal,
    },
    /// The process of a worker exists.
    Spawned {
        /// The worker.
        worker: WorkerId,
    },
    /// The process of a worker could not be made; no exit will follow.
    SpawnFailed {
        /// The worker.
        worker: WorkerId,
        /// The cause.
        error: String,
    },
    /// The worker has loaded the app and accepts on every listener.
    Ready {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker says that it can't take its listeners; it will exit.
    CannotListen {
        /// The worker.
        worker: WorkerId,
        /// The worker's own words.
        error: String,
    },
    /// The worker says that the app didn't load or start; it will exit.
    StartFailed {
        /// The worker.
        worker: WorkerId,
        /// The worker's own words.
        error: String,
    },
    /// The worker says that somebody else has told it to end; it serves on until it is ordered to
    /// drain.
    Terminated {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker's process has ended and was reaped.
    Exited {
        /// The worker.
        worker: WorkerId,
        /// Its status.
        how: Ended,
    },
    /// Somebody has looked at the workers; see [`Machine::looks_every`].
    Looked {
        /// What there was to see.
        found: Vec<(WorkerId, Signs)>,
    },
    /// The quarantine of this generation is written down, or can't be.
    WrittenDown {
        /// The failed generation.
        generation: Generation,
    },
    /// Somebody wants more or fewer workers than there are.
    Scale(Scale),
    /// The service shall stop: after its shutdown delay, gracefully, at once. Each time goes one step on.
    Stop,
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the preflight; it answers with [`Event::PreflightPassed`] or
    /// [`Event::PreflightRefused`]. A refused verdict of this request means that whatever it has
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
    /// Make a worker process; it answers with [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        /// The new worker.
        worker: WorkerId,
        /// Its seat.
        slot: Slot,
        /// Its version and configuration.
        generation: Generation,
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
    /// that it is not to be tried again; answered by [`Event::WrittenDown`].
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

words! {
    /// Why a worker gets SIGKILL.
    pub enum KillReason {
        /// It didn't become ready within the start timeout.
        NotReadyInTime = "not ready in time",
        /// It said that it can't serve, and was still there at the end of its start timeout.
        StayedUnfit = "can't serve and didn't exit",
        /// It didn't finish its drain within the shutdown timeout.
        DrainTimedOut = "drain timed out",
        /// It has hung, and SIGABRT didn't end it.
        SurvivedAbort = "hung, and SIGABRT didn't end it",
        /// The operator asked a second time to stop.
        FastStop = "fast stop",
    }
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

words! {
    /// Where the machine stands.
    pub enum Phase {
        /// The first workers aren't all ready yet.
        Starting = "starting",
        /// No restart is in flight.
        Serving = "serving",
        /// A restart is in flight that has touched nothing yet.
        Preflight = "preflight",
        /// A restart is in flight and replaces workers.
        Rolling = "rolling",
        /// A restart has failed, and the slots return to the active generation.
        Returning = "returning",
        /// A restart failed, and nothing is restarted or respawned any more.
        Locked = "locked",
        /// The master is on its way out.
        Stopping = "stopping",
        /// [`Action::Exit`] was given; nothing follows, and nothing says so.
        Exited = "exited",
    }
}
