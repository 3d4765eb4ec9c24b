//! The record that travels with a connection from one worker to another.
//!
//! Pure. Both ends are the same binary, or one of the same magic, but an attacker may run either: whatever the bytes are,
//! reading them does no harm.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use app_host_core::proxied::{MAX_TEXT, ProxiedTls};
use app_host_core::tls::MAX_CLIENT_CERTIFICATE;

use crate::connection::{History, Http2Snapshot};

/// What another worker must know of a connection, before the bytes that have been read of it.
#[derive(Serialize, Deserialize)]
pub(super) struct ConnectionRecord<'a> {
    pub(super) listener: &'a str,
    /// The ends of a TCP connection.
    pub(super) peer: Option<Endpoint>,
    pub(super) local: Option<Endpoint>,
    /// How long ago the connection was accepted, by whichever worker.
    pub(super) age: Duration,
    pub(super) history: History,
    /// Its TLS, if it has one.
    #[serde(borrow)]
    pub(super) tls: Option<TlsRecord<'a>>,
    /// The client, if a proxy has told of it.
    pub(super) client: Option<ClientRecord>,
    /// What the app has left for whoever goes on.
    pub(super) left: Option<&'a [u8]>,
    /// What HTTP/2 has to know, if it is that.
    pub(super) snapshot: Option<Http2Snapshot>,
}

/// What a proxy has told of a connection's client.
#[derive(Serialize, Deserialize)]
pub(super) struct ClientRecord {
    /// `None` for one at a Unix socket.
    pub(super) address: Option<Endpoint>,
    pub(super) encrypted: bool,
    pub(super) tls: Option<ProxiedTls>,
}

/// What another worker must know of a connection's TLS.
#[derive(Serialize, Deserialize)]
pub(super) enum TlsRecord<'a> {
    /// There was no handshake yet; what the client has sent.
    Nothing(&'a [u8]),
    /// It goes on behind its handshake.
    Records {
        version: u16,
        server_name: Option<&'a str>,
        client_certificate: Option<&'a [u8]>,
        /// Keys and sequence numbers: never to be shown.
        state: &'a [u8],
        raw: &'a [u8],
        out: &'a [u8],
    },
}

/// The most bytes of a record without unread bytes, TLS and what the app has left: a listener's name has up to 255, a proxy tells of four texts, and
/// the rest are a few numbers.
pub(super) const MAX_HEAD: usize = 640 + 4 * MAX_TEXT;

/// The most bytes of its TLS: a client's certificate, what was read and what is to be sent, and up to 512 bytes of keys and
/// names.
pub(super) const MAX_TLS: usize = MAX_CLIENT_CERTIFICATE + 2 * MAX_TLS_BYTES + 512;

/// The most bytes that were read and not opened, and that were sealed and not sent: a record of either version is shorter.
pub(super) const MAX_TLS_BYTES: usize = 20 * 1024;

/// One end of a TCP connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Endpoint {
    address: SocketAddr,
    /// The scope of an IPv6 address, which serde leaves out of `address`.
    scope: u32,
}

impl Endpoint {
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

impl<'a> ConnectionRecord<'a> {
    /// Reads a record, and returns it with the bytes behind it. Bounds its numbers to those that this worker itself could
    /// have.
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (record, rest): (Self, _) = postcard::take_from_bytes(bytes).ok()?;
        Some((Self { history: record.history.bounded(), ..record }, rest))
    }

    /// Appends the record to a packet; returns whether that could be done.
    pub(super) fn write(&self, packet: &mut Vec<u8>) -> bool {
        postcard::to_io(self, packet).is_ok()
    }
}
