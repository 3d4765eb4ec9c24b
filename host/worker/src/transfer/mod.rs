//! Transfer of client connections from one worker to another.
//!
//! Owns which worker a connection is sent to ([`outbox`]), how connections are packed ([`wire`]), that none is lost nor
//! served twice, and the bounds of all that. Knows nothing of HTTP, listeners or serving threads: it moves a descriptor
//! with a record, which [`Transferable`] writes at the one end and [`Receiver`] reads at the other. Which workers are
//! linked, and when, is the master's decision; it makes the link and takes no part in it.
//!
//! ```text
//!                  the master ── one end each, on their transfer sockets ──┐
//!                      ▼                                                   ▼
//! serving thread ─▶ thread "transfer" ═══ a link: connections, records ══▶ thread "transfer" ─▶ serving thread
//!       ▲               │        ▲                                         │
//!       └── accepted,   ┘        └──────────── accepted, no room ──────────┘
//!           returned
//! ```
//! # Who owns a connection
//! Each has one owner at any moment. It is the sender's until the receiver has *said* that it accepts it, and the receiver
//! says so before it reads a byte. So a receiver that dies without having said it has read nothing, and the sender, which
//! has kept a duplicate, gives the connection to another worker. A receiver whose acknowledgement can't be sent has lost
//! its sender, and is the only owner. Because the duplicate may live a little longer than the receiver's interest, the
//! receiver ends a connection by `shutdown(2)` and not by closing it alone.
//!
//! # What is bounded
//! [`outbox::WINDOW`] connections are on a link. No more wait for one than the worker had, each with less memory than it
//! took to serve it. What arrives waits within bounds for its serving thread, or is not accepted. Where no descriptor is
//! free, too many are in flight, or a worker is stopped or gone, a connection that no worker accepts returns to the
//! thread that it came from, and is closed politely there.

mod incoming;
mod outbox;
mod outgoing;
mod receiver;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use app_host_platform::channel::FromMaster;

pub use outbox::Outcome;
pub use receiver::{Commit, Receiver, Rejection, Transferable};

/// The most bytes of a connection's record.
pub const MAX_RECORD: usize = 192 * 1024;

/// What the worker does with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It serves them, and accepts those that it is sent.
    Serve,
    /// It drains, and sends them to other workers.
    Transfer,
    /// It drains without a worker that could take them: they are returned and closed.
    Close,
    /// As [`Close`](Self::Close), and no reply is waited for any more.
    Cut,
}

/// Sends connections to the transfer thread. Cheap to clone, and usable on every thread.
#[derive(Debug)]
pub struct TransferHandle<C> {
    /// Up to as many connections as there are in this worker.
    queue: mpsc::UnboundedSender<Vec<C>>,
    mode: Arc<watch::Sender<Mode>>,
}

impl<C> Clone for TransferHandle<C> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), mode: Arc::clone(&self.mode) }
    }
}

/// The other end of a [`TransferHandle`], for the thread that is still to be made.
#[derive(Debug)]
pub struct TransferQueue<C> {
    connections: mpsc::UnboundedReceiver<Vec<C>>,
    mode: watch::Receiver<Mode>,
}

/// For how many links to other workers there is room in a worker that has run out of descriptors.
const SPARE: usize = 16;

/// A handle and its queue. Connections may be sent before the thread is there.
pub fn channel<C>() -> (TransferHandle<C>, TransferQueue<C>) {
    let (queue, connections) = mpsc::unbounded_channel();
    let (sender, mode) = watch::channel(Mode::Serve);
    (TransferHandle { queue, mode: Arc::new(sender) }, TransferQueue { connections, mode })
}

impl<C> TransferHandle<C> {
    /// Sends connections to other workers. What becomes of each is [reported](Receiver::report). Returns them if the
    /// thread is gone, which only a bug makes it.
    pub fn send(&self, connections: Vec<C>) -> Result<(), Vec<C>> {
        self.queue.send(connections).map_err(|mpsc::error::SendError(connections)| connections)
    }

    /// Changes what the worker does with its connections.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl<C: Transferable> TransferQueue<C> {
    /// Starts the transfer thread. `socket` is the worker's transfer socket, on which the master sends links.
    pub fn spawn<R: Receiver<Connection = C> + Send>(self, socket: OwnedFd, receiver: R) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = {
            let _inside = runtime.enter();
            FromMaster::with_spare(socket, SPARE)?
        };
        std::thread::Builder::new().name("transfer".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, outgoing::run(self, channel, Rc::new(receiver)));
        })?;
        Ok(())
    }
}
