//! When the watcher asks for a restart.
//!
//! Owns what has been seen at the watched paths, what is active, and what became of the watcher's own
//! requests; says when the next one is due. Leaves to others: the files (the module `watcher` looks at
//! them), whether a request is refused (the [`Machine`](super::Machine)), and the clock.
//!
//! The promise: whatever the order of builds, verdicts and ticks, what was seen last ends up active,
//! or refused for what it is, or the master is locked or on its way out. Unchanged bytes ask for
//! nothing.
//!
//! ```text
//!               due                        refused: starting, restart in flight
//!  free ─────────────────▶ asked ───────────────────────────────────▶ until serving ──▶ free
//!   ▲ ▲                    │ │ │ refused for what it is, failed
//!   │ │   complete         │ │ └─────────────────────────────▶ settled ──▶ free: something else is seen
//!   │ └────────────────────┘ │ refused for another reason
//!   │                        └───────────────────────────────▶ pausing
//!   └──────────────────────────────────────────────────────────┘ the pause is over, or something else is seen
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::Exponential;
use super::{Phase, RefusalReason, Verdict};
use crate::config::Watched;
use crate::ids::{ConfigId, RequestId, Time, VersionId};

/// The pauses from the second try on. The longest is how late a reason may be noticed to have gone.
const PAUSES: Exponential = Exponential { first: Duration::from_millis(250), longest: Duration::from_secs(30) };

/// What makes two generations the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The library.
    pub version: VersionId,
    /// The configuration.
    pub config: ConfigId,
}

/// What a preflight has looked at and found wanting: the same again will be refused again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The library.
    Version(VersionId),
    /// The configuration.
    Config(ConfigId),
}

/// A file as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen<T> {
    /// `None` while nothing whole lies there, or it still changes.
    now: Option<T>,
    /// The last that was whole and quiet.
    last: Option<T>,
}

impl<T: Copy + PartialEq> Seen<T> {
    const NOTHING: Self = Self { now: None, last: None };

    /// Takes note; says whether it is something else than before.
    fn see(&mut self, what: Option<T>) -> bool {
        self.now = what;
        let is_news = what.is_some() && what != self.last;
        self.last = what.or(self.last);
        is_news
    }
}

/// Whether anything keeps what was seen from being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Nothing does.
    Free,
    /// The verdict is still to come.
    Asked(RequestId),
    /// Another restart was in progress, or the first workers weren't ready yet.
    UntilServing,
    /// It was refused for a reason that may go by itself.
    Pausing { until: Time },
    /// It was refused for what it is.
    Settled(Judged),
}

/// The policy of one watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    watched: Watched,
    active: Pair,
    /// What is not to be asked for although it isn't active: it was quarantined or rolled back.
    barred: Vec<Pair>,
    library: Seen<VersionId>,
    config: Seen<ConfigId>,
    hold: Hold,
    /// How often what was seen last was refused for a reason outside it.
    tries: u32,
}

impl Watch {
    /// A policy that has seen nothing yet.
    pub const fn new(watched: Watched, active: Pair) -> Self {
        let barred = Vec::new();
        Self { watched, active, barred, library: Seen::NOTHING, config: Seen::NOTHING, hold: Hold::Free, tries: 0 }
    }

    /// What asks for a restart.
    pub const fn watched(&self) -> Watched {
        self.watched
    }

    /// Says what is active now, whoever asked for it.
    pub const fn set_active(&mut self, active: Pair) {
        self.active = active;
    }

    /// Says what is not to be asked for as long as it lies there.
    pub fn set_barred(&mut self, barred: &[Pair]) {
        // Said at each turn of the loop, and nearly always the same.
        if self.barred != barred {
            barred.clone_into(&mut self.barred);
        }
    }

    /// The library is this now, whole and quiet; `None` when there is nothing of the kind.
    pub fn library_seen(&mut self, version: Option<VersionId>) {
        if self.library.see(version) {
            self.free();
        }
    }

    /// The configuration file is this now; `None` when there is nothing to read.
    pub fn config_seen(&mut self, config: Option<ConfigId>) {
        if self.config.see(config) {
            // A library that was refused for what it is gets no better by another configuration.
            let may_help = !matches!(self.hold, Hold::Settled(Judged::Version(_)) | Hold::Asked(_));
            if self.watched.config || may_help {
                self.free();
            }
        }
    }

