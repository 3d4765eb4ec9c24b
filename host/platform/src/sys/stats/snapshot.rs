//! What a stats page says at one moment.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use app_host_core::foreign;
use app_host_core::not_resumed::LongLived;

use super::{LATENCIES, NOT_MOVED, NOT_RESUMED, REFUSALS, STATUS_CLASSES, monotonic_ms};

/// What the page said of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadSnapshot {
    /// When the thread was last alive, by `CLOCK_MONOTONIC`; `None` before its first beat.
    pub heartbeat: Option<Duration>,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections open.
    pub connections: u64,
    /// Requests handed to the app so far.
    pub requests: u64,
    /// Requests whose response is not complete yet.
    pub in_flight: u64,
    /// Requests given up at the end of a drain.
    pub cut: u64,
    /// Responses by the first digit of their status codes, from 1 on.
    pub responses: [u64; STATUS_CLASSES],
    pub latency: Latency,
    /// Connections that another worker has taken over.
    pub handed_over: u64,
    /// Connections taken over from another worker.
    pub taken_over: u64,
    /// Connections ended because the worker drained.
    pub dismissed: u64,
    /// TLS handshakes done in full.
    pub handshakes: u64,
    /// TLS handshakes that a ticket has shortened.
    pub resumed_handshakes: u64,
    /// TLS handshakes that failed, or took too long.
    pub failed_handshakes: u64,
    /// Clients refused below the app, in the order of `Refused::ALL`.
    pub refused: [u64; REFUSALS],
    /// What goes on here, from another worker, by kind.
    pub went_on: [u64; LongLived::COUNT],
    /// What could have gone on in another worker and did not: by kind, in the order of `NotResumed::ALL`.
    pub not_resumed: [[u64; NOT_RESUMED]; LongLived::COUNT],
    /// HTTP/2 connections that go on here, from another worker.
    pub moved_http2: u64,
    /// HTTP/2 connections that were to go on in another worker and did not, in the order of `NotMoved::ALL`.
    pub not_moved: [u64; NOT_MOVED],
    /// The request that the app holds the thread with, on one line; `None` while it doesn't.
    pub route: Option<String>,
}

impl ThreadSnapshot {
    /// How many of a kind go on here, from another worker.
    pub const fn resumed(&self, what: LongLived) -> u64 {
        self.went_on[what as usize]
    }

    /// How many of a kind could have gone on in another worker and did not.
    pub fn ended(&self, what: LongLived) -> u64 {
        self.not_resumed[what as usize].iter().copied().fold(0, u64::saturating_add)
    }

    /// How many HTTP/2 connections were to go on in another worker and did not.
    pub fn http2_not_moved(&self) -> u64 {
        self.not_moved.iter().copied().fold(0, u64::saturating_add)
    }
}

/// How long requests took, from their heads until their responses were complete or given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many there were of each class.
    pub classes: [u64; LATENCIES],
    /// The sum of them all, in nanoseconds.
    pub nanos: u64,
}

/// What a page said: one entry a serving thread that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    pub threads: Vec<ThreadSnapshot>,
}

impl StatsSnapshot {
    /// A figure of all threads together. It stops at the largest number, because a page that an app has scribbled on
    /// must not end whoever adds.
    pub fn sum(&self, of: impl Fn(&ThreadSnapshot) -> u64) -> u64 {
        self.threads.iter().map(of).fold(0, u64::saturating_add)
    }

    /// What the app holds the threads with.
    pub fn routes(&self) -> String {
        listed(self.threads.iter())
    }

    /// What the app holds those threads with that have given no sign of life for so long.
    pub fn routes_silent_for(&self, silence: Duration) -> String {
        let since = Duration::from_millis(monotonic_ms()).saturating_sub(silence);
        let silent = self.threads.iter().filter(|thread| thread.heartbeat.is_some_and(|beat| beat <= since));
        listed(silent)
    }
}

fn listed<'a>(threads: impl Iterator<Item = &'a ThreadSnapshot>) -> String {
    let routes: Vec<_> = threads.filter_map(|thread| thread.route.as_deref()).collect();
    foreign::line(&routes.join(", "), foreign::MAX_TEXT)
}
