//! Spawning, signalling and reaping the master's children.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use super::signals;
use crate::ids::Ended;

/// Whom a child runs as. Supplementary groups are dropped with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
}

/// Names this process in `/proc/PID/comm` (`PR_SET_NAME`); call it on the main thread.
pub fn set_name() -> io::Result<()> {
    // Writing the file of the thread group's leader is the same and needs no `unsafe` prctl.
    std::fs::write("/proc/self/comm", super::PROCESS_NAME)
}

/// Spawns the running binary again, in the role that `role` names, with `control` as its standard
/// input and nothing else inherited but standard output and error (`stderr`, when given).
///
/// # Errors
/// Those of fork, setuid and exec; nothing is left behind then.
pub fn spawn(role: &str, control: OwnedFd, stderr: Option<OwnedFd>, identity: Option<Identity>) -> io::Result<Pid> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(super::PROCESS_NAME).arg(role).stdin(Stdio::from(control));
    if let Some(stderr) = stderr {
        command.stderr(Stdio::from(stderr));
    }
    if let Some(identity) = identity {
        command.uid(identity.uid.as_raw()).gid(identity.gid.as_raw());
    }
    #[expect(unsafe_code, reason = "code between fork and exec must be async-signal-safe")]
    // SAFETY: `signal(2)` is async-signal-safe and the closure does nothing else. It is needed
    // because the master's own handlers would be reset to the default by exec, which is death.
    // SIGINT reaches the whole terminal and is the master's as well.
    unsafe {
        command.pre_exec(|| {
            signals::ignore_all(&signals::MASTERS)?;
            Ok(signals::ignore_all(&[Signal::SIGINT])?)
        });
    }
    let child = command.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).expect("a pid is positive and fits")))
}

/// Reaps one child that has ended, whichever it is; `None` when there is none at the moment.
///
/// This is the only place that waits for children. As process 1 it gets orphans too, so the caller
/// must not take every pid for one of its own.
pub fn reap_one() -> io::Result<Option<(Pid, Ended)>> {
    // Looked at first and reaped by pid then: a status that isn't an end never gets lost.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let pid = match waitid(Id::All, flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
        Ok(status) => status.pid(),
        Err(error) => return Err(error.into()),
    };
    let Some(pid) = pid else { return Ok(None) };
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let status = waitpid(pid, Some(WaitPidFlag::WNOHANG))?;
    Ok(match status {
        WaitStatus::Exited(pid, code) => Some((pid, Ended::Code(code))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, Ended::Signal(signal as i32))),
        _ => None,
    })
}

/// Sends SIGKILL to a child that has not been reaped yet: until then its pid is nobody else's.
pub fn kill_now(pid: Pid) -> io::Result<()> {
    match kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
