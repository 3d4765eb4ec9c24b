//! The configuration: one struct a section, every default in one place, every error with its place.
//!
//! Pure: turns bytes into a [`Config`] and compares two of them. Reading the file belongs to
//! whoever wants it, and whether a path or an address exists is for the rooms that use it.

mod access;
mod account;
mod admin;
mod app;
mod control;
mod cpus;
pub mod databank;
mod environment;
mod forms;
mod health;
mod limits;
mod listen;
mod numbers;
mod schema;
mod section;
mod watched;
mod whereabouts;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, Unexpected};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use access::RawAccessLog;
pub use access::{AccessLog, Trusted};
pub use account::{Account, Rights};
pub use app::{App, AppConfig};
pub use control::ControlSocket;
use control::RawControl;
pub use cpus::Cpus;
pub use databank::Databank;
use databank::RawDatabank;
pub use environment::{Environment, Inherit, MANAGERS, Variables};
pub use health::Recycle;
pub use limits::{Limit, Limits, UNLIMITED};
use listen::RawListen;
pub use listen::{Address, Family, Listen, MAX_APP_LISTENERS, MAX_LISTENERS};
use numbers::Number;
pub use schema::SCHEMA;
use section::{Section, section};
pub use watched::Watched;
pub use whereabouts::{Whereabouts, find as find_control_socket};

/// The largest configuration file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The most workers that may be configured.
pub const MAX_WORKERS: u16 = 512;

/// The most generations that may be kept beside the active one. Each has a copy of its library.
pub const MAX_VERSIONS_KEPT: u16 = 100;

/// The most supplementary groups that workers may be given.
pub const MAX_GROUPS: usize = 1024;

/// The most serving threads that a worker may have.
pub const MAX_THREADS: u16 = 64;

/// How long an old worker waits for idle connections, and has at all, under `app-host dev`: whoever has
/// just saved a file wants to see what it does, and the next build must not wait for an open page.
const DEVELOPMENT_LINGER: Duration = Duration::from_millis(200);
const DEVELOPMENT_SHUTDOWN: Duration = Duration::from_secs(2);

/// A whole configuration. Relative paths have been made absolute.
#[derive(Clone, Debug)]
pub struct Config {
    pub app: App,
    pub listen: Vec<Listen>,
    /// Those that the app serves itself.
    pub app_listeners: Vec<Listen>,
    /// Where metrics and the page for operators are served.
    pub admin: Option<Listen>,
    pub workers: u16,
    pub threads: u16,
    pub state_dir: PathBuf,
    pub pid_file: PathBuf,
    /// Where the operator steers the master.
    pub control_socket: ControlSocket,
    pub user: Option<Account>,
    pub group: Option<Account>,
    /// The supplementary groups of workers; those of the user when absent.
    pub groups: Option<Vec<Account>>,
    /// Which variables its children get.
    pub environment: Environment,
    pub limits: Limits,
    pub cpus: Cpus,
    /// Where workers are; in the directory of the configuration, when absent.
    pub directory: Option<PathBuf>,
    /// Whether a crash may leave the memory of a process that has the databank's secrets in a core dump.
    pub core_dumps: bool,
    pub databank: Databank,
    pub restart: Restart,
    /// How long the service goes on serving once it was told to stop, while it says that it is about to.
    pub shutdown_delay: Duration,
    /// How long a worker's serving threads may give no sign of life before it is aborted; for ever, when
    /// absent.
    pub hang_timeout: Option<Duration>,
    pub recycle: Recycle,
    /// How many earlier generations are kept beside the active one, to go back to.
    pub versions_kept: u16,
    pub watch: Watched,
    pub log: Log,
    /// Whether each request is logged, and how.
    pub access_log: Option<AccessLog>,
}

/// How a restart goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restart {
    /// How long a worker may take from its spawn until it is ready.
    #[serde(deserialize_with = "positive_duration")]
    pub start_timeout: Duration,
    /// How long the first candidate worker must stay alive before any active one is drained.
    #[serde(deserialize_with = "duration")]
    pub probation: Duration,
    /// How long a draining worker waits for the next request on an idle connection.
    #[serde(deserialize_with = "duration")]
    pub idle_linger: Duration,
    /// How long a draining worker may take before it is killed.
    #[serde(deserialize_with = "positive_duration")]
    pub shutdown_timeout: Duration,
    pub on_failure: OnFailure,
    /// How many new workers start side by side, after the first one's probation.
    #[serde(deserialize_with = "workers")]
    pub parallel: u16,
    /// Whether any restart may begin while nothing is left of the one before but workers that drain. A
    /// rollback always may.
    pub while_draining: bool,
    /// Whether workers of this configuration take over the connections of those that drain.
    pub handover: bool,
    /// Whether idle connections move from a worker that has many to one that has few. Not without `handover`.
    pub balance: bool,
}

