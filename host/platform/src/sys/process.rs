//! Spawning, signalling and reaping the master's children.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Pid, Uid, fchdir, getpid, getppid, setsid};

use app_host_core::config::{Inherit, Limit, Limits, MANAGERS, Variables};
use app_host_core::ids::Ended;

use super::signals;

/// Names this process in `/proc/PID/comm` (`PR_SET_NAME`); call it on the main thread.
pub fn set_name() -> io::Result<()> {
    // Writing the file of the thread group's leader is the same and needs no `unsafe` prctl.
    std::fs::write("/proc/self/comm", super::PROCESS_NAME)
}

/// Keeps the memory of this process, which holds secrets, out of core dumps (`PR_SET_DUMPABLE`). Its files in `/proc`
/// become root's; whoever it spawns has its own say again.
pub fn keep_memory_private() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Does so where core dumps aren't allowed; says so where that can't be.
pub fn allow_core_dumps(allowed: bool) {
    if !allowed && let Err(error) = keep_memory_private() {
        tracing::warn!(error = %error, "core dumps of this process may hold secrets");
    }
}

/// How a child is spawned.
#[derive(Debug)]
pub struct Spawn {
    /// The argument that tells the running binary its role.
    pub role: &'static str,
    /// Its standard input.
    pub control: OwnedFd,
    /// Its standard output; ours when absent.
    pub stdout: Option<OwnedFd>,
    /// Its standard error; ours when absent.
    pub stderr: Option<OwnedFd>,
    /// Whom it runs as, with which supplementary groups, in a session of its own and with no way back to any
    /// privilege; as we do when absent.
    pub identity: Option<(Uid, Gid, Vec<Gid>)>,
    /// Which of our variables it gets, and what goes before all others.
    pub environment: Variables,
    /// What it may use of the system; as we may where nothing is said.
    pub limits: Limits,
    /// On which processors it runs; on those on which we do where there are none.
    pub cpus: Vec<u16>,
    /// Variables that it gets besides, or in the place of ours.
    pub variables: Vec<(&'static str, OsString)>,
    /// The directory where it is; ours when absent.
    pub directory: Option<OwnedFd>,
    /// Whether it is killed when we die. A worker must not be: it drains.
    pub dies_with_us: bool,
}

/// Spawns the running binary again. Nothing is inherited but what is named.
///
/// # Errors
/// Those of fork, setuid and exec; nothing is left behind then.
pub fn spawn(spawn: Spawn) -> io::Result<Pid> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(super::PROCESS_NAME).arg(spawn.role).stdin(Stdio::from(spawn.control));
    set_environment(&mut command, &spawn.environment, spawn.variables, spawn.directory.is_some());
    if let Some(stdout) = spawn.stdout {
        command.stdout(Stdio::from(stdout));
    }
    if let Some(stderr) = spawn.stderr {
        command.stderr(Stdio::from(stderr));
    }
    let (us, dies_with_us, identity) = (getpid(), spawn.dies_with_us, spawn.identity);
    let directory = spawn.directory;
    let score = sooner_killed();
    let limits = spawn.limits;
    let cpus = (!spawn.cpus.is_empty()).then(|| cpu_set(&spawn.cpus)).transpose()?;
    #[expect(unsafe_code, reason = "code between fork and exec must be async-signal-safe")]
    // SAFETY: the closure makes plain system calls and does nothing else; what they read was made before. The
    // dispositions are needed because the master's own handlers would be reset to
    // the default by exec, which is death. SIGINT and SIGQUIT reach the whole terminal and are the master's.
    unsafe {
        command.pre_exec(move || {
            signals::ignore_all(&signals::MASTERS)?;
            signals::ignore_all(&signals::TERMINALS)?;
            if let Some(score) = &score {
                // Of a process that makes no core dump the file is root's. Until exec this one knows what its parent
                // knows, so that it makes none for longer than it has to.
                let dumpable = prctl::get_dumpable()?;
                prctl::set_dumpable(true)?;
                // Before the step to another user, with which the file becomes root's. Without `/proc`, or where it may
                // not be written, it stays as it is.
                let _ = write_file(c"/proc/self/oom_score_adj", score);
                prctl::set_dumpable(dumpable)?;
            }
            if let Some(directory) = &directory {
                // By the descriptor, because its name may be gone; before the step to another user, who may not be
                // allowed to go there, and gains nothing there then.
                fchdir(directory)?;
            }
            if let Some(cpus) = &cpus {
                sched_setaffinity(Pid::from_raw(0), cpus)?;
            }
            for (_, limit, value) in limits.set() {
                setrlimit(resource(limit), value, value)?;
            }
            if let Some((uid, gid, groups)) = &identity {
                become_another(*uid, *gid, groups)?;
            }
            // Behind the step to another user, which clears it.
            if dies_with_us {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                if getppid() != us {
                    return Err(Errno::ESRCH.into());
                }
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).expect("a pid is positive and fits")))
}

/// The variables of a child, without those that are the manager's.
fn set_environment(
    command: &mut Command,
    environment: &Variables,
    variables: Vec<(&'static str, OsString)>,
    is_elsewhere: bool,
) {
    if let Inherit::Only(names) = &environment.inherit {
        command.env_clear();
        command.envs(names.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    }
    command.envs(variables);
    for variable in MANAGERS {
        command.env_remove(variable);
    }
    if is_elsewhere {
        // The name that a shell has given to our directory (POSIX, `cd`), which is no longer true.
        command.env_remove("PWD");
    }
    command.envs(environment.own.iter().map(|(name, value)| (name, value.reveal())));
}

fn cpu_set(cpus: &[u16]) -> nix::Result<CpuSet> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(usize::from(*cpu)))?;
    Ok(set)
}

/// The processors on which this process may run (`sched_getaffinity(2)`).
pub fn cpus() -> io::Result<Vec<u16>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let numbers = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true));
    Ok(numbers.filter_map(|cpu| u16::try_from(cpu).ok()).collect())
}

