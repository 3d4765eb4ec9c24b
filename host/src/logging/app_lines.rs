//! The lines of an app: its events, and what it prints to standard output.
//!
//! Owns a descriptor of the log, what of an app's events is written, and how a line gets there. What a
//! line looks like is the business of [`super::line`].

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::Level;

use super::line::{self, Frame};
use crate::config::{LogFormat, LogLevel};
use crate::loader::{AppEvent, AppLog, Changed};

/// What a pipe takes without waiting once it says that there is room (`PIPE_BUF`, pipe(7)).
const SLICE: usize = 4096;

/// The log, for the lines of one app.
pub struct AppLines {
    /// Standard error when absent, whatever that is at the moment.
    log: Option<OwnedFd>,
    format: LogFormat,
    colours: bool,
    hostname: String,
    pid: u32,
    level: AtomicU8,
    told: Mutex<Vec<Changed>>,
}

impl AppLines {
    /// Lines of the process `pid` in `log`.
    pub(super) fn new(log: Option<OwnedFd>, format: LogFormat, level: LogLevel, colours: bool, pid: u32) -> Self {
        let hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        Self { log, format, colours, hostname, pid, level: AtomicU8::new(level as u8), told: Mutex::default() }
    }

    /// The same lines in another log.
    pub fn into_log(self, log: OwnedFd) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The same log for the lines of another process.
    pub fn of_process(self, pid: u32) -> Self {
        Self { pid, ..self }
    }

    /// Writes what is urgent up to `level` from now on.
    pub(super) fn set_level(&self, level: LogLevel) {
        if self.level.swap(level as u8, Ordering::Relaxed) != level as u8 {
            for told in &*self.told.lock().unwrap_or_else(PoisonError::into_inner) {
                told();
            }
        }
    }

    /// Writes a line that has no level, so that none leaves it out. Says whether the log took it: one
    /// that nobody reads is waited for no longer than `patience`.
    pub fn write_within(&self, event: &AppEvent<'_>, patience: Duration) -> bool {
        let line = self.render(event);
        let deadline = Instant::now() + patience;
        line.chunks(SLICE).all(|slice| self.with_log(|log| has_room(log, deadline) && write_all(log, slice).is_ok()))
    }

    fn with_log<T>(&self, write: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match &self.log {
            Some(log) => write(log.as_fd()),
            None => write(io::stderr().as_fd()),
        }
    }

    /// The line of an event, with its end.
    pub fn render(&self, event: &AppEvent<'_>) -> Vec<u8> {
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let frame = Frame { time: &time, hostname: &self.hostname, pid: self.pid, colours: self.colours };
        line::render(self.format, frame, event)
    }
}

impl AppLog for AppLines {
    fn max_level(&self) -> Level {
        const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        LEVELS[usize::from(self.level.load(Ordering::Relaxed)).min(4)]
    }

    fn enabled(&self, level: Level, _target: &str) -> bool {
        level <= self.max_level()
    }

    fn on_change(&self, changed: Changed) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(changed);
    }

    /// Waits for the log as the host's own lines on the same thread do.
    fn write(&self, event: &AppEvent<'_>) {
        if self.enabled(event.level, event.target) {
            let line = self.render(event);
            // The host's own lines take the same lock, so that none gets into another.
            let mut stderr = io::stderr().lock();
            let _ = stderr.flush();
            // A log that can't be written to has nobody who could be told.
            let _ = self.with_log(|log| write_all(log, &line));
        }
    }
}

/// Waits until a slice can be written without waiting.
fn has_room(log: BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(log, PollFlags::POLLOUT)], timeout) {
            Ok(ready) => return ready > 0,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

fn write_all(log: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(log, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn lines(log: OwnedFd) -> AppLines {
        AppLines::new(Some(log), LogFormat::Text, LogLevel::Info, false, 7)
    }

    fn event(message: &str) -> AppEvent<'_> {
        AppEvent { level: Level::INFO, target: "stdout", message, fields: Vec::new(), spans: Vec::new() }
    }

    #[test]
    fn whoever_asked_is_told_of_each_change_of_the_level_and_of_nothing_else() {
        let lines = lines(std::fs::File::open("/dev/null").unwrap().into());
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        lines.on_change(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(lines.enabled(Level::INFO, "a") && !lines.enabled(Level::DEBUG, "a"));
        lines.set_level(LogLevel::Info);
        assert_eq!(told.load(Ordering::Relaxed), 0);
        lines.set_level(LogLevel::Trace);
        assert_eq!((told.load(Ordering::Relaxed), lines.max_level()), (1, Level::TRACE));
        assert!(lines.enabled(Level::TRACE, "a"));
        lines.set_level(LogLevel::Error);
        assert_eq!((told.load(Ordering::Relaxed), lines.max_level()), (2, Level::ERROR));
    }

    #[test]
    fn a_log_that_nobody_reads_holds_up_no_longer_than_it_may() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = lines(writer.into());
        let mut taken = 0;
        while lines.write_within(&event(&"x".repeat(10_000)), Duration::ZERO) {
            taken += 1;
            assert!(taken < 1000, "a pipe has a bound");
        }
        assert!(taken > 0);
        let began = Instant::now();
        assert!(!lines.write_within(&event("more"), Duration::from_millis(50)));
        assert!(began.elapsed() < Duration::from_secs(5));
        let mut some = vec![0; 30_000];
        reader.read_exact(&mut some).unwrap();
        assert!(lines.write_within(&event("more"), Duration::ZERO));
    }
}
