//! Bounds how many clients of the admin endpoint are connected: a new one always finds room.
//!
//! Owns which connection makes room for a new one: of those that wait for the head of a request, the one that has
//! waited for the longest. Nobody is told by a status code that there are too many, because the one that says so is
//! the one that means "sick" to whoever asks for `/healthz`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// All who are connected.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    most: usize,
    members: RefCell<BTreeMap<u64, Member>>,
    last: Cell<u64>,
    /// Somebody has gone, or waits for a head again.
    freed: Notify,
}

#[derive(Debug)]
struct Member {
    /// Since when no complete head has come; `None` while one is answered.
    waits: Rc<Cell<Option<Instant>>>,
    task: Option<AbortHandle>,
}

/// A connection within the limit, for as long as it lasts.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    number: u64,
    waits: Rc<Cell<Option<Instant>>>,
    limit: Rc<ConnectionLimit>,
}

/// A head is there and its answer isn't complete yet.
pub(super) struct Busy {
    waits: Rc<Cell<Option<Instant>>>,
    limit: Rc<ConnectionLimit>,
}

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { most, members: RefCell::default(), last: Cell::new(0), freed: Notify::new() })
    }

    /// Waits until there is room for one more, which may end another's connection.
    pub(super) async fn make_room(&self) {
        while self.members.borrow().len() >= self.most && !self.drop_oldest() {
            // Answers are bounded in time.
            self.freed.notified().await;
        }
    }

    fn drop_oldest(&self) -> bool {
        let mut members = self.members.borrow_mut();
        let waiting = members.iter().filter_map(|(number, member)| Some((member.waits.get()?, *number)));
        let Some((_, oldest)) = waiting.min() else { return false };
        if let Some(Member { task: Some(task), .. }) = members.remove(&oldest) {
            task.abort();
        }
        true
    }

    /// Takes somebody in, for whom there must be room.
    pub(super) fn enter(limit: &Rc<Self>) -> ConnectionPermit {
        let number = limit.last.get() + 1;
        limit.last.set(number);
        let waits = Rc::new(Cell::new(Some(Instant::now())));
        limit.members.borrow_mut().insert(number, Member { waits: Rc::clone(&waits), task: None });
        ConnectionPermit { number, waits, limit: Rc::clone(limit) }
    }

    /// The task that serves a member; nothing for one that has left.
    pub(super) fn is_served_by(&self, number: u64, task: AbortHandle) {
        if let Some(member) = self.members.borrow_mut().get_mut(&number) {
            member.task = Some(task);
        }
    }
}

impl ConnectionPermit {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// A head is there; until what is returned is dropped, this isn't the one that goes.
    pub(super) fn busy(&self) -> Busy {
        self.waits.set(None);
        Busy { waits: Rc::clone(&self.waits), limit: Rc::clone(&self.limit) }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.members.borrow_mut().remove(&self.number);
        self.limit.freed.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.waits.set(Some(Instant::now()));
        self.limit.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Enters with a task that lasts until it is aborted, and says whether it is there still.
    fn enter(limit: &Rc<ConnectionLimit>) -> (Rc<ConnectionPermit>, tokio::task::JoinHandle<()>) {
        let permit = Rc::new(ConnectionLimit::enter(limit));
        let task = spawn_local(std::future::pending());
        limit.is_served_by(permit.number(), task.abort_handle());
        (permit, task)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_a_head_for_the_longest_goes_and_who_is_answered_stays() {
        let all = async {
            let limit = ConnectionLimit::new(3);
            let mut members = Vec::new();
            for _ in 0..3 {
                limit.make_room().await;
                members.push(enter(&limit));
                sleep(Duration::from_secs(1)).await;
            }
            // The first is answered, and then waits for its next head.
            drop(members[0].0.busy());
            let busy = members[1].0.busy();
            limit.make_room().await;
            sleep(Duration::from_secs(1)).await;
            let gone: Vec<bool> = members.iter().map(|(_, task)| task.is_finished()).collect();
            assert_eq!(gone, [false, false, true]);

            members.push(enter(&limit));
            let all_busy = [members[0].0.busy(), members[3].0.busy()];
            assert!(timeout(Duration::from_secs(9), limit.make_room()).await.is_err(), "nobody is to go");
            let mut room = std::pin::pin!(limit.make_room());
            assert!(timeout(Duration::from_secs(1), &mut room).await.is_err());
            drop(busy);
            timeout(Duration::from_secs(1), room).await.expect("one waits again");
            sleep(Duration::from_secs(1)).await;
            assert!(members[1].1.is_finished());
            drop(all_busy);
        };
        LocalSet::new().run_until(all).await;
    }
}
