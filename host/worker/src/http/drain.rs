//! Tells every connection of a worker which phase it is in: serving, draining or cut.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

use super::state::Phase;

/// Says to any number of connections what to do.
#[derive(Clone, Debug)]
pub struct DrainControl {
    phase: watch::Sender<Phase>,
    invited: Arc<AtomicU64>,
    announces: Arc<AtomicBool>,
}

/// What a connection listens to. A clone hears everything that the original does.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    phase: watch::Receiver<Phase>,
    /// How many more connections are to leave a worker that serves.
    invited: Arc<AtomicU64>,
    /// Whether clients are told that their connections aren't kept.
    announces: Arc<AtomicBool>,
    /// Nobody has taken this connection, so every drain ends it by a close.
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
    /// Begins the phase `phase`. A cut is the last.
    pub fn begin(&self, phase: Phase) {
        self.phase.send_modify(|now| {
            if *now != Phase::Cut {
                *now = phase;
            }
        });
    }

    /// Has so many idle connections leave a worker that serves. Those that are not idle now don't count.
    pub fn invite(&self, connections: u64) {
        self.invited.store(connections, Relaxed);
        if connections > 0 {
            self.phase.send_modify(|_| {});
        }
    }
}

impl DrainControl {
    /// Has connections go on and say with their next answer that they aren't kept, or no longer.
    pub fn announce_close(&self, on: bool) {
        if self.announces.swap(on, Relaxed) != on {
            self.phase.send_modify(|_| {});
        }
    }
}

impl DrainSignal {
    /// A signal for the connections of one thread, and what has to run there for it to say what this one says.
    ///
    /// News from another thread wake each connection by itself, with a system call; these wake the thread, which
    /// wakes its connections. And they come between two polls of a connection, never in the middle of one.
    pub fn here(mut self) -> (Self, impl Future<Output = Infallible> + Send) {
        let (tells, phase) = watch::channel(*self.phase.borrow_and_update());
        let (invited, announces) = (Arc::clone(&self.invited), Arc::clone(&self.announces));
        let here = Self { phase, invited, announces, stays: self.stays };
        let relay = async move {
            while self.phase.changed().await.is_ok() {
                let phase = *self.phase.borrow_and_update();
                tells.send_replace(phase);
            }
            // The control is gone, and the last phase holds for good.
            std::future::pending().await
        };
        (here, relay)
    }

    /// For a connection that is not to be handed over any more.
    #[must_use]
    pub fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    /// What holds now.
    pub fn phase(&self) -> Phase {
        self.seen_here(*self.phase.borrow())
    }

    /// The phase that holds now, if it has not been returned before.
    pub(super) fn news(&mut self) -> Option<Phase> {
        // The error says that the control is gone: then the last phase holds for good.
        let news = self.phase.has_changed().unwrap_or(false).then(|| *self.phase.borrow_and_update());
        news.map(|phase| self.seen_here(phase))
    }

    fn seen_here(&self, phase: Phase) -> Phase {
        if self.stays { phase.without_handover() } else { phase }
    }

    /// Whether a connection that is served says that it isn't kept.
    pub(super) fn announces_close(&self) -> bool {
        self.announces.load(Relaxed)
    }

    /// Whether one more connection is to leave a worker that serves, and this is the one.
    pub fn takes_invitation(&self) -> bool {
        let left = &self.invited;
        left.load(Relaxed) > 0 && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// The phase that holds now becomes news again.
    pub(super) fn repeat(&mut self) {
        self.phase.mark_changed();
    }

    /// Waits for the next news. Cancel-safe.
    pub async fn next(&mut self) -> Phase {
        if self.phase.changed().await.is_err() {
            return std::future::pending().await;
        }
        let phase = *self.phase.borrow_and_update();
        self.seen_here(phase)
    }

    /// Waits for news. Costs nothing while it waits.
    pub async fn changed(mut self) {
        if self.phase.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
