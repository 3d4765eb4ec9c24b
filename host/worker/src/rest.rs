//! Rest: what connections do that are between two requests and come from another worker, or have been so for long.
//!
//! Most that a restart moves are idle, and many come to the next one without having asked for anything. So none of them
//! has a task, a timer or a place with the runtime before there is something to do for it: it is an entry of a
//! list and of one epoll instance (`epoll(7)`), takes a fortieth of the memory, and moves on for a fraction of the time.
//!
//! Owns which connections of a thread rest, and what wakes them: bytes or an end of the client's, or the end of their
//! patience. What is done for one that is awake is for `accept`, and where one goes that leaves for `handover`.

use std::io;
use std::time::{Duration, Instant};

use slab::Slab;

use super::detached::Detached;
use app_host_platform::sys::stats::Lane;
use app_host_platform::sys::watch::Watch;

/// How often it is looked for those whose patience is at its end.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The connections of one thread that rest.
pub(super) struct Dormitory {
    watch: Watch,
    beds: Slab<Bed>,
    pub(super) lane: &'static Lane,
}

struct Bed {
    sleeper: Detached,
    /// When it is to be looked at.
    due: Instant,
}

impl Dormitory {
    /// An empty one. Must be called inside a runtime.
    pub(super) fn new(lane: &'static Lane) -> io::Result<Self> {
        Ok(Self { watch: Watch::new()?, beds: Slab::new(), lane })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.beds.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.beds.len()
    }

    /// Lets a connection rest. Returns it if the kernel doesn't watch it.
    pub(super) fn take_in(&mut self, sleeper: Detached) -> Option<Detached> {
        let bed = self.beds.vacant_entry();
        if self.watch.add(&sleeper.socket, bed.key() as u64).is_err() {
            return Some(sleeper);
        }
        self.lane.opened();
        let due = Instant::now() + sleeper.history.next_tick;
        bed.insert(Bed { sleeper, due });
        None
    }

    /// Waits until some are awake, and lets them go. Cancel-safe.
    pub(super) async fn awake(&mut self) -> Vec<Detached> {
        let Ok(numbers) = self.watch.told().await else {
            // For ever: nobody wakes any more but for want of patience.
            return std::future::pending().await;
        };
        let now = Instant::now();
        let numbers = numbers.into_iter().filter_map(|number| usize::try_from(number).ok());
        numbers.filter_map(|number| self.let_go(number, now)).collect()
    }

    /// Lets those go that have waited for as long as they may.
    pub(super) fn out_of_patience(&mut self, now: Instant) -> Vec<Detached> {
        let mut over = Vec::new();
        for (number, bed) in self.beds.iter_mut().filter(|(_, bed)| bed.due <= now) {
            if bed.sleeper.history.waits_on() {
                bed.due = now + bed.sleeper.history.next_tick;
            } else {
                over.push(number);
            }
        }
        over.into_iter().filter_map(|number| self.let_go(number, now)).collect()
    }

    /// Lets so many go, or all if there are fewer.
    pub(super) fn any(&mut self, count: usize) -> Vec<Detached> {
        let now = Instant::now();
        let numbers: Vec<usize> = self.beds.iter().map(|(number, _)| number).take(count).collect();
        numbers.into_iter().filter_map(|number| self.let_go(number, now)).collect()
    }

    /// Lets all go. Nobody may be taken in afterwards: the kernel has not been told.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Detached> + use<> {
        let (lane, beds) = (self.lane, std::mem::take(&mut self.beds));
        let now = Instant::now();
        beds.into_iter().map(move |(_, bed)| bed.leaves(lane, now))
    }

    fn let_go(&mut self, number: usize, now: Instant) -> Option<Detached> {
        let bed = self.beds.try_remove(number)?;
        // What can't be taken out of the set leaves it when it is closed.
        let _ = self.watch.remove(&bed.sleeper.socket);
        Some(bed.leaves(self.lane, now))
    }
}

impl Bed {
    fn leaves(self, lane: &Lane, now: Instant) -> Detached {
        lane.closed();
        let Self { mut sleeper, due } = self;
        sleeper.history.next_tick = due.saturating_duration_since(now);
        sleeper
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::detached::tests::idle;
    use crate::http::HEAD_TIMEOUT;

    const LIMIT: Duration = Duration::from_secs(20);

    fn dormitory(count: usize) -> (Dormitory, Vec<UnixStream>, mpsc::Receiver<std::convert::Infallible>) {
        let lane = Box::leak(Box::default());
        let mut dormitory = Dormitory::new(lane).unwrap();
        let (held, holds) = mpsc::channel(1);
        let mut clients = Vec::new();
        for number in 0..count {
            let (client, ours) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            assert!(dormitory.take_in(idle(ours.into(), number as u64 + 1, held.clone())).is_none());
            clients.push(client);
        }
        (dormitory, clients, holds)
    }

    #[tokio::test]
    async fn those_wake_that_have_something_to_do_and_no_others() {
        let (mut dormitory, mut clients, _holds) = dormitory(200);
        assert_eq!(dormitory.lane.connections(), 200);
        assert!(timeout(Duration::from_millis(20), dormitory.awake()).await.is_err());
        // Request numbers begin with 1.
        clients[7].write_all(b"G").unwrap();
        let awake = timeout(LIMIT, dormitory.awake()).await.unwrap();
        assert_eq!(awake.iter().map(|it| it.history.requests).collect::<Vec<_>>(), [8]);
        assert!(timeout(Duration::from_millis(20), dormitory.awake()).await.is_err(), "once only");
        // It may come back.
        for it in awake {
            assert!(dormitory.take_in(it).is_none());
        }
        assert_eq!(timeout(LIMIT, dormitory.awake()).await.unwrap().len(), 1);
        drop(clients);
        let mut gone = 0;
        while gone < 199 {
            gone += timeout(LIMIT, dormitory.awake()).await.unwrap().len();
        }
        assert!(dormitory.is_empty());
        assert_eq!(dormitory.lane.connections(), 0);
    }

    #[tokio::test]
    async fn patience_is_that_of_the_connection_wherever_it_has_been() {
        let (mut dormitory, _clients, _holds) = dormitory(1);
        let begin = Instant::now();
        assert_eq!(dormitory.out_of_patience(begin).len(), 0);
        let mut now = begin;
        let over = loop {
            now += LOOK;
            if let Some(over) = dormitory.out_of_patience(now).pop() {
                break over;
            }
        };
        let lived = now - begin;
        assert!(lived >= HEAD_TIMEOUT * 3 && lived <= HEAD_TIMEOUT * 4 + 5 * LOOK, "{lived:?}");
        assert_eq!(over.history.next_tick, Duration::ZERO, "whoever goes on closes it at once");
    }

    #[tokio::test]
    async fn any_of_them_may_leave_and_all() {
        let (mut dormitory, _clients, _holds) = dormitory(10);
        assert_eq!(dormitory.any(3).len(), 3);
        let first = dormitory.any(1).pop().unwrap();
        let left = first.history.next_tick;
        assert!(left < HEAD_TIMEOUT && left > HEAD_TIMEOUT / 2, "the time here counts: {left:?}");
        assert_eq!(dormitory.close().count(), 6);
        assert!(dormitory.any(1).is_empty() && dormitory.is_empty());
        assert_eq!(dormitory.lane.connections(), 0);
    }
}
