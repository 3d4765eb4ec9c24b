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

mod action;
mod backoff;
mod bequest;
mod draining;
mod event;
mod first;
mod heal;
mod health;
pub mod history;
mod lifecycle;
mod links;
mod machine;
mod report;
mod respawn;
mod roll;
mod rollback;
mod scale;
mod stop;
#[cfg(test)]
mod tests;
mod verdict;
mod watch;
mod worker;
mod workers;

use std::time::Duration;

use crate::words::words;

pub use crate::config::{OnFailure, Recycle};
pub use action::{Action, ExitReason};
pub use event::Event;
pub use heal::Healing;
pub use health::{RecycleReason, Signs, look_interval};
pub use links::{Shift, evened_out};
pub use machine::Machine;
pub use report::Report;
pub use scale::Scale;
pub use verdict::{Failure, FailureReason, Refusal, RefusalReason, Verdict};
pub use watch::{Judged, Pair, Watch};
pub use worker::{WorkerState, WorkerView};

/// What the machine needs to know of a generation's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many slots there are, if nobody wants more or fewer.
    pub workers: u16,
    /// Whether restarts need no second worker: new before old, and what the app keeps in memory goes from one to the other.
    pub single: bool,
    /// Whether processes may share the databank.
    pub databank_shared: bool,
    /// How long leaving something to a worker of this generation may take; they are left nothing, when absent.
    pub state_timeout: Option<Duration>,
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

impl Settings {
    /// Whether so many workers are enough for a restart.
    const fn suffice(&self, workers: u16) -> bool {
        workers >= if self.single { 1 } else { 2 }
    }
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
