//! The exit of a worker: exit handlers, and the last lines of its log.
//!
//! A worker whose app has stopped ends as a program does that returns from its `main` (`exit(3)`): handlers of
//! `atexit(3)` run, C++ destroys its statics, C's streams are flushed, and a library built with coverage
//! instrumentation writes its profile. All of that is foreign code beside foreign threads, so it runs on a thread of its
//! own and has a deadline. When a worker exits is for `control`.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use app_host_platform::logging;
use app_host_platform::output::Output;
use app_host_platform::sys;

/// How long exit handlers may take although no time is left.
const MIN_TIME: Duration = Duration::from_millis(50);

/// The app's standard output and standard error, to be read once more at the exit.
static OUTPUTS: OnceLock<Arc<[Arc<Output>]>> = OnceLock::new();

/// Makes the last lines be written however the process exits, also by the app's own `exit(3)`. Call it before the app is
/// loaded, so that the app's handlers run first.
pub(super) fn write_last_lines_at_exit(outputs: &Arc<[Arc<Output>]>) {
    extern "C" fn write() {
        if let Some(outputs) = OUTPUTS.get() {
            write_last_lines(outputs);
        }
    }
    if OUTPUTS.set(Arc::clone(outputs)).is_ok() && !sys::at_exit(write) {
        tracing::warn!("no exit handler can be registered; the last lines of the app may be lost");
    }
}

/// Logs what the app has printed, and waits until it is written, unless the log is stalled.
pub(super) fn write_last_lines(outputs: &[Arc<Output>]) {
    // The master would log what is left, but it may be gone.
    for output in outputs {
        output.drain();
    }
    logging::finish_unless_stalled();
}

/// Ends the process as its `main` would. Returns at `end` if a handler has not.
pub(super) async fn run_exit_handlers(end: Instant) {
    #[expect(clippy::disallowed_methods, reason = "running the exit handlers is its purpose")]
    let exit = thread::Builder::new().name("exit".to_owned()).spawn(|| std::process::exit(0));
    if exit.is_ok() {
        sleep_until(end.max(Instant::now() + MIN_TIME)).await;
    }
}
