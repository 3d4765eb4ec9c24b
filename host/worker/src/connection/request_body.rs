//! The body of a request, as the app reads it.
//!
//! Notes whether the app waits for more of it, which tells a client that has vanished from an app that takes its time, and
//! whether the client broke it off, which is no failure of the app's. A request without a body pays nothing for this. The
//! offer to upgrade the connection travels with the body.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http2::StreamBody;
use super::interim::Interim;
use super::keepsake::Keepsake;
use super::shared::Shared;
use super::upgrade::Upgrade;

/// A body as the connection's protocol has it.
pub(super) enum Incoming {
    Http1(hyper::body::Incoming),
    Http2(StreamBody),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// The body of a request.
pub struct RequestBody {
    body: Incoming,
    /// Unless the body is empty.
    watched: Option<Watched>,
    /// The offer to upgrade the connection, until it is taken. Boxed, because it is mostly absent.
    upgrade: Option<Box<Upgrade>>,
    /// Where something can be sent before the response, and the request's number there.
    interim: Option<(Arc<Interim>, u64)>,
    keepsake: Option<Arc<Keepsake>>,
}

/// What comes to the app with a request.
pub(super) struct Offers {
    pub(super) upgrade: Option<Upgrade>,
    pub(super) interim: Option<(Arc<Interim>, u64)>,
    pub(super) keepsake: Option<Arc<Keepsake>>,
}

/// Why there is no more of a request's body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client has broken it off, or sent what is no body.
    #[error("the client broke the body off")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// It is longer than a body may be.
    #[error("the body is longer than http.max_body")]
    TooLarge,
}

/// What a body is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The most bytes that it may have.
    pub(super) most: Option<u64>,
    /// Whether it may come as slowly as its client likes: a stream of messages.
    pub(super) patient: bool,
}

/// How a request's body ended.
pub(super) struct BodyOutcome {
    shared: Arc<Shared>,
    broken: AtomicBool,
    too_large: AtomicBool,
}

impl BodyOutcome {
    /// Whether the client broke it off.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// Whether it was longer than it may be.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large.load(Relaxed)
    }
}

struct Watched {
    outcome: Arc<BodyOutcome>,
    /// Counts its bytes, if they are to be logged.
    received: Option<Arc<AtomicU64>>,
    /// Whether the app waits for more.
    awaited: bool,
    /// Whether the client may take its time, because its protocol lets it.
    patient: bool,
    /// How many more bytes there may be, if that is bounded.
    left: Option<u64>,
}

impl Watched {
    /// The body is too long; counted once, whatever the app does with the error.
    fn too_large(&mut self) {
        self.left = Some(0);
        self.outcome.broken.store(true, Relaxed);
        self.outcome.too_large.store(true, Relaxed);
    }

    fn awaited(&mut self, awaited: bool) {
        if self.awaited != awaited && !self.patient {
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
        Offers { upgrade, interim, keepsake }: Offers,
        received: Option<Arc<AtomicU64>>,
        terms: Terms,
    ) -> Self {
        let watched = (!body.is_end_stream()).then(|| Watched {
            outcome: Arc::new(BodyOutcome {
                shared: Arc::clone(shared),
                broken: AtomicBool::new(false),
                too_large: AtomicBool::new(false),
            }),
            left: terms.most,
            received,
            awaited: false,
            patient: terms.patient,
        });
        Self { body, watched, upgrade: upgrade.map(Box::new), interim, keepsake }
    }

    /// Takes the offer to upgrade the connection, if the client has asked for that.
    pub fn upgrade(&mut self) -> Option<Upgrade> {
        self.upgrade.take().map(|upgrade| *upgrade)
    }

    /// Takes the way to send early hints, and the request's number there.
    pub const fn interim(&mut self) -> Option<(Arc<Interim>, u64)> {
        self.interim.take()
    }

    /// Takes the place where something is left for whoever is asked again, if somebody may be.
    pub const fn keepsake(&mut self) -> Option<Arc<Keepsake>> {
        self.keepsake.take()
    }

    /// How the body ends, unless it is empty.
    pub(super) fn outcome(&self) -> Option<Arc<BodyOutcome>> {
        self.watched.as_ref().map(|watched| Arc::clone(&watched.outcome))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut polled = Pin::new(&mut this.body).poll_frame(cx).map_err(BodyError::Client);
        if let Some(watched) = &mut this.watched {
            watched.awaited(polled.is_pending());
            match &mut polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match watched.left.map(|left| left.checked_sub(length)) {
                        None => {}
                        Some(Some(left)) => watched.left = Some(left),
                        Some(None) => {
                            watched.too_large();
                            return Poll::Ready(Some(Err(BodyError::TooLarge)));
                        }
                    }
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
