//! A body that is made a piece at a time, when the client has taken the last one: however much there is
//! and however slow the client, little is in memory.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use app_abi::{
    Bytes, DatabankError,
    http_body::{self, Frame},
};

/// The next piece, and what the one after it is made of; nothing at the end.
type Next<S> = Pin<Box<dyn Future<Output = Option<(Result<Bytes, DatabankError>, S)>> + Send>>;

pub struct Pieces<S> {
    next: Next<S>,
    make: fn(S) -> Next<S>,
}

impl<S> Pieces<S> {
    pub fn new(state: S, make: fn(S) -> Next<S>) -> Self {
        Self { next: make(state), make }
    }
}

impl<S> http_body::Body for Pieces<S> {
    type Data = Bytes;
    type Error = DatabankError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DatabankError>>> {
        let Some((piece, rest)) = ready!(self.next.as_mut().poll(context)) else { return Poll::Ready(None) };
        self.next = (self.make)(rest);
        // An error breaks the answer off, so that no client takes it for the whole.
        Poll::Ready(Some(piece.map(Frame::data)))
    }
}
