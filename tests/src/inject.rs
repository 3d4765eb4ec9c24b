//! Errors injected into a master's system calls, one a restart (`strace(1)`, `-e inject`).
//!
//! Owns which calls a restart makes, with which errors each may fail in earnest, and the trial: whatever fails, the
//! request gets its verdict, the master lives, and the next restart completes. The thread that writes the log is left
//! alone, because the verdict is read there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::build::App;
use crate::host::{DEADLINE, Host, wait_until};
use crate::process;

/// The errors that a call of a restart's may return on a machine in trouble (its manual page, ERRORS). Not `recvfrom`
/// and `write`, which are the runtime's own signal pipe and event counters, where no error can happen; a full disk is
/// real elsewhere. For the same reason no call that never blocks gets EINTR.
const ERRORS: [(&str, &[&str]); 39] = [
    ("accept4", &["EMFILE", "ECONNABORTED"]),
    ("bind", &["EADDRINUSE", "EACCES"]),
    ("chmod", &["EIO"]),
    ("clone", &["EAGAIN", "ENOMEM"]),
    ("clone3", &["EAGAIN", "ENOMEM"]),
    ("connect", &["ECONNREFUSED"]),
    ("dup", &["EMFILE"]),
    ("epoll_create1", &["EMFILE"]),
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("epoll_wait", &["EINTR"]),
    ("eventfd2", &["EMFILE"]),
    ("fchdir", &["EIO"]),
    ("fchmod", &["EIO"]),
    ("fchmodat", &["EIO"]),
    ("fchown", &["EPERM"]),
    ("fcntl", &["EMFILE"]),
    ("fstat", &["EIO"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("ftruncate", &["ENOSPC", "EIO"]),
    ("getdents64", &["EIO"]),
    ("getsockname", &["ENOBUFS"]),
    ("getsockopt", &["ENOMEM"]),
    ("kill", &["EPERM"]),
    ("link", &["ENOSPC"]),
    ("linkat", &["ENOSPC"]),
    ("listen", &["EADDRINUSE"]),
    ("lseek", &["EIO"]),
    ("memfd_create", &["EMFILE", "ENOMEM"]),
    ("openat", &["EMFILE", "EIO", "ENOSPC"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("read", &["EIO", "EINTR"]),
    ("recvmsg", &["ENOMEM"]),
    ("rename", &["ENOSPC", "EIO"]),
    ("sendmsg", &["ENOBUFS", "ETOOMANYREFS", "EAGAIN"]),
    ("socket", &["EMFILE", "ENOBUFS"]),
    ("socketpair", &["EMFILE", "ENFILE"]),
    ("statx", &["EIO"]),
    ("unlink", &["EIO", "EROFS"]),
];

/// One error in one call of one restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The system call's name.
    pub call: String,
    /// The error's name.
    pub error: &'static str,
    /// The how-manieth call of each thread fails, counted from 1.
    pub at: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} {}", self.error, self.call, self.at)
    }
}

/// A master under test.
#[derive(Debug)]
pub struct Injected {
    host: Host,
}

/// Ends the tracer, which lets its tracees go.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        process::signal(self.0.id(), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Injected {
    /// A service that rolls back what fails, so that the next restart can be tried.
    #[must_use]
    pub fn start() -> Self {
        Self { host: Host::answering("a").with("/restart/on_failure", "rollback").start() }
    }

    /// The master's threads that are traced.
    fn threads(&self) -> Vec<u32> {
        let tasks = format!("/proc/{}/task", self.host.master());
        let entries = fs::read_dir(&tasks).expect("the master lives");
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let writes =
            |thread: &u32| fs::read_to_string(format!("{tasks}/{thread}/comm")).is_ok_and(|name| name.trim() == "log");
        numbers.filter(|thread| !writes(thread)).collect()
    }

    fn trace(&self, arguments: &[&str]) -> Tracer {
        let threads = self.threads();
        let mut command = Command::new("strace");
        command.args(["-qq", "-o"]).arg(self.host.path("calls")).args(arguments);
        for thread in &threads {
            command.args(["-p", &thread.to_string()]);
        }
        let tracer = Tracer(command.stderr(Stdio::null()).spawn().expect("strace is needed"));
        let id = tracer.0.id().to_string();
        self.host.wait("strace", || {
            let is_traced = |thread: &u32| process::status(*thread, "TracerPid").is_some_and(|it| it.trim() == id);
            threads.iter().all(is_traced).then_some(())
        });
        tracer
    }

    /// How often a restart makes each call, per thread at most.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let tracer = self.trace(&[]);
        self.restart(None);
        drop(tracer);
        let text = fs::read_to_string(self.host.path("calls")).expect("strace has written");
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in text.lines() {
            let (thread, rest) = line.split_once(' ').unwrap_or(("", line));
            if let Some((call, _)) = rest.trim_start().split_once('(') {
                *counts.entry((thread.to_owned(), call.to_owned())).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, call), count) in counts {
            let known: &mut usize = most.entry(call).or_default();
            *known = count.max(*known);
        }
        most
    }

    /// Every fault of a restart that is worth a trial.
    pub fn faults(&self) -> Vec<Fault> {
        let calls = self.calls();
        let each = ERRORS.iter().filter_map(|(call, errors)| Some((*call, *errors, *calls.get(*call)?)));
        let all = each.flat_map(|(call, errors, times)| {
            // Whether it is one more or less differs from restart to restart.
            (1..=times + 1)
                .flat_map(move |at| errors.iter().map(move |error| Fault { call: call.to_owned(), error, at }))
        });
        all.collect()
    }

    /// Lets each thread's first call of this name take so much longer, in a restart. Says its verdict.
    ///
    /// # Panics
    /// When there is none.
    pub fn delay(&self, call: &str, by: Duration) -> String {
        let inject = format!("inject={call}:delay_enter={}:when=1", by.as_micros());
        let tracer = self.trace(&["-e", &format!("trace={call}"), "-e", &inject]);
        let verdict = self.restart(None);
        drop(tracer);
        verdict
    }

    /// The master under test.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    fn restart(&self, fault: Option<&Fault>) -> String {
        let mark = self.host.mark();
        self.host.install_fresh(&App::build().app("answer_a"));
        self.host.signal(Signal::SIGUSR2);
        let verdict = wait_until(|| {
            if let Some(status) = self.host.try_exit() {
                return Some(Err(format!("the master has ended: {status}")));
            }
            self.host.look(mark, |new| {
                let verdict = new.iter().find(|line| line.msg().starts_with("zero-downtime restart"))?;
                Some(Ok(verdict.str("verdict").to_owned()))
            })
        });
        match verdict {
            Some(Ok(verdict)) => verdict,
            Some(Err(error)) => panic!("{fault:?}: {error}"),
            None => panic!("{fault:?}: no verdict within {DEADLINE:?}"),
        }
    }

    /// Injects a fault into a restart. Says its verdict.
    ///
    /// # Panics
    /// When there is none, the master has ended, or the next restart doesn't complete.
    pub fn trial(&self, fault: &Fault) -> String {
        let inject = format!("inject={}:error={}:when={}", fault.call, fault.error, fault.at);
        let tracer = self.trace(&["-e", &format!("trace={}", fault.call), "-e", &inject]);
        let verdict = self.restart(Some(fault));
        drop(tracer);
        // What was refused for a moment, or is being undone, is over soon.
        let next = wait_until(|| (self.restart(Some(fault)) == "complete").then_some(()));
        assert!(next.is_some(), "{fault}: {verdict}, and no restart completes any more");
        assert_eq!(self.host.get("/"), "a", "{fault}: {verdict}");
        assert!(self.host.ctl(&["status"]).status.success(), "{fault}: {verdict}, and the control socket is deaf");
        verdict
    }

    /// SIGTERM still ends it. What could not be asked about a listener was never taken for harm: to replace one resets
    /// whoever is queued on it.
    ///
    /// # Panics
    /// When a listener was healed, which nobody had harmed.
    pub fn end(self) {
        let healed = self.host.lines().into_iter().filter(|line| line.value()["by"] == "healing").count();
        assert_eq!(healed, 0, "restarts to heal a listener that is whole");
        self.host.stop();
    }
}
