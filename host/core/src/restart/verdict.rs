//! What becomes of a request for a restart, with its stable reason strings.
//!
//! A *refused* restart never touched a worker; a *failed* one did, and went wrong. The strings are
//! an interface: operators' scripts compare them.

use std::fmt;

use crate::ids::{Ended, Slot};
use crate::words::words;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every worker is of the new generation.
    Complete {
        /// Whether that has the version, the configuration and the secrets of the one before: only the workers are new.
        unchanged: bool,
        /// How many workers of former generations still drain, because another restart couldn't wait for them.
        draining: usize,
    },
    /// Nothing was touched.
    Refused(Refusal),
    /// Workers were touched, and it went wrong.
    Failed(Failure),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete { .. } => f.write_str("complete"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
        }
    }
}

impl Verdict {
    /// `complete`, `refused: REASON` or `failed: REASON`: what there is to compare.
    pub fn in_short(&self) -> String {
        match self {
            Self::Complete { .. } => "complete".to_owned(),
            Self::Refused(refusal) => format!("refused: {}", refusal.reason()),
            Self::Failed(failure) => format!("failed: {}", failure.reason()),
        }
    }
}

/// Why a restart was refused. Prints as its reason, and its detail where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The first workers aren't ready yet.
    #[error("starting")]
    Starting,
    /// The master is on its way out.
    #[error("stopping")]
    Stopping,
    /// Fewer than two workers are configured.
    #[error("no workers")]
    NoWorkers,
    /// The databank can't be shared between processes.
    #[error("bad driver: {0}")]
    BadDriver(String),
    /// An earlier restart failed and the master is locked.
    #[error("aborted restart")]
    AbortedRestart,
    /// A restart is in progress.
    #[error("restart in flight")]
    RestartInFlight,
    /// The configuration file on disk isn't valid.
    #[error("bad config: {0}")]
    BadConfig(String),
    /// The library can't be used.
    #[error("bad artifact: {0}")]
    BadArtifact(String),
    /// The new generation must not run beside the active one.
    #[error("incompatibility: {0}")]
    Incompatibility(String),
    /// A listener that is new in the configuration can't be bound.
    #[error("cannot bind: {0}")]
    CannotBind(String),
    /// The configured store doesn't answer.
    #[error("databank unreachable: {0}")]
    DatabankUnreachable(String),
    /// The watcher has asked for the version and the configuration that are active.
    #[error("unchanged")]
    Unchanged,
}

words! {
    /// The stable words for why a restart was refused; [`Refusal`] says when.
    pub enum RefusalReason {
        Starting = "starting",
        Stopping = "stopping",
        NoWorkers = "no workers",
        BadDriver = "bad driver",
        AbortedRestart = "aborted restart",
        RestartInFlight = "restart in flight",
        BadConfig = "bad config",
        BadArtifact = "bad artifact",
        Incompatibility = "incompatibility",
        CannotBind = "cannot bind",
        DatabankUnreachable = "databank unreachable",
        Unchanged = "unchanged",
    }
}

impl Refusal {
    /// The stable reason string.
    pub const fn reason(&self) -> &'static str {
        self.kind().as_str()
    }

    /// The reason without its detail.
    pub const fn kind(&self) -> RefusalReason {
        match self {
            Self::Starting => RefusalReason::Starting,
            Self::Stopping => RefusalReason::Stopping,
            Self::NoWorkers => RefusalReason::NoWorkers,
            Self::BadDriver(_) => RefusalReason::BadDriver,
            Self::AbortedRestart => RefusalReason::AbortedRestart,
            Self::RestartInFlight => RefusalReason::RestartInFlight,
            Self::BadConfig(_) => RefusalReason::BadConfig,
            Self::BadArtifact(_) => RefusalReason::BadArtifact,
            Self::Incompatibility(_) => RefusalReason::Incompatibility,
            Self::CannotBind(_) => RefusalReason::CannotBind,
            Self::DatabankUnreachable(_) => RefusalReason::DatabankUnreachable,
            Self::Unchanged => RefusalReason::Unchanged,
        }
    }
}

/// Why a restart, or the start, failed. Prints as its reason and its detail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A worker ended by itself.
    #[error("worker died: slot {slot}, {how}")]
    WorkerDied {
        /// Its slot.
        slot: Slot,
        /// Its status.
        how: Ended,
    },
    /// Somebody other than its master had told a worker to end.
    #[error("worker died: slot {slot}, told to stop by another process")]
    WorkerTerminated {
        /// Its slot.
        slot: Slot,
    },
    /// A worker's serving threads gave no sign of life for too long.
    #[error("worker died: slot {slot}, it had hung")]
    WorkerHung {
        /// Its slot.
        slot: Slot,
    },
    /// A worker didn't become ready within the start timeout.
    #[error("not ready in time: slot {slot}")]
    NotReadyInTime {
        /// Its slot.
        slot: Slot,
    },
    /// A worker couldn't take its listeners.
    #[error("cannot listen: slot {slot}, {error}")]
    CannotListen {
        /// Its slot.
        slot: Slot,
        /// Its own words.
        error: String,
    },
    /// The app didn't load or start in a worker.
    #[error("app failed to start: slot {slot}, {error}")]
    AppFailedToStart {
        /// Its slot.
        slot: Slot,
        /// Its own words.
        error: String,
    },
    /// A worker's process couldn't be made.
    #[error("cannot spawn: slot {slot}, {error}")]
    CannotSpawn {
        /// Its slot.
        slot: Slot,
        /// The cause.
        error: String,
    },
    /// The master was told to stop in the middle of the roll.
    #[error("stopped")]
    Stopped,
}

words! {
    /// The stable words for why a restart, or the start, failed; [`Failure`] says when.
    pub enum FailureReason {
        WorkerDied = "worker died",
        NotReadyInTime = "not ready in time",
        CannotListen = "cannot listen",
        AppFailedToStart = "app failed to start",
        CannotSpawn = "cannot spawn",
        Stopped = "stopped",
    }
}

impl Failure {
    /// The stable reason string.
    pub const fn reason(&self) -> &'static str {
        self.kind().as_str()
    }

    /// The reason without its detail.
    pub const fn kind(&self) -> FailureReason {
        match self {
            Self::WorkerDied { .. } | Self::WorkerTerminated { .. } | Self::WorkerHung { .. } => {
                FailureReason::WorkerDied
            }
            Self::NotReadyInTime { .. } => FailureReason::NotReadyInTime,
            Self::CannotListen { .. } => FailureReason::CannotListen,
            Self::AppFailedToStart { .. } => FailureReason::AppFailedToStart,
            Self::CannotSpawn { .. } => FailureReason::CannotSpawn,
            Self::Stopped => FailureReason::Stopped,
        }
    }
}
