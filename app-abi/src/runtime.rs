//! Where an app's code runs: on the host's serving threads alone, or with a tokio runtime of the app's.
//!
//! Owns the app's runtime: the only one that the app's copy of tokio can find, because the host's tokio
//! is another library's. It is used in a hybrid way: a future is polled once where the host polls it,
//! with the runtime entered, and only one that is pending then becomes a task of the runtime. A handler
//! that has its answer at once costs no change of threads; one that waits is woken without a detour
//! over the host.

use crate::abi::FfiStream;
use crate::body::Stream;
use async_ffi::FfiFuture;
use std::future::Future;

/// Where the app's code runs.
pub trait Runs: Sized + Send + Sync + 'static {
    /// Makes it, once a library. The error is for people.
    fn set_up() -> Result<Self, String>;

    /// Hands a future to the host, which polls it or drops it. `lost` is its output if the runtime has
    /// ended before it.
    fn run<F>(&'static self, future: F, lost: fn() -> F::Output) -> FfiFuture<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static;

    /// Hands a future to the host, which polls all of it where nobody else is kept by it.
    fn here<F>(&'static self, future: F) -> FfiFuture<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static;

    /// Calls a function where the app's code runs.
    fn within<T>(&self, call: impl FnOnce() -> T) -> T;

    /// Hands a body to the host, which polls it or drops it.
    fn stream(&'static self, body: Stream) -> FfiStream;

    /// Ends it, in bounded time.
    fn end(&'static self) -> impl Future<Output = ()> + Send;
}

/// On the host's serving threads, without any runtime.
pub struct Plain;

impl Runs for Plain {
    fn set_up() -> Result<Self, String> {
        Ok(Self)
    }

    fn run<F>(&'static self, future: F, _lost: fn() -> F::Output) -> FfiFuture<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        FfiFuture::new(future)
    }

    fn here<F>(&'static self, future: F) -> FfiFuture<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        FfiFuture::new(future)
    }

    fn within<T>(&self, call: impl FnOnce() -> T) -> T {
        call()
    }

    fn stream(&'static self, body: Stream) -> FfiStream {
        FfiStream::new(body)
    }

    async fn end(&'static self) {}
}

#[cfg(feature = "tokio")]
pub use with_tokio::Tokio;

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::Runs;
    use crate::abi::FfiStream;
    use crate::body::{BodyError, Stream};
    use async_ffi::FfiFuture;
    use bytes::Bytes;
    use http_body::{Body, Frame, SizeHint};
    use std::{
        future::Future,
        pin::Pin,
        sync::{Mutex, PoisonError},
        task::{Context, Poll, Waker, ready},
        thread,
        time::Duration,
    };
    use tokio::{
        runtime::{Builder, Handle, Runtime},
        sync::oneshot,
        task::JoinHandle,
    };

    /// How long blocking calls of the app may go on behind its `stop`.
    const END: Duration = Duration::from_secs(1);

    /// With a tokio runtime of `THREADS` worker threads.
    pub struct Tokio<const THREADS: usize> {
        handle: Handle,
        /// Until it ends.
        runtime: Mutex<Option<Runtime>>,
    }

    impl<const THREADS: usize> Runs for Tokio<THREADS> {
        fn set_up() -> Result<Self, String> {
            const { assert!(0 < THREADS && THREADS <= 1024, "`threads` is 1 to 1024") };
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(THREADS).thread_name("app").enable_all();
            #[cfg(feature = "tracing")]
            builder.on_thread_start(crate::trace::thread_begins).on_thread_park(crate::trace::thread_rests);
            let runtime =
                builder.build().map_err(|error| format!("the app's tokio runtime cannot be made: {error}"))?;
            Ok(Self { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) })
        }

        fn run<F>(&'static self, future: F, lost: fn() -> F::Output) -> FfiFuture<F::Output>
        where
            F: Future<Output: Send + 'static> + Send + 'static,
        {
            FfiFuture::new(Hybrid { stage: Stage::First(Box::pin(future)), handle: &self.handle, lost })
        }

        fn here<F>(&'static self, future: F) -> FfiFuture<F::Output>
        where
            F: Future<Output: Send + 'static> + Send + 'static,
        {
            FfiFuture::new(Here { future: Some(Box::pin(future)), handle: &self.handle })
        }

        fn within<T>(&self, call: impl FnOnce() -> T) -> T {
            let _entered = self.handle.enter();
            call()
        }

        fn stream(&'static self, body: Stream) -> FfiStream {
            FfiStream::new(Entered { body: Some(body), handle: &self.handle })
        }

        async fn end(&'static self) {
            let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
            let ending = Ending(Some(runtime));
            let (ended, end) = oneshot::channel();
            // Its tasks are dropped there, and blocking calls are waited for: nothing for a thread of the
            // host's.
            let thread = thread::Builder::new().name("app-end".to_owned()).spawn(move || {
                ending.finish();
                let _ = ended.send(());
            });
            if thread.is_ok() {
                let _ = end.await;
            }
        }
    }

    /// A runtime that is not waited for where it is dropped.
    struct Ending(Option<Runtime>);

    impl Ending {
        fn finish(mut self) {
            if let Some(runtime) = self.0.take() {
                runtime.shutdown_timeout(END);
            }
        }
    }

    impl Drop for Ending {
        fn drop(&mut self) {
            if let Some(runtime) = self.0.take() {
                runtime.shutdown_background();
            }
        }
    }

    /// A future that becomes a task once it has to wait.
    struct Hybrid<F: Future> {
        stage: Stage<F>,
        handle: &'static Handle,
        lost: fn() -> F::Output,
    }

    enum Stage<F: Future> {
        First(Pin<Box<F>>),
        Task(JoinHandle<F::Output>),
        Done,
    }

    // Nothing in it is pinned but what has a box of its own.
    impl<F: Future> Unpin for Hybrid<F> {}

    impl<F> Future for Hybrid<F>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
            let this = &mut *self;
            if let Stage::First(future) = &mut this.stage {
                let _entered = this.handle.enter();
                // The task polls once more and registers its own waker, so nobody need be woken by this.
                let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                let Stage::First(future) = std::mem::replace(&mut this.stage, Stage::Done) else { unreachable!() };
                match polled {
                    Poll::Ready(output) => return Poll::Ready(output),
                    Poll::Pending => this.stage = Stage::Task(this.handle.spawn(future)),
                }
            }
            match &mut this.stage {
                Stage::Task(task) => {
                    // The future catches its own panics, so the only error is a runtime that has ended.
                    let output = ready!(Pin::new(task).poll(context)).unwrap_or_else(|_| (this.lost)());
                    this.stage = Stage::Done;
                    Poll::Ready(output)
                }
                Stage::First(_) | Stage::Done => Poll::Pending,
            }
        }
    }

    impl<F: Future> Drop for Hybrid<F> {
        fn drop(&mut self) {
            match std::mem::replace(&mut self.stage, Stage::Done) {
                // What the app drops may want its runtime, too.
                Stage::First(future) => {
                    let _entered = self.handle.enter();
                    drop(future);
                }
                // The host has given the request up: the client has gone.
                Stage::Task(task) => task.abort(),
                Stage::Done => {}
            }
        }
    }

    /// A future that is polled, and dropped, with the runtime entered, and never becomes a task of it.
    struct Here<F> {
        /// `None` only while it is dropped.
        future: Option<Pin<Box<F>>>,
        handle: &'static Handle,
    }

    impl<F: Future> Future for Here<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
            let _entered = self.handle.enter();
            self.future.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(context))
        }
    }

    impl<F> Drop for Here<F> {
        fn drop(&mut self) {
            let _entered = self.handle.enter();
            self.future = None;
        }
    }

    /// A body that is polled, and dropped, with the runtime entered. One that waits is woken by the
    /// runtime and polled by the host again: nothing is read ahead.
    struct Entered {
        /// `None` only while it is dropped.
        body: Option<Stream>,
        handle: &'static Handle,
    }

    impl Body for Entered {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let _entered = self.handle.enter();
            self.body.as_mut().map_or(Poll::Ready(None), |body| body.as_mut().poll_frame(context))
        }

        fn is_end_stream(&self) -> bool {
            self.body.as_ref().is_none_or(Body::is_end_stream)
        }

        fn size_hint(&self) -> SizeHint {
            self.body.as_ref().map(Body::size_hint).unwrap_or_default()
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            let _entered = self.handle.enter();
            self.body = None;
        }
    }
}
