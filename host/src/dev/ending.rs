//! What ends `dev` from outside: signals.
//!
//! A terminal that goes without one is seen by [`Terminal`](super::say::Terminal).

use tokio::signal::unix::{Signal, SignalKind, signal};

use app_host_platform::sys;

/// SIGINT, SIGTERM and SIGQUIT, and SIGHUP unless we were started with it ignored, as by `nohup`.
pub struct Stop {
    int: Signal,
    term: Signal,
    quit: Signal,
    hup: Option<Signal>,
}

/// Why it is to end.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    Asked,
    HungUp,
}

impl Stop {
    /// # Errors
    /// When a handler can't be installed.
    pub fn listen() -> std::io::Result<Self> {
        let hup = (!sys::signals::hangup_was_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        let (int, term, quit) = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit());
        Ok(Self { int: signal(int)?, term: signal(term)?, quit: signal(quit)?, hup })
    }

    /// The next sign of it.
    pub async fn next(&mut self) -> Why {
        let hup = async {
            match &mut self.hup {
                Some(hup) => drop(hup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.int.recv() => Why::Asked,
            _ = self.term.recv() => Why::Asked,
            _ = self.quit.recv() => Why::Asked,
            () = hup => Why::HungUp,
        }
    }
}
