//! The control socket: what goes over the wire, byte for byte, and that no client delays the master.

mod clients;
mod commands;
mod socket;
mod told;
