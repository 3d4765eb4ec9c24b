//! The drain notice: one event, and any number of tasks that wait for it.
//!
//! Owns [`Draining`] and the list of wakers behind it. That the notice comes is the host's doing; what
//! ends because of it is the app's.

use crate::panics;
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Whether the worker drains, and who wants to know.
#[derive(Default)]
pub(crate) struct DrainNotice(Mutex<NoticeState>);

#[derive(Default)]
struct NoticeState {
    given: bool,
    next: u64,
    waiting: HashMap<u64, Waker>,
}

impl DrainNotice {
    fn lock(&self) -> MutexGuard<'_, NoticeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the notice. Wakers are the app's and may do anything, so none of them is called under
    /// the lock, and one that panics keeps no other from being woken.
    pub(crate) fn give(&self) {
        let waiting = {
            let mut state = self.lock();
            state.given = true;
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting.into_values() {
            if let Err(panic) = panics::catch(|| waker.wake()) {
                panics::log(&panic, "app panicked when it was woken for the drain");
            }
        }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.lock().given
    }

    pub(crate) const fn wait(&'static self) -> Draining {
        Draining { notice: self, place: None }
    }
}

/// Ends when the worker begins to drain. Made by [`Host::draining`](crate::Host::draining).
///
/// One that is dropped leaves nothing behind; one that has ended ends again at once.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Draining {
    notice: &'static DrainNotice,
    /// Its waker's key, once it has one.
    place: Option<u64>,
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let replaced;
        {
            let mut state = self.notice.lock();
            if state.given {
                return Poll::Ready(());
            }
            let place = *self.place.get_or_insert_with(|| {
                state.next += 1;
                state.next
            });
            replaced = match state.waiting.get(&place) {
                Some(waker) if waker.will_wake(context.waker()) => None,
                _ => state.waiting.insert(place, context.waker().clone()),
            };
        }
        // Outside the lock: the drop of a waker may end a task that waits for the notice itself.
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        let left = self.place.and_then(|place| self.notice.lock().waiting.remove(&place));
        drop(left);
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("given", &self.notice.is_given()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("woken");
        }
    }

    fn notice() -> &'static DrainNotice {
        Box::leak(Box::default())
    }

    fn poll(draining: &mut Draining, waker: &Waker) -> Poll<()> {
        Pin::new(draining).poll(&mut Context::from_waker(waker))
    }

    #[test]
    fn every_waiter_is_woken_once_and_who_comes_later_need_not_wait() {
        let notice = notice();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut waiting: Vec<_> = (0..100).map(|_| notice.wait()).collect();
        for draining in &mut waiting {
            assert!(poll(draining, &waker).is_pending());
            assert!(poll(draining, &waker).is_pending());
        }
        assert!(!notice.is_given());
        notice.give();
        assert_eq!(count.0.load(Ordering::SeqCst), 100);
        for draining in &mut waiting {
            assert!(poll(draining, &waker).is_ready());
            assert!(poll(draining, &waker).is_ready(), "and again");
        }
        assert!(notice.is_given());
        assert!(poll(&mut notice.wait(), &waker).is_ready());
    }

    #[test]
    fn waiter_that_is_dropped_leaves_nothing_behind() {
        let notice = notice();
        let waker = Waker::from(Arc::new(Count::default()));
        for _ in 0..1000 {
            let mut draining = notice.wait();
            assert!(poll(&mut draining, &waker).is_pending());
        }
        assert!(notice.lock().waiting.is_empty());
    }

    #[test]
    fn waiter_that_moves_to_another_task_wakes_that_one() {
        let notice = notice();
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut draining = notice.wait();
        assert!(poll(&mut draining, &Waker::from(Arc::clone(&first))).is_pending());
        assert!(poll(&mut draining, &Waker::from(Arc::clone(&second))).is_pending());
        notice.give();
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
    }

    #[test]
    fn waker_that_panics_keeps_no_other_from_being_woken() {
        let notice = notice();
        let count = Arc::new(Count::default());
        let mut waiting: Vec<_> = (0..10).map(|_| notice.wait()).collect();
        for (number, draining) in waiting.iter_mut().enumerate() {
            let waker = if number % 2 == 0 { Arc::new(Panics).into() } else { Arc::clone(&count).into() };
            assert!(poll(draining, &waker).is_pending());
        }
        notice.give();
        assert_eq!(count.0.load(Ordering::SeqCst), 5);
    }
}
