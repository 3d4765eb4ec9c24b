//! A client of the control socket: lines out, answers and events in, everything with a deadline.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::process::PidfdFlags;
use socket2::{Domain, Socket, Type};

use app_host_core::command::{Answer, NOT_ALLOWED};
use app_host_core::foreign;
use app_host_platform::identity;
use app_host_platform::socket_file::Reachable;

use super::lines::{Line, Lines};
use super::{CtlError, Outcome};

/// A master that can't be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no master can be reached at {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("not allowed to speak to the master at {}: {whose}", path.display())]
    NotAllowed { path: PathBuf, whose: String },
    #[error("the master at {} doesn't answer, for {waited:?}", path.display())]
    Silent { path: PathBuf, waited: Duration },
    #[error("the master at {} has gone", path.display())]
    Ended { path: PathBuf },
    #[error("the master at {} is stopping, and isn't gone after {waited:?}", path.display())]
    Stays { path: PathBuf, waited: Duration },
    #[error(
        "the restart at {} has no verdict after {waited:?}, and goes on; hint: ctl status and ctl events tell of it", path.display()
    )]
    NoVerdict { path: PathBuf, waited: Duration },
    #[error("the connection to the master at {} failed", path.display())]
    Failed { path: PathBuf, source: io::Error },
}

impl ClientError {
    pub(super) const fn outcome(&self) -> Outcome {
        match self {
            Self::Connect { .. } | Self::NotAllowed { .. } => Outcome::NotReachable,
            Self::Silent { .. }
            | Self::Ended { .. }
            | Self::Stays { .. }
            | Self::NoVerdict { .. }
            | Self::Failed { .. } => Outcome::NoAnswer,
        }
    }
}

pub(super) struct Client {
    path: PathBuf,
    stream: UnixStream,
    lines: Lines,
}

impl Client {
    pub(super) fn connect(path: &Path, limit: Duration) -> Result<Self, ClientError> {
        let connect = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Bounds connect(2) as well, which waits where a stopped master's queue is full (unix(7)).
            socket.set_write_timeout(Some(limit))?;
            socket.connect(&Reachable::new(path)?.address)?;
            Ok(UnixStream::from(OwnedFd::from(socket)))
        };
        match connect() {
            Ok(stream) => Ok(Self { path: path.to_owned(), stream, lines: Lines::default() }),
            Err(error) if is_late(&error) => Err(ClientError::Silent { path: path.to_owned(), waited: limit }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(not_allowed(path)),
            Err(source) => Err(ClientError::Connect { path: path.to_owned(), source }),
        }
    }

    /// The master's process; none where the kernel can't name it here, in another pid namespace for instance.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let peer = getsockopt(&self.stream, PeerCredentials).ok()?;
        // One that isn't in this namespace has the number 0.
        let pid = rustix::process::Pid::from_raw(peer.pid())?;
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
    }

    pub(super) fn say(&mut self, line: &str) -> Result<(), ClientError> {
        match self.stream.write_all(format!("{line}\n").as_bytes()) {
            // A master that has closed may have said why, which is still to be read.
            Err(error) if !is_the_end(&error) => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    /// Says a line and waits for its answer, which must be yes.
    pub(super) fn order(&mut self, line: &str, limit: Duration) -> Result<Answer, CtlError> {
        self.say(line)?;
        match self.hear_within(limit)? {
            Some(Line::Answer(Answer::Nack(reason))) => Err(CtlError::No(reason)),
            Some(Line::Answer(answer)) => Ok(answer),
            Some(Line::Event(event)) => Err(CtlError::Answer(event.to_string())),
            None => Err(ClientError::Silent { path: self.path.clone(), waited: limit }.into()),
        }
    }

    /// As [`Self::order`], for what is answered with data.
    pub(super) fn ask_for(&mut self, line: &str, limit: Duration) -> Result<String, CtlError> {
        match self.order(line, limit)? {
            Answer::Data(data) => Ok(data),
            answer => Err(CtlError::Answer(answer.to_string())),
        }
    }

    /// The next line; `None` when none has come within `limit`.
    pub(super) fn hear_within(&mut self, limit: Duration) -> Result<Option<Line>, CtlError> {
        let deadline = Instant::now() + limit;
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.lines.next()? {
                Some(Line::Answer(Answer::Nack(reason))) if reason == NOT_ALLOWED => {
                    return Err(not_allowed(&self.path).into());
                }
                Some(line) => return Ok(Some(line)),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).map_err(|error| self.failed(error))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Ended { path: self.path.clone() }.into()),
                Ok(length) => self.lines.put(&chunk[..length]),
                Err(error) if is_late(&error) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error).into()),
            }
        }
    }

    fn failed(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        if is_the_end(&source) { ClientError::Ended { path } } else { ClientError::Failed { path, source } }
    }
}

fn is_the_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Says whose the socket is, or which directory before it can't be passed.
fn not_allowed(path: &Path) -> ClientError {
    let whose = match fs::symlink_metadata(path) {
        Ok(found) => {
            let (user, group) = identity::names(found.uid(), found.gid());
            let (user, group) = (foreign::printable(&user), foreign::printable(&group));
            format!("it belongs to user {user} and group {group}, with mode {:04o}", found.mode() & 0o7777)
        }
        Err(_) => match identity::obstacle(path) {
            Some(directory) => {
                format!("the directory {} can't be passed by us", foreign::printable(&directory.display().to_string()))
            }
            None => "it can't be looked at".to_owned(),
        },
    };
    ClientError::NotAllowed { path: path.to_owned(), whose }
}
