//! What happens in the world, as the machine is told it.

use super::{By, Refusal, Scale, Settings, Signs};
use crate::ids::{Ended, Generation, RequestId, WorkerId};

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
        /// Whether its app can leave what it keeps in memory, and inherit.
        keeps_state: bool,
    },
    /// The worker's app has left what it keeps in memory to the worker that it was told, or won't.
    HandedOn {
        /// The worker.
        worker: WorkerId,
        /// The worker that it was told.
        heir: WorkerId,
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
    /// Somebody has looked at the workers; see [`Machine::check_interval`](super::Machine::check_interval).
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
