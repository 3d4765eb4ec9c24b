//! What stands in for everything behind a mistake that was told.

use crate::tower::forms::Maker;
use crate::{Body, Host, Request, Response, StartError};
use std::{
    convert::Infallible,
    future::Ready,
    task::{Context, Poll},
};

/// The form of a function of which a mistake was told.
#[derive(Clone, Copy)]
pub struct Mistake;

impl Mistake {
    /// It was told.
    #[must_use]
    pub const fn awaited(self) -> Self {
        self
    }

    /// It was told.
    #[must_use]
    pub const fn unwrapped(self) -> Self {
        self
    }

    /// It was told.
    #[must_use]
    pub const fn form(self) -> Self {
        self
    }
}

impl<F: Copy + Send + Sync + 'static> Maker<Mistake> for F {
    type Service = Nothing;

    async fn make(self, _host: Host) -> Result<Nothing, StartError> {
        Err(StartError::new("the function makes no service"))
    }
}

/// The service that there is none of.
#[derive(Clone, Copy)]
pub enum Nothing {}

impl tower_service::Service<Request<Body>> for Nothing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match *self {}
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        match *self {}
    }
}
