//! Who is connected, within a bound: whoever comes finds room.
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
pub(super) struct Crowd {
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

/// A place in the crowd, for as long as a connection lasts.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    waits: Rc<Cell<Option<Instant>>>,
    crowd: Rc<Crowd>,
}

/// A head is there and its answer isn't complete yet.
pub(super) struct Busy {
    waits: Rc<Cell<Option<Instant>>>,
    crowd: Rc<Crowd>,
}

impl Crowd {
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
    pub(super) fn enter(crowd: &Rc<Self>) -> Seat {
        let number = crowd.last.get() + 1;
        crowd.last.set(number);
        let waits = Rc::new(Cell::new(Some(Instant::now())));
        crowd.members.borrow_mut().insert(number, Member { waits: Rc::clone(&waits), task: None });
        Seat { number, waits, crowd: Rc::clone(crowd) }
    }

    /// The task that serves a member; nothing for one that has left.
    pub(super) fn is_served_by(&self, number: u64, task: AbortHandle) {
        if let Some(member) = self.members.borrow_mut().get_mut(&number) {
            member.task = Some(task);
        }
    }
}

impl Seat {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// A head is there; until what is returned is dropped, this isn't the one that goes.
    pub(super) fn busy(&self) -> Busy {
        self.waits.set(None);
        Busy { waits: Rc::clone(&self.waits), crowd: Rc::clone(&self.crowd) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.members.borrow_mut().remove(&self.number);
        self.crowd.freed.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.waits.set(Some(Instant::now()));
        self.crowd.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Enters with a task that lasts until it is aborted, and says whether it is there still.
    fn enter(crowd: &Rc<Crowd>) -> (Rc<Seat>, tokio::task::JoinHandle<()>) {
        let seat = Rc::new(Crowd::enter(crowd));
        let task = spawn_local(std::future::pending());
        crowd.is_served_by(seat.number(), task.abort_handle());
        (seat, task)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_a_head_for_the_longest_goes_and_who_is_answered_stays() {
        let all = async {
            let crowd = Crowd::new(3);
            let mut members = Vec::new();
            for _ in 0..3 {
                crowd.make_room().await;
                members.push(enter(&crowd));
                sleep(Duration::from_secs(1)).await;
            }
            // The first is answered, and then waits for its next head.
            drop(members[0].0.busy());
            let busy = members[1].0.busy();
            crowd.make_room().await;
            sleep(Duration::from_secs(1)).await;
            let gone: Vec<bool> = members.iter().map(|(_, task)| task.is_finished()).collect();
            assert_eq!(gone, [false, false, true]);

            members.push(enter(&crowd));
            let all_busy = [members[0].0.busy(), members[3].0.busy()];
            assert!(timeout(Duration::from_secs(9), crowd.make_room()).await.is_err(), "nobody is to go");
            let mut room = std::pin::pin!(crowd.make_room());
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