    /// Whether the watcher asks for a restart now.
    pub fn asks(&self, phase: Phase, now: Time) -> bool {
        let may = match self.hold {
            Hold::Free => true,
            Hold::UntilServing => phase == Phase::Serving,
            Hold::Pausing { until } => until <= now,
            Hold::Asked(_) | Hold::Settled(_) => false,
        };
        may && !is_over(phase) && self.is_due()
    }

    /// When [`asks`](Self::asks) must be looked at next, if nothing else happens before.
    pub fn deadline(&self, phase: Phase) -> Option<Time> {
        match self.hold {
            Hold::Pausing { until } if !is_over(phase) && self.is_due() => Some(until),
            _ => None,
        }
    }

    /// The watcher has asked, with this number.
    pub const fn asked(&mut self, request: RequestId) {
        self.hold = Hold::Asked(request);
    }

    /// Takes note of a verdict, whoever asked; `judged` is what the preflight of the request found
    /// wanting, when that and nothing else was the reason.
    pub fn verdict(&mut self, request: RequestId, verdict: &Verdict, judged: Option<Judged>, now: Time) {
        if self.hold != Hold::Asked(request) {
            return;
        }
        // What was judged may not be what was seen, because the files change beside all this.
        let found_wanting = judged.filter(|judged| self.is_seen(*judged));
        self.hold = match verdict {
            Verdict::Failed(_) => Hold::Settled(Judged::Version(self.library.last.unwrap_or(self.active.version))),
            // Something else than what was seen lay there for a moment, and the watcher may not have noticed.
            Verdict::Complete { .. } => self.pause(now),
            Verdict::Refused(refusal) => match (refusal.kind(), found_wanting) {
                (RefusalReason::Starting | RefusalReason::RestartInFlight, _) => Hold::UntilServing,
                (RefusalReason::Unchanged, _) => self.pause(now),
                // Without a preflight it is the active generation that can't be restarted.
                (RefusalReason::NoWorkers | RefusalReason::BadDriver, None) if judged.is_none() => {
                    Hold::Settled(Judged::Config(self.active.config))
                }
                (
                    RefusalReason::NoWorkers
                    | RefusalReason::BadDriver
                    | RefusalReason::BadConfig
                    | RefusalReason::BadArtifact
                    | RefusalReason::Incompatibility
                    | RefusalReason::CannotBind
                    | RefusalReason::DatabankUnreachable
                    | RefusalReason::AbortedRestart
                    | RefusalReason::Stopping,
                    found_wanting,
                ) => found_wanting.map_or_else(|| self.pause(now), Hold::Settled),
            },
        };
    }

    /// Has the watcher wait a little longer than the last time, and ask again.
    fn pause(&mut self, now: Time) -> Hold {
        let pause = PAUSES.pause(self.tries);
        self.tries = self.tries.saturating_add(1);
        Hold::Pausing { until: now.saturating_add(pause) }
    }

    /// Whether what was seen last is what was judged.
    fn is_seen(&self, judged: Judged) -> bool {
        match judged {
            Judged::Version(version) => self.library.last == Some(version),
            Judged::Config(config) => self.config.last == Some(config),
        }
    }

    fn is_due(&self) -> bool {
        // While a library is being replaced, a restart would be refused for what is half of it.
        if self.watched.library && self.library.now.is_none() {
            return false;
        }
        if self.is_barred() {
            return false;
        }
        let is_new_library = self.library.now.is_some_and(|version| version != self.active.version);
        let is_new_config = self.config.now.is_some_and(|config| config != self.active.config);
        (self.watched.library && is_new_library) || (self.watched.config && is_new_config)
    }

    /// Whether what lies there is barred, as far as it is known: a library that isn't watched may be any,
    /// and so may a configuration that hasn't been seen yet.
    fn is_barred(&self) -> bool {
        let library = if self.watched.library { self.library.now } else { None };
        let fits = |barred: &Pair| {
            library.is_none_or(|it| it == barred.version) && self.config.now.is_none_or(|it| it == barred.config)
        };
        self.barred.iter().any(fits)
    }

    fn free(&mut self) {
        self.tries = 0;
        // One refusal is enough to say that it waits.
        if self.hold != Hold::UntilServing {
            self.hold = Hold::Free;
        }
    }
}

/// Whether no restart will ever be possible again.
const fn is_over(phase: Phase) -> bool {
    matches!(phase, Phase::Locked | Phase::Stopping | Phase::Exited)
}
