//! The configuration file as it is written, before paths are absolute and defaults are filled in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::access::RawAccessLog;
use super::control::RawControl;
use super::databank::RawDatabank;
use super::listen::RawListen;
use super::section::section;
use super::values::{directory, duration, groups, second_or_more_or_null, threads, versions_kept, workers};
use super::{
    Account, App, Config, ConfigError, ConnectionLimits, Cpus, Environment, Http, Limits, Log, LogFormat, LogLevel,
    Recycle, Restart, Watched, access, admin, control, cpus, databank, defaults, environment, listen, watched,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
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
    #[serde(default = "default_hang_timeout", deserialize_with = "second_or_more_or_null")]
    hang_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "section")]
    recycle: Recycle,
    #[serde(default, deserialize_with = "section")]
    http: Http,
    #[serde(default, deserialize_with = "section")]
    connections: ConnectionLimits,
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
pub(super) struct RawLog {
    pub(super) format: LogFormat,
    pub(super) level: LogLevel,
    pub(super) file: Option<PathBuf>,
}

pub(super) fn default_workers() -> u16 {
    defaults::WORKERS
}

pub(super) fn default_threads() -> u16 {
    defaults::THREADS
}

pub(super) fn default_hang_timeout() -> Option<Duration> {
    defaults::HANG_TIMEOUT
}

pub(super) fn default_versions_kept() -> u16 {
    defaults::VERSIONS_KEPT
}

impl RawConfig {
    pub(super) fn resolve(self, path: &Path) -> Result<Config, ConfigError> {
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
        listen::aim_redirects(&mut listen);
        let state_dir = directory.join(self.state_dir);
        let has_tls = listen.iter().any(|listen| listen.tls.is_some());
        let has_secrets = self.app.has_secrets() || self.environment.file.is_some() || has_tls;
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
            http: self.http,
            connections: self.connections,
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
