//! The lines of an app: its events, and what it prints to standard output.
//!
//! Owns what of an app's events is written, and hands it to a [`LineWriter`]. What a line looks like is the business
//! of [`super::line`].

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::Level;

use app_host_core::config::{LogFormat, LogLevel};

use super::line::{self, Frame};
use super::writer::LineWriter;
use crate::logging::{AppEvent, AppLog, Changed};

/// How long an error of the app's is waited for to be written: it may be the last that the process says.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// The log, for the lines of one app.
pub struct AppLines {
    writer: LineWriter,
    format: LogFormat,
    colours: bool,
    hostname: String,
    pid: u32,
    level: AtomicU8,
    told: Arc<Mutex<Vec<Changed>>>,
}

impl AppLines {
    /// Lines of the process `pid`, for `writer`.
    pub(super) fn new(writer: LineWriter, format: LogFormat, level: LogLevel, colours: bool, pid: u32) -> Self {
        let hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        Self { writer, format, colours, hostname, pid, level: AtomicU8::new(level as u8), told: Arc::default() }
    }

    /// Writes what is urgent up to `level` from now on. Whoever wants to know is told on a thread of their own.
    pub(super) fn set_level(&self, level: LogLevel) {
        if self.level.swap(level as u8, Ordering::Relaxed) != level as u8 {
            let told = Arc::clone(&self.told);
            let tell = move || {
                for told in &*told.lock().unwrap_or_else(PoisonError::into_inner) {
                    told();
                }
            };
            if let Err(error) = std::thread::Builder::new().name("log level".to_owned()).spawn(tell) {
                tracing::warn!(error = %error, "the app isn't told of the log's level");
            }
        }
    }

    /// Writes a line that has no level, so that none leaves it out. Waits for room in memory up to `patience`; what
    /// finds none is counted as lost.
    pub fn write_within(&self, event: &AppEvent<'_>, patience: Duration) {
        self.writer.write_within(event.level, &self.render(event), patience);
    }

    /// Waits until all is written: up to `patience`, and not at all where the log is stalled already.
    pub fn flush(&self, patience: Duration) {
        self.writer.flush_unless_stalled(patience);
    }

    /// Whether the log takes nothing at the moment.
    #[cfg(test)]
    pub fn is_stalled(&self) -> bool {
        self.writer.is_stalled()
    }

    /// A line that another process has made, which ends up in the log as it is if it is one.
    pub(super) fn pass_on(&self, line: &str, patience: Duration) {
        if let Some((level, line)) = line::foreign(self.format, line) {
            self.writer.write_within(level, &line, patience);
        } else {
            let (level, target) = (Level::INFO, "stderr");
            let event = AppEvent { level, target, message: line, fields: Vec::new(), spans: Vec::new() };
            self.write_within(&event, patience);
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

    /// Doesn't wait for the log, but for an instant where the event is an error.
    fn write(&self, event: &AppEvent<'_>) {
        if self.enabled(event.level, event.target) {
            self.writer.write(event.level, &self.render(event));
            if event.level == Level::ERROR {
                self.writer.flush_unless_stalled(LAST_WORDS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::logging::Kind;

    const LONG: Duration = Duration::from_secs(20);

    fn lines(log: impl Into<std::os::fd::OwnedFd>) -> AppLines {
        let writer = LineWriter::open(Kind::Main, Some(log.into())).unwrap();
        AppLines::new(writer, LogFormat::Text, LogLevel::Info, false, 7)
    }

    #[test]
    fn whoever_asked_is_told_of_each_change_of_the_level_and_of_nothing_else() {
        let lines = lines(std::fs::File::open("/dev/null").unwrap());
        let (tell, told) = mpsc::channel();
        lines.on_change(Box::new(move || {
            let _ = tell.send(());
        }));
        assert!(lines.enabled(Level::INFO, "a") && !lines.enabled(Level::DEBUG, "a"));
        lines.set_level(LogLevel::Info);
        lines.set_level(LogLevel::Trace);
        told.recv_timeout(LONG).unwrap();
        assert_eq!(lines.max_level(), Level::TRACE);
        assert!(lines.enabled(Level::TRACE, "a"));
        lines.set_level(LogLevel::Error);
        told.recv_timeout(LONG).unwrap();
        assert_eq!(lines.max_level(), Level::ERROR);
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn an_error_is_written_when_the_app_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let lines = lines(std::fs::File::create(&path).unwrap());
        let event = AppEvent {
            level: Level::ERROR,
            target: "t",
            message: "about to end",
            fields: Vec::new(),
            spans: Vec::new(),
        };
        for number in 1..=20 {
            lines.write(&event);
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), number);
        }
    }
}
