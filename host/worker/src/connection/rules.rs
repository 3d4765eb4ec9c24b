//! What a request must be before an app sees it, where hyper takes more than the standards allow.
//!
//! Pure: a head goes in; why the request is refused comes out, or its `Host` is what its target says. What is wrong with the
//! bytes themselves, which hyper keeps to itself, [`framing`](super::framing) tells.

use std::borrow::Cow;

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{Method, Request, StatusCode, Uri, Version};

use app_host_core::config::Http;
use app_host_core::refused::Refused;

use super::framing::Fault;

/// The longest name of a method (RFC 9112, section 3): the longest that IANA has registered has 17 bytes.
const MAX_METHOD: usize = 32;

/// Why a request doesn't reach the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) why: Refused,
    /// What the client is answered.
    pub(super) status: StatusCode,
    /// What exactly is wrong, for the access log.
    pub(super) detail: Cow<'static, str>,
}

impl Objection {
    const fn bad_request(why: Refused, detail: &'static str) -> Self {
        Self { why, status: StatusCode::BAD_REQUEST, detail: Cow::Borrowed(detail) }
    }

    const fn host(detail: &'static str) -> Self {
        Self::bad_request(Refused::BadHost, detail)
    }

    const fn target(detail: &'static str) -> Self {
        Self::bad_request(Refused::BadTarget, detail)
    }

    const fn not_implemented(why: Refused, detail: &'static str) -> Self {
        Self { why, status: StatusCode::NOT_IMPLEMENTED, detail: Cow::Borrowed(detail) }
    }

    const fn method(detail: &'static str) -> Self {
        Self::not_implemented(Refused::MethodNotImplemented, detail)
    }

    /// RFC 9112, section 6.1.
    const fn coding(detail: &'static str) -> Self {
        Self::not_implemented(Refused::BadCoding, detail)
    }
}

impl From<Fault> for Objection {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::BareLineFeed => {
                Self::bad_request(Refused::BareLineFeed, "a line of the head ends without a carriage return")
            }
            Fault::Chunk => Self::bad_request(Refused::BadChunk, "a chunk of the body is not formed as it must be"),
        }
    }
}

/// Judges a request by its head. If its target names the authority, `Host` names the same afterwards (RFC 9112, section
/// 3.2.2).
pub(super) fn judge<B>(request: &mut Request<B>, limits: &Http) -> Result<(), Objection> {
    judge_method(request, limits)?;
    judge_target(request.method(), request.uri())?;
    if request.version() >= Version::HTTP_2 {
        if *request.method() == Method::CONNECT
            && request.headers().get(CONTENT_LENGTH).is_some_and(|length| length != "0")
        {
            return Err(Objection::bad_request(Refused::Malformed, "CONNECT has no body (RFC 9110, section 9.3.6)"));
        }
        join_cookies(request.headers_mut());
        return judge_multiplexed_host(request.uri(), request.headers());
    }
    judge_coding(request.headers())?;
    let named = single_host(request.headers())?;
    if named.is_none() && request.version() == Version::HTTP_11 {
        return Err(Objection::host("there is no Host"));
    }
    if let Some(authority) = request.uri().authority() {
        // The Host beside it must be right all the same; then it is ignored.
        if named.is_none_or(|named| named != authority.as_str().as_bytes()) {
            let value =
                HeaderValue::from_str(authority.as_str()).map_err(|_| Objection::target("its authority is no text"))?;
            request.headers_mut().insert(HOST, value);
        }
    }
    Ok(())
}

fn judge_method<B>(request: &Request<B>, limits: &Http) -> Result<(), Objection> {
    match *request.method() {
        // With a protocol it asks for an upgrade of its stream (RFC 8441).
        Method::CONNECT if !limits.allow_connect && request.extensions().get::<Protocol>().is_none() => {
            Err(Objection::method("CONNECT is refused"))
        }
        Method::TRACE if !limits.allow_trace => Err(Objection::method("TRACE is refused")),
        ref method if method.as_str().len() > MAX_METHOD => Err(Objection::method("the method's name is too long")),
        _ => Ok(()),
    }
}

/// The four forms of a target (RFC 9112, section 3.2).
fn judge_target(method: &Method, uri: &Uri) -> Result<(), Objection> {
    if let Some(authority) = uri.authority() {
        if authority.as_str().contains('@') {
            return Err(Objection::target("it names a user (RFC 9110, section 4.2.4)"));
        }
        if !is_host(authority.as_str().as_bytes()) {
            return Err(Objection::target("its authority is no host"));
        }
    }
    match (uri.scheme(), uri.authority()) {
        (None, Some(authority)) if *method == Method::CONNECT => {
            let needed = || Objection::target("CONNECT needs a port (RFC 9110, section 9.3.6)");
            return authority.port_u16().map(drop).ok_or_else(needed);
        }
        (_, None) if *method == Method::CONNECT => return Err(Objection::target("CONNECT needs an authority")),
        (None, Some(_)) => return Err(Objection::target("it has no path: only CONNECT names just an authority")),
        (Some(scheme), _) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
            return Err(Objection::target("its scheme is neither http nor https"));
        }
        _ => {}
    }
    if uri.path() == "*" && *method != Method::OPTIONS {
        return Err(Objection::target("`*` is for OPTIONS only"));
    }
    let is_ascii = uri.path_and_query().is_none_or(|target| target.as_str().is_ascii());
    if is_ascii { Ok(()) } else { Err(Objection::target("it is not ASCII: other bytes must be percent-encoded")) }
}

