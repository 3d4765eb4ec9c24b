//! What the service manager is told: systemd's notification protocol (`sd_notify(3)`).
//!
//! Owns the socket that the environment names, and the order of the messages: nothing is said of being
//! ready again once the master is on its way out, and each `RELOADING=1` is followed by one `READY=1`.
//! Without such a socket nothing is said to anybody.
//!
//! Not the crate sd-systemd: its send waits when the manager doesn't read, and then the master would hang.
//! Here a message that finds no room is lost, and the next one says all that counts.

mod deadlines;
pub mod reports;

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};
use std::{env, io};

use nix::time::{ClockId, clock_gettime};

pub use deadlines::Deadlines;
use deadlines::Stage;

/// How often more time is asked for before what was asked for last is over.
const ASKED_AGAIN: u32 = 5;

/// What the manager believes of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Systemd {
    socket: Option<UnixDatagram>,
    unreachable: Option<SystemdError>,
    watchdog: Option<Duration>,
    announced: Cell<Announced>,
    /// Since when.
    since: Cell<Instant>,
    /// Until when what we are at may take, once that is known.
    deadlines: Cell<Option<Deadlines>>,
    /// When more time is asked for again.
    extends_at: Cell<Option<Instant>>,
    /// The last status, which a message that was lost may have carried.
    status: RefCell<String>,
}

/// An environment that names a way to a manager which can't be had.
#[derive(Debug, thiserror::Error)]
#[error("the service manager can't be told anything: NOTIFY_SOCKET is \"{address}\"")]
pub struct SystemdError {
    address: String,
    source: io::Error,
}

impl Systemd {
    /// The way that our environment names. One that can't be had says nothing to anybody, and [why](Self::why_silent).
    pub fn from_environment() -> Self {
        let watchdog = watchdog(|name| env::var(name).ok(), std::process::id());
        match env::var_os("NOTIFY_SOCKET") {
            None => Self::new(None, None),
            Some(address) => match connect(&address) {
                Ok(socket) => Self::new(Some(socket), watchdog),
                Err(source) => {
                    let error = SystemdError { address: address.display().to_string(), source };
                    Self { unreachable: Some(error), ..Self::new(None, None) }
                }
            },
        }
    }

    /// Why the manager that our environment names is told nothing, if it isn't.
    pub const fn why_silent(&self) -> Option<&SystemdError> {
        self.unreachable.as_ref()
    }

    fn new(socket: Option<UnixDatagram>, watchdog: Option<Duration>) -> Self {
        Self {
            socket,
            unreachable: None,
            watchdog,
            announced: Cell::new(Announced::Starting),
            since: Cell::new(Instant::now()),
            deadlines: Cell::default(),
            extends_at: Cell::default(),
            status: RefCell::default(),
        }
    }

    /// How often the manager wants a sign of life, with time to spare: it gives up after twice as long.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// How long what we are at may take, as the configurations say that count now.
    pub fn expect(&self, deadlines: Deadlines) {
        self.deadlines.set(Some(deadlines));
    }

    /// When [`extend`](Self::extend) is to be called, if it is.
    pub fn extends_at(&self) -> Option<Instant> {
        self.extends_at.get()
    }

    /// Asks for more time for what we are at, if it may take longer.
    pub fn extend(&self) {
        let text = self.extension();
        if !text.is_empty() {
            self.send(&text);
        }
    }

    /// The assignment that asks for more time; empty where none is asked for.
    fn extension(&self) -> String {
        let stage = match self.announced.get() {
            Announced::Starting => Some(Stage::Starting),
            Announced::Ready => None,
            Announced::Reloading => Some(Stage::Restarting),
            Announced::Stopping => Some(Stage::Stopping),
        };
        let watchdog = self.watchdog.map(|half| half * 2);
        let ask = stage.zip(self.deadlines.get()).filter(|_| self.socket.is_some());
        let ask = ask.and_then(|(stage, it)| it.extension(stage, self.since.get().elapsed(), watchdog));
        self.extends_at.set(ask.and_then(|ask| Instant::now().checked_add(ask / ASKED_AGAIN)));
        ask.map(|ask| format!("EXTEND_TIMEOUT_USEC={}\n", ask.as_micros())).unwrap_or_default()
    }

    fn now(&self, told: Announced) {
        self.announced.set(told);
        self.since.set(Instant::now());
    }

    /// The first workers serve.
    pub fn serving(&self, status: &str) {
        self.ready(status);
    }

    /// A restart goes beyond the gate.
    pub fn reloading(&self) {
        if self.announced.get() == Announced::Ready {
            self.now(Announced::Reloading);
            // The manager compares it with when it asked for a reload.
            let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
            let extension = self.extension();
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n{extension}", now.as_micros()));
        }
    }

    /// A restart has its verdict.
    pub fn verdict(&self, status: &str) {
        match self.announced.get() {
            Announced::Reloading => self.ready(status),
            Announced::Starting | Announced::Ready => self.status(status),
            Announced::Stopping => {}
        }
    }

    /// What people are shown.
    pub fn status(&self, status: &str) {
        status.clone_into(&mut self.status.borrow_mut());
        self.send(&format!("STATUS={}\n", one_line(status)));
    }

    /// The master is on its way out.
    pub fn stopping(&self) {
        if self.announced.get() != Announced::Stopping {
            self.now(Announced::Stopping);
            let extension = self.extension();
            self.send(&format!("STOPPING=1\nSTATUS=stopping\n{extension}"));
        }
    }

    /// A sign of life.
    pub fn alive(&self) {
        // What was lost is said again, so that a manager that was slow once isn't wrong for ever.
        let status = self.status.borrow();
        let ready = if self.announced.get() == Announced::Ready { "READY=1\n" } else { "" };
        self.send(&format!("WATCHDOG=1\n{ready}STATUS={}\n", one_line(&status)));
    }

    fn ready(&self, status: &str) {
        self.now(Announced::Ready);
        self.extends_at.set(None);
        status.clone_into(&mut self.status.borrow_mut());
        self.send(&format!("READY=1\nSTATUS={}\n", one_line(status)));
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(error = %error, message, "the service manager was not told");
        }
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Half of what the manager's watchdog allows (`sd_watchdog_enabled(3)`), if it watches us.
fn watchdog(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let is_us = variable("WATCHDOG_PID").is_none_or(|watched| watched == pid.to_string());
    let micros: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (is_us && micros >= 2).then(|| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests;
