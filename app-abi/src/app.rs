//! What an app is: the trait that its developer implements.

use crate::state::{BoxError, LeftState, StateWriter};
use crate::{body::Body, host::Host};
use http::{Request, Response};
use std::{error::Error, fmt, future::Future};

/// An app. Implement it with ordinary `async fn`s and hand the type to
/// [`export_app!`](crate::export_app).
///
/// A panic in any of these is caught: in `call` it becomes a 500 and a line in the log, in `start` it
/// becomes the error of the start.
pub trait App: Sized + Send + Sync + 'static {
    /// Whether [`leave`](Self::leave) and [`inherit`](Self::inherit) are called: where they are, a worker drains only once its
    /// successor has inherited.
    const KEEPS_STATE: bool = false;

    /// Makes the app, once a worker, before the worker takes its first connection. An error, or a
    /// start that takes too long, fails the restart; the workers that served before go on serving.
    fn start(host: Host) -> impl Future<Output = Result<Self, StartError>> + Send;

    /// Answers one request. The future is dropped when the client goes away.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;

    /// The worker drains: no new connection comes, the last requests are being finished. Returns at
    /// once; the place to tell long polls to end. What isn't the app's own hears of it by
    /// [`Host::draining`].
    fn drain(&self) {}

    /// Writes what this worker keeps in memory and the one that comes after it would miss: a cache, counts of a rate limiter.
    /// By default nothing. It is called if [`KEEPS_STATE`](Self::KEEPS_STATE) says so.
    ///
    /// It is called when a newer worker in the same slot serves and before this one drains, on a thread of its own: it may block.
    /// Requests are answered meanwhile and afterwards, and what they change then is not handed on. It is called again if
    /// the newer one dies and another comes. Nothing is asked for in a crash, at the end of the service, where the slot goes,
    /// or where a worker is recycled for its memory. An error is logged, and nothing is left. When this worker is ordered
    /// to drain, the future is dropped if it still waits; one that blocks then may go on beside [`drain`](Self::drain) and
    /// [`stop`](Self::stop).
    ///
    /// So this is for what may be lost. What must not be belongs into the [databank](Host::databank), which all workers share
    /// all the time.
    ///
    /// ```
    /// # use app_abi::{App, Body, BoxError, Host, LeftState, Request, Response, StartError, StateWriter, serde_json};
    /// # use std::{collections::HashMap, sync::Mutex};
    /// struct Shop {
    ///     prices: Mutex<HashMap<String, u64>>,
    /// }
    ///
    /// impl App for Shop {
    ///     const KEEPS_STATE: bool = true;
    ///
    ///     async fn leave(&self, state: &mut StateWriter) -> Result<(), BoxError> {
    ///         // Whoever asks for a price waits for the copy, and not for what becomes of it.
    ///         let prices = self.prices.lock().unwrap().clone();
    ///         Ok(serde_json::to_writer(state, &prices)?)
    ///     }
    ///
    ///     async fn inherit(&self, state: LeftState) -> Result<(), BoxError> {
    ///         let prices: HashMap<_, _> = serde_json::from_slice(state.bytes())?;
    ///         // What has come meanwhile is newer.
    ///         let mut own = self.prices.lock().unwrap();
    ///         for (name, price) in prices {
    ///             own.entry(name).or_insert(price);
    ///         }
    ///         Ok(())
    ///     }
    ///     // …
    /// #     async fn start(_: Host) -> Result<Self, StartError> { unreachable!() }
    /// #     async fn call(&self, _: Request<Body>) -> Response<Body> { unreachable!() }
    /// }
    /// ```
    fn leave(&self, state: &mut StateWriter) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = state;
        async { Ok(()) }
    }

    /// Takes what the worker before this one in its slot has [left](Self::leave), once at most, some time after the start: this
    /// one serves already. The bytes may be of an older version, or after a rollback of a newer one: [`LeftState::version`] says
    /// of which. An error is logged, and the app goes on without; so it does if nothing comes. By default it does nothing.
    fn inherit(&self, state: LeftState) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = state;
        async { Ok(()) }
    }

    /// The last request has been answered. The worker exits when this is done, at the latest at the
    /// shutdown timeout. The app isn't dropped afterwards; exit handlers (`atexit(3)`) run, so that a library built
    /// with `-C instrument-coverage` writes its profile.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Why an app didn't start. Made of any error by `?`, or of a text by [`StartError::new`].
pub struct StartError {
    text: String,
}

impl StartError {
    /// An error with this text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string() }
    }
}

impl StartError {
    /// Keeps the error's text and those of its causes.
    pub(crate) fn of(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let reason = error.to_string();
            // Many errors already tell their cause.
            if !text.ends_with(&reason) {
                text.push_str(": ");
                text.push_str(&reason);
            }
            cause = error.source();
        }
        Self { text }
    }
}

impl<E: Error> From<E> for StartError {
    /// Keeps the error's text and those of its causes.
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

impl From<StartError> for Box<dyn Error + Send + Sync> {
    fn from(error: StartError) -> Self {
        error.text.into()
    }
}

impl From<StartError> for Box<dyn Error> {
    fn from(error: StartError) -> Self {
        error.text.into()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no database")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_start_error_tells_the_whole_chain() {
        let error = StartError::from(Outer(std::io::Error::other("connection refused")));
        assert_eq!(error.to_string(), "no database: connection refused");
        assert_eq!(StartError::new("no luck").to_string(), "no luck");
    }
}
