//! The body of a request, as the app reads it.
//!
//! Notes whether the app waits for more of it, which tells a client that has vanished from an app that takes its time, and
//! whether the client broke it off, which is no failure of the app's. A request without a body pays nothing for this. The
//! offer to upgrade the connection travels with the body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::shared::Shared;
use super::tunnel::Upgrade;

/// The body of a request.
pub struct RequestBody {
    body: Incoming,
    /// Unless the body is empty.
    watched: Option<Watched>,
    /// The offer to upgrade the connection, until it is taken. Boxed, because it is mostly absent.
    upgrade: Option<Box<Upgrade>>,
}

/// How a request's body ended.
pub(super) struct BodyOutcome {
    shared: Arc<Shared>,
    broken: AtomicBool,
}

impl BodyOutcome {
    /// Whether the client broke it off.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }
}

struct Watched {
    outcome: Arc<BodyOutcome>,
    /// Counts its bytes, if they are to be logged.
    received: Option<Arc<AtomicU64>>,
    /// Whether the app waits for more.
    awaited: bool,
}

impl Watched {
    fn awaited(&mut self, awaited: bool) {
        if self.awaited != awaited {
            self.awaited = awaited;
            self.outcome.shared.state.on_body_awaited(awaited);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.awaited(false);
    }
}

impl RequestBody {
    pub(super) fn new(
        body: Incoming,
        shared: &Arc<Shared>,
        upgrade: Option<Upgrade>,
        received: Option<Arc<AtomicU64>>,
    ) -> Self {
        let watched = (!body.is_end_stream()).then(|| Watched {
            outcome: Arc::new(BodyOutcome { shared: Arc::clone(shared), broken: AtomicBool::new(false) }),
            received,
            awaited: false,
        });
        Self { body, watched, upgrade: upgrade.map(Box::new) }
    }

    /// Takes the offer to upgrade the connection, if the client has asked for that.
    pub fn upgrade(&mut self) -> Option<Upgrade> {
        self.upgrade.take().map(|upgrade| *upgrade)
    }

    /// How the body ends, unless it is empty.
    pub(super) fn outcome(&self) -> Option<Arc<BodyOutcome>> {
        self.watched.as_ref().map(|watched| Arc::clone(&watched.outcome))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(watched) = &mut this.watched {
            watched.awaited(polled.is_pending());
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    if let (Some(received), Some(data)) = (&watched.received, frame.data_ref()) {
                        received.fetch_add(data.len() as u64, Relaxed);
                    }
                }
                Poll::Ready(Some(Err(_))) => watched.outcome.broken.store(true, Relaxed),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
