//! What `dev` says: a few lines on standard output, in colour where it is a terminal.

use std::cell::Cell;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use app_host_core::foreign;
use app_host_platform::console;

use super::build::Project;

/// `/dev/null` on Linux: character device 1, 3.
const NULL_DEVICE: u64 = 0x103;

/// How many changed files are named.
const NAMED: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Colour {
    Plain,
    Green,
    Yellow,
    Red,
    Dim,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Green => "1;32",
            Self::Yellow => "1;33",
            Self::Red => "1;31",
            Self::Dim => "2",
        }
    }
}

pub struct Terminal {
    colours: bool,
    /// Whether a write has failed because the terminal has gone.
    gone: Cell<bool>,
}

impl Terminal {
    pub fn new() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours, gone: Cell::new(false) }
    }

    /// Whether this is said to a terminal that has gone: an orphan of its session gets no SIGHUP.
    pub fn has_gone(&self) -> bool {
        let hung_up = |stream: BorrowedFd<'_>| {
            let mut polled = [PollFd::new(stream, PollFlags::empty())];
            let answered = poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0);
            answered && polled[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
        };
        let stdout = io::stdout();
        // A pipe whose reader has gone says the same, and is no terminal (a terminal that was hung up is none any more,
        // for `isatty`).
        self.gone.get() || (is_a_tty_device(stdout.as_fd()) && hung_up(stdout.as_fd()))
    }

    fn say(&self, colour: Colour, word: &str, text: impl Display) {
        let text = text.to_string();
        let text = foreign::printable(&text);
        let line = if self.colours {
            format!("\x1b[{}m{word:>9}\x1b[0m  {text}\n", colour.code())
        } else {
            format!("{word:>9}  {text}\n")
        };
        // Nobody reads it any more: that is no reason to end, unless it was a terminal.
        if let Err(error) = console::answer(&line)
            && error.raw_os_error() == Some(nix::errno::Errno::EIO as i32)
            && is_a_tty_device(io::stdout().as_fd())
        {
            self.gone.set(true);
        }
    }

    pub fn begin(&self, project: &Project, config: &Path) {
        let text = format!("{} ({}), configured by {}", project.name, project.profile(), config.display());
        self.say(Colour::Plain, "dev", text);
    }

    pub fn changed(&self, paths: &[PathBuf], root: &Path) {
        let name = |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).display().to_string();
        let mut text = paths.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
        if paths.len() > NAMED {
            text = format!("{text} and {} more", paths.len() - NAMED);
        }
        self.say(Colour::Dim, "changed", text);
    }

    pub fn build_failed(&self, serving: bool) {
        let rest = if serving { "what was live before stays so" } else { "nothing is served until a build succeeds" };
        self.say(Colour::Red, "not built", rest);
    }

    pub fn broken(&self, error: &str) {
        self.say(Colour::Red, "not built", error);
    }

    pub fn address(&self, address: SocketAddr, page: Option<SocketAddr>) {
        self.say(Colour::Plain, "address", format!("http://{address}"));
        if let Some(page) = page {
            self.say(Colour::Plain, "page", format!("http://{page} (reloads by itself)"));
        }
    }

    /// A version that was live before was restarted all the same: the app may read in its start what was saved.
    pub fn live(&self, version: &str, as_before: bool, since_save: Duration, build: Duration, restart: Duration) {
        let (all, build, restart) = (seconds(since_save), seconds(build), seconds(restart));
        let same = if as_before { " as before" } else { "" };
        let text = format!("version {version}{same}, {all} from save to live: build {build}, restart {restart}");
        self.say(Colour::Green, "live", text);
    }

    pub fn refused(&self, reason: &str, detail: &str) {
        self.say(Colour::Red, "refused", format!("{}; what was live before stays so", once(reason, detail)));
    }

    pub fn failed(&self, reason: &str, detail: &str) {
        let rest = "workers that live serve on; the next build that succeeds gets a new master";
        self.say(Colour::Red, "failed", format!("{}; {rest}", once(reason, detail)));
    }

    pub fn full_restart(&self, detail: &str) {
        let rest = "the new code must not run beside the old, so the master stops and starts again";
        self.say(Colour::Yellow, "restart", format!("{detail}; {rest}"));
    }

    pub fn ended(&self, status: &str) {
        self.say(Colour::Red, "ended", format!("the service has ended ({status}); the next build starts it again"));
    }

    /// A line of the service's log; levels are bunyan's.
    pub fn line(&self, level: u64, text: &str) {
        let (colour, word) = match level {
            50.. => (Colour::Red, "error"),
            40.. => (Colour::Yellow, "warn"),
            30.. => (Colour::Dim, "info"),
            20.. => (Colour::Dim, "debug"),
            _ => (Colour::Dim, "trace"),
        };
        self.say(colour, word, text);
    }
}

/// A reason and its detail, which begins with it where a master says it.
fn once(reason: &str, detail: &str) -> String {
    if detail.starts_with(reason) { detail.to_owned() } else { format!("{reason}: {detail}") }
}

/// Whether this is a terminal, or was one before it was hung up.
fn is_a_tty_device(stream: BorrowedFd<'_>) -> bool {
    let is_character_device = |file: File| file.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device());
    let is_null = |file: &File| file.metadata().is_ok_and(|metadata| metadata.rdev() == NULL_DEVICE);
    stream.try_clone_to_owned().map(File::from).is_ok_and(|file| !is_null(&file) && is_character_device(file))
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once() {
        let detail = "app failed to start: slot 0, no such file";
        assert_eq!(once("app failed to start", detail), detail);
        assert_eq!(once("app failed to start", "slot 0"), "app failed to start: slot 0");
    }
}
