//! Loads apps and serves them: the databank, messages and locks between workers, and the log.
//!
//! The only `dlopen` is here. Two short-lived processes belong to it: the probe, which loads a library before any worker
//! does, and the check of a databank. It accepts no connection and speaks no HTTP; the master doesn't depend on it.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    rustdoc::private_intra_doc_links,
    reason = "what is public here is so for the other crates of the host, not for strangers"
)]

pub mod databank;
pub mod databank_check;
pub mod dispatch;
pub mod loader;
pub mod probe;