/// Whether this process may say where one runs, which a filter of system calls may forbid: tried with what is so already.
pub fn may_choose_cpus() -> io::Result<()> {
    let ourselves = Pid::from_raw(0);
    Ok(sched_setaffinity(ourselves, &sched_getaffinity(ourselves)?)?)
}

/// What the kernel calls a limit.
const fn resource(limit: Limit) -> Resource {
    match limit {
        Limit::Nofile => Resource::RLIMIT_NOFILE,
        Limit::Core => Resource::RLIMIT_CORE,
    }
}

/// The most that a limit of a child may be (`RLIMIT_*` in `getrlimit(2)`): our own hard limit.
pub fn hard_limit(limit: Limit) -> io::Result<u64> {
    Ok(getrlimit(resource(limit))?.1)
}

/// How much sooner than its master a child is killed where memory runs out, in thousandths of the memory there
/// is (`oom_score_adj` in `proc(5)`). Without a child there is one worker less; without a master there is none.
const SOONER_KILLED: i32 = 100;

/// What a child's `oom_score_adj` is to be, if ours is known. Whoever has no privilege may raise it.
fn sooner_killed() -> Option<Vec<u8>> {
    let ours = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?;
    let ours: i32 = ours.trim().parse().ok()?;
    Some((ours.saturating_add(SOONER_KILLED).min(1000)).to_string().into_bytes())
}

/// Writes a file of the kernel's, with system calls alone.
fn write_file(path: &CStr, content: &[u8]) -> nix::Result<usize> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(file, content)
}

