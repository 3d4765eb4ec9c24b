//! The service: a master of its own, as `run` would be, and what its log says.
//!
//! Owns the child and the reading of its lines. What they lead to is for [`super::Dev`].

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Instant;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use app_host_platform::sys;

use super::news::{News, Reader};

/// The longest line of the log that is read, in bytes; a longer one comes in pieces.
const MAX_LINE: u64 = 1024 * 1024;

/// A running master.
#[derive(Debug)]
pub struct Service {
    child: Child,
    pid: Pid,
    /// When it was last asked for something.
    began: Instant,
}

impl Service {
    /// Starts a master whose log is told to `on_news`, on a thread of its own: `None` when it and all its
    /// workers have gone. They are in `directory`.
    ///
    /// # Errors
    /// When there can be no process.
    pub fn start(
        config: &Path,
        library: &Path,
        directory: &Path,
        on_news: impl FnMut(Option<News>) -> bool + Send + 'static,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(sys::PROCESS_NAME).arg("run").arg(config).arg("--dev-library").arg(library);
        command.current_dir(directory);
        // A group of its own: the terminal's SIGINT is for us, and we pass it on.
        command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        sys::process::ends_with_us(&mut command);
        let mut child = command.spawn().context("the master can't be spawned")?;
        let log = child.stderr.take().context("the master has no log")?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid is positive and fits")?);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || read(log, on_news))?;
        Ok(Self { child, pid, began: Instant::now() })
    }

    /// The master's.
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// When it was last started or restarted.
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// Asks for a restart.
    pub fn restart(&mut self) {
        self.began = Instant::now();
        self.signal(Signal::SIGUSR2);
    }

    /// Tells it to stop gracefully.
    pub fn stop(&self) {
        self.signal(Signal::SIGTERM);
    }

    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        // It isn't reaped before its log has ended, so the pid is nobody else's. One that has died is
        // noticed there.
        let _ = kill(self.pid, signal);
    }

    /// How it ended, once it has.
    pub fn reap(mut self) -> String {
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

fn read(log: ChildStderr, mut on_news: impl FnMut(Option<News>) -> bool) {
    let mut reader = Reader::default();
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    while matches!((&mut log).take(MAX_LINE).read_until(b'\n', &mut line), Ok(1..)) {
        for news in reader.line(&String::from_utf8_lossy(&line)) {
            if !on_news(Some(news)) {
                return;
            }
        }
        line.clear();
    }
    on_news(None);
}
