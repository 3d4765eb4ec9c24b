//! TLS for connections that move between processes.
//!
//! Two layers, both without I/O: bytes of the client go in, bytes for the client come out.
//!
//! ```text
//! bytes ──▶ Handshake (rustls) ── done ──▶ Records (ours) ──▶ plaintext
//!                                            ▲    │
//!                                            └────┴── State: travels to another process
//! ```
//! No TLS library for Rust can give up a connection in the middle, nor take one over. What is needed for that is small: behind
//! the handshake a connection is two keys, two sequence numbers, and in TLS 1.3 the two secrets that the next keys are made
//! of. So rustls does the handshake, where nearly all of TLS is, and right behind it, for every connection, [`Records`] takes
//! the keys. There is one path for connections that move and those that don't, so every request tests it.
//!
//! Owns the record protocol behind the handshake (RFC 8446, sections 5 and 4.6.3; RFC 5246, section 6), session tickets,
//! and what makes a certificate usable. Knows nothing of sockets, files, workers or HTTP.
//!
//! # Secrets
//! No type that holds a key prints it, and each overwrites it when it is dropped. The exception is inside `ring`, whose keys
//! can't be overwritten.

#![forbid(unsafe_code)]
#![allow(
    clippy::must_use_candidate,
    reason = "what is public here is so for the other crates of the host, not for strangers"
)]

mod alert;
mod certificate;
mod handshake;
mod keys;
mod records;
mod server;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tickets;

pub use alert::{Alert, TlsError};
pub use certificate::{CertificateError, check};
pub use handshake::{Facts, Handshake, Progress};
pub use keys::{STATE_SECRET, Suite, Version};
pub use records::{HEADER, MAX_PLAINTEXT, OVERHEAD, Opened, Records, State};
pub use server::TlsServer;
pub use tickets::Tickets;
