//! The body of a response, on its way from the app to HTTP.
//!
//! Owns what is counted and logged of it, and how it ends: with the app's last frame, by an error, or, of an
//! [event stream](super::event_stream), between two events, for another worker to go on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::futures::OwnedNotified;

use app_host_core::not_resumed::{LongLived, NotResumed};
use app_host_core::refused::Refused;
use app_host_platform::sys::stats::Route;

use super::event_stream::{Course, EventStream};
use super::request_body::BodyOutcome;
use super::shared::{InFlight, Shared};
use super::state::Drains;

/// The body of a response. Its request is no longer in flight when it is dropped, which is as soon as its last frame has
/// been taken.
pub(super) struct ResponseBody<B> {
    content: Content<B>,
    route: Option<Box<Route>>,
    /// How the request's body ended.
    outcome: Option<Arc<BodyOutcome>>,
    /// `None` when the connection is upgraded: the tunnel is in flight.
    in_flight: Option<InFlight>,
    /// What lets another worker go on. Boxed, because most are none.
    stream: Option<Box<OpenStream>>,
}

enum Content<B> {
    None,
    App(B),
    /// Nothing more comes from here, which is not the end.
    LetGo,
}

/// An event stream that may go on elsewhere, while it is open.
struct OpenStream {
    stream: EventStream,
    /// Ready when the worker's phase is new.
    phase: Pin<Box<OwnedNotified>>,
    /// Whether it has begun when its worker served. A client of HTTP/2 may come back to one that drains, again and again.
    is_settled: bool,
    shared: Arc<Shared>,
}

impl OpenStream {
    /// What becomes of it in the worker's phase. Sees to it that a new phase is noticed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Course {
        while self.phase.as_mut().poll(cx).is_ready() {
            self.phase = Box::pin(self.shared.new_phase());
        }
        self.stream.course(self.shared.state.drains())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.shared.state.is_cut() {
            self.shared.count_not_resumed(LongLived::EventStream, NotResumed::Cut);
        }
    }
}

impl<B> ResponseBody<B> {
    /// What the app answers with.
    pub(super) fn of_app(
        body: B,
        route: Option<Box<Route>>,
        outcome: Option<Arc<BodyOutcome>>,
        in_flight: InFlight,
        stream: Option<EventStream>,
    ) -> Self {
        let stream = stream.map(|stream| {
            let shared = Arc::clone(in_flight.shared());
            let is_settled = shared.state.drains() == Drains::No;
            Box::new(OpenStream { stream, phase: Box::pin(shared.new_phase()), is_settled, shared })
        });
        Self { content: Content::App(body), route, outcome, in_flight: Some(in_flight), stream }
    }

    /// That of an answer without one.
    pub(super) const fn empty(in_flight: InFlight, outcome: Option<Arc<BodyOutcome>>) -> Self {
        Self { content: Content::None, route: None, outcome, in_flight: Some(in_flight), stream: None }
    }

    /// That of an answer that grants an upgrade.
    pub(super) const fn of_tunnel() -> Self {
        Self { content: Content::None, route: None, outcome: None, in_flight: None, stream: None }
    }

    /// The request, but for one that has become a tunnel.
    pub(super) const fn in_flight(&mut self) -> Option<&mut InFlight> {
        self.in_flight.as_mut()
    }

    /// Whether the app has let go of the request's body.
    pub(super) fn is_request_let_go(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| Arc::strong_count(outcome) == 1)
    }

    /// Lets go of an event stream that doesn't stay, or of none. Returns what HTTP gets then.
    fn poll_course<F>(&mut self, cx: &mut Context<'_>) -> Option<Poll<Option<F>>> {
        let open = self.stream.as_mut()?;
        match open.poll(cx) {
            Course::Stays => None,
            Course::Leaves(head) if !open.shared.state.has_client_ended() => {
                open.shared.let_go(head);
                // What has not gone out when the client is cut off is lost: the stream counts until then.
                self.content = Content::LetGo;
                Some(Poll::Pending)
            }
            // A client that has ended its side is as good as gone, and its TLS can't travel.
            Course::Leaves(_) => Some(self.end()),
            Course::Ends(why) => {
                if open.is_settled || why != NotResumed::Http2 {
                    open.shared.count_not_resumed(LongLived::EventStream, why);
                }
                Some(self.end())
            }
        }
    }

    /// Ends an event stream in the app's place.
    fn end<F>(&mut self) -> Poll<Option<F>> {
        self.stream = None;
        self.content = Content::None;
        if let Some(log) = self.in_flight.as_mut().and_then(InFlight::log) {
            log.ended();
        }
        Poll::Ready(None)
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let Content::App(_) = this.content
            && let Some(polled) = this.poll_course(cx)
        {
            return polled;
        }
        let body = match &mut this.content {
            Content::App(body) => body,
            Content::None => return Poll::Ready(None),
            Content::LetGo => return Poll::Pending,
        };
        let watched = this.route.as_ref().zip(this.in_flight.as_ref().map(InFlight::stats));
        if let Some((route, stats)) = watched {
            stats.enter(route);
        }
        let polled = Pin::new(body).poll_frame(cx);
        if let Some((_, stats)) = watched {
            stats.leave();
        }
        if let Some(in_flight) = &mut this.in_flight {
            in_flight.untaken(polled.is_ready());
        }
        let frame = ready!(polled);
        if let Some(in_flight) = &this.in_flight {
            in_flight.state().on_response_frame();
        }
        if let (Some(open), Some(Ok(frame))) = (&mut this.stream, &frame) {
            frame.data_ref().iter().for_each(|data| open.stream.on_sent(data));
        }
        if let Some(log) = this.in_flight.as_mut().and_then(InFlight::log) {
            match &frame {
                None => log.ended(),
                Some(Ok(frame)) => log.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => {}
            }
        }
        if let Some(Err(error)) = &frame {
            let error = error as &dyn std::error::Error;
            let too_large = this.outcome.as_ref().is_some_and(|outcome| outcome.is_too_large());
            if let Some(in_flight) = this.in_flight.as_ref().filter(|_| too_large) {
                in_flight.refuse(Refused::BodyTooLarge, "a body without a length, when its response had begun");
            }
            if this.outcome.as_ref().is_some_and(|outcome| outcome.is_broken()) {
                tracing::debug!(error, "response body failed with its request's");
            } else {
                tracing::error!(error, "response body failed");
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::None => true,
            Content::App(body) => body.is_end_stream(),
            Content::LetGo => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::None => SizeHint::with_exact(0),
            Content::App(body) => body.size_hint(),
            Content::LetGo => SizeHint::default(),
        }
    }
}
