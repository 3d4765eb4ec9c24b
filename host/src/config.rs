//! The configuration: one struct a section, every default in one place, every error with its place.
//!
//! Pure: turns bytes into a [`Config`] and compares two of them. Reading the file belongs to
//! whoever wants it, and whether a path or an address exists is for the rooms that use it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, Unexpected};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The largest configuration file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The most workers that may be configured.
pub const MAX_WORKERS: u16 = 512;

/// The most serving threads that a worker may have.
pub const MAX_THREADS: u16 = 64;

/// The most listeners: their descriptors must fit into one message (`SCM_MAX_FD` is 253, `unix(7)`).
pub const MAX_LISTENERS: usize = 128;

/// A whole configuration. Relative paths have been made absolute.
#[derive(Clone, Debug)]
pub struct Config {
    pub app: App,
    pub listen: Vec<Listen>,
    pub workers: u16,
    pub threads: u16,
    pub state_dir: PathBuf,
    pub pid_file: PathBuf,
    pub user: Option<String>,
    pub group: Option<String>,
    pub restart: Restart,
    pub log: Log,
}

/// The app: its library, and what is handed to it as it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    pub library: PathBuf,
    /// Shared, because every generation's snapshot and every spawn refers to it.
    #[serde(default = "defaults::app_config")]
    pub config: Arc<RawValue>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What the app and the log call it; the address as written, unless named.
    pub name: String,
    pub address: Address,
    /// How many connections may wait to be accepted (`listen(2)`; the kernel caps it at
    /// `net.core.somaxconn`).
    pub backlog: u32,
    /// The permissions of a Unix socket; the umask decides when absent.
    pub mode: Option<u32>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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
}

/// What follows a failed restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The master refuses further restarts and respawns no worker until it is restarted.
    Lock,
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

/// Every default, where a reader can see them together.
mod defaults {
    use super::{Arc, Duration, LogFormat, LogLevel, OnFailure, PathBuf, RawListen, RawLog, RawValue, Restart};

    pub(super) fn app_config() -> Arc<RawValue> {
        RawValue::from_string("{}".to_owned()).expect("an empty object is valid JSON").into()
    }

    pub(super) fn listen() -> Vec<RawListen> {
        vec![RawListen::Text("127.0.0.1:8080".to_owned())]
    }

    pub(super) const BACKLOG: u32 = 1024;
    pub(super) const WORKERS: u16 = 2;
    pub(super) const THREADS: u16 = 1;

    pub(super) fn state_dir() -> PathBuf {
        PathBuf::from("state")
    }

    /// Under the state directory, when no other path is given.
    pub(super) const PID_FILE: &str = "app-host.pid";

