//! What the process tests share: everything that is needed to drive the real `app-host` as a user
//! does, and to look at it from outside.
//!
//! Owns the builds the tests need ([`build`]), the fixture around one master ([`host`]), its
//! restarts ([`restart`]), readers of its log ([`log`]) and of `/proc` ([`process`]), programs that a test puts somewhere ([`program`]), a client of its control
//! socket ([`control`]) and of its metrics ([`admin`]), a raw HTTP/1.1 client ([`client`]) and the load
//! generator ([`load`]), clients that keep their connection ([`steady`]), a client of the databank through its bridge app ([`databank`]), requests that servers disagree on ([`differential`]), writers that
//! keep account of what they were told ([`writers`]), servers of MongoDB ([`mongo`]), and the loop of a
//! developer ([`dev`]), errors in system calls ([`inject`]), secrets and where they are looked for ([`secrets`]), and whose turn it is to use the machine ([`machine`]). It knows nothing of how the host works inside: it sees files, signals,
//! sockets and log lines.
//!
//! What can't go on panics, and says what was expected: a panic is a failed test.
#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a panic is how a test fails, and who drives a process often doesn't need its answer"
)]

pub mod admin;
pub mod browser;
pub mod build;
pub mod client;
pub mod control;
pub mod databank;
pub mod dev;
pub mod differential;
pub mod host;
pub mod inject;
pub mod load;
pub mod log;
pub mod machine;
pub mod mongo;
pub mod process;
pub mod program;
pub mod restart;
pub mod said;
pub mod secrets;
pub mod steady;
pub mod tls;
pub mod writers;

pub use admin::Metrics;
pub use build::App;
pub use client::{Address, Connection};
pub use control::Control;
pub use host::Host;
pub use log::Line;
pub use restart::Verdict;
