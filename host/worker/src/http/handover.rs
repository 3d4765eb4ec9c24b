//! A connection that nobody serves, as this room sees it: where it has come to when it was let go of, and where
//! somebody goes on, here or in another worker.
//!
//! Leaves to others how it travels or rests, and who has it when.

use bytes::Bytes;

use super::state::History;

/// A connection that nobody serves: a new one, or one that its worker has let go of between two requests.
#[derive(Debug)]
pub struct Handover<T> {
    /// The connection itself.
    pub transport: T,
    /// What has been read of it and belongs to a request that nobody has seen.
    pub unread: Bytes,
    /// What has been before.
    pub history: History,
}

/// Where a connection is to go that is let go of.
#[derive(Debug)]
pub enum Leaving<T> {
    /// To another worker.
    Moves(Handover<T>),
    /// Nowhere: it has been idle for so long that nobody needs to have it in hand before there is something to do.
    Rests(Handover<T>),
}

impl<T> Handover<T> {
    /// A connection that has just been accepted.
    pub const fn accepted(transport: T) -> Self {
        Self { transport, unread: Bytes::new(), history: History::NEW }
    }
}
