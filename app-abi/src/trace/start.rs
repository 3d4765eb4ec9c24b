//! Which subscriber the app has, which is decided when its start has ended.
//!
//! A global default can be set once only, and the app comes first: OpenTelemetry, Sentry and the like want to be it. So
//! the host's log is no global default before the app has started, and only where the app has set none. Until then it
//! is the default of the threads that run the start: the start's own while it is polled, and those of the app's
//! runtime. What is logged on a thread of another kind meanwhile, or by the crate `log`, isn't seen by anybody.
//!
//! ```text
//!  start begins                                     start has ended
//!  scoped, where nothing else is the default ─────▶ no global default: ours, for good
//!                                             └───▶ the app's: ours is a layer of it, if the app says so
//! ```

use super::{Forward, Records, changed};
use crate::log::Log;
use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Once, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tracing::{
    Dispatch,
    dispatcher::{self, DefaultGuard},
    subscriber::NoSubscriber,
};

/// Whether it is decided.
static SETTLED: AtomicBool = AtomicBool::new(false);

/// The forwarder, be it the global default or not.
fn forward() -> &'static Dispatch {
    static FORWARD: OnceLock<Dispatch> = OnceLock::new();
    FORWARD.get_or_init(|| Dispatch::new(Forward::default()))
}

/// Whether events of this thread would go nowhere.
fn nobody_listens() -> bool {
    dispatcher::get_default(Dispatch::is::<NoSubscriber>)
}

/// Begins to hear of changes of what is enabled, once.
pub(crate) fn begin(log: Log) {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| log.on_change(changed));
}

/// Makes the host's log the place that all of this library's events go to, once, unless the app has chosen another.
pub(crate) fn settle() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _ = dispatcher::set_global_default(forward().clone());
        if ::log::set_logger(&Records).is_ok() {
            super::OURS.store(true, Ordering::Relaxed);
        }
        SETTLED.store(true, Ordering::Release);
        changed();
    });
}

/// The app's start, whose events go to the host's log where nobody else takes them.
pub(crate) struct Start<F>(pub(crate) Pin<Box<F>>);

impl<F: Future> Future for Start<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // One that the app has set since is to be seen, on a thread of its runtime, too.
        #[cfg(feature = "tokio")]
        look_again();
        let polled = if nobody_listens() {
            dispatcher::with_default(forward(), || self.0.as_mut().poll(context))
        } else {
            self.0.as_mut().poll(context)
        };
        if polled.is_ready() {
            settle();
        }
        polled
    }
}

thread_local! {
    static SCOPED: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// To be called where a thread of the app's runtime begins.
#[cfg(feature = "tokio")]
pub(crate) fn thread_begins() {
    if !SETTLED.load(Ordering::Acquire) && nobody_listens() {
        SCOPED.set(Some(dispatcher::set_default(forward())));
    }
}

/// To be called where a thread of the app's runtime has nothing to do.
#[cfg(feature = "tokio")]
pub(crate) fn thread_rests() {
    look_again();
}

/// Has the thread's own default no longer hide that of the library, if there is one meanwhile.
#[cfg(feature = "tokio")]
fn look_again() {
    let was_scoped = SCOPED.take().is_some();
    if was_scoped {
        thread_begins();
    }
}