    impl Default for Restart {
        fn default() -> Self {
            Self {
                start_timeout: Duration::from_secs(10),
                probation: Duration::from_millis(250),
                idle_linger: Duration::from_secs(5),
                shutdown_timeout: Duration::from_secs(30),
                on_failure: OnFailure::Lock,
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
    app: App,
    #[serde(default = "defaults::listen", deserialize_with = "listeners")]
    listen: Vec<RawListen>,
    #[serde(default = "default_workers", deserialize_with = "workers")]
    workers: u16,
    #[serde(default = "default_threads", deserialize_with = "threads")]
    threads: u16,
    #[serde(default = "defaults::state_dir")]
    state_dir: PathBuf,
    pid_file: Option<PathBuf>,
    user: Option<String>,
    group: Option<String>,
    #[serde(default)]
    restart: Restart,
    #[serde(default)]
    log: RawLog,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLog {
    format: LogFormat,
    level: LogLevel,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"IP:PORT\", \"unix:PATH\" or an object with the keys address, name, backlog, mode"
)]
enum RawListen {
    Text(String),
    Object(RawListenObject),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListenObject {
    address: String,
    name: Option<String>,
    backlog: Option<u32>,
    mode: Option<String>,
}

fn default_workers() -> u16 {
    defaults::WORKERS
}

fn default_threads() -> u16 {
    defaults::THREADS
}

fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_WORKERS)
}

fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_THREADS)
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, most: u16) -> Result<u16, D::Error> {
    let number = u16::deserialize(deserializer)?;
    if (1..=most).contains(&number) {
        Ok(number)
    } else {
        Err(D::Error::invalid_value(
            Unexpected::Unsigned(number.into()),
            &format!("a number from 1 to {most}").as_str(),
        ))
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    /// The longest duration: what needs more than a day is not a restart's time-out.
    const MOST: Duration = Duration::from_hours(24);
    let text = String::deserialize(deserializer)?;
    let expected = "a duration of at most a day, such as \"250ms\", \"30s\" or \"2m\"";
    humantime::parse_duration(&text)
        .ok()
        .filter(|duration| *duration <= MOST)
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

fn positive_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration.is_zero() {
        return Err(D::Error::invalid_value(Unexpected::Str("0s"), &"a duration longer than zero"));
    }
    Ok(duration)
}

/// Checks the listeners while their line is still known.
fn listeners<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RawListen>, D::Error> {
    let raw = Vec::<RawListen>::deserialize(deserializer)?;
    if raw.is_empty() {
        return Err(D::Error::invalid_length(0, &"at least one listener"));
    }
    if raw.len() > MAX_LISTENERS {
        return Err(D::Error::invalid_length(raw.len(), &format!("at most {MAX_LISTENERS} listeners").as_str()));
    }
    // The directory does not matter here: two spellings of one relative path stay equal under any.
    let parsed = raw
        .iter()
        .map(|listen| listen.parse(Path::new("/")))
        .collect::<Result<Vec<_>, _>>()
        .map_err(D::Error::custom)?;
    for (index, listen) in parsed.iter().enumerate() {
        for earlier in &parsed[..index] {
            if earlier.address == listen.address {
                return Err(D::Error::custom(format_args!("listener {} is there twice", listen.address)));
            }
            if earlier.name == listen.name {
                return Err(D::Error::custom(format_args!("two listeners are named \"{}\"", listen.name)));
            }
        }
    }
    Ok(raw)
}

impl RawListen {
    fn parse(&self, directory: &Path) -> Result<Listen, String> {
        match self {
            Self::Text(address) => Ok(Listen {
                name: address.clone(),
                address: parse_address(address, directory)?,
                backlog: defaults::BACKLOG,
                mode: None,
            }),
            Self::Object(object) => {
                let address = parse_address(&object.address, directory)?;
                let mode = match (&object.mode, &address) {
                    (None, _) => None,
                    (Some(mode), Address::Unix(_)) => Some(parse_mode(mode)?),
                    (Some(_), Address::Tcp(address)) => {
                        return Err(format!("\"mode\" is for Unix sockets, and {address} is none"));
                    }
                };
                let backlog = object.backlog.unwrap_or(defaults::BACKLOG);
                if !(1..=65_535).contains(&backlog) {
                    return Err(format!("\"backlog\" is {backlog}, expected a number from 1 to 65535"));
                }
                let name = object.name.clone().unwrap_or_else(|| object.address.clone());
                if name.is_empty() || name.len() > 255 {
                    return Err("a listener's \"name\" must have from 1 to 255 bytes".to_owned());
                }
                Ok(Listen { name, address, backlog, mode })
            }
        }
    }
}

fn parse_address(text: &str, directory: &Path) -> Result<Address, String> {
    /// `sun_path` has 108 bytes with the final NUL (`unix(7)`).
    const MAX_PATH: usize = 107;
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() || path.contains('\0') {
            return Err(format!("listener \"{text}\" has no path that a Unix socket can have"));
        }
        let path = directory.join(path);
        if path.as_os_str().len() > MAX_PATH {
            return Err(format!(
                "the path of listener \"{text}\" has {} bytes, and a Unix socket's has at most {MAX_PATH}",
                path.as_os_str().len()
            ));
        }
        return Ok(Address::Unix(path));
    }
    text.parse().map(Address::Tcp).map_err(|_| format!("listener \"{text}\" is neither \"IP:PORT\" nor \"unix:PATH\""))
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("\"mode\" is \"{text}\", expected octal digits up to \"777\""))
}

/// A configuration that can't be used, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, an unknown key, a wrong type, a value out of bounds.
    #[error("{}:{line}:{column}: {}{message}", path.display(), key_prefix(key))]
    Invalid { path: PathBuf, line: usize, column: usize, key: String, message: String },
    /// What can only be seen once paths are absolute.
    #[error("{}: listen: {message}", path.display())]
    Listen { path: PathBuf, message: String },
}

fn key_prefix(key: &str) -> String {
    if key == "." { String::new() } else { format!("{key}: ") }
}

impl Config {
    /// Reads a configuration from the bytes of the file at `path`, which must be absolute: relative
    /// paths in it are relative to its directory.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ConfigError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let invalid = |key: String, error: &serde_json::Error| ConfigError::Invalid {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            key,
            message: without_place(error),
        };
        let raw: RawConfig = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| invalid(error.path().to_string(), error.inner()))?;
        deserializer.end().map_err(|error| invalid(".".to_owned(), &error))?;
        raw.resolve(path)
    }

    /// The first setting that differs from `running` and can't change under running workers.
    pub fn fixed_difference(&self, running: &Self) -> Option<&'static str> {
        if self.state_dir != running.state_dir {
            Some("state_dir")
        } else if self.pid_file != running.pid_file {
            Some("pid_file")
        } else if self.user != running.user {
            Some("user")
        } else if self.group != running.group {
            Some("group")
        } else {
            None
        }
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

