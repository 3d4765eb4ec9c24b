//! A request's body on its way to the app.
//!
//! Owns what else has to be known of it: whether the app waits for more of it, which tells a client
//! that has vanished from an app that takes its time, and whether it broke off, which the app can't
//! help. A request without a body pays nothing for this. What a request may be upgraded to travels with
//! it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::Activity;
use super::tunnel::Upgrade;

/// The body of a request.
pub struct Upload {
    body: Incoming,
    /// Unless the body is empty.
    watched: Option<Watched>,
    /// If the client asks for it, until it is taken. Boxed, because hardly any does.
    upgrade: Option<Box<Upgrade>>,
}

/// What became of a request's body.
pub(super) struct Fate {
    activity: Arc<Activity>,
    broken: AtomicBool,
}

impl Fate {
    /// Whether the client broke it off.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }
}

struct Watched {
    fate: Arc<Fate>,
    /// Counts its bytes, if they are to be logged.
    received: Option<Arc<AtomicU64>>,
    /// The app waits for more.
    awaited: bool,
}

impl Watched {
    fn awaited(&mut self, awaited: bool) {
        if self.awaited != awaited {
            self.awaited = awaited;
            self.fate.activity.state.on_body_awaited(awaited);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.awaited(false);
    }
}

impl Upload {
    pub(super) fn new(
        body: Incoming,
        activity: &Arc<Activity>,
        upgrade: Option<Upgrade>,
        received: Option<Arc<AtomicU64>>,
    ) -> Self {
        let watched = (!body.is_end_stream()).then(|| Watched {
            fate: Arc::new(Fate { activity: Arc::clone(activity), broken: AtomicBool::new(false) }),
            received,
            awaited: false,
        });
        Self { body, watched, upgrade: upgrade.map(Box::new) }
    }

    /// What the connection can be upgraded to, once, if the client asks for that.
    pub fn upgrade(&mut self) -> Option<Upgrade> {
        self.upgrade.take().map(|upgrade| *upgrade)
    }

    /// What becomes of it, unless it is empty.
    pub(super) fn fate(&self) -> Option<Arc<Fate>> {
        self.watched.as_ref().map(|watched| Arc::clone(&watched.fate))
    }
}

impl Body for Upload {
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
                Poll::Ready(Some(Err(_))) => watched.fate.broken.store(true, Relaxed),
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
