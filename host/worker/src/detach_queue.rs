//! The connections that leave a serving thread: to other workers, in batches, or into its pool of idle ones.
//!
//! A connection that leaves alone waits here for others that leave about now, because they travel together. What becomes
//! of those that were sent is reported to the thread's [`arrivals`](super::arrivals::run).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use app_host_core::error::chain;
use app_host_platform::sys::stats::ThreadStats;

use crate::client::ConnectionMeta;
use crate::connection::{Detected, History, Leaving, Suspended};
use crate::context::ConnectionContext;
use crate::detached::Detached;
use crate::stream::{Left, Socket, Stream};
use crate::tls::Travelling;
use crate::transfer::TransferHandle;

/// How many connections leave a thread before it looks at what else there is.
pub(super) const BATCH: usize = 64;

/// The way out of a serving thread for its connections.
#[derive(Debug)]
pub(super) struct DetachQueue {
    transfer: TransferHandle<Detached>,
    /// To the thread's pool of idle connections.
    idle: mpsc::UnboundedSender<Detached>,
    stats: &'static ThreadStats,
    /// The connections that have left one by one since the last batch.
    batch: Mutex<Vec<Detached>>,
    not_empty: Notify,
}

impl DetachQueue {
    pub(super) fn new(
        transfer: TransferHandle<Detached>,
        idle: mpsc::UnboundedSender<Detached>,
        stats: &'static ThreadStats,
    ) -> Self {
        Self { transfer, idle, stats, batch: Mutex::default(), not_empty: Notify::new() }
    }

    fn batch(&self) -> MutexGuard<'_, Vec<Detached>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection to the next batch, and sends the batch if it is full.
    fn push(&self, connection: Detached) {
        self.stats.leaves(1);
        let mut batch = self.batch();
        batch.push(connection);
        if batch.len() >= BATCH {
            let full = std::mem::replace(&mut *batch, Vec::with_capacity(BATCH));
            drop(batch);
            self.send(full);
        } else {
            self.not_empty.notify_one();
        }
    }

    /// Sends batches that don't become full. Must run for as long as there are connections.
    pub(super) async fn run(self: Arc<Self>) -> Infallible {
        loop {
            self.not_empty.notified().await;
            let all = std::mem::take(&mut *self.batch());
            self.send(all);
        }
    }

    fn park(&self, connection: Detached) {
        if self.idle.send(connection).is_err() {
            tracing::error!("an idle connection can't be parked, and is closed: the pool is gone");
        }
    }

    /// Sends connections to other workers that are counted as leaving.
    pub(super) fn send(&self, connections: Vec<Detached>) {
        if !connections.is_empty() && self.transfer.send(connections).is_err() {
            tracing::error!("connections can't be handed over, and are closed: the transfer thread is gone");
        }
    }
}

/// Takes a connection out of its runtime and sends it on its way.
pub(super) fn detach<S: Socket>(leaving: Leaving<Stream<S>>, meta: ConnectionMeta, context: ConnectionContext) {
    let queue = Arc::clone(&context.thread.detach_queue);
    match leaving {
        Leaving::Transfer(suspended) => deregister(suspended, meta, context).into_iter().for_each(|it| queue.push(it)),
        Leaving::Park(suspended) => deregister(suspended, meta, context).into_iter().for_each(|it| queue.park(it)),
    }
}

/// Sends a connection to another worker whose client has been answered nothing: that one shakes hands with it.
pub(super) fn leave_unshaken<S: Socket>(
    stream: Stream<S>,
    read: Vec<u8>,
    meta: ConnectionMeta,
    context: ConnectionContext,
) {
    let queue = Arc::clone(&context.thread.detach_queue);
    let detached = deregister(Suspended::accepted(stream), meta, context);
    if let Some(connection) = detached {
        queue.push(Detached { tls: Some(Box::new(Travelling::Nothing(read))), ..connection });
    }
}

/// Sends a connection to another worker whose proxy has not said whose it is: that one waits on.
pub(super) fn leave_unannounced<S: Socket>(
    stream: Stream<S>,
    read: Vec<u8>,
    meta: ConnectionMeta,
    context: ConnectionContext,
) {
    let queue = Arc::clone(&context.thread.detach_queue);
    let history = History { detected: Detected::Unannounced, ..History::NEW };
    let suspended = Suspended { unread: read.into(), history, ..Suspended::accepted(stream) };
    if let Some(connection) = deregister(suspended, meta, context) {
        queue.push(connection);
    }
}

/// Takes a connection out of its runtime. Closes it if that fails.
fn deregister<S: Socket>(
    suspended: Suspended<Stream<S>>,
    meta: ConnectionMeta,
    context: ConnectionContext,
) -> Option<Detached> {
    let Suspended { transport, unread, history, left, snapshot, .. } = suspended;
    let ConnectionContext { thread, held, .. } = context;
    match transport.leave() {
        Ok(Left { socket, tls, plain }) => {
            let ConnectionMeta { connection, opened, permit, .. } = meta;
            let connection = Arc::unwrap_or_clone(connection);
            // Without the buffer that it was read into, if nothing was.
            let unread = match (unread.is_empty(), plain.is_empty()) {
                (true, true) => Bytes::new(),
                (false, true) => unread,
                (true, false) => plain.into(),
                (false, false) => [&unread[..], &plain].concat().into(),
            };
            let tls = tls.map(|tls| Box::new(Travelling::Records(tls)));
            Some(Detached {
                socket,
                connection,
                opened,
                permit,
                unread,
                history,
                left,
                snapshot,
                tls,
                thread: thread.index,
                held,
            })
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "a connection can't be taken out of the runtime, and is closed");
            thread.stats.dismissed();
            None
        }
    }
}
