//! Signal dispositions: nobody dies of a signal that is meant for the master.
//!
//! The first thing `main` does in every role is [`ignore()`]. Workers inherit it through exec (see
//! `process`), so no moment of their life is left to the default action, which is death; later they
//! install handlers that do nothing, so that the app's own children get the default again
//! (`execve(2)`: handlers are reset, what is ignored stays ignored).

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};

/// The signals that are the master's business and whose default action would kill or stop whoever
/// else gets them (`killall -USR2 app-host`).
pub const MASTERS: [Signal; 5] = [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGTTIN, Signal::SIGTTOU];

/// Whether SIGHUP was ignored when [`ignore()`] came.
static HANGUP_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started with SIGHUP ignored, by `nohup` for instance: then it is to outlive its terminal.
pub fn hangup_was_ignored() -> bool {
    HANGUP_WAS_IGNORED.load(Ordering::Relaxed)
}

/// Ignores the signals in [`MASTERS`].
pub fn ignore() {
    #[expect(unsafe_code, reason = "changing a disposition may break handlers that others rely on")]
    // SAFETY: as in `ignore_all`.
    let before = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) };
    HANGUP_WAS_IGNORED.store(matches!(before, Ok(SigHandler::SigIgn)), Ordering::Relaxed);
    ignore_all(&MASTERS).expect("these signals can be ignored (signal(2): only SIGKILL and SIGSTOP can't)");
}

/// Ignores `signals`. Async-signal-safe: allocates nothing, takes no lock.
pub(super) fn ignore_all(signals: &[Signal]) -> Result<(), Errno> {
    for each in signals {
        #[expect(unsafe_code, reason = "changing a disposition may break handlers that others rely on")]
        // SAFETY: SIG_IGN runs no code; no handler is installed yet in any caller (start of `main`,
        // or a child between fork and exec).
        unsafe {
            signal(*each, SigHandler::SigIgn)?;
        }
    }
    Ok(())
}
