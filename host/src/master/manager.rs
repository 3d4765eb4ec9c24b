//! What the service manager hears of a master's life.

use crate::notify::Notify;
use crate::restart::{OnFailure, Report, Verdict};

/// Tells a fact, if it is one for the manager. `serving` says for people what serves.
pub(super) fn tell(notify: &Notify, report: &Report, serving: impl FnOnce() -> String) {
    match report {
        Report::Serving { .. } => notify.serving(&serving()),
        Report::StopDelayed { .. } | Report::Stopping => notify.stopping(),
        _ => {}
    }
}

/// Tells a verdict. `on_failure` is that of the active generation.
pub(super) fn verdict(notify: &Notify, verdict: &Verdict, serving: &str, on_failure: OnFailure) {
    notify.verdict(&match verdict {
        Verdict::Complete { unchanged: false, .. } => format!("restart complete: {serving}"),
        Verdict::Complete { unchanged: true, .. } => format!("restart complete, nothing has changed: {serving}"),
        Verdict::Refused(refusal) => format!("restart refused: {refusal}; {serving}"),
        Verdict::Failed(failure) => match on_failure {
            OnFailure::Lock => format!("restart failed: {failure}; locked: restart the service"),
            OnFailure::Rollback => format!("restart failed: {failure}; {serving}"),
        },
    });
}
