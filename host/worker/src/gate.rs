//! The gate: the way out of a serving thread for its connections, to other workers or to rest.
//!
//! Those that leave one by one are gathered here, for they travel together. What becomes of them on the road is told to
//! the thread's [`adopt`](super::handover::adopt).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::accept::{Known, Seat};
use super::detached::Detached;
use super::stream::{Socket, Stream};
use crate::handover::Road;
use crate::http::{Handover, Leaving};
use app_host_core::error::chain;
use app_host_services::loader::Connection;

/// How many connections a thread lets go of before it looks at what else there is.
pub(super) const AT_ONCE: usize = 64;

/// The way out of a serving thread for its connections.
#[derive(Debug)]
pub(super) struct Gate {
    road: Road<Detached>,
    /// To where those rest that stay.
    beds: mpsc::UnboundedSender<Detached>,
    /// Which thread it is.
    thread: usize,
    /// Those that have left one by one and go on together.
    gathered: Mutex<Vec<Detached>>,
    /// There are some.
    some: Notify,
}

impl Gate {
    pub(super) fn new(road: Road<Detached>, beds: mpsc::UnboundedSender<Detached>, thread: usize) -> Self {
        Self { road, beds, thread, gathered: Mutex::default(), some: Notify::new() }
    }

    fn gathered(&self) -> MutexGuard<'_, Vec<Detached>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a connection over, with others that leave about now.
    fn gather(&self, leaving: Detached) {
        let mut gathered = self.gathered();
        gathered.push(leaving);
        if gathered.len() >= AT_ONCE {
            let full = std::mem::replace(&mut *gathered, Vec::with_capacity(AT_ONCE));
            drop(gathered);
            self.give(full);
        } else {
            self.some.notify_one();
        }
    }

    /// Lets those go on that nobody else has joined. Must run for as long as there are connections.
    pub(super) async fn run(self: Arc<Self>) -> Infallible {
        loop {
            self.some.notified().await;
            let all = std::mem::take(&mut *self.gathered());
            self.give(all);
        }
    }

    fn put_to_rest(&self, connection: Detached) {
        if self.beds.send(connection).is_err() {
            tracing::error!("an idle connection is closed: nobody is there with whom it could rest");
        }
    }

    /// Gives connections to other workers.
    pub(super) fn give(&self, leaving: Vec<Detached>) {
        if !leaving.is_empty() && self.road.give(leaving).is_err() {
            tracing::error!("connections can't be handed over, and are closed: nobody is on the road");
        }
    }
}

/// Sends a connection on its way that nobody serves any more.
pub(super) fn leave<S: Socket>(leaving: Leaving<Stream<S>>, known: &Known, seat: Seat) {
    let gate = Arc::clone(&seat.gate);
    match leaving {
        Leaving::Moves(connection) => detach(connection, known, seat).into_iter().for_each(|it| gate.gather(it)),
        Leaving::Rests(connection) => detach(connection, known, seat).into_iter().for_each(|it| gate.put_to_rest(it)),
    }
}

/// Takes a connection out of its runtime. Ends it if that fails.
fn detach<S: Socket>(connection: Handover<Stream<S>>, known: &Known, seat: Seat) -> Option<Detached> {
    let Handover { transport, unread, history } = connection;
    let Seat { lane, gate, held, .. } = seat;
    match transport.leave() {
        Ok(socket) => {
            let (connection, opened) = (Connection::clone(&known.connection), known.opened);
            // Without the buffer that it was read into, if nothing was.
            let unread = if unread.is_empty() { Bytes::new() } else { unread };
            Some(Detached { socket, connection, opened, unread, history, thread: gate.thread, held })
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "a connection could not be let go of, and is closed");
            lane.dismissed();
            None
        }
    }
}
