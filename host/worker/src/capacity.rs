//! How many connections a worker accepts, so that there is room for those that it has to take over.
//!
//! Who waits in the queue of a listener waits, who is connected already would lose the connection. So a worker that replaces
//! another leaves as much room as that one still has connections, which it reads on its stats page; and some descriptors
//! are left to the app and for links to other workers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use app_host_platform::sys::stats::{StatsPage, ThreadStats};

use crate::connection::Limits;

/// How many descriptors are left to the app and the worker itself: up to so many and those that a thread has, and half of
/// those that there may be.
const OTHERS: u64 = 128;

/// How many a serving thread has besides its listeners: those of its runtime, and of its idle connections' pool.
const OF_A_THREAD: u64 = 6;

/// What the serving threads of a worker may accept.
#[derive(Debug)]
pub(super) struct Capacity {
    /// The most connections of all threads.
    most: u64,
    threads: u64,
    /// How many descriptors a worker may have: no predecessor has more connections.
    descriptors: u64,
    predecessor: Option<Predecessor>,
}

/// The worker that is replaced.
#[derive(Debug)]
pub(super) struct Predecessor {
    stats: StatsPage,
    since: Instant,
    /// It has gone by then, whatever its page says: one that was killed wrote nothing more.
    gone_after: Duration,
}

impl Predecessor {
    pub(super) fn new(stats: StatsPage, gone_after: Duration) -> Self {
        Self { stats, since: Instant::now(), gone_after }
    }

    fn connections(&self) -> u64 {
        if self.since.elapsed() < self.gone_after { self.stats.held() } else { 0 }
    }
}

impl Capacity {
    /// That of a worker with these limits and so many listeners, which may have so many descriptors.
    pub(super) fn new(limits: &Limits, listeners: usize, descriptors: u64, predecessor: Option<Predecessor>) -> Self {
        let others = OTHERS + limits.threads * (OF_A_THREAD + listeners as u64);
        let room = descriptors - others.min(descriptors / 2);
        let most = limits.connections.max_per_worker.map_or(room, |most| most.min(room));
        Self { most, threads: limits.threads, descriptors, predecessor }
    }
}

/// What one thread may accept.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) capacity: Arc<Capacity>,
    /// The number of the thread.
    pub(super) thread: usize,
    pub(super) stats: &'static ThreadStats,
    /// How many connections of other workers are about to be counted there.
    pub(super) coming: Arc<AtomicU64>,
}

impl Room {
    /// How many connections the thread may have: those of all threads are what the worker may have.
    fn most(&self) -> u64 {
        let Capacity { most, threads, .. } = &*self.capacity;
        most / threads + u64::from((self.thread as u64) < most % threads)
    }

    /// Whether the worker may have fewer connections than it has threads, and this one none.
    pub(super) fn is_none(&self) -> bool {
        self.most() == 0
    }

    /// How many connections the thread has, if it accepts no more, because of those or of the ones that it may have to take
    /// over.
    pub(super) fn is_full(&self) -> Option<u64> {
        let Capacity { threads, predecessor, .. } = &*self.capacity;
        // The page is the other worker's to write, whatever has become of that one: what can't be is no reason to wait.
        let expected = predecessor.as_ref().map_or(0, Predecessor::connections);
        let expected = if expected > self.capacity.descriptors { 0 } else { expected };
        // Divided from the other end than `most`, so that what is left over of both doesn't meet on one thread.
        let expected = expected / threads + u64::from(threads - 1 - self.thread as u64 % threads < expected % threads);
        let own = self.stats.connections() + self.coming.load(Relaxed);
        (own.saturating_add(expected) >= self.most()).then_some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(connections: u64) -> (StatsPage, &'static ThreadStats) {
        let (page, file) = StatsPage::create().unwrap();
        let thread = &StatsPage::open(&file).unwrap().into_threads()[0];
        (0..connections).for_each(|_| thread.opened());
        (page, thread)
    }

    #[test]
    fn a_worker_leaves_room_for_the_connections_of_the_one_that_it_replaces_while_that_has_them() {
        let limits = Limits { threads: 2, ..Limits::TEST };
        let hour = Duration::from_hours(1);
        // 64 connections, 32 of them a thread's.
        let room = |stats, predecessor| Room {
            capacity: Arc::new(Capacity::new(&limits, 1, 128, predecessor)),
            thread: 0,
            stats,
            coming: Arc::default(),
        };
        let (_, thread) = page(31);
        assert_eq!(room(thread, None).is_full(), None);
        let (old, old_thread) = page(2);
        let replaces = room(thread, Some(Predecessor::new(old, hour)));
        assert_eq!(replaces.is_full(), Some(31));
        // Handed over or ended.
        (0..2).for_each(|_| old_thread.closed());
        assert_eq!(replaces.is_full(), None);
        replaces.coming.store(1, Relaxed);
        assert_eq!(replaces.is_full(), Some(32));
        let (_, empty) = page(0);
        let killed = |gone_after| room(empty, Some(Predecessor::new(page(64).0, gone_after)));
        assert_eq!((killed(hour).is_full(), killed(Duration::ZERO).is_full()), (Some(0), None));
        let lies = room(empty, Some(Predecessor::new(page(129).0, hour)));
        assert_eq!(lies.is_full(), None, "more than a worker can have");
    }

    #[test]
    fn what_is_configured_counts_where_descriptors_allow_it() {
        let configured = |max_per_worker, descriptors| {
            let mut limits = Limits { threads: 4, ..Limits::TEST };
            limits.connections.max_per_worker = max_per_worker;
            Capacity::new(&limits, 3, descriptors, None).most
        };
        // A thread has 9.
        assert_eq!(configured(None, 1024), 1024 - 128 - 36);
        assert_eq!(configured(None, 64), 32);
        assert_eq!(configured(Some(100), 1 << 20), 100);
        assert_eq!(configured(Some(100_000), 1024), 1024 - 128 - 36);
        assert_eq!(configured(Some(1), u64::MAX), 1);
        let (limits, hour) = (Limits { threads: 4, ..Limits::TEST }, Duration::from_hours(1));
        let capacity = Arc::new(Capacity { most: 7, ..Capacity::new(&limits, 3, 1024, None) });
        let (_, stats) = page(0);
        let room = |thread| Room { capacity: Arc::clone(&capacity), thread, stats, coming: Arc::default() };
        assert_eq!((0..4).map(|thread| room(thread).most()).collect::<Vec<_>>(), [2, 2, 2, 1], "none is lost");
        // One connection to come takes one place, and not one of each thread.
        let capacity = Capacity { most: 4, ..Capacity::new(&limits, 3, 1024, Some(Predecessor::new(page(1).0, hour))) };
        let capacity = Arc::new(capacity);
        let room = |thread| Room { capacity: Arc::clone(&capacity), thread, stats, coming: Arc::default() };
        assert_eq!((0..4).filter(|thread| room(*thread).is_full().is_none()).count(), 3);
    }
}
