//! Signals that end nothing any more.

#![expect(unsafe_code, reason = "an app can change what signals do to its process")]

/// From now on SIGABRT ends nothing.
pub(crate) fn ignore_abort() {
    // SAFETY: SIG_IGN runs no code, and nothing in this process relies on the old disposition: to see
    // what the master makes of that is the point.
    unsafe { libc::signal(libc::SIGABRT, libc::SIG_IGN) };
}