/// What follows a failed restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The master refuses further restarts and respawns no worker until it is restarted.
    Lock,
    /// Every slot returns to the active generation, the failed one is quarantined, and the master goes
    /// on as before.
    Rollback,
}

/// What is logged, how and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
    /// Standard error when absent.
    pub file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Bunyan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Every default, where a reader can see them together.
mod defaults {
    use super::{
        Arc, Duration, Environment, Inherit, LogFormat, LogLevel, OnFailure, PathBuf, RawListen, RawLog, RawValue,
        Restart, Watched,
    };

    pub(super) fn app_config() -> Arc<RawValue> {
        RawValue::from_string("{}".to_owned()).expect("an empty object is valid JSON").into()
    }

    pub(super) fn listen() -> Vec<RawListen> {
        vec![RawListen::Text("127.0.0.1:8080".to_owned())]
    }

    pub(super) const WORKERS: u16 = 2;
    pub(super) const THREADS: u16 = 1;
    pub(super) const VERSIONS_KEPT: u16 = 5;
    pub(super) const HANG_TIMEOUT: Option<Duration> = Some(Duration::from_mins(1));

    pub(super) fn state_dir() -> PathBuf {
        PathBuf::from("state")
    }

    pub(super) const fn environment() -> Environment {
        Environment { inherit: Inherit::All, file: None }
    }

    /// Under the state directory, when no other path is given.
    pub(super) const PID_FILE: &str = "app-host.pid";

    /// Under the state directory, when no other path is given.
    pub(super) const CONTROL_SOCKET: &str = "control.sock";

    pub(super) const fn watch() -> Watched {
        Watched::NOTHING
    }

    impl Default for Restart {
        fn default() -> Self {
            Self {
                start_timeout: Duration::from_secs(10),
                probation: Duration::from_millis(250),
                idle_linger: Duration::from_secs(5),
                shutdown_timeout: Duration::from_secs(30),
                on_failure: OnFailure::Lock,
                parallel: 1,
                while_draining: false,
                handover: true,
                balance: true,
            }
        }
    }

    impl Default for RawLog {
        fn default() -> Self {
            Self { format: LogFormat::Text, level: LogLevel::Info, file: None }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    /// Where an editor finds the [`SCHEMA`]; of no meaning here.
    #[serde(default, rename = "$schema")]
    _schema: String,
    #[serde(deserialize_with = "section")]
    app: App,
    #[serde(default = "defaults::listen", deserialize_with = "listen::listeners")]
    listen: Vec<RawListen>,
    #[serde(default, deserialize_with = "listen::app_listeners")]
    app_listeners: Vec<RawListen>,
    #[serde(default, deserialize_with = "admin::admin")]
    admin: Option<RawListen>,
    #[serde(default = "default_workers", deserialize_with = "workers")]
    workers: u16,
    #[serde(default = "default_threads", deserialize_with = "threads")]
    threads: u16,
    #[serde(default = "defaults::state_dir")]
    state_dir: PathBuf,
    pid_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "control::control")]
    control_socket: RawControl,
    user: Option<Account>,
    group: Option<Account>,
    #[serde(default, deserialize_with = "groups")]
    groups: Option<Vec<Account>>,
    #[serde(default = "defaults::environment", deserialize_with = "environment::environment")]
    environment: Environment,
    #[serde(default, deserialize_with = "section")]
    limits: Limits,
    #[serde(default, deserialize_with = "cpus::cpus")]
    cpus: Cpus,
    #[serde(default, deserialize_with = "directory")]
    directory: Option<PathBuf>,
    core_dumps: Option<bool>,
    #[serde(default, deserialize_with = "databank::databank")]
    databank: RawDatabank,
    #[serde(default, deserialize_with = "section")]
    restart: Restart,
    #[serde(default, deserialize_with = "duration")]
    shutdown_delay: Duration,
    #[serde(default = "default_hang_timeout", deserialize_with = "health::hang_timeout")]
    hang_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "section")]
    recycle: Recycle,
    #[serde(default = "default_versions_kept", deserialize_with = "versions_kept")]
    versions_kept: u16,
    #[serde(default = "defaults::watch", deserialize_with = "watched::watched")]
    watch: Watched,
    #[serde(default, deserialize_with = "section")]
    log: RawLog,
    #[serde(default, deserialize_with = "access::access_log")]
    access_log: Option<RawAccessLog>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLog {
    format: LogFormat,
    level: LogLevel,
    file: Option<PathBuf>,
}

fn default_workers() -> u16 {
    defaults::WORKERS
}

fn default_threads() -> u16 {
    defaults::THREADS
}

fn default_hang_timeout() -> Option<Duration> {
    defaults::HANG_TIMEOUT
}

fn default_versions_kept() -> u16 {
    defaults::VERSIONS_KEPT
}

