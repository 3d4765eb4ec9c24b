//! The log: text for people or bunyan's JSON, on standard error or in a file.
//!
//! Nobody waits for it: every line goes through a [`LineWriter`]. The master opens the file. A worker that runs as
//! the master's user gets its descriptor; every other child gets a pipe, which a [relay](mod@relay) reads, so that
//! nobody but the master and its own user can truncate the log or type into its terminal. What is logged is for the
//! modules that log it.
//!
//! The events of an app, and what it prints, take another way, because the names of their fields are
//! known only when they come: [`AppLines`] makes lines of them that look like the others.
//!
//! Bunyan's fields are `v`, `name`, `hostname`, `pid`, `level`, `time` and `msg`
//! (<https://github.com/trentm/node-bunyan#core-fields>). `pid` is that of the process that logs, so
//! a worker that a line is *about* is `worker_pid` everywhere.

mod app_event;
mod app_lines;
mod file;
mod journal;
mod line;
mod panics;
mod relay;
mod writer;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::unistd::Pid;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_bunyan_formatter::{BunyanFormattingLayer, JsonStorageLayer};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use app_host_core::config::{Log, LogFormat, LogLevel};
use app_host_core::message::LogSetup;

pub use app_event::{AppEvent, AppField, AppLog, AppValue, Changed};
pub use app_lines::AppLines;
pub use panics::app_has_closed_ours;
use panics::log_panics;
pub use relay::{Relay, RelayGuard, finish_relays};
pub use writer::{Kind, LineWriter};

/// How long a process that ends waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long a thread that panics, which may end the process, waits for the line that says so.
const PANIC_LINE: Duration = Duration::from_millis(200);