/// Takes on another identity for good, between fork and exec.
///
/// A session of its own has no terminal, so nothing can be typed into ours (`TIOCSTI` in `ioctl_tty(2)`). Behind
/// the last step no program gives a privilege back: no set-user-ID bit counts (`PR_SET_NO_NEW_PRIVS`), and where
/// we may, the bounding set is emptied as well. Root under another group stays root.
fn become_another(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    fn done(result: libc::c_int) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    setsid()?;
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    #[expect(unsafe_code, reason = "no safe wrapper calls only the kernel")]
    // SAFETY: plain system calls with numbers; the list of groups lives as long as the call, and
    // `Gid` is a `gid_t` (`repr(transparent)`); capset gets one header and the two
    // parts of a set that its version has, all on the stack. Raw ones, because libc's tell other threads, and after
    // a fork there are none.
    unsafe {
        if uid != 0 {
            // Ends where the kernel knows no more; it is only for those who may, and for no one else anything worth.
            let mut capability: libc::c_ulong = 0;
            while libc::prctl(libc::PR_CAPBSET_READ, capability) >= 0 {
                libc::prctl(libc::PR_CAPBSET_DROP, capability);
                capability += 1;
            }
        }
        let call = |result: libc::c_long| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        call(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        call(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        call(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        if uid != 0 {
            done(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
            // `_LINUX_CAPABILITY_VERSION_3`, and this process; effective, permitted and inheritable, twice.
            let (mut header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
            call(libc::syscall(libc::SYS_capset, header.as_mut_ptr(), none.as_ptr()))?;
        }
        done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

/// Has a command told to stop gracefully (SIGTERM) when the thread that spawns it ends.
pub fn ends_with_us(command: &mut Command) {
    let us = getpid();
    #[expect(unsafe_code, reason = "code between fork and exec must be async-signal-safe")]
    // SAFETY: `prctl(2)` and `getppid(2)` are plain system calls and the closure does nothing else.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            if getppid() != us {
                return Err(Errno::ESRCH.into());
            }
            Ok(())
        });
    }
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    pub pid: Pid,
    pub how: Ended,
    /// All the CPU time that it used, and those of its own children that it has reaped.
    pub cpu: Duration,
}

/// Reaps one child that has ended, whichever it is; `None` when there is none at the moment.
///
/// This is the only place that waits for children, and it reaps by pid. As process 1 it gets orphans
/// too, so the caller must not take every pid for one of its own. Reads the raw status, because nix
/// knows no real-time signals: a child that died of one would stay for ever, and hide all others.
pub fn reap_one() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "nix's waitid and waitpid fail on real-time signals")]
    // SAFETY: all zeros is a `siginfo_t` and a `rusage`; both calls get valid places for their results;
    // `si_pid` may be read after a `waitid` that succeeded, which leaves it 0 when no child has ended.
    let (pid, usage) = unsafe {
        let mut ended: libc::siginfo_t = std::mem::zeroed();
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = match libc::waitid(libc::P_ALL, 0, &raw mut ended, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
            0 if ended.si_pid() == 0 => 0,
            0 => libc::wait4(ended.si_pid(), &raw mut status, libc::WNOHANG, &raw mut usage),
            failed => failed,
        };
        (pid, usage)
    };
    let how = match pid {
        0 => return Ok(None),
        1.. if libc::WIFEXITED(status) => Ended::Code(libc::WEXITSTATUS(status)),
        1.. if libc::WCOREDUMP(status) => Ended::Dumped(libc::WTERMSIG(status)),
        1.. => Ended::Signal(libc::WTERMSIG(status)),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            error => return Err(error),
        },
    };
    let cpu = [usage.ru_utime, usage.ru_stime].map(|time| {
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_usec).unwrap_or_default().saturating_mul(1000).min(999_999_999),
        )
    });
    Ok(Some(Reaped { pid: Pid::from_raw(pid), how, cpu: cpu[0] + cpu[1] }))
}

/// Sends a signal to a child that has not been reaped yet: until then its pid is nobody else's.
pub fn signal_child(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Raises the limit on open descriptors as far as this process may: each connection is one, and the
/// usual soft limit of 1,024 is there for `select(2)`, which nothing here uses.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// How many descriptors this process may have open.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(limit, _)| limit)
}

/// The most descriptors for which room is made beforehand: what a process may open where nobody has raised that
/// (`fs.nr_open`, `proc(5)`), and 8 MiB.
const MOST_ROOM: u64 = 1 << 20;

/// Makes room for so many descriptors, or for as many as this process may open. To be called while it has only one
/// thread: when its table is full, the kernel makes one of twice the size, and a process of several threads waits
/// for a grace period of RCU then (`expand_fdtable` in fs/file.c), ten milliseconds in the middle of serving.
pub fn make_room_for_descriptors(count: u64) -> io::Result<()> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let highest = count.min(limit).min(MOST_ROOM).saturating_sub(1);
    let highest = i32::try_from(highest).map_err(io::Error::other)?;
    // The table grows to where a duplicate may have to go, and stays so when that is closed.
    drop(rustix::io::fcntl_dupfd_cloexec(io::stderr(), highest)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of this process's table of descriptors.
    fn table() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse().unwrap()
    }

    #[test]
    fn memory_is_kept_out_of_core_dumps() {
        keep_memory_private().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
        prctl::set_dumpable(true).unwrap();
    }

    #[test]
    fn room_is_made_for_what_is_asked_for_and_may_be_opened() {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        make_room_for_descriptors(1000).unwrap();
        assert!(table() >= limit.min(1000), "{}", table());
        make_room_for_descriptors(u64::MAX).unwrap();
        assert!(table() >= limit.min(MOST_ROOM) && table() <= 2 * MOST_ROOM, "{}", table());
        make_room_for_descriptors(0).unwrap();
    }

    #[test]
    fn a_death_by_a_real_time_signal_is_an_end_like_any_other() {
        #[expect(clippy::zombie_processes, reason = "that is what is tested")]
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        #[expect(unsafe_code, reason = "nix knows no real-time signals")]
        // SAFETY: the pid is that of a child that has not been reaped.
        unsafe {
            libc::kill(pid.as_raw(), 35);
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < deadline {
            if let Some(reaped) = reap_one().unwrap()
                && reaped.pid == pid
            {
                assert_eq!(reaped.how, Ended::Signal(35));
                return;
            }
            std::thread::yield_now();
        }
        panic!("the child was never reaped");
    }
}
