//! What an app is: the trait that its developer implements.

use crate::{body::Body, host::Host};
use http::{Request, Response};
use std::{error::Error, fmt, future::Future};

/// An app. Implement it with ordinary `async fn`s and hand the type to
/// [`export_app!`](crate::export_app).
///
/// A panic in any of these is caught: in `call` it becomes a 500 and a line in the log, in `start` it
/// becomes the error of the start.
pub trait App: Sized + Send + Sync + 'static {
    /// Makes the app, once a worker, before the worker takes its first connection. An error, or a
    /// start that takes too long, fails the restart; the workers that served before go on serving.
    fn start(host: Host) -> impl Future<Output = Result<Self, StartError>> + Send;

    /// Answers one request. The future is dropped when the client goes away.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;

    /// The worker drains: no new connection comes, the last requests are being finished. Returns at
    /// once; the place to tell long polls to end. What isn't the app's own hears of it by
    /// [`Host::draining`].
    fn drain(&self) {}

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