/// `serde_json` ends its messages with the place, which is said once, at the front.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map_or(text.clone(), str::to_owned)
}

impl RawConfig {
    fn resolve(self, path: &Path) -> Result<Config, ConfigError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let listen = self
            .listen
            .iter()
            .map(|listen| listen.parse(directory))
            .collect::<Result<_, _>>()
            .map_err(|message| ConfigError::Listen { path: path.to_owned(), message })?;
        let state_dir = directory.join(self.state_dir);
        Ok(Config {
            app: App { library: directory.join(self.app.library), config: self.app.config },
            listen,
            workers: self.workers,
            threads: self.threads,
            pid_file: self.pid_file.map_or_else(|| state_dir.join(defaults::PID_FILE), |file| directory.join(file)),
            state_dir,
            user: self.user,
            group: self.group,
            restart: self.restart,
            log: Log {
                format: self.log.format,
                level: self.log.level,
                file: self.log.file.map(|file| directory.join(file)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text.as_bytes(), Path::new("/etc/app/host.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_library_is_enough() {
        let config = parse(r#"{"app": {"library": "libapp.so"}}"#).unwrap();
        assert_eq!(config.app.library, Path::new("/etc/app/libapp.so"));
        assert_eq!(config.app.config.get(), "{}");
        assert_eq!(config.listen[0].address.to_string(), "127.0.0.1:8080");
        assert_eq!((config.workers, config.threads), (2, 1));
        assert_eq!(config.pid_file, Path::new("/etc/app/state/app-host.pid"));
        assert_eq!(config.restart.shutdown_timeout, Duration::from_secs(30));
        assert_eq!(config.restart.probation, Duration::from_millis(250));
    }

    #[test]
    fn the_app_gets_its_configuration_as_it_was_written() {
        let config = parse(r#"{"app": {"library": "a", "config": {"b":  [1, 1e400, "é"]}}}"#).unwrap();
        assert_eq!(config.app.config.get(), r#"{"b":  [1, 1e400, "é"]}"#);
    }

    #[test]
    fn every_error_names_its_place_and_key() {
        for (text, expected) in [
            ("", "1:0: EOF while parsing a value"),
            ("{\n  \"app\": }", "2:10: app: expected value"),
            (r#"{"workers": 2}"#, "missing field `app`"),
            (r#"{"app": {"library": "a", "libary": "b"}}"#, "app.libary: unknown field `libary`"),
            (r#"{"app": {"library": "a"}, "worker": 2}"#, "worker: unknown field `worker`"),
            (r#"{"app": {"library": 1}}"#, "app.library: invalid type: integer `1`, expected path string"),
            (
                r#"{"app": {"library": "a"}, "workers": 0}"#,
                "workers: invalid value: integer `0`, expected a number from 1 to 512",
            ),
            (
                r#"{"app": {"library": "a"}, "restart": {"probation": "soon"}}"#,
                "restart.probation: invalid value: string \"soon\"",
            ),
            (
                r#"{"app": {"library": "a"}, "restart": {"start_timeout": "0s"}}"#,
                "restart.start_timeout: invalid value",
            ),
            (
                r#"{"app": {"library": "a"}, "restart": {"on_failure": "pray"}}"#,
                "restart.on_failure: unknown variant `pray`",
            ),
            (r#"{"app": {"library": "a"}, "listen": []}"#, "listen: invalid length 0"),
            (r#"{"app": {"library": "a"}, "listen": ["localhost"]}"#, "listen: listener \"localhost\" is neither"),
            (
                r#"{"app": {"library": "a"}, "listen": ["[::1]:80", "[0:0::1]:80"]}"#,
                "listen: listener [::1]:80 is there twice",
            ),
            (r#"{"app": {"library": "a"}, "listen": [{"address": "unix:s", "mode": "999"}]}"#, "\"mode\" is \"999\""),
            (r#"{"app": {"library": "a"}, "app": {"library": "a"}}"#, "duplicate field `app`"),
            (r#"{"app": {"library": "a"}} x"#, "1:27: trailing characters"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("/etc/app/host.json:"), "{text}: {error}");
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_an_error_with_a_place() {
        let error = Config::parse(b"{\"app\": {\"library\": \"\xff\"}}", Path::new("/c.json")).unwrap_err();
        assert!(error.to_string().starts_with("/c.json:1:"), "{error}");
    }

    #[test]
    fn what_cannot_change_is_named() {
        let running = parse(r#"{"app": {"library": "a"}}"#).unwrap();
        let changed = parse(r#"{"app": {"library": "a"}, "user": "www"}"#).unwrap();
        assert_eq!(changed.fixed_difference(&running), Some("user"));
        let moved = parse(r#"{"app": {"library": "b"}, "workers": 4}"#).unwrap();
        assert_eq!(moved.fixed_difference(&running), None);
    }
}
