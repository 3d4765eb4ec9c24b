//! Panics of the host as lines of its log.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{MAIN, PANIC_LINE};
use crate::sys;

/// Whether the app has closed a descriptor of ours.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether a thread of this process has panicked because the app has closed a descriptor that isn't the app's.
pub fn app_has_closed_ours() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Whether a panic says that a descriptor isn't open (`EBADF`): what is owned here is closed once, by its owner, so it was
/// closed by code that owns nothing of ours, by its number.
fn is_foreign_close(panic: &str) -> bool {
    let error = std::io::Error::from_raw_os_error(libc::EBADF);
    panic.contains(&format!("{error:?}")) || panic.contains(&error.to_string())
}

/// A panic of ours is a line of the log like any other. The app's library has a hook of its own.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let panic = info.payload_as_str().unwrap_or_default();
        if is_foreign_close(panic) || sys::pollers::was_one_closed() {
            CLOSED.store(true, Ordering::Relaxed);
            let advice = "look for close(2) on numbers that the app was not given: close_range, daemon, a descriptor closed twice";
            tracing::error!(panic, place, advice, "a thread panicked: the app has closed a descriptor of the host's");
        } else {
            tracing::error!(panic, place, "a thread panicked, which is a bug in the host");
        }
        if let Some(main) = MAIN.get() {
            main.writer.flush_unless_stalled(PANIC_LINE);
        }
    }));
}
