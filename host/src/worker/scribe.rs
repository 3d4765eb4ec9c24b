//! Lines for the log from a thread that must not wait for it.
//!
//! A write to the log blocks for as long as its reader doesn't read (a full pipe, a stopped terminal),
//! and so does the lock around it. Owns a thread that is blocked in the place of others, and the
//! bounded queue before it. Serving threads log by themselves: nobody's deadline depends on them.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// How many lines wait at most. Only a log that nobody reads lets so many come together; what is
/// beyond is lost.
const QUEUE: usize = 256;

/// How long the last lines of a process are waited for.
const LAST_LINES: Duration = Duration::from_secs(1);

type Line = Box<dyn FnOnce() + Send>;

/// The way to the thread that logs.
#[derive(Clone, Debug)]
pub(super) struct Scribe(SyncSender<Line>);

impl Scribe {
    /// Makes the thread, which ends with the last clone.
    pub(super) fn new() -> io::Result<Self> {
        let (lines, queue) = sync_channel::<Line>(QUEUE);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            for line in queue {
                line();
            }
        })?;
        Ok(Self(lines))
    }

    /// Has the thread call `line`, which logs. Never blocks.
    pub(super) fn log(&self, line: impl FnOnce() + Send + 'static) {
        let _ = self.0.try_send(Box::new(line));
    }

    /// Waits until all lines are written, but not for long. For a process that exits.
    pub(super) fn finish(&self) {
        let (done, written) = sync_channel(1);
        self.log(move || {
            let _ = done.send(());
        });
        let _ = written.recv_timeout(LAST_LINES);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn lines_are_written_in_their_order_before_the_end() {
        let scribe = Scribe::new().unwrap();
        let (lines, written) = channel();
        for number in 0..10 {
            let lines = lines.clone();
            scribe.log(move || lines.send(number).unwrap());
        }
        scribe.finish();
        assert_eq!(written.try_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_log_that_is_stuck_holds_nobody_up_and_takes_no_more_than_its_queue() {
        let scribe = Scribe::new().unwrap();
        let (release, stuck) = channel::<()>();
        scribe.log(move || {
            let _ = stuck.recv();
        });
        let written = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        for _ in 0..10 * QUEUE {
            let written = Arc::clone(&written);
            scribe.log(move || {
                written.fetch_add(1, Relaxed);
            });
        }
        scribe.finish();
        assert!(began.elapsed() < 5 * LAST_LINES);
        drop(release);
        scribe.finish();
        assert!(written.load(Relaxed) <= QUEUE + 1);
    }
}
