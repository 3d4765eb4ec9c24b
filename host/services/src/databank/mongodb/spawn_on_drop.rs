//! A future that is never dropped halfway: it runs where it is polled, and when it is dropped, the runtime finishes it.
//!
//! A task from the beginning would do as well, and would cost two changes of the thread for each call.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;

/// Spawns the rest of a future when it is dropped.
pub struct SpawnOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// `None` once it has ended.
    future: Option<Pin<Box<F>>>,
    runtime: Handle,
}

impl<F> SpawnOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Must be polled within this runtime.
    pub fn new(runtime: Handle, future: F) -> Self {
        Self { future: Some(Box::pin(future)), runtime }
    }
}

impl<F> Future for SpawnOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.future.as_mut().expect("a future isn't polled after its end");
        let output = ready!(future.as_mut().poll(context));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<F> Drop for SpawnOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            drop(self.runtime.spawn(future));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_given_up_is_finished() {
        let (go, wait) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let mut spawn_on_drop = SpawnOnDrop::new(Handle::current(), async move {
            wait.await.expect("the sender lives");
            done.send(7).expect("the receiver lives");
        });
        assert!((&mut spawn_on_drop).now_or_never().is_none());
        drop(spawn_on_drop);
        go.send(()).expect("it still waits");
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn what_has_ended_is_not_done_again() {
        assert_eq!(SpawnOnDrop::new(Handle::current(), async { 7 }).await, 7);
    }
}
