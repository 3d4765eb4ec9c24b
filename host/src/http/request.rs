//! One request: from hyper to the app and back.
//!
//! Owns what is counted and said of a request, the answer for an app that fails, and the announcement
//! of a close. When a close is to be announced is the driver's decision.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Application;
use super::activity::{Activity, InFlight};
use crate::sys::stats::Route;

/// Answers a request; never fails, because an app that fails is answered for.
pub(super) fn answer<A: Application>(
    app: A,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer<A::Body>>, Infallible>> + Send + 'static {
    let in_flight = InFlight::begin(activity);
    let multiplexed = request.version() >= Version::HTTP_2;
    if !multiplexed {
        in_flight.activity().boundary().request(request.body().size_hint().exact());
    }
    let route = Route::new(request.method().as_str(), request.uri().path());
    // Called here, so that the future doesn't carry the request besides.
    let call = app.call(request);
    async move {
        let lane = in_flight.lane();
        let answered = {
            let mut call = pin!(call);
            poll_fn(|cx| {
                lane.enter(&route);
                let polled = call.as_mut().poll(cx);
                lane.leave();
                polled
            })
            .await
        };
        let mut response = match answered {
            Ok(response) => response.map(|body| {
                // Only a body that is made while it is sent can hold the thread.
                let route = body.size_hint().exact().is_none().then(|| Box::new(route));
                Answer { body: Some(body), route, in_flight }
            }),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "app gave no response");
                let mut response = Response::new(Answer { body: None, route: None, in_flight });
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        };
        // A response that switches protocols says something else with this header.
        if !multiplexed
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
            && response.body().in_flight.activity().is_announced()
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// A response's body, which ends its request's flight when it is dropped: hyper does that as soon as
/// it has taken the last frame.
pub(super) struct Answer<B> {
    body: Option<B>,
    route: Option<Box<Route>>,
    in_flight: InFlight,
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Some(route) = &this.route {
            this.in_flight.lane().enter(route);
        }
        let polled = Pin::new(body).poll_frame(cx);
        if this.route.is_some() {
            this.in_flight.lane().leave();
        }
        let frame = ready!(polled);
        if let Some(Err(error)) = &frame {
            tracing::error!(error = error as &dyn std::error::Error, "response body failed");
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
