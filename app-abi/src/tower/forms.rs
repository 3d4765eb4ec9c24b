//! The forms that the functions of `export_tower!` and `export_axum!` may have.
//!
//! Owns how a service is had of a function: called with nothing or with the host, waited for or not, a `Result` or
//! not. Each form has a marker, because one type may fit several of these traits' implementations; which of them a
//! function's form is, and what is wrong with one that has none, is found by [`told`](super::told).

use super::Serves;
use crate::{BoxError, Host, StartError};
use std::{
    error::Error,
    future::{Future, ready},
    marker::PhantomData,
};

/// Names types and has nothing of them.
pub(super) type Marker<T> = PhantomData<fn() -> T>;

/// A function that can be called with nothing or with the host; `A` says which.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can be called neither without arguments nor with a `Host` alone",
    note = "give the name of a function, without calling it: `fn router() -> Router` or `fn router(host: Host) -> Router`; \
            what else it needs is to be read in it, from `host.config()` for instance"
)]
pub trait Makes<A>: Copy + Send + Sync + 'static {
    /// What it returns.
    type Made;

    /// Calls it.
    fn make(self, host: Host) -> Self::Made;
}

/// Marks a function of nothing.
pub struct OfNothing;
/// Marks a function of the host.
pub struct OfHost;

impl<F, T> Makes<OfNothing> for F
where
    F: Fn() -> T + Copy + Send + Sync + 'static,
{
    type Made = T;

    fn make(self, _host: Host) -> T {
        self()
    }
}

impl<F, T> Makes<OfHost> for F
where
    F: Fn(Host) -> T + Copy + Send + Sync + 'static,
{
    type Made = T;

    fn make(self, host: Host) -> T {
        self(host)
    }
}

/// An error that can fail a start; `X` tells the kinds apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't say why the app doesn't start",
    note = "the error may be a type that implements `std::error::Error`, `Box<dyn Error>`, with or without \
            `Send + Sync`, `anyhow::Error`, `app_abi::StartError`, or a text"
)]
pub trait Explains<X> {
    /// The error as the host is told it.
    fn explain(self) -> StartError;
}

/// Marks what becomes a boxed error.
pub struct Boxes;
/// Marks a boxed error that may be sent and shared.
pub struct Boxed;
/// Marks a boxed error that may be sent.
pub struct BoxedToSend;

impl<E: Into<Box<dyn Error>>> Explains<Boxes> for E {
    fn explain(self) -> StartError {
        StartError::of(&*self.into())
    }
}

impl Explains<Boxed> for BoxError {
    fn explain(self) -> StartError {
        StartError::of(&*self)
    }
}

impl Explains<BoxedToSend> for Box<dyn Error + Send> {
    fn explain(self) -> StartError {
        StartError::of(&*self)
    }
}

/// A service or a `Result` of one; `R` says which.
pub trait Outcome<R> {
    /// The service.
    type Service: Serves;

    /// The service, or why there is none.
    fn outcome(self) -> Result<Self::Service, StartError>;
}

/// Marks a service.
pub struct Itself;
/// Marks a `Result`.
pub struct Fallible<X>(PhantomData<X>);

impl<S: Serves> Outcome<Itself> for S {
    type Service = S;

    fn outcome(self) -> Result<S, StartError> {
        Ok(self)
    }
}

impl<S: Serves, E: Explains<X>, X> Outcome<Fallible<X>> for Result<S, E> {
    type Service = S;

    fn outcome(self) -> Result<S, StartError> {
        self.map_err(Explains::explain)
    }
}

/// An [`Outcome`] or a future of one; `W` says which.
pub trait Made<W, R>: Sized {
    /// The service.
    type Service: Serves;

    /// The service, when it is there. Nothing but the function's own future is kept meanwhile, so an error that can't
    /// be sent to another thread does no harm.
    fn made(self) -> impl Future<Output = Result<Self::Service, StartError>> + Send;
}

/// Marks what is there at once.
pub struct Now;
/// Marks a future.
pub struct Later;

impl<T: Outcome<R>, R> Made<Now, R> for T {
    type Service = T::Service;

    fn made(self) -> impl Future<Output = Result<Self::Service, StartError>> + Send {
        ready(self.outcome())
    }
}

impl<T, R> Made<Later, R> for T
where
    T: Future<Output: Outcome<R>> + Send,
{
    type Service = <T::Output as Outcome<R>>::Service;

    async fn made(self) -> Result<Self::Service, StartError> {
        self.await.outcome()
    }
}

/// A function that makes a service; `M` is its form.
pub trait Maker<M>: Copy + Send + Sync + 'static {
    /// The service.
    type Service: Serves;

    /// Makes it.
    fn make(self, host: Host) -> impl Future<Output = Result<Self::Service, StartError>> + Send;
}

/// Marks a function that is called as `A` says, waited for as `W` says, and returns what `R` says.
pub struct Form<A, W, R>(Marker<(A, W, R)>);

impl<A, W, R> Form<A, W, R> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<F, A, W, R> Maker<Form<A, W, R>> for F
where
    F: Makes<A>,
    F::Made: Made<W, R>,
    A: 'static,
    W: 'static,
    R: 'static,
{
    type Service = <F::Made as Made<W, R>>::Service;

    fn make(self, host: Host) -> impl Future<Output = Result<Self::Service, StartError>> + Send {
        Makes::make(self, host).made()
    }
}

/// What a `stop` function may return; `K` tells the forms apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that a `stop` function may return",
    note = "it may be `fn()`, `fn(Host)`, either of them as `async fn` with a future that is `Send`, and return a `Result<(), E>`"
)]
pub trait Ended<K> {
    /// Why it didn't end well, when it has ended.
    fn ended(self) -> impl Future<Output = Result<(), StartError>> + Send;
}

/// As [`Ended`], without a future.
pub trait EndedNow<K> {
    /// Why it didn't end well.
    fn ended_now(self) -> Result<(), StartError>;
}

impl EndedNow<Itself> for () {
    fn ended_now(self) -> Result<(), StartError> {
        Ok(())
    }
}

impl<E: Explains<X>, X> EndedNow<Fallible<X>> for Result<(), E> {
    fn ended_now(self) -> Result<(), StartError> {
        self.map_err(Explains::explain)
    }
}

impl<T: EndedNow<K>, K> Ended<(Now, K)> for T {
    fn ended(self) -> impl Future<Output = Result<(), StartError>> + Send {
        ready(self.ended_now())
    }
}

impl<T, K> Ended<(Later, K)> for T
where
    T: Future<Output: EndedNow<K>> + Send,
{
    async fn ended(self) -> Result<(), StartError> {
        self.await.ended_now()
    }
}
