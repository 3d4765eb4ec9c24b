//! The log: text for people or bunyan's JSON, on standard error or in a file.
//!
//! The master opens the file; children write to it through their standard error, so they need no
//! right to it. What is logged is for the rooms that log it.
//!
//! The events of an app, and what it prints, come by another road, because the names of their fields are
//! known only when they come: [`AppLines`] makes lines of them that look like the others.
//!
//! Bunyan's fields are `v`, `name`, `hostname`, `pid`, `level`, `time` and `msg`
//! (<https://github.com/trentm/node-bunyan#core-fields>). `pid` is that of the process that logs, so
//! a worker that a line is *about* is `worker_pid` everywhere.

mod app_lines;
mod file;
mod line;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_bunyan_formatter::{BunyanFormattingLayer, JsonStorageLayer};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};
use crate::message::LogSetup;

pub use app_lines::AppLines;

/// A log that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("the log file {} can't be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("standard error can't be passed on")]
    Stderr(#[source] io::Error),
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// The master's log, which follows the configuration.
pub struct Logging {
    settings: Log,
    /// The operator's word, which counts more than the configuration's.
    level: Option<LogLevel>,
    file: Option<Arc<File>>,
    layer: reload::Handle<Boxed, Registry>,
}

impl Logging {
    /// Starts logging in this process. Call once.
    pub fn init(settings: &Log) -> Result<Self, LoggingError> {
        let file = open(settings)?;
        let (layer, handle) = reload::Layer::new(layer(settings.format, settings.level, file.as_ref()));
        // Without the bridge from the crate `log` that `init` would make: the watcher's crate logs every
        // event there, and so every line of a log that lies beside a watched file would make another one.
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .expect("a process has one log");
        log_panics();
        Ok(Self { settings: settings.clone(), level: None, file, layer: handle })
    }

    /// Logs as `settings` say from now on; as before, if their file can't be opened.
    pub fn change(&mut self, settings: &Log) -> Result<(), LoggingError> {
        if *settings == self.settings {
            return Ok(());
        }
        self.file = open(settings)?;
        self.settings = settings.clone();
        self.renew();
        Ok(())
    }

    /// Logs what is urgent up to `level` from now on, whatever the configuration says; what it says, when
    /// absent.
    pub fn set_level(&mut self, level: Option<LogLevel>) {
        self.level = level;
        self.renew();
    }

    /// What is logged in fact.
    pub fn level(&self) -> LogLevel {
        self.level.unwrap_or(self.settings.level)
    }

    /// Opens the log file anew, by its name: who rotates logs has renamed it.
    pub fn reopen(&mut self) -> Result<(), LoggingError> {
        self.file = open(&self.settings)?;
        self.renew();
        Ok(())
    }

    fn renew(&self) {
        // A reload can only fail when the subscriber is gone, and it lives as long as the process.
        let _ = self.layer.reload(layer(self.settings.format, self.level(), self.file.as_ref()));
    }

    /// What a child gets as its standard error; `None` to inherit ours.
    pub fn stderr_for(&self, settings: &Log) -> Result<Option<OwnedFd>, LoggingError> {
        if settings.file != self.settings.file {
            return open_for_child(settings);
        }
        let duplicate = |file: &Arc<File>| file.as_fd().try_clone_to_owned().map_err(LoggingError::Stderr);
        self.file.as_ref().map(duplicate).transpose()
    }
}

/// The log of a child, which goes to standard error. Cheap to clone.
#[derive(Clone)]
pub struct ChildLog {
    setup: LogSetup,
    layer: reload::Handle<Boxed, Registry>,
    app: Arc<AppLines>,
}

/// Has this process write to another log from now on: its standard error becomes `log`, at once and for
/// every thread.
pub fn redirect(log: &OwnedFd) -> io::Result<()> {
    Ok(nix::unistd::dup2_stderr(log)?)
}

impl ChildLog {
    /// For the lines of the app that this process has loaded.
    pub fn app(&self) -> Arc<AppLines> {
        Arc::clone(&self.app)
    }

    /// One that nobody reads, and no subscriber.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        let setup = LogSetup { format: LogFormat::Text, level: LogLevel::Info };
        let (_, layer) = reload::Layer::new(layer(setup.format, setup.level, None));
        let null = File::options().write(true).open("/dev/null").expect("there is a /dev/null");
        let app = app_lines(Some(null.into()), setup, 1);
        Self { setup, layer, app: Arc::new(app) }
    }

    /// Logs what is urgent up to `level` from now on; the app is told.
    pub fn set_level(&self, level: LogLevel) {
        // A reload can only fail when the subscriber is gone, and it lives as long as the process.
        let _ = self.layer.reload(layer(self.setup.format, level, None));
        self.app.set_level(level);
    }
}

/// Starts logging to standard error. Call once, in a process that reads no configuration itself.
pub fn init_child(setup: LogSetup) -> ChildLog {
    let (layer, handle) = reload::Layer::new(layer(setup.format, setup.level, None));
    tracing_subscriber::registry().with(layer).init();
    log_panics();
    let app = Arc::new(app_lines(None, setup, std::process::id()));
    ChildLog { setup, layer: handle, app }
}

/// The road for lines of an app to `log`, standard error when absent.
pub fn app_lines(log: Option<OwnedFd>, setup: LogSetup, pid: u32) -> AppLines {
    let colours = log.is_none() && setup.format == LogFormat::Text && io::stderr().is_terminal();
    AppLines::new(log, setup.format, setup.level, colours, pid)
}

/// A panic of ours is a line of the log like any other. The app's library has a hook of its own.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let panic = info.payload_as_str().unwrap_or_default();
        tracing::error!(panic, place, "a thread panicked, which is a bug in the host");
    }));
}

/// What a child needs to know of these settings.
pub fn for_child(settings: &Log) -> LogSetup {
    LogSetup { format: settings.format, level: settings.level }
}

/// The log file as the standard error of a child; `None` to inherit ours.
pub fn open_for_child(settings: &Log) -> Result<Option<OwnedFd>, LoggingError> {
    let file = open(settings)?;
    file.map(|file| file.as_fd().try_clone_to_owned().map_err(LoggingError::Stderr)).transpose()
}

fn open(settings: &Log) -> Result<Option<Arc<File>>, LoggingError> {
    settings.file.as_deref().map(|path| open_file(path).map(Arc::new)).transpose()
}

/// Opens a file for lines, and makes it where there is none. For what is refused see [`file`].
pub fn open_file(path: &Path) -> Result<File, LoggingError> {
    file::open(path).map_err(|error| LoggingError::Open { path: path.to_owned(), source: io::Error::other(error) })
}

fn layer(format: LogFormat, level: LogLevel, file: Option<&Arc<File>>) -> Boxed {
    let writer = match file {
        Some(file) => BoxMakeWriter::new(Arc::clone(file)),
        None => BoxMakeWriter::new(io::stderr),
    };
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    match format {
        LogFormat::Text => {
            let colours = file.is_none() && io::stderr().is_terminal();
            tracing_subscriber::fmt::layer()
                .with_ansi(colours)
                .with_target(false)
                .with_writer(writer)
                .with_filter(level)
                .boxed()
        }
        LogFormat::Bunyan => JsonStorageLayer
            .and_then(BunyanFormattingLayer::new(crate::sys::PROCESS_NAME.to_owned(), writer))
            .with_filter(level)
            .boxed(),
    }
}
