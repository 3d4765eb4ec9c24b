//! Answers one request: from hyper or h2 to the app and back.
//!
//! Owns what is counted and logged of a request, the response for an app that fails, the announcement of a close, and
//! whether a response upgrades the connection. The connection's [state](super::state) decides whether a close is
//! announced.

use std::convert::Infallible;
use std::future::{self, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use app_abi::RESUMABLE;
use futures_util::future::Either;
use h2::ext::Protocol;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use app_host_core::not_resumed::LongLived;
use app_host_core::refused::Refused;
use app_host_platform::sys::stats::Route;

use super::Application;
use super::again::{self, Asked};
use super::bounds::{self, InFlightNow};
use super::event_stream::EventStream;
use super::framing::Fault;
use super::interim::Interim;
use super::request_body::{BodyOutcome, Incoming, Offers, RequestBody, Terms};
use super::response_body::ResponseBody;
use super::rules::{self, Objection};
use super::shared::{InFlight, Shared};
use super::state::ConnState;
use super::upgrade::{GrantedUpgrade, PendingUpgrade, RequestedUpgrade, Upgrade};

/// What goes past the response to a request.
pub(super) struct Way<'a> {
    /// What comes before it.
    pub(super) interim: Option<Arc<Interim>>,
    /// Where an upgrade that is granted waits for the response to be written.
    pub(super) pending: &'a PendingUpgrade,
}

/// Answers a request. Never fails: an app that fails is answered for.
pub(super) fn answer<A: Application>(
    app: A,
    shared: Arc<Shared>,
    Way { interim, pending }: Way<'_>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody<A::Body>>, Infallible>> + Send + 'static + use<A> {
    let replayed = shared.state.on_replay();
    if let Err(objection) = judge(&mut request, &shared, replayed) {
        return Either::Left(future::ready(Ok(refused(shared, request.version(), &objection))));
    }
    let asked = again::asked(&request, &shared.limits.http);
    let terms = Terms { most: shared.limits.http.max_body, patient: rules::is_grpc(&request) };
    app.receive(&mut request);
    let (requested, upgrade) = request_upgrade(&mut request).unzip();
    let requested = requested.map(|requested| (requested, pending.clone()));
    let log = shared.log().map(|log| log.begin(&mut request));
    let received = log.as_ref().map(|log| log.received());
    // What HTTP/1.0 doesn't know (RFC 9110, section 15.2), and what comes too late if the client has had the answer.
    let interim = interim.filter(|_| request.version() >= Version::HTTP_11 && !replayed);
    let interim = interim.map(|interim| {
        let number = interim.open();
        (interim, number)
    });
    let keepsake = asked.as_ref().filter(|asked| asked.is_repeatable()).map(|_| shared.keepsake(replayed));
    let offers = Offers { upgrade, interim: interim.clone(), keepsake };
    let request = request.map(|body| RequestBody::new(body, &shared, offers, received, terms));
    let outcome = request.body().outcome();
    let mut in_flight = InFlight::begin(shared, log, interim);
    let version = request.version();
    let closes = rules::closes_after(&request);
    let route = Route::new(request.method().as_str(), request.uri().path());
    let without_body = request.method() == Method::HEAD;
    let connects = request.method() == Method::CONNECT;
    let stats = in_flight.stats();
    // Called before the future, which then doesn't contain the request. An app may do all its work in the call itself.
    stats.enter(&route);
    let call = app.call(request);
    stats.leave();
    Either::Right(async move {
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
        in_flight.answered();
        // Whatever the app has made of a body that broke.
        let objection = outcome.as_ref().and_then(|outcome| objection_to_body(outcome, in_flight.state()));
        let mut response = match answered {
            _ if let Some(objection) = &objection => {
                in_flight.refuse(objection.why, &objection.detail);
                in_flight.state().on_last_response();
                let mut response = failed(in_flight, outcome);
                *response.status_mut() = objection.status;
                response
            }
            Ok(response) if switches(&response, connects, version) => {
                if let Some((requested, pending)) = requested {
                    // The bytes of the other protocol are no body.
                    if let Some(log) = in_flight.log() {
                        log.answered(response.status(), Some(0));
                    }
                    stats.responded(response.status().as_u16());
                    let again = asked.and_then(|asked| again::granted_socket(asked, response.headers()));
                    in_flight.goes_on(replayed, LongLived::WebSocket);
                    return Ok(grant(&response, requested.grant(in_flight, again), &pending));
                }
                tracing::error!("the app switches protocols, which the client did not ask for");
                failed(in_flight, outcome)
            }
            Ok(response) if response.status().is_informational() => {
                tracing::error!(status = %response.status(), "the app's response is one that comes before a response");
                failed(in_flight, outcome)
            }
            Ok(response) if response.status() == StatusCode::RESET_CONTENT => {
                without_content(response, in_flight, outcome)
            }
            Ok(mut response) if without_body || is_length_right(&response) => {
                let stream = event_stream(asked, &mut response, &in_flight, replayed);
                response.map(|body| {
                    // Only a body that is made while it is sent can block the thread.
                    let route = (!A::is_whole(&body)).then(|| Box::new(route));
                    ResponseBody::of_app(body, route, outcome, in_flight, stream)
                })
            }
            Ok(response) => {
                tracing::error!(
                    content_length = ?response.headers().get(CONTENT_LENGTH),
                    length = response.body().size_hint().exact(),
                    "the app's content-length is not its body's"
                );
                failed(in_flight, outcome)
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "app gave no response");
                failed(in_flight, outcome)
            }
        };
        let length = if without_body { Some(0) } else { body_length(&response) };
        note(&mut response, length);
        stats.responded(response.status().as_u16());
        let ends = closes || (version == Version::HTTP_10 && length.is_none());
        if announces_close(&mut response, ends) {
            close_behind(&mut response, version);
        }
        Ok(response)
    })
}

