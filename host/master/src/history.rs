//! Records which generations were active, failed or were rolled back, for the next master.
//!
//! Owns the present [`History`] and the order in which its states reach the disk, through `history_file`. What follows
//! from it is decided in `restart::history`.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{error, warn};

use app_host_core::error::chain;
use app_host_core::ids::{Generation, VersionId};
use app_host_core::restart::history::{History, Kept, Moment};
use app_host_core::restart::{Failure, Pair};
use app_host_platform::disk_thread::DiskThread;

use crate::history_file::HistoryFile;
use crate::preflight::Prepared;

/// How long a verdict, or the master's exit, waits for what was written down to reach the disk.
const LAST_WRITE: Duration = Duration::from_secs(10);

/// What is written down.
#[derive(Debug)]
pub(super) struct RecordedHistory {
    history: History,
    file: HistoryFile,
    disk: DiskThread,
    barred: Vec<Pair>,
}

impl RecordedHistory {
    pub(super) fn new(file: HistoryFile, history: History, disk: DiskThread) -> Self {
        Self { barred: history.barred(), history, file, disk }
    }

    /// What stands in it.
    pub(super) const fn current(&self) -> &History {
        &self.history
    }

    /// What the watcher is not to ask for.
    pub(super) fn barred(&self) -> &[Pair] {
        &self.barred
    }

    /// The versions whose copies are kept.
    pub(super) fn versions(&self) -> HashSet<VersionId> {
        self.history.versions()
    }

    /// Every slot has a worker of this generation that serves.
    pub(super) fn activated(&mut self, prepared: &Prepared) {
        self.history = self.history_with(prepared);
        self.write_down();
    }

    /// Every slot has a worker of this generation, which an operator wants back, and the verdict may take long: a master
    /// that starts meanwhile must not begin with what was rolled back. Until the verdict only the disk knows.
    pub(super) fn rolled_over(&self, prepared: &Prepared) {
        if prepared.held.is_some() {
            self.save(self.history_with(prepared));
        }
    }

    /// A restart has failed for good: what holds is what was before.
    pub(super) fn nothing_changed(&self) {
        self.save(self.history.clone());
    }

    fn history_with(&self, prepared: &Prepared) -> History {
        let manifest = &prepared.version.manifest;
        let kept = Kept {
            pair: prepared.pair(),
            since: now(),
            app: manifest.app_name.clone(),
            app_version: manifest.app_version.clone(),
            config: prepared.text.as_ref().to_owned(),
        };
        let mut history = self.history.clone();
        history.activated(kept, prepared.held, prepared.config.versions_kept);
        history
    }

    /// A generation has failed and isn't to be tried again, unless it is the same as the active one.
    pub(super) fn quarantine(&mut self, generation: Generation, failed: &Prepared, failure: &Failure) {
        let (generation, version) = (generation.0, failed.version.id.short());
        // It has served before, and is what there is to go back to: what has ended its worker may come from outside.
        if failed.held.is_some() {
            warn!(generation, version, reason = failure.reason(), "a rollback has failed; it can be tried again");
            return;
        }
        if self.history.quarantine(failed.pair(), now(), &failure.to_string()) {
            let advice = "it is refused until the library, the configuration or a file that it names changes";
            error!(generation, version, reason = failure.reason(), advice, "generation quarantined");
            self.write_down();
        } else {
            warn!(generation, version, "what has failed is the same as what is active: not quarantined");
        }
    }

    fn write_down(&mut self) {
        self.barred = self.history.barred();
        self.save(self.history.clone());
    }

    fn save(&self, history: History) {
        let file = self.file.clone();
        // Jobs are done in turn, so the last state is the one that stays.
        self.disk.post(move || {
            if let Err(error) = file.save(&history) {
                let advice = "the next master may start with another generation than this one's";
                error!(error = chain(&error), advice, "what is active and quarantined can't be written down");
            }
        });
    }

    /// Waits until all that was written down has reached the disk, or is given up and said to be lost.
    pub(super) fn written(&self) -> impl Future<Output = ()> + use<> {
        let disk = self.disk.clone();
        async move {
            if let Err(error) = disk.run(LAST_WRITE, || ()).await {
                error!(error = chain(&error), "what is active and quarantined may not be written down");
            }
        }
    }
}

fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::try_from(since.as_millis()).unwrap_or(Moment::MAX)
}
