//! The counters of the stats pages that become metrics: one line each.

use app_host_core::not_resumed::LongLived;
use app_host_core::restart::{FailureReason, RefusalReason};

use crate::sys::stats::{Latency, NOT_MOVED, NOT_RESUMED, REFUSALS, STATUS_CLASSES, StatsSnapshot, ThreadSnapshot};

/// A counter that serving threads keep.
pub struct Counter {
    /// Without the prefix `app_host_` and the suffix `_total`, which every counter has.
    pub name: &'static str,
    pub help: &'static str,
    of: fn(&ThreadSnapshot) -> u64,
}

/// To add a counter, add its field to `ThreadStats` and to `ThreadSnapshot`, and a line here.
pub const COUNTERS: [Counter; 12] = [
    counter("connections_accepted", "Connections accepted by workers", |thread| thread.accepted),
    counter("connections_handed_over", "Connections that another worker has taken over", |thread| thread.handed_over),
    counter("connections_received", "Connections taken over from another worker", |thread| thread.taken_over),
    counter("connections_closed_by_drain", "Connections closed because their worker drained", |thread| {
        thread.dismissed
    }),
    counter("requests", "Requests handed to the app", |thread| thread.requests),
    counter(CUT, "Requests given up at the end of a drain, or with their worker", |thread| thread.cut),
    counter("websockets_resumed", "WebSockets that have gone on in another worker", |thread| {
        thread.resumed(LongLived::WebSocket)
    }),
    counter("event_streams_resumed", "Event streams that have gone on in another worker", |thread| {
        thread.resumed(LongLived::EventStream)
    }),
    counter("http2_connections_moved", "HTTP/2 connections that have gone on in another worker", |thread| {
        thread.moved_http2
    }),
    counter("tls_handshakes", "TLS handshakes done in full", |thread| thread.handshakes),
    counter("tls_handshakes_resumed", "TLS handshakes that a session ticket has shortened", |thread| {
        thread.resumed_handshakes
    }),
    counter("tls_handshakes_failed", "TLS handshakes that failed or took too long", |thread| thread.failed_handshakes),
];

const CUT: &str = "requests_cut";

const fn counter(name: &'static str, help: &'static str, of: fn(&ThreadSnapshot) -> u64) -> Counter {
    Counter { name, help, of }
}

/// Every verdict and reason that a restart can get.
pub fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    let failed = FailureReason::ALL.iter().map(|reason| ("failed", reason.as_str()));
    let refused = RefusalReason::ALL.iter().map(|reason| ("refused", reason.as_str()));
    std::iter::once(("complete", "")).chain(failed).chain(refused)
}

/// What some workers have counted together.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    pub counters: [u64; COUNTERS.len()],
    pub responses: [u64; STATUS_CLASSES],
    pub refused: [u64; REFUSALS],
    pub not_resumed: [[u64; NOT_RESUMED]; LongLived::COUNT],
    pub not_moved: [u64; NOT_MOVED],
    pub latency: Latency,
}

impl Sums {
    /// Adds what one worker has counted. A page that an app has scribbled on must not end the master, so
    /// nothing overflows.
    pub fn add(&mut self, stats: &StatsSnapshot) {
        for thread in &stats.threads {
            for (sum, counter) in self.counters.iter_mut().zip(&COUNTERS) {
                add(sum, (counter.of)(thread));
            }
            self.responses.iter_mut().zip(thread.responses).for_each(|(sum, more)| add(sum, more));
            self.refused.iter_mut().zip(thread.refused).for_each(|(sum, more)| add(sum, more));
            let not_resumed = self.not_resumed.iter_mut().flatten().zip(thread.not_resumed.into_iter().flatten());
            not_resumed.for_each(|(sum, more)| add(sum, more));
            self.not_moved.iter_mut().zip(thread.not_moved).for_each(|(sum, more)| add(sum, more));
            self.latency.classes.iter_mut().zip(thread.latency.classes).for_each(|(sum, more)| add(sum, more));
            add(&mut self.latency.nanos, thread.latency.nanos);
        }
    }

    /// Counts what a worker had in flight at its end as cut.
    pub fn cut_in_flight(&mut self, stats: &StatsSnapshot) {
        let place = COUNTERS.iter().position(|counter| counter.name == CUT).expect("it is in the table");
        stats.threads.iter().for_each(|thread| add(&mut self.counters[place], thread.in_flight));
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.wrapping_add(more);
}
