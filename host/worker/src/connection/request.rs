//! Answers one request: from hyper to the app and back.
//!
//! Owns what is counted and logged of a request, the response for an app that fails, the announcement of a close, and
//! whether a response upgrades the connection. The connection's [state](super::state) decides whether a close is
//! announced.

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

use app_host_platform::sys::stats::Route;

use super::Application;
use super::request_body::{BodyOutcome, RequestBody};
use super::shared::{InFlight, Shared};
use super::tunnel::{GrantedUpgrade, PendingUpgrade, RequestedUpgrade, Upgrade, carry_stream};

/// Answers a request. Never fails: an app that fails is answered for.
pub(super) fn answer<A: Application>(
    app: A,
    shared: Arc<Shared>,
    pending: &PendingUpgrade,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody<A::Body>>, Infallible>> + Send + 'static + use<A> {
    let (requested, upgrade) = request_upgrade(&mut request).unzip();
    let requested = requested.map(|(requested, streams)| (requested, streams, pending.clone()));
    let log = shared.log().map(|log| log.begin(&mut request));
    let received = log.as_ref().map(|log| log.received());
    let request = request.map(|body| RequestBody::new(body, &shared, upgrade, received));
    let outcome = request.body().outcome();
    let mut in_flight = InFlight::begin(shared, log, request.body().size_hint().exact());
    let multiplexed = request.version() >= Version::HTTP_2;
    let route = Route::new(request.method().as_str(), request.uri().path());
    let without_body = request.method() == Method::HEAD;
    let connects = request.method() == Method::CONNECT;
    let stats = in_flight.stats();
    // Called before the future, which then doesn't contain the request. An app may do all its work in the call itself.
    stats.enter(&route);
    let call = app.call(request);
    stats.leave();
    async move {
        let answered = {
            let mut call = pin!(call);
            poll_fn(|cx| {
                stats.enter(&route);
                let polled = call.as_mut().poll(cx);
                stats.leave();
                polled
            })
            .await
        };
        let mut response = match answered {
            Ok(response) if switches(&response, connects, multiplexed) => {
                if let Some((requested, streams, pending)) = requested {
                    // The bytes of the other protocol are no body.
                    if let Some(log) = in_flight.log() {
                        log.answered(response.status(), Some(0));
                    }
                    stats.responded(response.status().as_u16());
                    return Ok(grant(&response, requested.grant(in_flight), streams, &pending));
                }
                tracing::error!("the app switches protocols, which the client did not ask for");
                failed(in_flight)
            }
            Ok(response) if without_body || is_length_right(&response) => response.map(|body| {
                // Only a body that is made while it is sent can block the thread.
                let route = (!A::is_whole(&body)).then(|| Box::new(route));
                ResponseBody { body: Some(body), route, outcome, in_flight: Some(in_flight) }
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
        let (code, length) = (response.status(), if without_body { Some(0) } else { body_length(&response) });
        if let Some(log) = response.body_mut().in_flight.as_mut().and_then(InFlight::log) {
            log.answered(code, length);
        }
        stats.responded(code.as_u16());
        if response.body().in_flight.as_ref().is_some_and(|in_flight| in_flight.state().on_response()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// If the request asks for an upgrade: what the host needs for it, and what the app gets.
fn request_upgrade(request: &mut Request<Incoming>) -> Option<((RequestedUpgrade, Option<OnUpgrade>), Upgrade)> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    let protocol = request.extensions_mut().remove::<Protocol>();
    let (requested, upgrade) = Upgrade::requested(protocol.as_ref().map_or("", Protocol::as_str));
    // hyper returns an HTTP/1 connection as a whole; the stream of an HTTP/2 connection comes by `OnUpgrade`.
    Some(((requested, (request.version() >= Version::HTTP_2).then_some(on_upgrade)), upgrade))
}

/// Whether a response switches to another protocol, by the same rule as hyper's.
fn switches<B>(response: &Response<B>, connects: bool, multiplexed: bool) -> bool {
    let status = response.status();
    (status == StatusCode::SWITCHING_PROTOCOLS && !multiplexed) || (connects && status.is_success())
}

/// The response that grants an upgrade: a head, and what follows it is not HTTP.
fn grant<B>(
    response: &Response<impl Sized>,
    granted: GrantedUpgrade,
    streams: Option<OnUpgrade>,
    pending: &PendingUpgrade,
) -> Response<ResponseBody<B>> {
    let mut head = Response::new(ResponseBody { body: None, route: None, outcome: None, in_flight: None });
    *head.status_mut() = response.status();
    head.headers_mut().clone_from(response.headers());
    match streams {
        None => pending.set(granted),
        Some(on_upgrade) => drop(tokio::spawn(carry_stream(on_upgrade, granted))),
    }
    head
}

/// The response for an app that fails.
fn failed<B>(in_flight: InFlight) -> Response<ResponseBody<B>> {
    let mut response =
        Response::new(ResponseBody { body: None, route: None, outcome: None, in_flight: Some(in_flight) });
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Whether a response has no body whatever its headers say (RFC 9110, section 6.4.1).
fn is_bare(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// How many bytes the body of a response will have, if that is known.
fn body_length<B: Body>(response: &Response<B>) -> Option<u64> {
    if is_bare(response.status()) {
        return Some(0);
    }
    let named = || decimal(response.headers().get(CONTENT_LENGTH)?.as_bytes());
    response.body().size_hint().exact().or_else(named)
}

/// Whether a body has the length that the headers give, as far as that is known. hyper trusts the headers, and a client
/// would take the rest of the body for the next response, or the next response for the rest.
fn is_length_right<B: Body>(response: &Response<B>) -> bool {
    let (status, headers) = (response.status(), response.headers());
    if is_bare(status) {
        return true;
    }
    let Some(length) = response.body().size_hint().exact() else { return true };
    // Most responses have few headers: looking at each costs less than a look-up.
    let mut lengths = headers.iter().filter(|(name, _)| **name == CONTENT_LENGTH);
    lengths.all(|(_, value)| decimal(value.as_bytes()) == Some(length))
}

/// The number that these decimal digits are, and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    let number = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().try_fold(0, number))?
}

/// The body of a response. Its request is no longer in flight when it is dropped: hyper does that as soon as it has taken
/// the last frame.
pub(super) struct ResponseBody<B> {
    body: Option<B>,
    route: Option<Box<Route>>,
    /// How the request's body ended.
    outcome: Option<Arc<BodyOutcome>>,
    /// `None` when the connection is upgraded: the tunnel is in flight.
    in_flight: Option<InFlight>,
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let watched = this.route.as_ref().zip(this.in_flight.as_ref().map(InFlight::stats));
        if let Some((route, stats)) = watched {
            stats.enter(route);
        }
        let polled = Pin::new(body).poll_frame(cx);
        if let Some((_, stats)) = watched {
            stats.leave();
        }
        let frame = ready!(polled);
        if let Some(log) = this.in_flight.as_mut().and_then(InFlight::log) {
            match &frame {
                None => log.ended(),
                Some(Ok(frame)) => log.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => {}
            }
        }
        if let Some(Err(error)) = &frame {
            let error = error as &dyn std::error::Error;
            if this.outcome.as_ref().is_some_and(|outcome| outcome.is_broken()) {
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
