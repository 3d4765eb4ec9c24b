//! Restarts without being asked, once a watched library or configuration has changed, and certificates that are read again.
//!
//! Owns the watcher and its policy, and starts, changes and ends them as the active configuration says. What is worth
//! a restart is decided in `restart::watch`, when certificates are read in `renewal`; what lies at a path is the watcher's to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use tracing::{debug, error, info};

use app_host_core::config::Tls;
use app_host_core::ids::{RequestId, Time};
use app_host_core::renewal::Renewal;
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
    renewal: Renewal,
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
            certificates: if wanted.certificates { certificate_files(active) } else { Vec::new() },
        };
        match &mut self.watching {
            Some(watching) if watching.targets == targets && watching.policy.watched() == wanted => {
                watching.policy.set_active(active_pair);
                watching.policy.set_barred(barred);
            }
            _ => {
                let library = targets.library.as_deref().map(|path| path.display().to_string());
                let config = wanted.config.then(|| config_path.display().to_string());
                info!(library, config, certificates = targets.certificates.len(), "watching");
                let mode = WatchMode::Events;
                let watcher = start(&targets, mode);
                let mut policy = Watch::new(wanted, active_pair);
                policy.set_barred(barred);
                let renewal = Renewal::new(digests(&targets.certificates, active));
                self.watching = Some(Watched { targets, policy, renewal, watcher, mode });
            }
        }
    }

    /// Waits until the watcher has seen something, and takes note of it.
    /// The master's time began at `begin`.
    pub(super) async fn see(&mut self, begin: Instant) {
        let Some(Watched { targets, policy, renewal, watcher: Some(watcher), mode }) = &mut self.watching else {
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
            Some(FileSeen::Certificate(file, digest)) => renewal.seen(file, digest, begin.elapsed()),
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
        let watching = self.watching.as_ref()?;
        let renewal = watching.renewal.due().filter(|_| phase == Phase::Serving);
        watching.policy.deadline(phase).into_iter().chain(renewal).min()
    }

    /// Whether certificates are to be read again now. Not in a restart, which reads them as well; then it is so afterwards.
    pub(super) fn renews(&mut self, phase: Phase, now: Time) -> bool {
        phase == Phase::Serving && self.watching.as_mut().is_some_and(|watching| watching.renewal.take(now))
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

/// The files of a generation's certificates, each once.
fn certificate_files(active: &Prepared) -> Vec<PathBuf> {
    let files = active.config.listen.iter().filter_map(|listen| listen.tls.as_ref()).flat_map(Tls::files);
    files.map(Path::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Of what the active generation has read of each of these files.
fn digests(files: &[PathBuf], active: &Prepared) -> Vec<Option<[u8; 32]>> {
    let mut read = BTreeMap::new();
    for (listen, tls) in active.config.listen.iter().filter_map(|listen| Some((listen, listen.tls.as_ref()?))) {
        let settings = active.tls.iter().find(|(name, _)| *name == listen.name);
        read.extend(tls.files().zip(settings.into_iter().flat_map(|(_, settings)| settings.contents())));
    }
    files.iter().map(|file| read.get(file.as_path()).map(|bytes| Sha256::digest(bytes).into())).collect()
}

fn start(targets: &Targets, mode: WatchMode) -> Option<Watcher> {
    let started = Watcher::start(targets, mode);
    started.inspect_err(|error| error!(error = %error, "nothing is watched: the watcher's thread can't be made")).ok()
}
