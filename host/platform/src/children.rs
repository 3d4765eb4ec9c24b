//! The children of this process: spawned, watched and reaped in one place.
//!
//! Owns the table of living children by pid. A pid in the table has not been reaped yet, so a signal
//! to it can't reach a stranger. What a child is for is its spawner's business.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use app_host_core::config::{Limits, Variables};

use crate::channel::MasterEnd;
use crate::held::Directory;
use crate::identity::Identity;
use crate::sys::process::{self, Reaped, Spawn};

/// The roles that the running binary plays when it is spawned by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Worker,
    Probe,
    DatabankCheck,
    TlsCheck,
    Admin,
}

impl Role {
    /// The hidden subcommand that `main` knows it by.
    pub const fn argument(self) -> &'static str {
        match self {
            Self::Worker => "internal-worker",
            Self::Probe => "internal-probe",
            Self::DatabankCheck => "internal-databank-check",
            Self::TlsCheck => "internal-tls-check",
            Self::Admin => "internal-admin",
        }
    }

    /// Whether it is of no use without its master. A worker is: it has clients.
    const fn dies_with_us(self) -> bool {
        match self {
            Self::Worker => false,
            Self::Probe | Self::DatabankCheck | Self::TlsCheck | Self::Admin => true,
        }
    }
}

/// The standard streams of a child; ours where absent. Its standard input is its channel.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl From<[OwnedFd; 2]> for Streams {
    fn from([stdout, stderr]: [OwnedFd; 2]) -> Self {
        Self { stdout: Some(stdout), stderr: Some(stderr) }
    }
}

/// What a child finds.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub environment: &'a Variables,
    pub limits: Limits,
    /// On which processors it runs; on ours where there are none.
    pub cpus: &'a [u16],
    /// The directory where it is; ours when absent.
    pub directory: Option<&'a Directory>,
}

/// A child that has just been spawned.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub channel: MasterEnd,
    /// How it ended, once it has been reaped.
    pub ended: oneshot::Receiver<Reaped>,
}

/// All living children. Cheap to clone; belongs to one thread.
#[derive(Clone, Debug, Default)]
pub struct Children {
    table: Rc<RefCell<HashMap<Pid, oneshot::Sender<Reaped>>>>,
}

impl Children {
    /// Starts to reap. Must be called inside a `LocalSet`, before the first spawn.
    pub fn watch() -> io::Result<Self> {
        let children = Self::default();
        let mut signals = signal(SignalKind::child())?;
        let reaper = children.clone();
        tokio::task::spawn_local(async move {
            while signals.recv().await.is_some() {
                reaper.reap();
            }
        });
        Ok(children)
    }

    /// Spawns the running binary in `role`.
    ///
    /// # Errors
    /// Those of socketpair, fork, setuid and exec.
    pub fn spawn(
        &self,
        role: Role,
        streams: Streams,
        identity: Option<&Identity>,
        surroundings: Surroundings<'_>,
    ) -> io::Result<Child> {
        let (channel, theirs) = MasterEnd::pair()?;
        let pid = process::spawn(Spawn {
            role: role.argument(),
            control: theirs,
            stdout: streams.stdout,
            stderr: streams.stderr,
            identity: identity.map(|identity| (identity.uid, identity.gid, identity.groups.clone())),
            environment: surroundings.environment.clone(),
            limits: surroundings.limits,
            cpus: surroundings.cpus.to_vec(),
            directory: surroundings.directory.map(|directory| directory.as_fd().try_clone_to_owned()).transpose()?,
            variables: identity.map(Identity::variables).unwrap_or_default(),
            dies_with_us: role.dies_with_us(),
        })?;
        let (sender, ended) = oneshot::channel();
        // Nothing reaps between the spawn and this line: both happen on one thread without a wait.
        self.table.borrow_mut().insert(pid, sender);
        Ok(Child { pid, channel, ended })
    }

    /// Kills a child, unless it has been reaped already.
    pub fn kill(&self, pid: Pid) {
        self.signal(pid, Signal::SIGKILL);
    }

    /// Has a child end itself with a core dump, where the system keeps those (`core(5)`).
    pub fn abort(&self, pid: Pid) {
        self.signal(pid, Signal::SIGABRT);
    }

    fn signal(&self, pid: Pid, signal: Signal) {
        if self.table.borrow().contains_key(&pid)
            && let Err(error) = process::signal_child(pid, signal)
        {
            tracing::error!(child_pid = pid.as_raw(), error = %error, "a child can't be killed");
        }
    }

    /// Has a child killed when what is returned is dropped, whatever becomes of its spawner.
    pub fn leash(&self, pid: Pid) -> Leash {
        Leash { children: self.clone(), pid }
    }

    fn reap(&self) {
        loop {
            match process::reap_one() {
                Ok(None) => return,
                Ok(Some(reaped)) => {
                    if let Some(sender) = self.table.borrow_mut().remove(&reaped.pid) {
                        // The receiver may be gone: nobody waits for one that was given up.
                        let _ = sender.send(reaped);
                    } else {
                        // As process 1 of a namespace we inherit what others leave behind.
                        tracing::debug!(child_pid = reaped.pid.as_raw(), status = %reaped.how, "orphan reaped");
                    }
                }
                Err(error) => {
                    tracing::error!(error = %error, "children can't be waited for");
                    return;
                }
            }
        }
    }
}

/// Kills a child on drop, unless it has been reaped.
#[derive(Debug)]
pub struct Leash {
    children: Children,
    pid: Pid,
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.children.kill(self.pid);
    }
}
