//! The idle connections of a serving thread that have no task: parked between two requests, because they come from
//! another worker or have been idle for long.
//!
//! Most connections that a restart moves are idle, and many move on with the next one without having asked for anything.
//! So none of them has a task, a timer or a registration with the runtime before there is something to do for it: it is
//! an entry of a list and of one epoll instance (`epoll(7)`), takes a fortieth of the memory, and moves on for a fraction
//! of the time.
//!
//! Owns which connections of a thread are parked, and what wakes them: bytes or an end of the client's, or their time-out.
//! What is done for one that wakes is for `accept`, and where one goes that leaves for `transfer`.

use std::io;
use std::time::{Duration, Instant};

use slab::Slab;

use app_host_platform::sys::stats::ThreadStats;
use app_host_platform::sys::watch::Watch;

use crate::connection::Limits;
use crate::detached::Detached;

/// How often the pool is searched for connections whose time-out is over.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The parked connections of one thread.
pub(super) struct IdlePool {
    watch: Watch,
    entries: Slab<Entry>,
    pub(super) stats: &'static ThreadStats,
    limits: &'static Limits,
}

struct Entry {
    connection: Detached,
    /// When its time-outs are to be looked at.
    due: Instant,
}

impl IdlePool {
    /// An empty pool. Must be called inside a runtime.
    pub(super) fn new(stats: &'static ThreadStats, limits: &'static Limits) -> io::Result<Self> {
        Ok(Self { watch: Watch::new()?, entries: Slab::new(), stats, limits })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Parks a connection. Returns it if the kernel doesn't watch it.
    pub(super) fn park(&mut self, mut connection: Detached) -> Option<Detached> {
        let vacant = self.entries.vacant_entry();
        if self.watch.add(&connection.socket, vacant.key() as u64).is_err() {
            return Some(connection);
        }
        self.stats.opened();
        let now = Instant::now();
        connection.history.park(self.limits.look().min(self.limits.left(connection.opened, now)));
        let due = now + connection.history.next_look;
        vacant.insert(Entry { connection, due });
        None
    }

    /// Waits until the client of some connections has sent something or gone, and removes them. Cancel-safe.
    pub(super) async fn ready(&mut self) -> Vec<Detached> {
        let Ok(numbers) = self.watch.told().await else {
            // For ever: connections leave only when they expire.
            return std::future::pending().await;
        };
        let now = Instant::now();
        let numbers = numbers.into_iter().filter_map(|number| usize::try_from(number).ok());
        numbers.filter_map(|number| self.remove(number, now)).collect()
    }

    /// Removes the connections that have waited for as long as they may.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Detached> {
        let mut expired = Vec::new();
        let limits = self.limits;
        for (number, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.due <= now) {
            let left = limits.left(entry.connection.opened, now);
            let history = &mut entry.connection.history;
            if !left.is_zero() && history.waits_on(limits.look().min(left), limits.http.idle_timeout) {
                entry.due = now + history.next_look;
            } else {
                expired.push(number);
            }
        }
        expired.into_iter().filter_map(|number| self.remove(number, now)).collect()
    }

    /// Removes up to `count` connections, whichever.
    pub(super) fn take(&mut self, count: usize) -> Vec<Detached> {
        let now = Instant::now();
        let numbers: Vec<usize> = self.entries.iter().map(|(number, _)| number).take(count).collect();
        numbers.into_iter().filter_map(|number| self.remove(number, now)).collect()
    }

    /// Removes all connections. None may be parked afterwards: the kernel has not been told.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Detached> + use<> {
        let (stats, entries) = (self.stats, std::mem::take(&mut self.entries));
        let now = Instant::now();
        entries.into_iter().map(move |(_, entry)| entry.detach(stats, now))
    }

    fn remove(&mut self, number: usize, now: Instant) -> Option<Detached> {
        let entry = self.entries.try_remove(number)?;
        // If this fails, the kernel forgets the socket when it is closed.
        let _ = self.watch.remove(&entry.connection.socket);
        Some(entry.detach(self.stats, now))
    }
}

impl Entry {
    fn detach(self, stats: &ThreadStats, now: Instant) -> Detached {
        stats.closed();
        let Self { mut connection, due } = self;
        connection.history.unpark(due.saturating_duration_since(now));
        connection
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::connection::HEAD_TIMEOUT;
    use crate::detached::tests::idle;

    const LIMIT: Duration = Duration::from_secs(20);

    fn pool(count: usize) -> (IdlePool, Vec<UnixStream>, mpsc::Receiver<std::convert::Infallible>) {
        let stats = Box::leak(Box::default());
        let mut pool = IdlePool::new(stats, &Limits::TEST).unwrap();
        let (held, holds) = mpsc::channel(1);
        let mut clients = Vec::new();
        for number in 0..count {
            let (client, ours) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            assert!(pool.park(idle(ours.into(), number as u64 + 1, held.clone())).is_none());
            clients.push(client);
        }
        (pool, clients, holds)
    }

    #[tokio::test]
    async fn connections_wake_that_have_something_to_do_and_no_others() {
        let (mut pool, mut clients, _holds) = pool(200);
        assert_eq!(pool.stats.connections(), 200);
        assert!(timeout(Duration::from_millis(20), pool.ready()).await.is_err());
        // Request numbers begin with 1.
        clients[7].write_all(b"G").unwrap();
        let ready = timeout(LIMIT, pool.ready()).await.unwrap();
        assert_eq!(ready.iter().map(|it| it.history.requests).collect::<Vec<_>>(), [8]);
        assert!(timeout(Duration::from_millis(20), pool.ready()).await.is_err(), "once only");
        // It may come back.
        for it in ready {
            assert!(pool.park(it).is_none());
        }
        assert_eq!(timeout(LIMIT, pool.ready()).await.unwrap().len(), 1);
        drop(clients);
        let mut gone = 0;
        while gone < 199 {
            gone += timeout(LIMIT, pool.ready()).await.unwrap().len();
        }
        assert!(pool.is_empty());
        assert_eq!(pool.stats.connections(), 0);
    }

    #[tokio::test]
    async fn the_time_out_is_that_of_the_connection_in_whichever_worker() {
        let (mut pool, _clients, _holds) = pool(1);
        let begin = Instant::now();
        assert_eq!(pool.take_expired(begin).len(), 0);
        let mut now = begin;
        let expired = loop {
            now += CHECK_INTERVAL;
            if let Some(expired) = pool.take_expired(now).pop() {
                break expired;
            }
        };
        let lived = now - begin;
        assert!(lived >= HEAD_TIMEOUT * 3 && lived <= HEAD_TIMEOUT * 4 + 5 * CHECK_INTERVAL, "{lived:?}");
        assert_eq!(expired.history.next_look, Duration::ZERO, "the task that serves it closes it at once");
    }

    #[tokio::test]
    async fn some_or_all_may_leave() {
        let (mut pool, _clients, _holds) = pool(10);
        assert_eq!(pool.take(3).len(), 3);
        let first = pool.take(1).pop().unwrap();
        let left = first.history.next_look;
        assert!(left < HEAD_TIMEOUT && left > HEAD_TIMEOUT / 2, "the time here counts: {left:?}");
        assert_eq!(pool.close().count(), 6);
        assert!(pool.take(1).is_empty() && pool.is_empty());
        assert_eq!(pool.stats.connections(), 0);
    }
}
