//! Signal handlers of a worker: most signals are noted and left to the master.
//!
//! The worker starts with these signals ignored, and an ignored signal stays so through `execve`. A handler doesn't
//! (`execve(2)`), so children that the app starts have the default again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use app_host_platform::sys::signals::{MASTERS, TERMINALS};

/// Installs the handlers. Must be called inside the control thread's runtime.
///
/// SIGINT and SIGQUIT are among them: a terminal sends them to the whole process group, and the master decides.
pub(super) fn leave_to_master() -> io::Result<()> {
    for number in MASTERS.into_iter().chain(TERMINALS) {
        tokio::spawn(note(signal(SignalKind::from_raw(number as i32))?, number.as_str()));
    }
    // The write that causes it fails. A log line about it could be the next such write.
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

/// SIGTERM, which asks this worker alone to drain.
pub(super) fn terminate() -> io::Result<Signal> {
    signal(SignalKind::terminate())
}

async fn note(mut signal: Signal, name: &'static str) {
    while signal.recv().await.is_some() {
        tracing::info!(signal = name, "signal left to the master");
    }
}
