//! Starts a program under limits or in namespaces of its own, for tests of what a master does there.
//!
//! `launch [--user UID] [--tmpfs PATH=BYTES] [--pid-namespace] [--limit-processes PID=MOST]
//! [--pass NAME=ADDRESS]… -- PROGRAM ARGUMENTS…`
//!
//! `--pass` listens at an address, `IP:PORT` or a path, and passes the socket on as a service manager does
//! (`sd_listen_fds(3)`); `udp:IP:PORT` passes a datagram socket. When the program has ended it is started
//! once more, as soon as a client waits.
//!
//! `--limit-processes` sets the soft limit of a process that runs already; `all` is its hard limit.
//!
//! Needs no privilege where the kernel lets users make namespaces; otherwise it must be root.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getgid, getuid, setgid, setgroups, setuid};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("launch: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let mut user = None;
    let mut tmpfs = Vec::new();
    let mut pid_namespace = false;
    let mut limit = None;
    let mut passed = Vec::new();
    loop {
        let argument = arguments.next().ok_or("no program is given")?;
        let mut value = || arguments.next().and_then(|value| value.into_string().ok()).ok_or("a value is missing");
        match argument.to_str() {
            Some("--user") => user = Some(value()?.parse::<u32>()?),
            Some("--tmpfs") => tmpfs.push(value()?),
            Some("--pass") => passed.push(value()?),
            Some("--limit-processes") => limit = Some(value()?),
            Some("--pid-namespace") => pid_namespace = true,
            Some("--") => break,
            _ => return Err(format!("unknown argument {}", argument.display()).into()),
        }
    }
    let mut namespaces = CloneFlags::empty();
    if !tmpfs.is_empty() {
        namespaces |= CloneFlags::CLONE_NEWNS;
    }
    if pid_namespace {
        // A mount namespace as well, for a /proc that shows the new processes.
        namespaces |= CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    }
    if !namespaces.is_empty() {
        enter(namespaces)?;
    }
    for argument in &tmpfs {
        let (path, bytes) = argument.split_once('=').ok_or("expected --tmpfs PATH=BYTES")?;
        fs::create_dir_all(path)?;
        let options = format!("size={bytes},mode=755");
        mount(Some("tmpfs"), Path::new(path), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
    }
    if let Some(user) = user {
        setgroups(&[])?;
        setgid(Gid::from_raw(user))?;
        setuid(Uid::from_raw(user))?;
    }
    if let Some(limit) = limit {
        let (pid, most) = limit.split_once('=').ok_or("expected --limit-processes PID=MOST")?;
        limit_processes(pid.parse()?, most.parse().ok())?;
    }
    let program: Vec<OsString> = arguments.collect();
    let (first, rest) = program.split_first().ok_or("no program is given")?;
    if !passed.is_empty() {
        return pass(&passed, &program);
    }
    let mut command = Command::new(first);
    command.args(rest);
    if pid_namespace {
        // The first child is process 1 of the new namespace.
        return Ok(code(command.spawn()?.wait()?));
    }
    Err(command.exec().into())
}

/// Plays the service manager: runs the program with these sockets, and once more when it has ended and a
/// client waits.
fn pass(sockets: &[String], program: &[OsString]) -> Result<ExitCode, Box<dyn Error>> {
    let mut names = Vec::new();
    let mut held = Vec::new();
    for (place, socket) in sockets.iter().enumerate() {
        let (name, address) = socket.split_once('=').ok_or("expected --pass NAME=ADDRESS")?;
        let socket = match address.strip_prefix("udp:") {
            Some(address) => OwnedFd::from(UdpSocket::bind(address)?),
            None if address.starts_with('/') => UnixListener::bind(address)?.into(),
            None => TcpListener::bind(address)?.into(),
        };
        if socket.as_raw_fd() != i32::try_from(3 + place)? {
            return Err("the passed sockets must be the first descriptors after the standard ones".into());
        }
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
        names.push(name);
        held.push(socket);
    }
    let run = || {
        // The number of the process is known only within it.
        let mut command = Command::new("sh");
        command.args(["-c", "export LISTEN_PID=$$; exec \"$@\"", "sh"]).args(program);
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command.spawn()?.wait()
    };
    let status = run()?;
    if !status.success() {
        return Ok(code(status));
    }
    let mut waiting: Vec<_> = held.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut waiting, PollTimeout::NONE)?;
    Ok(code(run()?))
}

fn code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::from(124), ExitCode::from)
}

/// Enters new namespaces, mounts of which the world outside does not see.
fn enter(namespaces: CloneFlags) -> Result<(), Box<dyn Error>> {
    let (user, group) = (getuid(), getgid());
    if user.is_root() {
        unshare(namespaces)?;
    } else {
        unshare(namespaces | CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Sets how many processes and threads the user of process `pid` may have (`RLIMIT_NPROC`).
fn limit_processes(pid: i32, most: Option<u64>) -> Result<(), Box<dyn Error>> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max processes")).ok_or("the limit isn't shown")?;
    let maximum = line.split_whitespace().nth(3).and_then(|hard| hard.parse().ok());
    let pid = Pid::from_raw(pid).ok_or("no process has the id 0")?;
    prlimit(Some(pid), Resource::Nproc, Rlimit { current: most.or(maximum), maximum })?;
    Ok(())
}
