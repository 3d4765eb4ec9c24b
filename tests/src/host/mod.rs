//! The fixture: one master in a temporary directory, driven and watched as a user would.
//!
//! Every wait has a condition and a deadline, nothing sleeps blindly. Whatever was started is killed
//! on drop, orphans included, and a failing test prints the command, the directory, the status and
//! the whole log.

mod config;
mod life;
mod log;
mod workers;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::build::App;
use crate::log::Log;
use crate::machine::{self, Turn};
use crate::process;

/// How long a wait may take: far more than any of them needs, so that a busy machine fails no test.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// One master, started or not yet, and its directory.
#[derive(Debug)]
pub struct Host {
    directory: TempDir,
    config: Value,
    binary: PathBuf,
    launch: Vec<String>,
    environment: Vec<(String, OsString)>,
    child: Mutex<Option<Child>>,
    status: Mutex<Option<ExitStatus>>,
    /// The master itself, which is the launcher's child where there is one.
    master: Mutex<Option<u32>>,
    log: Mutex<Log>,
    command: Mutex<String>,
    _turn: Turn,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// A master that isn't started: two workers, one TCP listener on a free port, times short
    /// enough for a test. `app` is installed as its library.
    pub fn new(app: &Path) -> Self {
        let turn = machine::beside();
        let directory = tempfile::Builder::new().prefix("app-host-test-").tempdir().expect("a temporary directory");
        // A test that lets the master run as another user needs to be let in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        let config = json!({
            "app": { "library": "app.so", "config": {} },
            "listen": ["127.0.0.1:0"],
            "workers": 2,
            "state_dir": "state",
            "restart": {
                "start_timeout": "10s", "probation": "20ms", "idle_linger": "1s", "shutdown_timeout": "10s"
            },
            "log": { "format": "bunyan", "level": "debug" },
        });
        let log = Mutex::new(Log::new(&directory.path().join("log")));
        let host = Self {
            binary: App::build().host(),
            launch: Vec::new(),
            environment: Vec::new(),
            config,
            child: Mutex::new(None),
            status: Mutex::new(None),
            master: Mutex::new(None),
            log,
            command: Mutex::new(String::new()),
            _turn: turn,
            directory,
        };
        host.install(app);
        host
    }

    /// As [`Self::new`], with the app that does what `app.config` tells it to (`apps/misbehaving/`).
    pub fn misbehaving() -> Self {
        Self::new(&App::build().app("misbehaving"))
    }

    /// As [`Self::new`], with the app that answers `a` or `b` (`apps/answer_a.rs`).
    pub fn answering(letter: &str) -> Self {
        Self::new(&App::build().app(&format!("answer_{letter}")))
    }

    /// The temporary directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the temporary directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Everything that someone needs who wonders why a test failed.
    pub fn report(&self) -> String {
        let mut report = String::new();
        let rule = "=".repeat(72);
        let status = lock(&self.status).map_or("none yet".to_owned(), |status| status.to_string());
        for (title, text) in [
            ("command", lock(&self.command).clone()),
            ("directory", self.directory().display().to_string()),
            ("status", status),
            ("configuration", fs::read_to_string(self.config_path()).unwrap_or_default()),
        ] {
            report.extend([rule.as_str(), "\n", title, ": ", text.as_str(), "\n"]);
        }
        report.extend([rule.as_str(), "\nlog:\n"]);
        report.push_str(&fs::read_to_string(self.path("log")).unwrap_or_default());
        report.push_str(&rule);
        report
    }

    fn try_exit_quietly(&self) -> Option<ExitStatus> {
        let status = lock(&self.child).as_mut()?.try_wait().ok()?;
        *lock(&self.status) = status;
        status
    }

    /// Every process that has something of this test's open: its log, or a lock in its state directory.
    fn processes(&self) -> Vec<u32> {
        let directory = self.directory();
        process::all()
            .into_iter()
            .filter(|pid| *pid != std::process::id())
            .filter(|pid| process::descriptors(*pid).iter().any(|(_, path)| path.starts_with(directory)))
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.try_exit_quietly();
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "{}", self.report());
        }
        // The master first, so that it can't spawn what is about to be killed.
        if let Some(mut child) = lock(&self.child).take() {
            if let Some(master) = *lock(&self.master)
                && master != child.id()
            {
                process::signal(master, Signal::SIGKILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let all_gone = wait_until(|| {
            let left = self.processes();
            for pid in &left {
                process::signal(*pid, Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
        let said_enough = std::thread::panicking();
        assert!(all_gone.is_some() || said_enough, "processes of {} can't be killed", self.directory().display());
    }
}

/// Polls a condition until it gives something or the deadline has passed.
pub fn wait_until<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(result) = condition() {
            return Some(result);
        }
        if Instant::now() > deadline {
            return None;
        }
        pause();
    }
}

/// Between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "whoever calls it has a condition and a deadline")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}