/// A log that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("the log file {} can't be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("standard error can't be passed on")]
    Stderr(#[source] io::Error),
    #[error("the pipe or the thread of a log can't be made")]
    Equipment(#[source] io::Error),
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// Where this process' own lines go.
struct Main {
    writer: LineWriter,
    /// The file's path; absent where it is standard error.
    path: Mutex<Option<PathBuf>>,
}

impl Main {
    fn path(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static MAIN: OnceLock<Main> = OnceLock::new();

/// Waits until what this process has logged is written, but not for long. To be called before it ends.
pub fn finish() {
    if let Some(main) = MAIN.get() {
        main.writer.flush(LAST_LINES);
    }
}

/// As [`finish`], for a process of many: nobody waits for its end longer because the log is stalled.
pub fn finish_unless_stalled() {
    if let Some(main) = MAIN.get() {
        main.writer.flush_unless_stalled(LAST_LINES);
    }
}

/// Where the lines of one child go.
#[derive(Clone, Debug)]
pub struct ChildTarget {
    pub writer: LineWriter,
    /// Whether that is this process' own log, which is reopened with it.
    pub is_ours: bool,
}

/// Where the lines of a child with these settings go: to this process' own log where that is the same.
pub fn target_for(settings: &Log) -> Result<ChildTarget, LoggingError> {
    if let Some(main) = MAIN.get().filter(|main| *main.path() == settings.file) {
        return Ok(ChildTarget { writer: main.writer.clone(), is_ours: true });
    }
    let log = descriptor(open(settings)?.as_ref())?;
    let writer = LineWriter::open(Kind::Main, Some(log)).map_err(LoggingError::Equipment)?;
    Ok(ChildTarget { writer, is_ours: false })
}

/// The standard streams of a child that is no worker: a pipe into its log. With ours it could truncate what they are,
/// or type into it.
#[derive(Debug)]
pub struct ChildPipe {
    relay: Relay,
    target: ChildTarget,
}

impl ChildPipe {
    /// For a child with these settings.
    pub fn open(settings: &Log) -> Result<Self, LoggingError> {
        let target = target_for(settings)?;
        Ok(Self { relay: Relay::open().map_err(LoggingError::Equipment)?, target })
    }

    /// Its ends.
    pub fn ends(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([self.relay.for_child()?, self.relay.for_child()?])
    }

    /// Passes on what it says until what is returned is dropped.
    pub fn follow(self, pid: Pid, settings: &Log) -> io::Result<RelayGuard> {
        self.relay.follow(app_lines(self.target.writer, for_child(settings), pid.as_raw().unsigned_abs()))
    }
}

/// The master's log, which follows the configuration.
pub struct Logging {
    settings: Log,
    /// The operator's word, which counts more than the configuration's.
    level: Option<LogLevel>,
    file: Option<Arc<File>>,
    writer: LineWriter,
    layer: reload::Handle<Boxed, Registry>,
}

impl Logging {
    /// Starts logging in this process. Call once.
    pub fn init(settings: &Log) -> Result<Self, LoggingError> {
        let file = open(settings)?;
        let writer = LineWriter::open(Kind::Main, Some(descriptor(file.as_ref())?)).map_err(LoggingError::Equipment)?;
        let colours = file.is_none() && io::stderr().is_terminal();
        let (layer, handle) = reload::Layer::new(layer(writer.clone(), settings.format, settings.level, colours));
        // Without the bridge from the crate `log` that `init` would make: the watcher's crate logs every
        // event there, and so every line of a log that lies beside a watched file would make another one.
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .expect("a process has one log");
        started(&writer, settings.file.clone());
        Ok(Self { settings: settings.clone(), level: None, file, writer, layer: handle })
    }

    /// Logs as `settings` say from now on; as before, if their file can't be opened.
    pub fn change(&mut self, settings: &Log) -> Result<(), LoggingError> {
        if *settings == self.settings {
            return Ok(());
        }
        self.take_file(open(settings)?)?;
        self.settings = settings.clone();
        if let Some(main) = MAIN.get() {
            main.path().clone_from(&self.settings.file);
        }
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

    /// Whether the log file's name is that of another file now, or of none.
    pub fn has_moved(&self) -> bool {
        self.settings.file.as_ref().zip(self.file.as_ref()).is_some_and(|(path, file)| has_moved(path, file))
    }

    /// Opens the log file anew, by its name: who rotates logs has renamed it.
    pub fn reopen(&mut self) -> Result<(), LoggingError> {
        self.take_file(open(&self.settings)?)
    }

    fn take_file(&mut self, file: Option<Arc<File>>) -> Result<(), LoggingError> {
        self.writer.redirect(descriptor(file.as_ref())?);
        self.file = file;
        Ok(())
    }

    fn renew(&self) {
        let colours = self.file.is_none() && io::stderr().is_terminal();
        // A reload can only fail when the subscriber is gone, and it lives as long as the process.
        let _ = self.layer.reload(layer(self.writer.clone(), self.settings.format, self.level(), colours));
    }

    /// A descriptor of the log of these settings, for a worker that runs as the same user.
    pub fn descriptor(&self, settings: &Log) -> Result<OwnedFd, LoggingError> {
        let same = settings.file == self.settings.file;
        if same { descriptor(self.file.as_ref()) } else { descriptor(open(settings)?.as_ref()) }
    }
}

/// A descriptor of this file; of standard error when absent.
fn descriptor(file: Option<&Arc<File>>) -> Result<OwnedFd, LoggingError> {
    let log = match file {
        Some(file) => file.as_fd().try_clone_to_owned(),
        None => io::stderr().as_fd().try_clone_to_owned(),
    };
    log.map_err(LoggingError::Stderr)
}

/// The log of a child. Cheap to clone.
#[derive(Clone)]
pub struct ChildLog {
    setup: LogSetup,
    colours: bool,
    writer: LineWriter,
    layer: reload::Handle<Boxed, Registry>,
    app: Arc<AppLines>,
}

impl ChildLog {
    /// For the lines of the app that this process has loaded.
    pub fn app(&self) -> Arc<AppLines> {
        Arc::clone(&self.app)
    }

    /// What all lines of this process go through.
    pub fn writer(&self) -> LineWriter {
        self.writer.clone()
    }

    /// One that goes nowhere, without a subscriber: for unit tests of whoever needs one.
    #[doc(hidden)]
    pub fn nowhere() -> Self {
        let setup = LogSetup { format: LogFormat::Text, level: LogLevel::Info, journal: None };
        let null = File::options().write(true).open("/dev/null").expect("there is a /dev/null");
        let writer = LineWriter::open(Kind::Main, Some(null.into())).expect("a thread can be made");
        let (_, layer) = reload::Layer::new(layer(writer.clone(), setup.format, setup.level, false));
        let app = app_lines(writer.clone(), setup, 1);
        Self { setup, colours: false, writer, layer, app: Arc::new(app) }
    }

    /// Has this process write to another log from now on.
    pub fn redirect(&self, log: OwnedFd) {
        self.writer.redirect(log);
    }

    /// Logs what is urgent up to `level` from now on. The app is told on a thread of its own, because it asks its
    /// callsites again then.
    pub fn set_level(&self, level: LogLevel) {
        // A reload can only fail when the subscriber is gone, and it lives as long as the process.
        let _ = self.layer.reload(layer(self.writer.clone(), self.setup.format, level, self.colours));
        self.app.set_level(level);
    }
}

/// Starts logging to `log`, or to standard error when absent. Call once, in a process that reads no configuration
/// itself.
///
/// # Errors
/// When the thread that writes can't be made, or standard error isn't open.
pub fn init_child(setup: LogSetup, log: Option<OwnedFd>) -> Result<ChildLog, LoggingError> {
    journal::expect(setup.journal);
    let log = log.map_or_else(|| descriptor(None), Ok)?;
    let colours = setup.format == LogFormat::Text && log.is_terminal();
    let writer = LineWriter::open(Kind::Main, Some(log)).map_err(LoggingError::Equipment)?;
    let (layer, handle) = reload::Layer::new(layer(writer.clone(), setup.format, setup.level, colours));
    tracing_subscriber::registry().with(layer).init();
    started(&writer, None);
    let app = AppLines::new(writer.clone(), setup.format, setup.level, colours, std::process::id());
    Ok(ChildLog { setup, colours, writer, layer: handle, app: Arc::new(app) })
}

/// The lines of the app of the process `pid`, for a log that is no terminal.
pub fn app_lines(writer: LineWriter, setup: LogSetup, pid: u32) -> AppLines {
    AppLines::new(writer, setup.format, setup.level, false, pid)
}

/// From now on `writer` is this process' log.
fn started(writer: &LineWriter, path: Option<PathBuf>) {
    let _ = MAIN.set(Main { writer: writer.clone(), path: Mutex::new(path) });
    log_panics();
}

/// What a child needs to know of these settings.
pub fn for_child(settings: &Log) -> LogSetup {
    LogSetup { format: settings.format, level: settings.level, journal: journal::stream() }
}

fn open(settings: &Log) -> Result<Option<Arc<File>>, LoggingError> {
    settings.file.as_deref().map(|path| open_file(path).map(Arc::new)).transpose()
}

/// Opens a file for lines, and makes it where there is none. For what is refused see [`file`](mod@file).
pub fn open_file(path: &Path) -> Result<File, LoggingError> {
    file::open(path).map_err(|error| LoggingError::Open { path: path.to_owned(), source: io::Error::other(error) })
}

/// Whether the name of a file for lines is another's now, or nobody's.
pub fn has_moved(path: &Path, file: &File) -> bool {
    file::has_moved(path, file)
}

/// Lines of one level for the writer.
struct Sink(LineWriter, Level);

/// A sink for each line.
struct Sinks(LineWriter);

impl<'a> MakeWriter<'a> for Sinks {
    type Writer = Sink;

    fn make_writer(&'a self) -> Sink {
        Sink(self.0.clone(), Level::INFO)
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Sink {
        Sink(self.0.clone(), *line.level())
    }
}

impl io::Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(self.1, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn layer(writer: LineWriter, format: LogFormat, level: LogLevel, colours: bool) -> Boxed {
    let writer = BoxMakeWriter::new(Sinks(writer));
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    match format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_ansi(colours)
            .with_target(false)
            .with_writer(writer)
            .with_filter(level)
            .boxed(),
        LogFormat::Bunyan => JsonStorageLayer
            .and_then(BunyanFormattingLayer::new(crate::sys::PROCESS_NAME.to_owned(), writer))
            .with_filter(level)
            .boxed(),
    }
}
