//! What form a function has, and what is wrong with one that has none, in words of its own for each mistake.
//!
//! The compiler is asked step by step: how the function is called, whether what it returns is a future, whether that is
//! a `Result`, and what remains. At each step method resolution takes the first of several traits that fits ("autoref
//! specialization"), and the bounds of its *method* are then errors with their own message. Nothing here is ever run: it
//! stands in a closure that is only type-checked. A mistake that was told has the form [`Mistake`], which satisfies
//! all that follows, so that it is told once.

mod mistake;

use super::Serves;
use super::forms::{
    Boxed, BoxedToSend, Boxes, Explains, Fallible, Form, Itself, Later, Makes, Marker, Now, OfHost, OfNothing,
};
use std::{future::Future, marker::PhantomData};

pub use mistake::{Mistake, Nothing};

/// What the macro was given.
pub struct Given<F>(Marker<F>);

impl<F> Given<F> {
    /// Asks what it is.
    #[must_use]
    pub const fn new(_: &F) -> Self {
        Self(PhantomData)
    }
}

/// First: a function without arguments.
pub trait TakesNothing {
    /// Where it goes on.
    type Next;

    /// All is well.
    fn called(&self) -> Self::Next;
}

impl<F: Makes<OfNothing>> TakesNothing for &&Given<F> {
    type Next = Called<OfNothing, F::Made>;

    fn called(&self) -> Self::Next {
        Called(PhantomData)
    }
}

/// Second: one of the host.
pub trait TakesTheHost {
    /// Where it goes on.
    type Next;

    /// All is well.
    fn called(&self) -> Self::Next;
}

impl<F: Makes<OfHost>> TakesTheHost for &Given<F> {
    type Next = Called<OfHost, F::Made>;

    fn called(&self) -> Self::Next {
        Called(PhantomData)
    }
}

/// Last: anything else.
pub trait TakesSomethingElse {
    /// What it is.
    type Other;

    /// It must be a function of one of the two kinds.
    fn called<A>(&self) -> Mistake
    where
        Self::Other: Makes<A>;
}

impl<F> TakesSomethingElse for Given<F> {
    type Other = F;

    fn called<A>(&self) -> Mistake
    where
        F: Makes<A>,
    {
        Mistake
    }
}

/// A function that is called as `A` says and returns a `T`.
pub struct Called<A, T>(Marker<(A, T)>);

/// First: a future that threads can pass on.
pub trait IsAFuture {
    /// Where it goes on.
    type Next;

    /// All is well.
    fn awaited(&self) -> Self::Next;
}

impl<A, T: Future + Send> IsAFuture for &&Called<A, T> {
    type Next = Returned<A, Later, T::Output>;

    fn awaited(&self) -> Self::Next {
        Returned(PhantomData)
    }
}

/// Second: one that they can't.
pub trait IsAFutureOfOneThread {
    /// The future.
    type Future: Future;

    /// An async function's future is polled by several threads: what it holds across an `.await` must be `Send`.
    fn awaited(&self) -> Mistake
    where
        Self::Future: Send;
}

impl<A, T: Future> IsAFutureOfOneThread for &Called<A, T> {
    type Future = T;

    fn awaited(&self) -> Mistake
    where
        T: Send,
    {
        Mistake
    }
}

/// Last: what is there at once.
pub trait IsThere {
    /// Where it goes on.
    type Next;

    /// Nothing to wait for.
    fn awaited(&self) -> Self::Next;
}

impl<A, T> IsThere for Called<A, T> {
    type Next = Returned<A, Now, T>;

    fn awaited(&self) -> Self::Next {
        Returned(PhantomData)
    }
}

/// What a function returns, once it was waited for.
pub struct Returned<A, W, T>(Marker<(A, W, T)>);

/// First: a `Result` whose error is one of those that a start can have.
pub trait FailsWithAnError {
    /// Where it goes on.
    type Next;

    /// All is well.
    fn unwrapped(&self) -> Self::Next;
}

impl<A, W, S, E: Explains<Boxes>> FailsWithAnError for &&&&Returned<A, W, Result<S, E>> {
    type Next = Candidate<A, W, Fallible<Boxes>, S>;

    fn unwrapped(&self) -> Self::Next {
        Candidate(PhantomData)
    }
}

/// Second: another one of those.
pub trait FailsWithABox {
    /// Where it goes on.
    type Next;

    /// All is well.
    fn unwrapped(&self) -> Self::Next;
}

impl<A, W, S, E: Explains<Boxed>> FailsWithABox for &&&Returned<A, W, Result<S, E>> {
    type Next = Candidate<A, W, Fallible<Boxed>, S>;

    fn unwrapped(&self) -> Self::Next {
        Candidate(PhantomData)
    }
}

