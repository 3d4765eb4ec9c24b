//! The pure heart of `app-host`: decides, and touches nothing.
//!
//! Owns the restart machine, the configuration's rules, and the words that processes use among themselves and with
//! operators. Knows no runtime, no files, no clock and no system: what happens comes in as a value, what shall be done
//! goes out as one. `cargo test -p app-host-core` is the first ring of tests, and takes seconds.

#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    rustdoc::private_intra_doc_links,
    reason = "what is public here is so for the other crates of the host, not for strangers"
)]

pub mod command;
pub mod config;
pub mod dispatch;
pub mod error;
pub mod foreign;
pub mod hosts;
pub mod ids;
pub mod message;
pub mod not_moved;
pub mod not_resumed;
pub mod proxied;
pub mod refused;
pub mod renewal;
pub mod restart;
pub mod secret;
pub mod status;
pub mod tls;
mod words;
