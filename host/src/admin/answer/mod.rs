//! What is answered: the paths, and the headers that keep a page what it is.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::sync::watch;

use app_host_core::hosts;
use app_host_core::message::AdminListens;
use app_host_core::status::Status;
use app_host_platform::metrics;

use super::live::Live;
use super::source::{Source, Standing};

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

const PAGE: &str = include_str!("../page.html");
const STYLE: &str = include_str!("../page.css");
const SCRIPT: &str = include_str!("../page.js");

const PLAIN: &str = "text/plain; charset=utf-8";

/// Nothing from elsewhere, nothing inline but the icon, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every answer says besides.
const HEADERS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const SILENT: &str = "the master doesn't answer\n";

/// Where answers are given.
pub(super) struct Responder {
    listens: AdminListens,
    source: Source,
    live: Live,
}

impl Responder {
    /// What is pushed ends when `close` says so.
    pub(super) fn new(listens: AdminListens, source: Source, close: watch::Receiver<bool>) -> Self {
        let live = Live::new(source.clone(), close);
        Self { listens, source, live }
    }

    /// What is pushed.
    pub(super) const fn live(&self) -> &Live {
        &self.live
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let mut response = self.choose(request).await;
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    async fn choose<B>(&self, request: &Request<B>) -> Response<Body> {
        if !self.is_for_us(request) {
            return text(StatusCode::FORBIDDEN, "only localhost and addresses are names of this listener\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/" => full(StatusCode::OK, "text/html; charset=utf-8", PAGE),
            "/page.css" => full(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            "/page.js" => full(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
            "/events" => self.events(request.method()),
            "/metrics" => match self.source.ask().await {
                Some(standing) => {
                    let (text, kind) = metrics::text(&standing.snapshot, standing.master);
                    full(StatusCode::OK, kind, text)
                }
                None => text(StatusCode::SERVICE_UNAVAILABLE, SILENT),
            },
            "/healthz" => match self.source.ask().await {
                Some(_) => text(StatusCode::OK, "ok\n"),
                None => text(StatusCode::SERVICE_UNAVAILABLE, SILENT),
            },
            "/readyz" => readiness(self.source.ask().await.as_ref()),
            _ => text(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz and /readyz\n"),
        }
    }

    /// Whether a browser that is led here by somebody else's page would have said another name.
    fn is_for_us<B>(&self, request: &Request<B>) -> bool {
        if self.listens != AdminListens::Loopback {
            return true;
        }
        // The names in the request line and in the header are both there at times.
        let named = request.uri().authority().is_none_or(|authority| hosts::is_ours(authority.as_str()));
        let header = |value: &HeaderValue| value.to_str().is_ok_and(hosts::is_ours);
        named && request.headers().get_all(HOST).iter().all(header)
    }

    fn events(&self, method: &Method) -> Response<Body> {
        let body = if method == Method::HEAD { Some(Full::default().boxed_unsync()) } else { self.live.listen() };
        let Some(body) = body else {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
            return response;
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }
}

/// Whether the service takes requests: at least one worker is ready, and the master doesn't start or stop.
fn readiness(standing: Option<&Rc<Standing>>) -> Response<Body> {
    let Some(standing) = standing else { return text(StatusCode::SERVICE_UNAVAILABLE, SILENT) };
    let status = &standing.snapshot.status;
    let code = if is_ready(status) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, &standing_in_words(status))
}

/// What there is to say of it.
pub(super) fn standing_in_words(status: &Status) -> String {
    let word = if is_ready(status) { "ready" } else { "not ready" };
    let Status { phase, listeners_down, .. } = status;
    let drained = if status.out_of_rotation { ", taken out of rotation" } else { "" };
    let wanted = status.workers_wanted.unwrap_or(status.workers_configured);
    let down = if listeners_down.is_empty() { "" } else { ", turning clients away: " };
    let names = listeners_down.join(", ");
    format!("{word}: {phase}, {} of {wanted} workers{drained}{down}{names}\n", status.serving())
}

/// Whether requests are taken, on each listener. A locked master's workers serve on, so that it is ready, too.
pub(super) fn is_ready(status: &Status) -> bool {
    !matches!(status.phase.as_str(), "starting" | "stopping")
        && status.serving() > 0
        && status.listeners_down.is_empty()
        && !status.out_of_rotation
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    full(code, PLAIN, text.to_owned())
}

fn full(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
