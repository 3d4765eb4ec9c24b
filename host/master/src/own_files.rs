//! The pid file and the control socket: what others find the master by, looked at now and then.
//!
//! Whoever cleans a temporary directory, or changes a release, takes them away; then nobody can stop or restart the
//! service by its tools any more, though it serves.

use std::path::Path;
use std::time::Duration;

use tracing::{error, warn};

use app_host_core::error::chain;
use app_host_core::ids::Time;

use crate::control::Control;
use crate::locks::{PidFile, StateLock};

/// How often they are looked at, besides at SIGUSR1 and before each restart.
const EVERY: Duration = Duration::from_secs(10);

/// See the module. Dropped in this order: whoever asks is answered first, and the next master, which waits for the pid file,
/// finds the state directory free.
pub(super) struct OwnFiles {
    control: Control,
    _state: StateLock,
    pid_file: PidFile,
    next: Time,
    /// What can't be made anew is said once.
    complained: Complained,
}

#[derive(Default)]
struct Complained {
    control: bool,
    pid_file: bool,
}

impl OwnFiles {
    pub(super) fn new(control: Control, state: StateLock, pid_file: PidFile) -> Self {
        Self { control, _state: state, pid_file, next: EVERY, complained: Complained::default() }
    }

    pub(super) const fn control(&self) -> &Control {
        &self.control
    }

    /// Has the next master wait for the end of this one.
    pub(super) fn mark_stop(&self) {
        match self.pid_file.stop_mark() {
            Ok(mark) => mark.set(),
            Err(error) => warn!(error = chain(&error), "the next master can't be told that this one stops"),
        }
    }

    /// When the next look is due.
    pub(super) const fn looks_at(&self) -> Time {
        self.next
    }

    /// Makes anew what is not in its place, at time `now`.
    pub(super) fn look(&mut self, now: Time) {
        self.next = now.saturating_add(EVERY);
        if !self.control.is_in_place() {
            let made = self.control.make_anew();
            tell("control socket", self.control.path(), made, &mut self.complained.control);
        }
        if !self.pid_file.is_in_place() {
            let made = self.pid_file.make_anew();
            tell("pid file", self.pid_file.path(), made, &mut self.complained.pid_file);
        }
    }
}

fn tell<E: std::error::Error + 'static>(what: &str, path: &Path, made: Result<(), E>, complained: &mut bool) {
    let path = path.display();
    match made {
        Ok(()) => {
            *complained = false;
            warn!(what, %path, "the master's own file was removed or replaced, and is made anew");
        }
        Err(error) if !std::mem::replace(complained, true) => {
            let error = chain(&error);
            error!(what, %path, error, "the master's own file was removed or replaced: nobody finds it by that");
        }
        Err(_) => {}
    }
}
