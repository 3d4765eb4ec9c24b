//! What the processes of `app-host` need of the system: descriptors, processes, files, logs and counters.
//!
//! Every process is built on it. It does what it is told and decides nothing; it knows neither HTTP nor an app, a
//! databank or a restart. `sys` holds its only `unsafe`.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    rustdoc::private_intra_doc_links,
    reason = "what is public here is so for the other crates of the host, not for strangers"
)]

pub mod artifact;
pub mod channel;
pub mod children;
pub mod console;
pub mod disk_thread;
pub mod held;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod output;
pub mod paths;
pub mod socket_file;
pub mod state_dir;
pub mod sys;
pub mod timer;
pub mod usage;
