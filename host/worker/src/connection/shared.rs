//! What the transport, the requests and the driver of one connection share: its state, its thread's statistics, and its
//! log.

use std::sync::Arc;
use std::time::Instant;

use app_host_platform::sys::stats::ThreadStats;

use super::state::ConnState;
use crate::access::{ConnectionLog, RequestEnd, RequestLog};

/// Shared by all that serve one connection.
pub(super) struct Shared {
    pub(super) state: ConnState,
    stats: &'static ThreadStats,
    log: Option<Arc<ConnectionLog>>,
}

impl Shared {
    pub(super) const fn new(state: ConnState, thread: &'static ThreadStats, log: Option<Arc<ConnectionLog>>) -> Self {
        Self { state, stats: thread, log }
    }

    /// Where the connection's requests are logged, if they are.
    pub(super) const fn log(&self) -> Option<&Arc<ConnectionLog>> {
        self.log.as_ref()
    }

    /// Counts the requests that the cut gives up.
    pub(super) fn count_cut(&self) {
        self.stats.cut(self.state.in_flight());
    }
}

/// Counts a connection as open until this is dropped. It isn't a part of [`Shared`], which a request's body may keep on a
/// thread of the app's, where the statistics must not be written.
pub(super) struct Opened(&'static ThreadStats);

impl Opened {
    pub(super) fn new(stats: &'static ThreadStats) -> Self {
        stats.opened();
        Self(stats)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// A request in flight, from its head until its response is complete or given up.
pub(super) struct InFlight {
    shared: Arc<Shared>,
    /// Its line in the access log, if there is one. Boxed, because it is long and mostly absent.
    log: Option<Box<RequestLog>>,
    /// When it began, if its duration is to be counted.
    since: Option<Instant>,
}

impl InFlight {
    /// Begins a request whose body has this length; `None` if its own bytes tell its end.
    pub(super) fn begin(shared: Arc<Shared>, log: Option<Box<RequestLog>>, body: Option<u64>) -> Self {
        shared.state.on_request(body);
        shared.stats.began();
        let since = shared.stats.clock();
        Self { shared, log, since }
    }

    /// Does not count the request's duration: it becomes a tunnel, which may last for ever.
    pub(super) fn stop_the_clock(&mut self) {
        self.since = None;
    }

    pub(super) fn state(&self) -> &ConnState {
        &self.shared.state
    }

    pub(super) fn stats(&self) -> &'static ThreadStats {
        self.shared.stats
    }

    pub(super) fn log(&mut self) -> Option<&mut RequestLog> {
        self.log.as_deref_mut()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.state.on_response_end();
        if let Some(since) = self.since {
            self.shared.stats.took(since.elapsed());
        }
        self.shared.stats.ended();
        if let Some(log) = &self.log {
            log.write(if self.shared.state.is_cut() { RequestEnd::Cut } else { RequestEnd::Normal });
        }
    }
}
