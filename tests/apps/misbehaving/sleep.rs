//! A timer for an app that has no runtime.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A timer without a runtime: a thread that wakes the task.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    let state = Arc::new(SleepState { done: AtomicBool::new(duration.is_zero()), waker: Mutex::new(None) });
    if !duration.is_zero() {
        let state = Arc::clone(&state);
        std::thread::spawn(move || {
            std::thread::sleep(duration);
            state.done.store(true, Ordering::SeqCst);
            if let Some(waker) = state.waker.lock().ok().and_then(|mut waker| waker.take()) {
                waker.wake();
            }
        });
    }
    Sleep(state)
}

pub(crate) struct Sleep(Arc<SleepState>);

struct SleepState {
    done: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Ok(mut waker) = self.0.waker.lock() {
            *waker = Some(context.waker().clone());
        }
        if self.0.done.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}