/// The app gets a body as it was sent, so no coding but the chunked one may be left in it (RFC 9112, section 6.1). hyper
/// sees to it that this is the last.
fn judge_coding(headers: &HeaderMap) -> Result<(), Objection> {
    let values = headers.iter().filter(|(name, _)| **name == TRANSFER_ENCODING).map(|(_, value)| value.as_bytes());
    let mut codings = values
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty());
    match (codings.next(), codings.next()) {
        (_, None) => Ok(()),
        (Some(first), Some(_)) if first.eq_ignore_ascii_case(b"chunked") => {
            Err(Objection::coding("the body is chunked twice"))
        }
        _ => Err(Objection::coding("the body has a coding beside the chunked one")),
    }
}

/// The one Host of these headers, if there is one.
fn single_host(headers: &HeaderMap) -> Result<Option<&[u8]>, Objection> {
    // Most requests have few headers: looking at each costs less than a look-up.
    let mut named = headers.iter().filter(|(name, _)| **name == HOST).map(|(_, value)| value.as_bytes());
    let Some(host) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(Objection::host("there is more than one Host"));
    }
    if host.is_empty() {
        return Err(Objection::host("Host is empty"));
    }
    if is_host(host) {
        Ok(Some(host))
    } else {
        Err(Objection::host("Host is not a name or an address with or without a port"))
    }
}

/// The cookies of a request.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    headers.iter().filter(|(name, _)| **name == COOKIE).map(|(_, value)| value)
}

/// Browsers send each cookie as a field of its own on HTTP/2, and an app gets one field (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if cookies(headers).nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = cookies(headers).map(HeaderValue::as_bytes).collect();
    let joined = all.join(&b"; "[..]);
    // What was made of valid values is one.
    if let Ok(mut joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        joined.set_sensitive(cookies(headers).any(HeaderValue::is_sensitive));
        headers.insert(COOKIE, joined);
    }
}

/// RFC 9113, section 8.3.1.
fn judge_multiplexed_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Objection> {
    let named = single_host(headers)?;
    match (uri.authority().map(Authority::as_str), named) {
        (None, None) => Err(Objection::host("there is neither :authority nor Host")),
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host) => {
            Err(Objection::host("Host is not :authority"))
        }
        _ => Ok(()),
    }
}

/// Whether these are the bytes of `uri-host [":" port]` (RFC 9112, section 3.2; RFC 3986, section 3.2.2). No comma, which a
/// name could have by the grammar: it is there where two Hosts were joined.
fn is_host(bytes: &[u8]) -> bool {
    let (host, port) = match bytes {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let (address, behind) = (&rest[..end], &rest[end + 1..]);
            if !std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()) {
                return false;
            }
            match behind {
                [] => return true,
                [b':', port @ ..] => (&b"[]"[..], port),
                _ => return false,
            }
        }
        _ => match memchr::memchr(b':', bytes) {
            Some(colon) => (&bytes[..colon], &bytes[colon + 1..]),
            None => (bytes, &b""[..]),
        },
    };
    let is_name = host == b"[]" || (!host.is_empty() && is_registered_name(host));
    is_name && is_port(port)
}

/// A port may be empty (RFC 3986, section 3.2.3).
fn is_port(port: &[u8]) -> bool {
    let number = |sum: u32, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'));
    port.len() <= 5 && port.iter().try_fold(0, number).is_some_and(|port| port <= u16::MAX.into())
}

fn is_registered_name(mut name: &[u8]) -> bool {
    // Each request has one: a look into a table costs a tenth of asking what kind of byte it is.
    const PLAIN: [bool; 256] = plain_bytes_of_a_name();
    while let [byte, rest @ ..] = name {
        name = match byte {
            _ if PLAIN[usize::from(*byte)] => rest,
            b'%' => match rest {
                [high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
                _ => return false,
            },
            _ => return false,
        };
    }
    true
}

/// `unreserved` and `sub-delims` of RFC 3986, without the comma.
const fn plain_bytes_of_a_name() -> [bool; 256] {
    const BYTES: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+;=";
    let mut plain = [false; 256];
    let mut at = 0;
    while at < BYTES.len() {
        plain[BYTES[at] as usize] = true;
        at += 1;
    }
    plain
}

/// Whether it is a call of gRPC, whose client may be silent between two messages for as long as it likes.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
        && request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the client closes the connection behind the response, by the same rule as hyper's (RFC 9112, section 9.3).
pub(super) fn closes_after<B>(request: &Request<B>) -> bool {
    let says = |word: &[u8]| {
        let mut values = request.headers().iter().filter(|(name, _)| **name == CONNECTION);
        values.any(|(_, value)| {
            value.as_bytes().split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(word))
        })
    };
    match request.version() {
        Version::HTTP_11 => says(b"close"),
        Version::HTTP_10 => !says(b"keep-alive"),
        _ => false,
    }
}
