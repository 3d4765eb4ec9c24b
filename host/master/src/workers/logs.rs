//! The workers' logs: levels, files, and what follows when they are renamed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::fchown;
use tracing::warn;

use app_host_core::config::{Log, LogLevel};
use app_host_core::error::chain;
use app_host_platform::children::Streams;
use app_host_platform::logging;
use app_host_platform::logging::{Logging, LoggingError};
use app_host_platform::output::{Pipe, Stream};

use super::{LogFile, Process, SpawnError, Workers};

/// The pipes of a worker's standard streams.
pub(super) struct StandardStreams {
    /// The ends that are read here when it has died,
    pub(super) printed: Vec<(Stream, OwnedFd)>,
    /// those that it reads,
    pub(super) theirs: Vec<OwnedFd>,
    /// and what its app prints to.
    pub(super) streams: Streams,
}

impl Workers {
    /// The access log's file. Where its name leads nowhere any more, with a release that was deleted for instance, it is
    /// the one that workers had before: a worker that crashes is replaced all the same.
    pub(super) fn access_log(&mut self, path: &Path) -> Result<OwnedFd, SpawnError> {
        let error = match logging::open_file(path) {
            Ok(file) => {
                let ours = file.try_clone().map_err(SpawnError::Equipment)?;
                self.access_log = Some((path.to_owned(), ours));
                return Ok(file.into());
            }
            Err(error) => error,
        };
        match &self.access_log {
            Some((known, file)) if known == path => {
                warn!(
                    error = chain(&error),
                    "the access log can't be opened by its name: a worker writes to the old one"
                );
                Ok(file.try_clone().map_err(SpawnError::Equipment)?.into())
            }
            _ => Err(error.into()),
        }
    }

    /// The pipes of a worker's standard streams.
    pub(super) fn printed(&self) -> io::Result<StandardStreams> {
        let (mut printed, mut theirs) = (Vec::with_capacity(2), Vec::with_capacity(2));
        let mut streams = Streams::default();
        for (stream, end) in [(Stream::Stdout, &mut streams.stdout), (Stream::Stderr, &mut streams.stderr)] {
            let pipe = Pipe::open()?;
            if let Some(identity) = &self.identity {
                // The app's children may open it anew, by its name `/dev/stdout`.
                fchown(&pipe.writer, Some(identity.uid), Some(identity.gid))?;
            }
            *end = Some(pipe.writer);
            printed.push((stream, pipe.ours));
            theirs.push(pipe.theirs);
        }
        Ok(StandardStreams { printed, theirs, streams })
    }

    pub(super) fn log_settings(&self, configured: &Log) -> Log {
        Log { level: self.log_level.unwrap_or(configured.level), ..configured.clone() }
    }

    /// Has all workers log what is urgent up to `level`, those spawned later included; what their
    /// configurations say, when absent.
    pub(crate) fn set_log_level(&mut self, level: Option<LogLevel>) {
        self.log_level = level;
        for process in self.processes.values() {
            let level = level.unwrap_or(process.log.level);
            process.live.send_modify(|live| live.level = level);
        }
    }

    /// Whether the access log's name is that of another file now, or of none.
    pub(crate) fn access_log_has_moved(&self) -> bool {
        self.access_log.as_ref().is_some_and(|(path, file)| logging::has_moved(path, file))
    }

    /// Gives each worker the file that has its log's name now.
    pub(crate) fn reopen_logs(&mut self, logging: &Logging) {
        let mut access_log = None;
        for process in self.processes.values() {
            if let Err(error) = process.reopen_log(logging) {
                let worker_pid = process.pid.as_raw();
                warn!(worker_pid, error = chain(&error), "a worker's log stays as it was");
            }
            let Some(path) = process.access_file.as_deref() else { continue };
            match logging::open_file(path) {
                Ok(file) => {
                    access_log = file.try_clone().ok().map(|file| (path.to_owned(), file)).or(access_log);
                    process.live.send_modify(|live| live.access_file = Some(Arc::new(file.into())));
                }
                Err(error) => {
                    let worker_pid = process.pid.as_raw();
                    warn!(worker_pid, error = chain(&error), "a worker's access log stays as it was");
                }
            }
        }
        self.access_log = access_log.or(self.access_log.take());
    }
}

impl Process {
    /// Has the worker's lines go to the file that has its log's name now.
    fn reopen_log(&self, logging: &Logging) -> Result<(), LoggingError> {
        if self.log.file.is_none() {
            return Ok(());
        }
        let LogFile { target, relayed } = &self.log_file;
        // The master's own has been reopened.
        if !target.is_ours {
            target.writer.redirect(logging.descriptor(&self.log)?);
        }
        if !relayed {
            let file = Arc::new(logging.descriptor(&self.log)?);
            self.live.send_modify(|live| live.file = Some(file));
        }
        Ok(())
    }
}
