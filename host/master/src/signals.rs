//! The signals that the master acts on, and what they mean. All others that could hurt are ignored since `main`.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use app_host_platform::sys::signals;

pub(super) struct Signals {
    pub(super) usr2: Signal,
    pub(super) usr1: Signal,
    pub(super) ttin: Signal,
    pub(super) ttou: Signal,
    pub(super) hup: Hangups,
    pub(super) stops: Stops,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            usr2: signal(SignalKind::user_defined2())?,
            usr1: signal(SignalKind::user_defined1())?,
            ttin: signal(SignalKind::from_raw(libc::SIGTTIN))?,
            ttou: signal(SignalKind::from_raw(libc::SIGTTOU))?,
            hup: Hangups::listen()?,
            stops: Stops {
                term: signal(SignalKind::terminate())?,
                int: signal(SignalKind::interrupt())?,
                quit: signal(SignalKind::quit())?,
            },
        })
    }
}

/// SIGTERM, SIGINT and SIGQUIT: they mean the same. Images of containers stop by the third, too, and so does Ctrl-\.
pub(super) struct Stops {
    term: Signal,
    int: Signal,
    quit: Signal,
}

impl Stops {
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// What a SIGHUP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// Somebody wants a restart.
    Restart,
    /// The terminal has gone: a stop, as for any program in its foreground.
    TerminalGone,
}

/// SIGHUP, unless it was ignored when this process was started, by `nohup` for instance: then it stays so.
pub(super) struct Hangups {
    signal: Option<Signal>,
    /// A restart was asked for before there was anybody to hear.
    kept: bool,
}

impl Hangups {
    fn listen() -> io::Result<Self> {
        if signals::hangup_was_ignored() {
            return Ok(Self { signal: None, kept: false });
        }
        signals::note_hangups()?;
        Ok(Self { signal: Some(signal(SignalKind::hangup())?), kept: false })
    }

    /// Whether SIGHUP means nothing.
    pub(super) const fn are_ignored(&self) -> bool {
        self.signal.is_none()
    }

    pub(super) async fn recv(&mut self) -> Hangup {
        if std::mem::take(&mut self.kept) { Hangup::Restart } else { self.next().await }
    }

    /// Waits for the terminal's end; keeps requests for a restart.
    pub(super) async fn terminal_gone(&mut self) {
        while self.next().await == Hangup::Restart {
            self.kept = true;
        }
    }

    async fn next(&mut self) -> Hangup {
        match &mut self.signal {
            Some(signal) => drop(signal.recv().await),
            None => return std::future::pending().await,
        }
        if signals::is_terminal_gone() {
            info!("the terminal has gone: the service stops, as programs in a terminal do");
            return Hangup::TerminalGone;
        }
        Hangup::Restart
    }
}
