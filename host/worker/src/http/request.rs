//! One request: from hyper to the app and back.
//!
//! Owns what is counted and said of a request, the answer for an app that fails, the announcement of a
//! close, and whether an answer upgrades the connection. Whether a close is to be announced is decided by the
//! connection's [state](super::state).

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::Application;
use super::activity::{Activity, InFlight};
use super::tunnel::{Asked, Switch, Turn, Upgrade, stream};
use super::upload::{Fate, Upload};
use app_host_platform::sys::stats::Route;

/// Answers a request; never fails, because an app that fails is answered for.
pub(super) fn answer<A: Application>(
    app: A,
    activity: Arc<Activity>,
    turn: &Turn,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer<A::Body>>, Infallible>> + Send + 'static + use<A> {
    let (asked, upgrade) = ask(&mut request).unzip();
    let asked = asked.map(|(asked, streams)| (asked, streams, turn.clone()));
    let entry = activity.visitor().map(|visitor| visitor.begin(&mut request));
    let received = entry.as_ref().map(|entry| entry.received());
    let request = request.map(|body| Upload::new(body, &activity, upgrade, received));
    let fate = request.body().fate();
    let mut in_flight = InFlight::begin(activity, entry, request.body().size_hint().exact());
    let multiplexed = request.version() >= Version::HTTP_2;
    let route = Route::new(request.method().as_str(), request.uri().path());
    let without_body = request.method() == Method::HEAD;
    let connects = request.method() == Method::CONNECT;
    let lane = in_flight.lane();
    // Called here, so that the future doesn't carry the request besides. An app may do its work in the
    // call itself.
    lane.enter(&route);
    let call = app.call(request);
    lane.leave();
    async move {
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
            Ok(response) if switches(&response, connects, multiplexed) => {
                if let Some((asked, streams, turn)) = asked {
                    // What is said in the other protocol isn't HTTP's.
                    if let Some(entry) = in_flight.entry() {
                        entry.answered(response.status(), Some(0));
                    }
                    lane.responded(response.status().as_u16());
                    return Ok(granted(&response, asked.granted(in_flight), streams, &turn));
                }
                tracing::error!("the app switches protocols, which the client did not ask for");
                failed(in_flight)
            }
            Ok(response) if without_body || is_length_right(&response) => response.map(|body| {
                // Only a body that is made while it is sent can hold the thread.
                let route = (!A::is_whole(&body)).then(|| Box::new(route));
                Answer { body: Some(body), route, fate, in_flight: Some(in_flight) }
            }),
            Ok(response) => {
                tracing::error!(
                    content_length = ?response.headers().get(CONTENT_LENGTH),
                    length = response.body().size_hint().exact(),
                    "the app's content-length is not its body's"
                );
                failed(in_flight)
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "app gave no response");
                failed(in_flight)
            }
        };
        let (status, length) = (response.status(), if without_body { Some(0) } else { body_length(&response) });
        if let Some(entry) = response.body_mut().in_flight.as_mut().and_then(InFlight::entry) {
            entry.answered(status, length);
        }
        lane.responded(status.as_u16());
        if response.body().in_flight.as_ref().is_some_and(|in_flight| in_flight.state().on_response()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// What an upgrade needs on this side, if the request asks for one, and what the app gets.
fn ask(request: &mut Request<Incoming>) -> Option<((Asked, Option<OnUpgrade>), Upgrade)> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    let protocol = request.extensions_mut().remove::<Protocol>();
    let (asked, upgrade) = Upgrade::asked(protocol.as_ref().map_or("", Protocol::as_str));
    // hyper gives an HTTP/1 connection back as a whole; of HTTP/2 only it can give a stream.
    Some(((asked, (request.version() >= Version::HTTP_2).then_some(on_upgrade)), upgrade))
}

/// Whether a response says that another protocol follows: hyper takes it so, too.
fn switches<B>(response: &Response<B>, connects: bool, multiplexed: bool) -> bool {
    let status = response.status();
    (status == StatusCode::SWITCHING_PROTOCOLS && !multiplexed) || (connects && status.is_success())
}

/// The answer that grants an upgrade: a head, and what follows is no HTTP.
fn granted<B>(
    response: &Response<impl Sized>,
    switch: Switch,
    streams: Option<OnUpgrade>,
    turn: &Turn,
) -> Response<Answer<B>> {
    let mut granted = Response::new(Answer { body: None, route: None, fate: None, in_flight: None });
    *granted.status_mut() = response.status();
    granted.headers_mut().clone_from(response.headers());
    match streams {
        None => turn.give(switch),
        Some(on_upgrade) => drop(tokio::spawn(stream(on_upgrade, switch))),
    }
    granted
}

/// The answer for an app that fails.
fn failed<B>(in_flight: InFlight) -> Response<Answer<B>> {
    let mut response = Response::new(Answer { body: None, route: None, fate: None, in_flight: Some(in_flight) });
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Whether a response has no body whatever its headers say (RFC 9110, section 6.4.1).
fn is_bare(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// How many bytes the body of a response will have, as far as that is known.
fn body_length<B: Body>(response: &Response<B>) -> Option<u64> {
    if is_bare(response.status()) {
        return Some(0);
    }
    let named = || decimal(response.headers().get(CONTENT_LENGTH)?.as_bytes());
    response.body().size_hint().exact().or_else(named)
}

/// Whether a body has the length that the headers give, as far as that is known. hyper trusts it, and
/// a client would take the rest for the next response, or that for the rest.
fn is_length_right<B: Body>(response: &Response<B>) -> bool {
    let (status, headers) = (response.status(), response.headers());
    if is_bare(status) {
        return true;
    }
    let Some(length) = response.body().size_hint().exact() else { return true };
    // Most responses have few headers: to look at each costs less than to look one up.
    let mut lengths = headers.iter().filter(|(name, _)| **name == CONTENT_LENGTH);
    lengths.all(|(_, value)| decimal(value.as_bytes()) == Some(length))
}

/// A number of decimal digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    let number = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().try_fold(0, number))?
}

/// A response's body, which ends its request's flight when it is dropped: hyper does that as soon as
/// it has taken the last frame.
pub(super) struct Answer<B> {
    body: Option<B>,
    route: Option<Box<Route>>,
    /// Of the request's body.
    fate: Option<Arc<Fate>>,
    /// `None` when the connection is upgraded, which is in flight for longer.
    in_flight: Option<InFlight>,
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
        let held = this.route.as_ref().zip(this.in_flight.as_ref().map(InFlight::lane));
        if let Some((route, lane)) = held {
            lane.enter(route);
        }
        let polled = Pin::new(body).poll_frame(cx);
        if let Some((_, lane)) = held {
            lane.leave();
        }
        let frame = ready!(polled);
        if let Some(entry) = this.in_flight.as_mut().and_then(InFlight::entry) {
            match &frame {
                None => entry.ended(),
                Some(Ok(frame)) => entry.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => {}
            }
        }
        if let Some(Err(error)) = &frame {
            let error = error as &dyn std::error::Error;
            if this.fate.as_ref().is_some_and(|fate| fate.is_broken()) {
                tracing::debug!(error, "response body failed with its request's");
            } else {
                tracing::error!(error, "response body failed");
            }
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
