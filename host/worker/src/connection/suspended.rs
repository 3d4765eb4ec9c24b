//! A suspended connection: one that is not served at the moment, and is resumed from here, by this worker or another.
//!
//! How it is transferred or parked, and who owns it when, is for other modules.

use std::time::Instant;

use bytes::Bytes;

use super::http2::Http2Snapshot;
use super::keepsake::Legacy;
use super::state::History;

/// A connection that is not served: a new one, or one that was suspended between two requests, two messages or two events.
#[derive(Debug)]
pub struct Suspended<T> {
    /// The connection itself.
    pub transport: T,
    /// When it was accepted, by whichever worker.
    pub opened: Instant,
    /// What has been read of it, and belongs to a request that was not handed to an app, or is to be once more.
    pub unread: Bytes,
    /// What the connection has been through.
    pub history: History,
    /// What the app has left for whoever goes on.
    pub left: Legacy,
    /// What HTTP/2 has to know, if it is that.
    pub snapshot: Option<Box<Http2Snapshot>>,
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
    pub fn accepted(transport: T) -> Self {
        let opened = tokio::time::Instant::now().into_std();
        Self { transport, opened, unread: Bytes::new(), history: History::NEW, left: None, snapshot: None }
    }
}
