//! A master's life: start, signals, end.

use std::fs::OpenOptions;
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;

use super::{Host, lock};
use crate::build::App;
use crate::{process, said};

impl Host {
    /// Starts the master and waits until its first workers serve.
    #[must_use]
    pub fn start(self) -> Self {
        self.spawn();
        self.wait_for(said::SERVING, |_| true);
        self
    }

    /// Starts the master, which must not be running, and doesn't wait.
    pub fn spawn(&self) {
        self.restore_config();
        let mut command = if self.launch.is_empty() {
            Command::new(&self.binary)
        } else {
            let mut command = Command::new(App::build().launch());
            command.args(&self.launch).arg("--").arg(&self.binary);
            command
        };
        command.arg("run").arg(self.config_path()).current_dir(self.directory());
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).expect("the log can be made");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        *lock(&self.command) = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        *lock(&self.master) = self.launch.is_empty().then(|| child.id());
        *lock(&self.child) = Some(child);
        *lock(&self.status) = None;
    }

    /// The master's process id.
    pub fn master(&self) -> u32 {
        if let Some(master) = *lock(&self.master) {
            return master;
        }
        let launcher = lock(&self.child).as_ref().expect("the master was started").id();
        if !self.launch.iter().any(|argument| argument == "--pid-namespace" || argument == "--pass") {
            // It has replaced the launcher.
            *lock(&self.master) = Some(launcher);
            return launcher;
        }
        // A shell may come before it in the same process.
        let is_master = |pid: &u32| process::name(*pid) == "app-host";
        let master = self.wait("the launcher's child", || process::children(launcher).into_iter().find(is_master));
        *lock(&self.master) = Some(master);
        master
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.master(), signal);
    }

    /// Waits for the master's end and returns its status.
    pub fn wait_exit(&self) -> ExitStatus {
        self.wait("the master's exit", || self.try_exit())
    }

    /// The master's exit status, if it has ended.
    pub fn try_exit(&self) -> Option<ExitStatus> {
        let mut status = lock(&self.status);
        if status.is_none() {
            let mut child = lock(&self.child);
            *status = child.as_mut().expect("the master was started").try_wait().expect("the master is our child");
        }
        *status
    }

    /// Stops the master with SIGTERM; it must exit with 0, and no worker may be left.
    pub fn stop(&self) {
        let workers = self.workers();
        self.signal(Signal::SIGTERM);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(0), "the master's exit status is {status}");
        assert!(workers.iter().all(|pid| !process::is_alive(*pid)), "a worker has outlived its master");
    }
}
