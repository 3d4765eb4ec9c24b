//! The third ring: the shipped unit and socket unit, exactly as they lie in `host/systemd`, under a real systemd.
//!
//! Each test boots a machine of its own ([`machine`]) in namespaces. Needs root and systemd; `.ci/systemd` runs it, by hand.

mod boot;
mod death;
mod journal;
mod machine;
mod plan;
mod reload;
mod ring;
mod rotation;
mod socket;
mod start;
mod stop;
