//! Panics of the app stay on the app's side.
//!
//! Owns the panic hook and every `catch_unwind`. A panic within [`catch`] isn't printed: its message
//! and place are handed to the caller, who logs them once. A panic on a thread of the app's own goes
//! to the host's log, or where it would go without us when the log isn't there to take it; with the feature `testing`
//! to both. The line says which request
//! the panicking code was at work on, and has the backtrace where the environment asks for one (`RUST_BACKTRACE`).
#![expect(unsafe_code, reason = "pinning through a wrapper without another allocation")]

use crate::abi::FfiTraceValue;
use crate::about::{self, RequestField, RequestValue};
use crate::log::{self, Level, Log};
use abi_stable::std_types::RStr;
use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    future::Future,
    mem::ManuallyDrop,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
};

/// What a panic said, and where.
#[derive(Debug)]
pub(crate) struct Panic {
    pub(crate) message: String,
    /// `file:line:column`.
    pub(crate) place: String,
    /// What else the line says: the request, and the backtrace.
    more: Vec<RequestField>,
}

/// More of a backtrace isn't logged.
const MAX_BACKTRACE: usize = 16 * 1024;

/// The field that has it.
const BACKTRACE: &str = "backtrace";

thread_local! {
    /// How many calls of `catch` are on this thread's stack.
    static GUARDS: Cell<u32> = const { Cell::new(0) };
    /// The last panic within `catch`.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Installs the hook, once a library. It is there when this returns: of apps that start side by side in one test,
/// none goes on while another one exchanges hooks. Call it when there is a log.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(exchange_hooks);
}

fn exchange_hooks() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let guarded = GUARDS.try_with(|guards| guards.get() > 0).unwrap_or(false);
        let panic = Panic::new(info);
        if guarded && panic.aborts() {
            // Nobody comes to log the first one either.
            let first = LAST.try_with(RefCell::take).ok().flatten();
            for panic in first.iter().chain([&panic]) {
                // The host waits for an error to be written, so it is there before the process ends.
                log(panic, "app panicked where it can't unwind, and aborts");
            }
            previous(info);
        } else if guarded {
            let _ = LAST.try_with(|last| last.replace(Some(panic)));
        } else {
            let logged = log::current().filter(|log| log.enabled(Level::Error));
            if let Some(log) = logged {
                panic.log(log, "app thread panicked");
            }
            // In a unit test it may be an assertion of the test's own, and nobody reads the log.
            if logged.is_none() || cfg!(feature = "testing") {
                previous(info);
            }
        }
    }));
}

impl Panic {
    fn new(info: &PanicHookInfo<'_>) -> Self {
        Self {
            message: info.payload_as_str().unwrap_or("(not a text)").to_owned(),
            place: info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string),
            more: about::current().into_iter().chain(backtrace()).collect(),
        }
    }

    /// Whether there is something to see that is in no other text.
    pub(crate) fn has_backtrace(&self) -> bool {
        self.more.iter().any(|(key, _)| *key == BACKTRACE)
    }

    /// Whether the process ends with it, in the words of `core::panicking` (Rust 1.95): a second panic in a function
    /// that can't unwind, or in a destructor during cleanup.
    fn aborts(&self) -> bool {
        ["panic in a function that cannot unwind", "panic in a destructor during cleanup"]
            .contains(&self.message.as_str())
    }

    /// One line in the host's log.
    pub(crate) fn log(&self, log: Log, message: &str) {
        let text = |text| FfiTraceValue::Text(RStr::from_str(text));
        let mut fields = vec![("panic", text(&self.message)), ("place", text(&self.place))];
        fields.extend(self.more.iter().map(|(key, value)| match value {
            RequestValue::Text(value) => (*key, text(value)),
            RequestValue::Number(value) => (*key, FfiTraceValue::Uint(*value)),
        }));
        log.write_values(Level::Error, message, &fields);
    }
}

/// Where the calling code came from, if the environment asks for that.
fn backtrace() -> Option<RequestField> {
    let backtrace = Backtrace::capture();
    (backtrace.status() == BacktraceStatus::Captured)
        .then(|| (BACKTRACE, RequestValue::Text(about::cut(&backtrace.to_string(), MAX_BACKTRACE))))
}

/// Where the panics of this library are logged: nowhere before its start.
pub(crate) fn log(panic: &Panic, message: &str) {
    if let Some(log) = log::current() {
        panic.log(log, message);
    }
}

/// Runs `body`; its panic comes back as a value.
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Panic> {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            GUARDS.set(GUARDS.get() - 1);
        }
    }
    GUARDS.set(GUARDS.get() + 1);
    let guard = Guard;
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    let outcome = outcome.map_err(|payload| {
        forget_safely(payload);
        LAST.take().unwrap_or_else(|| Panic {
            message: "(the app has replaced the panic hook)".to_owned(),
            place: "unknown".to_owned(),
            more: Vec::new(),
        })
    });
    drop(guard);
    outcome
}

/// Drops a panic's payload, whose own drop may panic once more.
fn forget_safely(payload: Box<dyn Any + Send>) {
    let last = LAST.take();
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Someone who panics in the drop of a panic gets leaked.
        std::mem::forget(again);
    }
    LAST.set(last);
}

/// Drops a value of the app's; a panic in its drop is logged and goes no further.
pub(crate) fn drop_guarded<T>(value: T) {
    if let Err(panic) = catch(|| drop(value)) {
        log(&panic, "app panicked in a drop");
    }
}

/// A future whose panics, those of its drop included, go no further.
pub(crate) struct Caught<F> {
    future: ManuallyDrop<F>,
}

impl<F> Caught<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future: ManuallyDrop::new(future) }
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the inner future is never moved out of the pinned wrapper: it is polled in place
        // here and dropped in place below.
        let future = unsafe { self.map_unchecked_mut(|caught| &mut *caught.future) };
        match catch(|| future.poll(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

impl<F> Drop for Caught<F> {
    fn drop(&mut self) {
        // SAFETY: the field is dropped here, once, in place, and not touched afterwards.
        let outcome = catch(|| unsafe { ManuallyDrop::drop(&mut self.future) });
        if let Err(panic) = outcome {
            log(&panic, "app panicked in a drop");
        }
    }
}
