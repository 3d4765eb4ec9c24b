//! The papers that a connection travels with from one worker to another.
//!
//! Pure. Both ends are the same binary, or one of the same magic, but either may be run by somebody else: whatever the
//! bytes are, nobody who reads them is harmed.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::http::History;

/// What a connection travels with, before what has been read of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Papers<'a> {
    pub(super) listener: &'a str,
    /// The ends of a TCP connection.
    pub(super) peer: Option<End>,
    pub(super) local: Option<End>,
    /// How long ago it was accepted, wherever that was.
    pub(super) age: Duration,
    pub(super) history: History,
}

/// How long they are at most: a listener's name has at most 255 bytes, and the rest are a few numbers.
pub(super) const MAX_HEAD: usize = 512;

/// One end of a TCP connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    address: SocketAddr,
    /// serde leaves it out.
    scope: u32,
}

impl End {
    pub(super) fn of(address: SocketAddr) -> Self {
        let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
        Self { address, scope }
    }

    pub(super) fn address(self) -> SocketAddr {
        let Self { mut address, scope } = self;
        if let SocketAddr::V6(address) = &mut address {
            address.set_scope_id(scope);
        }
        address
    }
}

impl<'a> Papers<'a> {
    /// Reads papers and what is behind them. No number in them is larger than this worker would have it itself.
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (papers, rest): (Self, _) = postcard::take_from_bytes(bytes).ok()?;
        Some((Self { history: papers.history.bounded(), ..papers }, rest))
    }

    /// Adds them to a packet; says whether that could be done.
    pub(super) fn write(&self, packet: &mut Vec<u8>) -> bool {
        postcard::to_io(self, packet).is_ok()
    }
}
