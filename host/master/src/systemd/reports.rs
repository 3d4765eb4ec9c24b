//! What the service manager hears of a master's life.

use std::time::Duration;

use app_host_core::config::Config;
use app_host_core::restart::{OnFailure, Report, Verdict};

use super::{Deadlines, Systemd};
use crate::preflight;
use crate::start::ORPHANS_MARGIN;

/// How long a start, a restart and a stop may take with these configurations, and so many workers.
pub(crate) fn deadlines(configs: &[&Config], scaled: Option<u16>) -> Deadlines {
    let longest = |of: fn(&Config) -> Duration| configs.iter().map(|config| of(config)).max().unwrap_or_default();
    let workers = configs.iter().map(|config| config.workers).chain(scaled).max().unwrap_or_default();
    Deadlines {
        preparation: longest(preflight::longest).saturating_add(ORPHANS_MARGIN),
        start: longest(|config| config.restart.start_timeout),
        probation: longest(|config| config.restart.probation),
        state: longest(|config| config.restart.state_timeout),
        shutdown: longest(|config| config.restart.shutdown_timeout),
        delay: longest(|config| config.shutdown_delay),
        workers: workers.into(),
    }
}

/// Tells a fact, if it is one for the manager. `serving` says for people what serves.
pub(crate) fn tell(systemd: &Systemd, report: &Report, serving: impl FnOnce() -> String) {
    match report {
        Report::Serving { .. } => systemd.serving(&serving()),
        Report::StopDelayed { .. } | Report::Stopping => systemd.stopping(),
        _ => {}
    }
}

/// Tells a verdict. `on_failure` is that of the active generation.
pub(crate) fn verdict(systemd: &Systemd, verdict: &Verdict, serving: &str, on_failure: OnFailure) {
    systemd.verdict(&match verdict {
        Verdict::Complete { unchanged: false, .. } => format!("restart complete: {serving}"),
        Verdict::Complete { unchanged: true, .. } => format!("restart complete, nothing has changed: {serving}"),
        Verdict::Refused(refusal) => format!("restart refused: {refusal}; {serving}"),
        Verdict::Failed(failure) => match on_failure {
            OnFailure::Lock => format!("restart failed: {failure}; locked: restart the service"),
            OnFailure::Rollback => format!("restart failed: {failure}; {serving}"),
        },
    });
}
