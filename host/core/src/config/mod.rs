//! The configuration: one struct a section, every default in one place, every error with its place.
//!
//! Pure: turns bytes into a [`Config`] and compares two of them. Reading the file belongs to
//! whoever wants it, and whether a path or an address exists is for the modules that use it.

mod access;
mod account;
mod address;
mod admin;
mod app;
mod control;
mod cpus;
pub mod databank;
mod defaults;
mod environment;
mod forms;
mod front;
mod health;
mod http;
mod limits;
mod listen;
mod numbers;
mod peers;
mod raw;
mod schema;
mod section;
mod tls;
mod values;
mod watched;
mod whereabouts;
mod wording;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use access::AccessLog;
pub use account::{Account, Rights};
pub use address::Address;
pub use app::{App, AppConfig};
pub use control::ControlSocket;
pub use cpus::Cpus;
pub use databank::Databank;
pub use environment::{Environment, Inherit, MANAGERS, Variables};
pub use front::{Front, Hsts, Redirect};
pub use health::Recycle;
pub use http::{ClientLimits, ConnectionLimits, Http, Http2Restart};
pub use limits::{Limit, Limits, UNLIMITED};
pub use listen::{Family, Listen, MAX_APP_LISTENERS, MAX_LISTENERS};
pub use peers::{Forwarded, Peers, ProxyProtocol, Trusted};
use raw::RawConfig;
pub use schema::SCHEMA;
use section::Section;
pub use tls::{CertificateFiles, ClientCertificate, Clients, MAX_CERTIFICATES, Tls};
use values::{duration, positive_duration, state_limit, workers};
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

/// The most bytes that an app may be let leave: they are in memory, besides what both workers make of them.
pub const MAX_STATE: u64 = 16 << 30;

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
    /// Where the operator commands the master.
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
    /// Whether a crash may leave the memory of a process that has secrets, of the databank or of TLS, in a core dump.
    pub core_dumps: bool,
    pub databank: Databank,
    pub restart: Restart,
    /// How long the service goes on serving once it was told to stop, while it says that it is about to.
    pub shutdown_delay: Duration,
    /// How long a worker's serving threads may give no sign of life before it is aborted; for ever, when
    /// absent.
    pub hang_timeout: Option<Duration>,
    pub recycle: Recycle,
    /// What requests are bounded by.
    pub http: Http,
    /// What connections are bounded by.
    pub connections: ConnectionLimits,
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
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the configuration's own")]
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
    /// How long a client that owes something may take or give nothing before a draining worker cuts it off.
    #[serde(deserialize_with = "positive_duration")]
    pub stall_timeout: Duration,
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
    /// What becomes of HTTP/2 connections of a worker that drains. Moved, they need `handover`.
    pub http2: Http2Restart,
    /// Whether one worker is enough: a new one comes before it goes, and inherits what the app keeps in memory.
    pub single: bool,
    /// How many bytes an app may leave to the worker that comes after it; none at all, when 0.
    #[serde(deserialize_with = "state_limit")]
    pub state_limit: u64,
    /// How long leaving and inheriting may take together, before the old worker drains without that.
    #[serde(deserialize_with = "positive_duration")]
    pub state_timeout: Duration,
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
            message: wording::in_json_words(&databank::redact(&without_place(error))),
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
        self.app.has_secrets() || self.environment.file.is_some() || self.databank.has_secret_file() || self.has_tls()
    }

    /// Whether any listener speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.listen.iter().any(|listen| listen.tls.is_some())
    }

    /// What clients are bounded by.
    pub fn client_limits(&self) -> ClientLimits {
        let connections = self.connections.of_one(self.workers);
        let Restart { stall_timeout, http2, .. } = self.restart;
        ClientLimits { http: self.http, connections, stall_timeout, http2 }
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

#[cfg(test)]
mod tests;
