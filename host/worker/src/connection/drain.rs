//! Tells every connection of a worker which phase it is in: serving, draining or cut.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

use super::state::Phase;

/// Announces phases to any number of connections.
#[derive(Clone, Debug)]
pub struct DrainControl {
    phase: watch::Sender<Phase>,
    invited: Arc<AtomicU64>,
    announces: Arc<AtomicBool>,
}

/// The phase, as one connection watches it. A clone sees every phase that the original does.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    phase: watch::Receiver<Phase>,
    /// How many more connections are invited to leave a worker that serves.
    invited: Arc<AtomicU64>,
    /// Whether responses announce the close of their connection.
    announces: Arc<AtomicBool>,
    /// No other worker has accepted this connection, so every drain ends it by a close.
    stays: bool,
}

/// A control and its signal, in [`Phase::Serving`].
pub fn drain_signal() -> (DrainControl, DrainSignal) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    let (invited, announces) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    (
        DrainControl { phase: sender, invited: Arc::clone(&invited), announces: Arc::clone(&announces) },
        DrainSignal { phase: receiver, invited, announces, stays: false },
    )
}

impl DrainControl {
    /// Begins a phase. [`Phase::Cut`] is the last.
    pub fn begin(&self, phase: Phase) {
        self.phase.send_modify(|now| {
            if *now != Phase::Cut {
                *now = phase;
            }
        });
    }

    /// Invites up to this many connections that are idle now to leave a worker that serves.
    pub fn invite(&self, connections: u64) {
        self.invited.store(connections, Relaxed);
        if connections > 0 {
            self.phase.send_modify(|_| {});
        }
    }

    /// Lets responses of a worker that serves announce the close of their connection, or no longer.
    pub fn announce_close(&self, on: bool) {
        if self.announces.swap(on, Relaxed) != on {
            self.phase.send_modify(|_| {});
        }
    }
}

impl DrainSignal {
    /// A signal for the connections of one thread, and the future that relays the phases of this one. It must run on that
    /// thread.
    ///
    /// A phase that is announced by another thread wakes each connection by a system call of its own. The relay is woken
    /// once and wakes its thread's connections, and it does so between two polls of a connection, never in the middle of
    /// one.
    pub fn relayed(mut self) -> (Self, impl Future<Output = Infallible> + Send) {
        let (sender, phase) = watch::channel(*self.phase.borrow_and_update());
        let (invited, announces) = (Arc::clone(&self.invited), Arc::clone(&self.announces));
        let relayed = Self { phase, invited, announces, stays: self.stays };
        let relay = async move {
            while self.phase.changed().await.is_ok() {
                let phase = *self.phase.borrow_and_update();
                sender.send_replace(phase);
            }
            // The control is gone, and the last phase stays.
            std::future::pending().await
        };
        (relayed, relay)
    }

    /// For a connection that is not to be transferred any more.
    #[must_use]
    pub fn without_transfer(mut self) -> Self {
        self.stays = true;
        self
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.adapted(*self.phase.borrow())
    }

    /// The current phase, if it has not been returned before.
    pub(super) fn new_phase(&mut self) -> Option<Phase> {
        // The error says that the control is gone, and then the last phase stays.
        let changed = self.phase.has_changed().unwrap_or(false);
        changed.then(|| *self.phase.borrow_and_update()).map(|phase| self.adapted(phase))
    }

    /// The phase as it is for this connection.
    fn adapted(&self, phase: Phase) -> Phase {
        if self.stays { phase.without_transfer() } else { phase }
    }

    /// Whether responses announce the close of their connection.
    pub(super) fn announces_close(&self) -> bool {
        self.announces.load(Relaxed)
    }

    /// Accepts one invitation to leave a worker that serves, if there is one left.
    pub fn accept_invitation(&self) -> bool {
        let left = &self.invited;
        left.load(Relaxed) > 0 && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Makes the current phase new again.
    pub(super) fn repeat(&mut self) {
        self.phase.mark_changed();
    }

    /// Waits for the next phase. Cancel-safe.
    pub async fn next(&mut self) -> Phase {
        if self.phase.changed().await.is_err() {
            return std::future::pending().await;
        }
        let phase = *self.phase.borrow_and_update();
        self.adapted(phase)
    }

    /// Waits for a change. Costs nothing while it waits.
    pub async fn changed(mut self) {
        if self.phase.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
