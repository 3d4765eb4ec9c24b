//! What a master says of itself: the line of JSON that `STATUS` is answered with.
//!
//! Who reads it later may be another version of this program: fields are added, none is renamed, and
//! none that a reader needs is left out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::databank;
use crate::ids::{Generation, RequestId, Slot};

/// A master and its workers at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of the master's program.
    pub app_host: String,
    pub pid: u32,
    pub uptime_ms: u64,
    /// `starting`, `serving`, `preflight`, `rolling`, `returning`, `locked`, `stopping`.
    pub phase: String,
    pub app: String,
    pub app_version: String,
    /// Of the library that the master started with.
    pub magic: String,
    /// The active generation, and the version that it serves.
    pub generation: Generation,
    pub version: String,
    /// How many workers are configured.
    pub workers_configured: u16,
    /// How many are wanted: as many, or what SIGTTIN, SIGTTOU or `ctl workers` have made of it.
    #[serde(default)]
    pub workers_wanted: Option<u16>,
    pub log_level: String,
    /// Which databank the app has; an older master doesn't say.
    #[serde(default)]
    pub databank: Option<databank::Place>,
    /// Whether the operator wants no more clients to be sent here: `ctl drain on`.
    #[serde(default)]
    pub out_of_rotation: bool,
    /// The names of the listeners that somebody has shut down: their clients are refused.
    #[serde(default)]
    pub listeners_down: Vec<String>,
    /// Those of the active generation's listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// Oldest first.
    pub workers: Vec<WorkerStatus>,
    /// The last verdicts, the newest last.
    pub verdicts: Vec<VerdictRecord>,
}

/// A certificate that clients are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub listener: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// Until when it is valid, RFC 3339, and in seconds since 1970.
    pub not_after: String,
    pub not_after_seconds: i64,
    /// Whether that is within two weeks.
    pub ends_soon: bool,
}

/// One worker, from its spawn until its exit has been seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub slot: Slot,
    pub generation: Generation,
    pub version: String,
    pub pid: i32,
    /// `starting`, `ready`, `retiring`, `leaving`, `draining`, `aborting`, `killed`.
    pub state: String,
    pub uptime_ms: u64,
    pub connections: u64,
    pub in_flight: u64,
    pub requests: u64,
    /// Connections that other workers have taken over from it, that it has taken over, and that its drain has
    /// ended.
    #[serde(default)]
    pub handed_over: u64,
    #[serde(default)]
    pub received: u64,
    #[serde(default)]
    pub closed: u64,
    /// Requests given up at the end of its drain.
    #[serde(default)]
    pub cut: u64,
    /// WebSockets that go on in it, from another worker, and those that could have gone on in another and did not.
    #[serde(default)]
    pub websockets_resumed: u64,
    #[serde(default)]
    pub websockets_ended: u64,
    /// The same of event streams.
    #[serde(default)]
    pub event_streams_resumed: u64,
    #[serde(default)]
    pub event_streams_ended: u64,
    /// HTTP/2 connections that go on in it, from another worker, and those that were to go on in another and did not.
    #[serde(default)]
    pub http2_moved: u64,
    #[serde(default)]
    pub http2_not_moved: u64,
    #[serde(flatten)]
    pub measured: Measured,
}

/// What the kernel says of a process. Absent where it says nothing, of one that has just died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// CPU time used so far, user and system.
    pub cpu_ms: Option<u64>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
}

/// What became of one request for a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerdictRecord {
    pub request: RequestId,
    /// Who asked: `SIGUSR2`, `SIGHUP`, `control socket`, `watcher`, `rollback`, `healing`.
    pub by: String,
    /// `complete`, `refused: REASON` or `failed: REASON`.
    pub verdict: String,
    /// Whether it is complete and nothing but the workers is new: library, configuration and secrets are what they were.
    #[serde(default)]
    pub unchanged: bool,
    /// How many workers of former generations still drained, where another restart couldn't wait for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub draining: usize,
    /// The names of listeners that turned clients away when it was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners_down: Vec<String>,
    /// The stable reason string; absent when complete.
    pub reason: Option<String>,
    /// The reason and what more there is to say about it.
    pub detail: Option<String>,
    /// The generation that is active now.
    pub generation: Generation,
    pub took_ms: u64,
    /// When it was given, RFC 3339.
    pub time: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl VerdictRecord {
    /// The request's number and what became of it, as a line.
    pub fn in_short(&self) -> String {
        format!("{} {}", self.request, self.verdict)
    }

    pub const fn is_complete(&self) -> bool {
        self.reason.is_none()
    }
}

impl Status {
    /// How many workers take requests.
    pub fn serving(&self) -> usize {
        self.workers.iter().filter(|worker| matches!(worker.state.as_str(), "ready" | "retiring")).count()
    }

    /// As `STATUS` is answered.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can always be written")
    }
}

/// A duration as the status gives it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
