//! What the operator has a running master do besides restarts: its log, its own files, and whether clients are to be sent.

use tracing::error;

use app_host_core::command::Level;
use app_host_core::error::chain;
use app_host_core::ids::Time;
use app_host_platform::logging::Logging;

use super::Effects;
use crate::facts::{Fact, Fields};

impl Effects {
    pub(crate) const fn logging(&self) -> &Logging {
        &self.logging
    }

    /// Has the master and all workers log otherwise, until it is said again or `restore`d.
    pub(crate) fn set_log_level(&mut self, level: Level) {
        let level = match level {
            Level::Set(level) => Some(level),
            Level::Restore => None,
        };
        self.logging.set_level(level);
        self.workers.set_log_level(level);
        let level = self.logging.level();
        let fields = Fields { log_level: Some(level.to_string()), ..Fields::default() };
        self.tell(&Fact::info("log level changed", fields));
    }

    /// Has whoever sends clients send no more, and clients ask elsewhere next time, or takes that back. Those that come
    /// are served.
    pub(crate) fn take_out_of_rotation(&mut self, out: bool) {
        self.out_of_rotation = out;
        self.workers.announce_close(out);
        self.tell(&if out {
            let advice = "not ready, and connections are told to close, until ctl drain off";
            Fact::warn("taken out of rotation", Fields { advice: Some(advice), ..Fields::default() })
        } else {
            Fact::info("back in rotation", Fields::default())
        });
    }

    /// Whether the operator has taken the service out of rotation.
    pub(crate) const fn is_out_of_rotation(&self) -> bool {
        self.out_of_rotation
    }

    /// When the pid file and the control socket are to be looked at next.
    pub(crate) const fn looks_at_own_files(&self) -> Time {
        self.own_files.looks_at()
    }

    /// Sees to it that they are where others look for them.
    pub(crate) fn look_at_own_files(&mut self, now: Time) {
        self.own_files.look(now);
    }

    /// Opens every log file anew, by its name, and has everybody write there.
    pub(crate) fn reopen_logs(&mut self) {
        if let Err(error) = self.logging.reopen() {
            error!(error = chain(&error), "the log stays as it was");
            return;
        }
        self.workers.reopen_logs(&self.logging);
        self.tell(&Fact::info("log files reopened", Fields::default()));
    }
}
