//! The word that a worker has for its connections: serve, drain, or be cut.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What a connection has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serve.
    Serving,
    /// Come to an end: since then, with so much patience for the next request of an idle connection.
    Draining {
        /// When the drain began.
        since: Instant,
        /// How long an idle connection waits for its next request.
        linger: Duration,
    },
    /// End now, whatever is in flight.
    Cut,
}

/// Says to any number of connections what to do.
#[derive(Debug)]
pub struct DrainControl(watch::Sender<Phase>);

/// What a connection listens to. A clone hears everything that the original does.
#[derive(Clone, Debug)]
pub struct DrainSignal(watch::Receiver<Phase>);

/// A control and its signal, in [`Phase::Serving`].
pub fn drain_signal() -> (DrainControl, DrainSignal) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (DrainControl(sender), DrainSignal(receiver))
}

impl DrainControl {
    /// Begins the phase `phase`.
    pub fn begin(&self, phase: Phase) {
        self.0.send_replace(phase);
    }
}

impl DrainSignal {
    /// The phase that holds now, if it has not been returned before.
    pub(super) fn news(&mut self) -> Option<Phase> {
        // The error says that the control is gone: then the last phase holds for good.
        self.0.has_changed().unwrap_or(false).then(|| *self.0.borrow_and_update())
    }

    /// The phase that holds now becomes news again.
    pub(super) fn repeat(&mut self) {
        self.0.mark_changed();
    }

    /// Waits for news. Costs nothing while it waits.
    pub(super) async fn changed(mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