fn versions_kept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_VERSIONS_KEPT)
}

fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_WORKERS)
}

fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_THREADS)
}

/// An empty path would be the directory that relative ones begin at, which is what none is for.
fn directory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = Option::<PathBuf>::deserialize(deserializer)?;
    match &path {
        Some(path) if path.as_os_str().is_empty() => {
            Err(D::Error::invalid_value(Unexpected::Str(""), &"null, or the path of a directory"))
        }
        _ => Ok(path),
    }
}

fn groups<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Account>>, D::Error> {
    let groups = Option::<Vec<Account>>::deserialize(deserializer)?;
    match &groups {
        Some(groups) if groups.len() > MAX_GROUPS => {
            Err(D::Error::invalid_length(groups.len(), &format!("at most {MAX_GROUPS} groups").as_str()))
        }
        _ => Ok(groups),
    }
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, most: u16) -> Result<u16, D::Error> {
    let number = Number { least: 1, most: most.into(), null: false }.read(deserializer)?;
    Ok(number.and_then(|number| u16::try_from(number).ok()).expect("it is within its bounds"))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = "a duration of at most a day, such as \"250ms\", \"30s\" or \"2m\"";
    parse_duration(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

fn parse_duration(text: &str) -> Option<Duration> {
    /// The longest duration: what needs more than a day is not a time-out of ours.
    const MOST: Duration = Duration::from_hours(24);
    humantime::parse_duration(text).ok().filter(|duration| *duration <= MOST)
}

fn positive_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration.is_zero() {
        return Err(D::Error::invalid_value(Unexpected::Str("0s"), &"a duration longer than zero"));
    }
    Ok(duration)
}

/// A configuration that can't be used, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, an unknown key, a wrong type, a value out of bounds.
    #[error("{}:{line}:{column}: {}{message}", path.display(), key_prefix(key))]
    Invalid { path: PathBuf, line: usize, column: usize, key: String, message: String },
    /// What can only be seen once paths are absolute.
    #[error("{}: {key}: {message}", path.display())]
    Listen { path: PathBuf, key: &'static str, message: String },
}

/// The key as it is said before a message. What the parser hasn't got to yet has none, and it calls that `?`.
fn key_prefix(key: &str) -> String {
    let key = key.trim_end_matches(['?', '.']);
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

impl Config {
    /// Reads a configuration from the bytes of the file at `path`, which must be absolute: relative
    /// paths in it are relative to its directory.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ConfigError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let invalid = |key: String, error: &serde_json::Error| ConfigError::Invalid {
            path: path.to_owned(),
            // Of what is empty the parser says 0, and editors count from 1.
            line: error.line().max(1),
            column: error.column().max(1),
            key,
            // A value of the wrong type is quoted, and it may be a URI.
            message: databank::redact(&without_place(error)),
        };
        if bytes.starts_with("\u{feff}".as_bytes()) {
            let message = "it begins with a byte order mark, which JSON has not; save it without one".to_owned();
            return Err(ConfigError::Invalid {
                path: path.to_owned(),
                line: 1,
                column: 1,
                key: ".".to_owned(),
                message,
            });
        }
        let Section(raw): Section<RawConfig> = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| invalid(error.path().to_string(), error.inner()))?;
        deserializer.end().map_err(|error| invalid(".".to_owned(), &error))?;
        let config = raw.resolve(path)?;
        if let Some((index, message)) = listen::clash(&config.listen, &config.app_listeners) {
            let (line, column) = place_of_app_listener(bytes, index).unwrap_or_default();
            let key = format!("app_listeners[{index}]");
            return Err(ConfigError::Invalid { path: path.to_owned(), line, column, key, message });
        }
        Ok(config)
    }

    /// What `app-host dev` has in the place of the file's words: the library that it has built, restarts
    /// that nobody has to wait for, and a log that it can read.
    #[must_use]
    pub fn for_development(mut self, library: &Path) -> Self {
        library.clone_into(&mut self.app.library);
        // Who builds says when.
        self.watch = Watched::NOTHING;
        self.restart.probation = Duration::ZERO;
        self.restart.idle_linger = self.restart.idle_linger.min(DEVELOPMENT_LINGER);
        self.restart.shutdown_timeout = self.restart.shutdown_timeout.min(DEVELOPMENT_SHUTDOWN);
        self.shutdown_delay = Duration::ZERO;
        // Somebody may look at a worker with a debugger, for as long as that takes.
        self.hang_timeout = None;
        self.recycle = Recycle::NEVER;
        let level = match self.log.level {
            LogLevel::Error | LogLevel::Warn => LogLevel::Info,
            level => level,
        };
        self.log = Log { format: LogFormat::Bunyan, level, file: None };
        self
    }

    /// The first setting that differs from `running` and can't change under running workers.
    pub fn fixed_difference(&self, running: &Self) -> Option<&'static str> {
        if self.state_dir != running.state_dir {
            Some("state_dir")
        } else if self.pid_file != running.pid_file {
            Some("pid_file")
        } else if self.control_socket != running.control_socket {
            Some("control_socket")
        } else if self.user != running.user {
            Some("user")
        } else if self.group != running.group {
            Some("group")
        } else if self.groups != running.groups {
            Some("groups")
        } else {
            None
        }
    }

    /// Whether some of it stands in files of its own, which may change while it doesn't.
    pub fn names_files(&self) -> bool {
        self.app.has_secrets() || self.environment.file.is_some() || self.databank.has_secret_file()
    }

    /// All addresses that are listened at.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listen.iter().chain(&self.app_listeners).chain(&self.admin).map(|listen| &listen.address)
    }

    /// The sockets with a file, what they are called, and their rights.
    pub fn socket_files(&self) -> impl Iterator<Item = (String, &Rights)> {
        let listeners = self.listen.iter().chain(&self.app_listeners).chain(&self.admin);
        let listeners = listeners.map(|listen| (listen.address.to_string(), &listen.rights));
        listeners.chain([("control_socket".to_owned(), &self.control_socket.rights)])
    }

    /// Where the master keeps its own copies of artifacts.
    pub fn versions_dir(&self) -> PathBuf {
        self.state_dir.join("versions")
    }

    /// Where running workers hold a lock that names their magic.
    pub fn locks_dir(&self) -> PathBuf {
        self.state_dir.join("locks")
    }
}

