//! What the transfer of connections asks of a worker: connections that can leave, and a receiver for those that arrive.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::outbox::Outcome;

/// A connection that can move to another worker.
pub trait Transferable: Send + 'static {
    /// The connection's socket.
    fn socket(&self) -> BorrowedFd<'_>;

    /// Appends what the other worker must know of the connection to a packet: its record, of up to
    /// [`MAX_RECORD`](super::MAX_RECORD) bytes. Returns whether there is one; a connection without can't be sent.
    fn write_record(&self, packet: &mut Vec<u8>) -> bool;
}

/// Takes the connections that arrive, and learns what became of those that were sent.
pub trait Receiver: 'static {
    /// What leaves this worker.
    type Connection: Transferable;

    /// Room that is kept for the connections of one packet.
    type Reservation;

    /// Reserves room for one packet's connections. Waits for it if there is a thread that will make some.
    fn reserve(&self) -> impl Future<Output = Self::Reservation>;

    /// Accepts connections that arrived together, each with its record. Returns an answer for each, and what begins to
    /// serve them: it is called once their sender has been told, and must not fail.
    fn accept<'a>(
        &self,
        reservation: Self::Reservation,
        arrived: impl Iterator<Item = (OwnedFd, &'a [u8])>,
    ) -> (Vec<Result<(), Rejection>>, Commit);

    /// How many connections this worker has, including those that were accepted and not yet begun with.
    fn connections(&self) -> u64;

    /// Asks for this many idle connections to be given away.
    fn invite(&self, connections: u64);

    /// Reports what became of connections that were sent.
    fn report(&self, outcomes: Vec<Outcome<Self::Connection>>);
}

/// Begins to serve connections that were accepted.
pub type Commit = Box<dyn FnOnce()>;

/// Why a connection is not accepted. The descriptor is closed here, and the sender goes on with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No thread has room.
    Full,
    /// The record can't be read, or names a listener that this worker does not have.
    Unknown,
}
