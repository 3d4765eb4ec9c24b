//! The limits of connections, as the configuration has them.

use std::time::{Duration, Instant};

use app_host_core::config::{ClientLimits, ConnectionLimits, Http, Http2Restart};

/// How often a connection is looked at, if no time-out is shorter.
const LOOK: Duration = Duration::from_secs(30);

/// What a connection is bounded by. The same for all connections of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub http: Http,
    pub connections: ConnectionLimits,
    /// After what time a client that owes something, and moves nothing, is cut off while its worker drains.
    pub stall: Duration,
    /// What becomes of HTTP/2 connections while the worker drains.
    pub http2: Http2Restart,
    /// They can't move, whatever `http2` says: HTTP/2 has been tried, and does not go on as it must.
    pub stays: bool,
    /// How many serving threads share what is bounded for the worker as a whole.
    pub threads: u64,
}

impl Limits {
    /// Those of a worker with so many serving threads.
    pub const fn new(limits: ClientLimits, threads: usize) -> Self {
        let ClientLimits { http, connections, stall_timeout: stall, http2 } = limits;
        Self { http, connections, stall, http2, stays: false, threads: if threads == 0 { 1 } else { threads as u64 } }
    }

    /// How many requests may be in flight in one serving thread. Each counts its own, so that none looks at the others'
    /// figures for each request; and each may have one, because others can't take what has come to it.
    pub fn in_flight(&self) -> Option<u64> {
        self.http.max_in_flight.map(|most| (most / self.threads).max(1))
    }

    /// For how long a connection that was accepted at `opened` may still be open.
    pub fn left(&self, opened: Instant, now: Instant) -> Duration {
        let lifetime = self.connections.max_lifetime.unwrap_or(Duration::MAX);
        lifetime.saturating_sub(now.saturating_duration_since(opened))
    }

    /// How often a connection that serves is looked at.
    pub fn look(&self) -> Duration {
        LOOK.min(self.http.head_timeout).min(self.http.idle_timeout)
    }
}

#[cfg(test)]
impl Limits {
    /// Those that tests have unless they want others.
    pub const TEST: Self = Self {
        http: Http::DEFAULT,
        connections: ConnectionLimits::DEFAULT,
        stall: Duration::from_secs(5),
        http2: Http2Restart::Goaway,
        stays: false,
        threads: 1,
    };
}