/// Line and column where an entry of `app_listeners` begins, in bytes that are a configuration: what is
/// wrong with it can only be said when all of them have been read.
fn place_of_app_listener(bytes: &[u8], index: usize) -> Option<(usize, usize)> {
    #[derive(Deserialize)]
    struct Places<'a> {
        #[serde(borrow)]
        app_listeners: Vec<&'a RawValue>,
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let places: Places<'_> = serde_json::from_str(text).ok()?;
    let entry = places.app_listeners.get(index)?.get();
    let before = &bytes[..entry.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?];
    let mut lines = before.split(|byte| *byte == b'\n');
    let last = lines.next_back().map_or(0, <[u8]>::len);
    // Those before it, and its own; both are counted from 1.
    Some((lines.count() + 1, last + 1))
}

/// `serde_json` ends its messages with the place, which is said once, at the front.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map_or(text.clone(), str::to_owned)
}

impl RawConfig {
    fn resolve(self, path: &Path) -> Result<Config, ConfigError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let parse = |key, listeners: &[RawListen]| {
            let parsed = listeners.iter().map(|listen| listen.parse(directory)).collect::<Result<Vec<_>, _>>();
            parsed.map_err(|message| ConfigError::Listen { path: path.to_owned(), key, message })
        };
        let mut listen = parse("listen", &self.listen)?;
        let mut app_listeners = parse("app_listeners", &self.app_listeners)?;
        let mut admin = parse("admin", self.admin.as_slice())?.pop();
        listen::part_families(listen.iter_mut().chain(&mut app_listeners).chain(&mut admin));
        if let Some(admin) = &admin
            && let Some(message) =
                admin::clash(admin, &listen, "listen").or_else(|| admin::clash(admin, &app_listeners, "app_listeners"))
        {
            return Err(ConfigError::Listen { path: path.to_owned(), key: "admin", message });
        }
        let state_dir = directory.join(self.state_dir);
        let has_secrets = self.app.has_secrets() || self.environment.file.is_some();
        let databank = self.databank.resolve(directory, &state_dir);
        Ok(Config {
            app: App { library: directory.join(self.app.library), config: self.app.config },
            listen,
            app_listeners,
            admin,
            workers: self.workers,
            threads: self.threads,
            pid_file: self.pid_file.map_or_else(|| state_dir.join(defaults::PID_FILE), |file| directory.join(file)),
            control_socket: self.control_socket.resolve(directory, &state_dir),
            core_dumps: self.core_dumps.unwrap_or(!databank.may_have_password() && !has_secrets),
            databank,
            state_dir,
            user: self.user,
            group: self.group,
            groups: self.groups,
            environment: self.environment,
            limits: self.limits,
            cpus: self.cpus,
            directory: self.directory.map(|path| directory.join(path)),
            restart: self.restart,
            shutdown_delay: self.shutdown_delay,
            hang_timeout: self.hang_timeout,
            recycle: self.recycle,
            versions_kept: self.versions_kept,
            watch: self.watch,
            log: Log {
                format: self.log.format,
                level: self.log.level,
                file: self.log.file.map(|file| directory.join(file)),
            },
            access_log: self.access_log.map(|access_log| access_log.resolve(directory)),
        })
    }
}

#[cfg(test)]
mod tests;
