//! Messages and locks between workers, the part that is the same on both sides: the form of a packet ([`wire`]), the
//! queue on the way out ([`Backlog`]), who holds which lock ([`queues`]), and the bounds of all three.
//!
//! A worker's side of it is `app_host_services::dispatch`, the master's `app_host_master::dispatch`.

mod backlog;
pub mod queues;
pub mod wire;

pub use backlog::Backlog;

/// How many packets wait in one queue at most, and how many bytes of them.
pub const MAX_WAITING: usize = 1024;
pub const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Room in a socket. The kernel grants less where `net.core.wmem_max` says so; one packet always fits.
pub const SOCKET_BYTES: usize = 1024 * 1024;