/// Notes a response in the log, and mends its head.
fn note<B>(response: &mut Response<ResponseBody<B>>, length: Option<u64>) {
    let status = response.status();
    if status == StatusCode::NO_CONTENT {
        // RFC 9110, section 8.6.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    if let Some(log) = response.body_mut().in_flight().and_then(InFlight::log) {
        log.answered(status, length);
    }
}

/// Judges a request, and has the connection's state know of it.
fn judge(request: &mut Request<Incoming>, shared: &Shared, replayed: bool) -> Result<(), Objection> {
    let limits = &shared.limits.http;
    let fault = shared.state.on_request(request.body().size_hint().exact());
    let in_flight = InFlightNow { requests: shared.in_flight(), most: shared.limits.in_flight().filter(|_| !replayed) };
    let fault = match fault {
        Some(Fault::BareLineFeed) if limits.allow_bare_line_feeds => shared.state.body_fault(),
        fault => fault,
    };
    // First, because a connection doesn't outlive it.
    fault.map_or(Ok(()), |fault| Err(Objection::from(fault)))?;
    rules::judge(request, limits)?;
    bounds::check(request, limits, in_flight)
}

/// What is wrong with the body of a request that the app has.
fn objection_to_body(outcome: &BodyOutcome, state: &ConnState) -> Option<Objection> {
    if outcome.is_too_large() {
        let (why, status) = (Refused::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE);
        return Some(Objection { why, status, detail: "a body without a length".into() });
    }
    state.body_fault().map(Objection::from)
}

/// Whether the head of an HTTP/1 response says that the connection is closed behind it: because the client or HTTP itself
/// `ends` it, because of a drain, or because the app has let go of a body of which there is more (RFC 9112, section 9.6).
fn announces_close<B>(response: &mut Response<ResponseBody<B>>, ends: bool) -> bool {
    let is_let_go = response.body().is_request_let_go();
    let Some(in_flight) = response.body_mut().in_flight() else { return ends };
    in_flight.streams();
    in_flight.untaken(true);
    let drains = in_flight.state().on_response();
    drains || ends || (is_let_go && in_flight.state().is_body_unread())
}