/// Third: and another.
pub trait FailsWithABoxToSend {
    /// Where it goes on.
    type Next;

    /// All is well.
    fn unwrapped(&self) -> Self::Next;
}

impl<A, W, S, E: Explains<BoxedToSend>> FailsWithABoxToSend for &&Returned<A, W, Result<S, E>> {
    type Next = Candidate<A, W, Fallible<BoxedToSend>, S>;

    fn unwrapped(&self) -> Self::Next {
        Candidate(PhantomData)
    }
}

/// Fourth: a `Result` of another kind.
pub trait FailsWithoutAnError {
    /// What it fails with.
    type Error;

    /// It must say why.
    fn unwrapped<X>(&self) -> Mistake
    where
        Self::Error: Explains<X>;
}

impl<A, W, S, E> FailsWithoutAnError for &Returned<A, W, Result<S, E>> {
    type Error = E;

    fn unwrapped<X>(&self) -> Mistake
    where
        E: Explains<X>,
    {
        Mistake
    }
}

/// Last: what is no `Result`.
pub trait IsNoResult {
    /// Where it goes on.
    type Next;

    /// Nothing can go wrong.
    fn unwrapped(&self) -> Self::Next;
}

impl<A, W, T> IsNoResult for Returned<A, W, T> {
    type Next = Candidate<A, W, Itself, T>;

    fn unwrapped(&self) -> Self::Next {
        Candidate(PhantomData)
    }
}

/// What ought to be a service.
pub struct Candidate<A, W, R, S>(Marker<(A, W, R, S)>);

/// First: it is one.
pub trait IsAService {
    /// The function's form.
    type Form;

    /// All is well.
    fn form(&self) -> Self::Form;
}

impl<A, W, R, S: Serves> IsAService for &&&Candidate<A, W, R, S> {
    type Form = Form<A, W, R>;

    fn form(&self) -> Self::Form {
        Form::new()
    }
}

/// What nothing implements that it is asked of.
#[cfg(feature = "axum")]
#[diagnostic::on_unimplemented(
    message = "the Router still waits for its state, a `{State}`",
    label = "returns a `Router` whose state is missing",
    note = "call `.with_state(state)` on the Router as the last thing, and return `Router`, which is `Router<()>`"
)]
pub trait HasItsState<State> {}

/// Second: a Router that isn't whole.
#[cfg(feature = "axum")]
pub trait IsARouter {
    /// The Router.
    type Router;
    /// The type of its state.
    type State;

    /// Its state must be there.
    fn form(&self) -> Mistake
    where
        Self::Router: HasItsState<Self::State>;
}

#[cfg(feature = "axum")]
impl<A, W, R, S> IsARouter for &&Candidate<A, W, R, axum::Router<S>> {
    type Router = axum::Router<S>;
    type State = S;

    fn form(&self) -> Mistake
    where
        axum::Router<S>: HasItsState<S>,
    {
        Mistake
    }
}

/// What nothing implements that it is asked of.
#[cfg(feature = "axum")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` makes a service a connection, and the connections are the host's",
    label = "returns what `into_make_service` or `into_make_service_with_connect_info` has made",
    note = "leave `.into_make_service()` out and return the Router; the extractor `ConnectInfo<SocketAddr>` is there anyway"
)]
pub trait ServesByItself {}

/// Third: what a server of axum's own wants.
#[cfg(feature = "axum")]
pub trait IsAMakeService {
    /// What was made.
    type Made;

    /// It must be a service itself.
    fn form(&self) -> Mistake
    where
        Self::Made: ServesByItself;
}

#[cfg(feature = "axum")]
impl<A, W, R, S> IsAMakeService for &Candidate<A, W, R, axum::routing::IntoMakeService<S>> {
    type Made = axum::routing::IntoMakeService<S>;

    fn form(&self) -> Mistake
    where
        Self::Made: ServesByItself,
    {
        Mistake
    }
}

#[cfg(feature = "axum")]
impl<A, W, R, S, C> IsAMakeService
    for &Candidate<A, W, R, axum::extract::connect_info::IntoMakeServiceWithConnectInfo<S, C>>
{
    type Made = axum::extract::connect_info::IntoMakeServiceWithConnectInfo<S, C>;

    fn form(&self) -> Mistake
    where
        Self::Made: ServesByItself,
    {
        Mistake
    }
}

/// Last: anything else.
pub trait IsSomethingElse {
    /// What it is.
    type Other;

    /// It must be a service.
    fn form(&self) -> Mistake
    where
        Self::Other: Serves;
}

impl<A, W, R, S> IsSomethingElse for Candidate<A, W, R, S> {
    type Other = S;

    fn form(&self) -> Mistake
    where
        S: Serves,
    {
        Mistake
    }
}
