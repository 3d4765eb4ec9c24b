//! A suspended connection: one that is not served at the moment, and is resumed from here, by this worker or another.
//!
//! How it is transferred or parked, and who owns it when, is for other modules.

use bytes::Bytes;

use super::state::History;

/// A connection that is not served: a new one, or one that was suspended between two requests.
#[derive(Debug)]
pub struct Suspended<T> {
    /// The connection itself.
    pub transport: T,
    /// What has been read of it, and belongs to a request that was not handed to an app.
    pub unread: Bytes,
    /// What the connection has been through.
    pub history: History,
}

/// Where a suspended connection goes.
#[derive(Debug)]
pub enum Leaving<T> {
    /// To another worker.
    Transfer(Suspended<T>),
    /// Into the pool of idle connections: it has been idle for so long that it needs no task until something comes.
    Park(Suspended<T>),
}

impl<T> Suspended<T> {
    /// A connection that has just been accepted.
    pub const fn accepted(transport: T) -> Self {
        Self { transport, unread: Bytes::new(), history: History::NEW }
    }
}
