//! The last moment of a worker: exit handlers, and the last lines of its log.
//!
//! A worker whose app has stopped ends as a program does that returns from its `main` (`exit(3)`): handlers of
//! `atexit(3)` run, C++ destroys its statics, C's streams are flushed, and a library built with coverage
//! instrumentation writes its profile. All of that is code of others, with threads of theirs around it: it runs on a thread
//! of its own, and has a deadline. Owns nothing else; when it comes to this is for `control`.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use app_host_platform::logging;
use app_host_platform::output::Output;
use app_host_platform::sys;

/// How long exit handlers may take where no time is left.
const LEAST: Duration = Duration::from_millis(50);

/// What the app prints, for the last look at it.
static OUTPUTS: OnceLock<Arc<[Arc<Output>]>> = OnceLock::new();

/// Has the last lines written however the process exits, the app's own `exit(3)` included. To be called before the app is
/// loaded, so that the handlers of the app's run before.
pub(super) fn write_last_lines_at_exit(outputs: &Arc<[Arc<Output>]>) {
    extern "C" fn write() {
        if let Some(outputs) = OUTPUTS.get() {
            write_last_lines(outputs);
        }
    }
    if OUTPUTS.set(Arc::clone(outputs)).is_ok() && !sys::at_exit(write) {
        tracing::warn!("there is no room for an exit handler; what the app says last may be lost");
    }
}

/// Logs what was printed until now, and waits until it is written, but not for long.
pub(super) fn write_last_lines(outputs: &[Arc<Output>]) {
    // The master logs what is left, but there may be none any more.
    for output in outputs {
        output.drain();
    }
    logging::finish_unless_stalled();
}

/// Ends the process as its `main` would. Returns at `end`, if there are handlers that don't.
pub(super) async fn run_exit_handlers(end: Instant) {
    #[expect(clippy::disallowed_methods, reason = "that exit handlers run is what it is for")]
    let exit = thread::Builder::new().name("exit".to_owned()).spawn(|| std::process::exit(0));
    if exit.is_ok() {
        sleep_until(end.max(Instant::now() + LEAST)).await;
    }
}
