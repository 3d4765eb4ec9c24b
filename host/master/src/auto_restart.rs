//! Restarts without being asked, once a watched library or configuration has changed.
//!
//! Owns the watcher and its policy, and starts, changes and ends them as the active configuration says. What is worth
//! a restart is decided in `restart::watch`; what lies at a path is the watcher's to say.

use std::path::Path;

use tracing::{debug, error, info};

use app_host_core::ids::{RequestId, Time};
use app_host_core::restart::{Judged, Pair, Phase, Verdict, Watch};

use crate::preflight::Prepared;
use crate::watcher::{FileSeen, Targets, WatchMode, Watcher};

/// What is watched, if anything is.
pub(super) struct AutoRestart {
    watching: Option<Watched>,
}

struct Watched {
    targets: Targets,
    policy: Watch,
    /// `None` when it can't be had.
    watcher: Option<Watcher>,
    mode: WatchMode,
}

impl AutoRestart {
    pub(super) const fn new() -> Self {
        Self { watching: None }
    }

    /// Watches what the active generation says.
    pub(super) fn follow(&mut self, active: &Prepared, barred: &[Pair], config_path: &Path, phase: Phase) {
        let wanted = active.config.watch;
        if !wanted.anything() || matches!(phase, Phase::Locked | Phase::Stopping | Phase::Exited) {
            if self.watching.take().is_some() {
                info!(phase = %phase, "nothing is watched any more");
            }
            return;
        }
        let active_pair = active.pair();
        let targets = Targets {
            library: wanted.library.then(|| active.config.app.library.clone()),
            // Also where it asks for nothing: what was refused for it may be tried again once it changes.
            config: config_path.to_owned(),
        };
        match &mut self.watching {
            Some(watching) if watching.targets == targets && watching.policy.watched() == wanted => {
                watching.policy.set_active(active_pair);
                watching.policy.set_barred(barred);
            }
            _ => {
                let library = targets.library.as_deref().map(|path| path.display().to_string());
                info!(library, config = wanted.config.then(|| config_path.display().to_string()), "watching");
                let mode = WatchMode::Events;
                let watcher = start(&targets, mode);
                let mut policy = Watch::new(wanted, active_pair);
                policy.set_barred(barred);
                self.watching = Some(Watched { targets, policy, watcher, mode });
            }
        }
    }

    /// Waits until the watcher has seen something, and takes note of it.
    pub(super) async fn see(&mut self) {
        let Some(Watched { targets, policy, watcher: Some(watcher), mode }) = &mut self.watching else {
            return std::future::pending().await;
        };
        match watcher.next().await {
            Some(FileSeen::Library(version)) => {
                debug!(version = version.map(|version| version.short()), "library seen");
                policy.library_seen(version);
            }
            Some(FileSeen::Config(config)) => {
                debug!(there = config.is_some(), "configuration seen");
                policy.config_seen(config);
            }
            None => {
                error!(mode = ?mode, "the watcher has ended, which is a bug in the host");
                // Without the crate that it leans on it may do better.
                let again = (*mode == WatchMode::Events).then(|| start(targets, WatchMode::PollAlone)).flatten();
                *mode = WatchMode::PollAlone;
                if let Some(watching) = &mut self.watching {
                    watching.watcher = again;
                }
            }
        }
    }

    /// Whether the watcher asks for a restart now.
    pub(super) fn asks(&self, phase: Phase, now: Time) -> bool {
        self.watching.as_ref().is_some_and(|watching| watching.policy.asks(phase, now))
    }

    /// When [`asks`](Self::asks) is to be looked at next.
    pub(super) fn deadline(&self, phase: Phase) -> Option<Time> {
        self.watching.as_ref().and_then(|watching| watching.policy.deadline(phase))
    }

    pub(super) fn asked(&mut self, request: RequestId) {
        if let Some(watching) = &mut self.watching {
            watching.policy.asked(request);
        }
    }

    /// Takes note of a verdict, whoever asked.
    pub(super) fn verdict(&mut self, request: RequestId, verdict: &Verdict, judged: Option<Judged>, now: Time) {
        if let Some(watching) = &mut self.watching {
            watching.policy.verdict(request, verdict, judged, now);
        }
    }
}

fn start(targets: &Targets, mode: WatchMode) -> Option<Watcher> {
    let started = Watcher::start(targets, mode);
    started.inspect_err(|error| error!(error = %error, "nothing is watched: the watcher's thread can't be made")).ok()
}
