//! TLS between a client's socket and HTTP.
//!
//! Owns the I/O around the record layer of `app-host-tls`: a [`Layer`] between the socket and whoever reads plaintext, the
//! [handshake](handshake::shake) before it, and what of a connection travels ([`Travelling`]). Cryptography, and what a record
//! may be, is for that crate; when a connection leaves, for `connection`.

pub mod check;
mod handshake;
mod layer;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use zeroize::Zeroizing;

use app_host_core::error::chain;
use app_host_core::message::TlsByListener;
use app_host_core::tls::{TICKET_KEY_BYTES, TICKET_KEYS};
use app_host_services::loader::TlsInfo;
use app_host_tls::{Facts, HEADER, State, Tickets, TlsServer, Version};

use crate::Listener;
pub use handshake::{Shaken, Unshaken, shake};
pub use layer::Layer;

/// What of a connection's TLS travels to another worker, or is kept while the connection is parked.
#[derive(Debug)]
pub enum Travelling {
    /// The client has been answered nothing: it shakes hands with whoever gets the connection. What it has sent so far.
    Nothing(Vec<u8>),
    /// It goes on behind its handshake.
    Records(SuspendedTls),
}

/// A connection behind its handshake that nobody serves at the moment.
#[derive(Debug)]
pub struct SuspendedTls {
    /// Keys and sequence numbers.
    pub state: State,
    /// What has been read, and not opened: less than a record, or records for which there was no room.
    pub raw: Vec<u8>,
    /// What has been sealed, and not sent.
    pub out: Vec<u8>,
}

impl Travelling {
    /// Whether nothing is to be done for the connection before its socket has something to read.
    pub fn may_park(&self) -> bool {
        match self {
            Self::Nothing(_) => false,
            Self::Records(SuspendedTls { raw, out, .. }) => {
                let whole = raw.first_chunk::<HEADER>().is_some_and(|&[_, _, _, high, low]| {
                    raw.len() >= HEADER + usize::from(u16::from_be_bytes([high, low]))
                });
                !whole && out.is_empty()
            }
        }
    }
}

/// What apps are told.
fn info(facts: &Facts) -> Arc<TlsInfo> {
    Arc::new(TlsInfo {
        version: number(facts.version),
        server_name: facts.server_name.clone(),
        client_certificate: facts.client_certificate.clone(),
    })
}

/// The protocol's number of a version.
const fn number(version: Version) -> u16 {
    match version {
        Version::Tls12 => 0x0303,
        Version::Tls13 => 0x0304,
    }
}

/// Has tickets sealed and opened with the keys in this file, and forgets what was read.
pub fn set_ticket_keys(tickets: &Tickets, file: OwnedFd) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; TICKET_KEYS * TICKET_KEY_BYTES]);
    let file = File::from(file);
    let mut read = 0;
    while read < bytes.len() {
        // From its beginning, wherever another process has read to.
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    tickets.set(&bytes[..read]);
    Ok(())
}

/// Has handshakes be made with other certificates from now on. Connections that are open stay as they are.
pub fn replace(servers: &[(&'static str, TlsServer)], listeners: &TlsByListener) {
    for (name, settings) in listeners {
        for (listener, server) in servers.iter().filter(|(listener, _)| listener == name) {
            // The master has had them checked; what can't be used here all the same changes nothing.
            if let Err((_, error)) = server.replace(settings) {
                tracing::error!(listener, error = chain(&error), "the certificates stay as they were");
            }
        }
    }
}

/// What handshakes are made with, by listener.
pub fn servers(listeners: &[Listener]) -> Vec<(&'static str, TlsServer)> {
    listeners.iter().filter_map(|listener| Some((listener.rules.name, listener.rules.tls.clone()?))).collect()
}
