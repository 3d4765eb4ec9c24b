//! What the road asks of a worker: parcels that leave, and a harbour where others arrive.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::outbox::Given;

/// A connection that changes its worker.
pub trait Parcel: Send + 'static {
    /// The connection.
    fn socket(&self) -> BorrowedFd<'_>;

    /// Adds what must be known of it to a packet: its papers, of which at most [`MAX_PAPERS`](super::MAX_PAPERS) bytes travel. Says
    /// whether it has any; one without can't travel.
    fn write_papers(&self, packet: &mut Vec<u8>) -> bool;
}

/// Where connections arrive, and those come back to that have left.
pub trait Harbour: 'static {
    /// What leaves here.
    type Parcel: Parcel;

    /// What is kept free for connections that have come together.
    type Room;

    /// Keeps room for one packet's connections; waits for it, if anybody is there who makes some.
    fn room(&self) -> impl Future<Output = Self::Room>;

    /// Finds places for connections that have come together, each with its papers: an answer for each, and what is
    /// called when their sender has been told, and must not fail.
    fn berth<'a>(
        &self,
        room: Self::Room,
        come: impl Iterator<Item = (OwnedFd, &'a [u8])>,
    ) -> (Vec<Result<(), NoBerth>>, Settle);

    /// How many connections this worker has, with those that have got a place.
    fn holds(&self) -> u64;

    /// So many idle connections are to be given away.
    fn invite(&self, connections: u64);

    /// It is known what has become of these, which had left.
    fn tell(&self, given: Vec<Given<Self::Parcel>>);
}

/// Begins with connections that have got a place.
pub type Settle = Box<dyn FnOnce()>;

/// Why a connection has no place; it is dropped here, and its sender goes on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBerth {
    /// None is free.
    Full,
    /// Nobody here knows its papers, or the listener in them.
    Unknown,
}