/// Announces that the connection is closed behind a response to a request of this version.
fn close_behind<B>(response: &mut Response<B>, version: Version) {
    if version < Version::HTTP_2 {
        // hyper promises an HTTP/1.0 client that wants it to keep the connection, unless the response is of that version.
        *response.version_mut() = version;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The response to a request that the app never sees. The connection doesn't outlive it if the request is to blame: what is
/// left of that may be long.
fn refused<B>(shared: Arc<Shared>, version: Version, objection: &Objection) -> Response<ResponseBody<B>> {
    let in_flight = InFlight::refused(shared, objection);
    in_flight.stats().responded(objection.status.as_u16());
    let overloaded = objection.status == StatusCode::SERVICE_UNAVAILABLE;
    if !overloaded {
        in_flight.state().on_last_response();
    }
    let closes = in_flight.state().on_response() || in_flight.state().is_body_unread();
    let mut response = Response::new(ResponseBody::empty(in_flight, None));
    *response.status_mut() = objection.status;
    if overloaded {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if closes {
        close_behind(&mut response, version);
    }
    response
}

/// What is left of a response that can't have content (RFC 9110, section 15.3.6).
fn without_content<B, R>(
    response: Response<B>,
    in_flight: InFlight,
    outcome: Option<Arc<BodyOutcome>>,
) -> Response<ResponseBody<R>> {
    let mut response = response.map(|_| ResponseBody::empty(in_flight, outcome));
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

/// If the request asks for an upgrade: what the host needs for it, and what the app gets.
fn request_upgrade(request: &mut Request<Incoming>) -> Option<(RequestedUpgrade, Upgrade)> {
    // hyper returns an HTTP/1 connection as a whole, whatever becomes of this.
    let is_asked_for = request.extensions_mut().remove::<OnUpgrade>().is_some();
    let is_stream = request.method() == Method::CONNECT && request.version() >= Version::HTTP_2;
    if !is_asked_for && !is_stream {
        return None;
    }
    let protocol = request.extensions_mut().remove::<Protocol>();
    Some(Upgrade::requested(protocol.as_ref().map_or("", Protocol::as_str)))
}

/// Whether a response switches to another protocol, by the same rule as hyper's.
fn switches<B>(response: &Response<B>, connects: bool, version: Version) -> bool {
    let status = response.status();
    (status == StatusCode::SWITCHING_PROTOCOLS && version < Version::HTTP_2) || (connects && status.is_success())
}

/// The response that grants an upgrade: a head, and what follows it is not HTTP.
fn grant<B>(
    response: &Response<impl Sized>,
    granted: GrantedUpgrade,
    pending: &PendingUpgrade,
) -> Response<ResponseBody<B>> {
    let mut head = Response::new(ResponseBody::of_tunnel());
    *head.status_mut() = response.status();
    head.headers_mut().clone_from(response.headers());
    head.headers_mut().remove(RESUMABLE);
    pending.set(granted);
    head
}

/// What lets another worker go on with the event stream that a response is, if the app allows that. Notes whether it is what
/// the client has had the begin of, if it was `replayed`.
fn event_stream<B: Body>(
    asked: Option<Asked>,
    response: &mut Response<B>,
    in_flight: &InFlight,
    replayed: bool,
) -> Option<EventStream> {
    // A response whose length is known is none, and most are.
    if response.body().size_hint().exact().is_some() {
        return None;
    }
    let stream = again::granted_stream(asked, response);
    response.headers_mut().remove(RESUMABLE);
    if again::is_event_stream(response) && again::is_plain(response.headers()) {
        in_flight.goes_on(replayed, LongLived::EventStream);
    }
    stream.map(|head| EventStream::new(head, replayed))
}

/// The response for an app that fails.
fn failed<B>(in_flight: InFlight, outcome: Option<Arc<BodyOutcome>>) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::empty(in_flight, outcome));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Whether a response has no body whatever its headers say (RFC 9110, section 6.4.1).
pub(super) fn is_bare(status: StatusCode) -> bool {
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
