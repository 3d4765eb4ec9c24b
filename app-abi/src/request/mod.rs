//! A request on its way into the app.
//!
//! Owns the step from the host's handle to an ordinary [`http::Request`]: one buffer for the whole
//! head, filled by one call, out of which method, URI and header values are sliced. Reading the body
//! is left to `body`.
#![expect(unsafe_code, reason = "calls into the host's request table")]

mod address;
mod hints;
mod resume;

pub use hints::EarlyHints;
pub use resume::{Resume, SaveError};

use crate::abi::{
    EXTENSION_CLIENT, EXTENSION_TLS, EXTENSION_UPGRADE, FfiClient, FfiClientInfo, FfiConnection, FfiHead, FfiRequest,
    FfiSpan, FfiTls, FfiTlsInfo, FfiUpgrade, RequestServiceRef,
};
use crate::{
    arena::SENSITIVE,
    body::Body,
    client::{ClientInfo, ProxiedTls},
    stream::Polled,
    tls::{TlsInfo, TlsVersion},
    upgrade::Upgrade,
};
use abi_stable::std_types::RStr;
use async_ffi::ContextExt;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::SizeHint;
use std::{mem::MaybeUninit, net::SocketAddr, task::Context};

/// So many headers have their lengths on the stack; more of them cost an allocation.
const SPANS: usize = 32;

/// What is known of the connection that a request came on. Where proxies are before the host, the peer is one of them:
/// the client itself is [`RequestExt::client`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: Address,
    /// This end.
    pub local: Address,
    /// The listener, as the configuration names it.
    pub listener: &'static str,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix,
}

/// What a request of the host's knows beyond what [`http::Request`] has a place for.
pub trait RequestExt {
    /// The connection that the request came on. `None` if it came from no host: a request that a
    /// test made, or one whose body was replaced. An info among the request's extensions comes first.
    fn connection(&self) -> Option<ConnectionInfo>;

    /// What is known of the connection's TLS. `None` if it came without, or by somebody who has taken it off; a
    /// [`TlsInfo`] among the request's extensions comes first. Copies the client's certificate.
    fn tls(&self) -> Option<TlsInfo>;

    /// Who is asking: what trusted proxies have said of the client, and else what is known of the connection. `None` where
    /// [`connection`](Self::connection) is; a [`ClientInfo`] among the request's extensions comes first.
    ///
    /// ```
    /// use app_abi::{Body, Request, RequestExt};
    ///
    /// fn came_by_https(request: &Request<Body>) -> bool {
    ///     request.client().is_some_and(|client| client.scheme == "https")
    /// }
    /// ```
    fn client(&self) -> Option<ClientInfo>;

    /// The connection itself, if the client asks to go on with another protocol on it: by the header
    /// `upgrade` in HTTP/1.1, or by the method CONNECT. `None` for any other request, and the second
    /// time.
    ///
    /// Answer 101 (2xx to CONNECT, and in HTTP/2) to allow it, anything else to refuse it:
    ///
    /// ```
    /// use app_abi::{Body, Request, RequestExt, Response, StatusCode, header, upgrade::Upgraded};
    ///
    /// async fn talk(upgraded: Upgraded) { /* … */ }
    ///
    /// fn answer(mut request: Request<Body>, spawn: impl Fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>)) -> Response<Body> {
    ///     let mut response = Response::new(Body::empty());
    ///     let Some(upgrade) = request.upgrade() else {
    ///         *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    ///         return response;
    ///     };
    ///     // It comes after the answer, so somebody else waits for it.
    ///     spawn(Box::pin(async move {
    ///         if let Ok(upgraded) = upgrade.await {
    ///             talk(upgraded).await;
    ///         }
    ///     }));
    ///     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    ///     response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    ///     response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("talk"));
    ///     response
    /// }
    /// ```
    fn upgrade(&mut self) -> Option<Upgrade>;

    /// The way to send the client early hints (103) before the response. `None` if it has asked by HTTP/1.0, which knows
    /// no such thing, or has had the response already ([`resumable`](crate::resumable)).
    ///
    /// What an axum handler does: [`EarlyHints`].
    fn early_hints(&self) -> Option<EarlyHints>;

    /// What the handler before this one has left, and the way to leave something for the next, if the connection goes on
    /// elsewhere. `None` for a request that can't be asked again: see [`resumable`](crate::resumable).
    fn resume(&self) -> Option<Resume>;
}

impl RequestExt for Request<Body> {
    fn connection(&self) -> Option<ConnectionInfo> {
        self.extensions().get().copied().or_else(|| self.body().connection())
    }

    fn tls(&self) -> Option<TlsInfo> {
        self.extensions().get().cloned().or_else(|| self.body().tls())
    }

    fn client(&self) -> Option<ClientInfo> {
        let told = self.extensions().get().cloned().or_else(|| self.body().told_client());
        told.or_else(|| self.connection().map(ClientInfo::from))
    }

    fn upgrade(&mut self) -> Option<Upgrade> {
        self.body_mut().upgrade()
    }

    fn early_hints(&self) -> Option<EarlyHints> {
        self.extensions().get().cloned().or_else(|| self.body().early_hints())
    }

    fn resume(&self) -> Option<Resume> {
        self.extensions().get().cloned().or_else(|| self.body().resume())
    }
}

/// The app's ownership of a request of the host's.
pub(crate) struct Handle {
    request: FfiRequest,
    table: RequestServiceRef,
}

// SAFETY: by the rules of the line a handle is used by its one owner, on any thread.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and this is its last use.
        unsafe { (self.table.drop())(self.request) }
    }
}

impl Handle {
    /// # Safety
    /// The caller hands over a request of the host's that `table` belongs to.
    pub(crate) unsafe fn new(request: FfiRequest, table: RequestServiceRef) -> Self {
        Self { request, table }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Polled {
        let poll_frame = self.table.poll_frame();
        // SAFETY: the handle is owned and borrowed for this one call.
        context.with_ffi_context(|context| unsafe { poll_frame(self.request, context) }).into()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        // SAFETY: the handle is owned, and isn't `Sync`, so no other call runs.
        unsafe { (self.table.size_hint())(self.request) }.into()
    }

    pub(crate) fn connection(&self) -> ConnectionInfo {
        let mut connection = MaybeUninit::<FfiConnection>::uninit();
        // SAFETY: the handle is owned, and the host fills in all of the struct.
        let connection = unsafe {
            (self.table.connection())(self.request, connection.as_mut_ptr());
            connection.assume_init()
        };
        ConnectionInfo {
            peer: connection.peer.into(),
            local: connection.local.into(),
            listener: connection.listener.as_str(),
            scheme: connection.scheme.as_str(),
        }
    }

    pub(crate) fn tls(&self) -> Option<TlsInfo> {
        // SAFETY: the handle is owned and borrowed for this one call.
        let table = unsafe { (self.table.extension())(self.request, EXTENSION_TLS) };
        // SAFETY: the number stands for this type, and what the host gives by it lives as long as the process.
        let table = unsafe { table.cast::<FfiTls>().as_ref() }?;
        let mut info = MaybeUninit::<FfiTlsInfo>::uninit();
        // SAFETY: the handle is owned, and the host fills in all of the struct. What its slices point to lives as long as
        // the handle, and is copied here.
        let info = unsafe {
            (table.info)(self.request, info.as_mut_ptr());
            info.assume_init()
        };
        let (name, certificate) = (info.server_name.as_str(), info.client_certificate.as_slice());
        Some(TlsInfo {
            version: TlsVersion::from_number(info.version)?,
            server_name: (!name.is_empty()).then(|| name.to_owned()),
            client_certificate: (!certificate.is_empty()).then(|| Bytes::copy_from_slice(certificate)),
        })
    }

    /// The client, if a proxy has told of it.
    pub(crate) fn client(&self) -> Option<ClientInfo> {
        // SAFETY: the handle is owned and borrowed for this one call.
        let table = unsafe { (self.table.extension())(self.request, EXTENSION_CLIENT) };
        // SAFETY: the number stands for this type, and what the host gives by it lives as long as the process.
        let table = unsafe { table.cast::<FfiClient>().as_ref() }?;
        let mut info = MaybeUninit::<FfiClientInfo>::uninit();
        // SAFETY: the handle is owned, and the host fills in all of the struct. What its slices point to lives as long as
        // the handle, and is copied here, except for the scheme, which is a text of the host's own.
        let info = unsafe {
            (table.info)(self.request, info.as_mut_ptr());
            info.assume_init()
        };
        let text = |text: RStr<'static>| (!text.is_empty()).then(|| text.as_str().to_owned());
        let alpn = info.alpn.as_slice();
        let tls = info.has_tls.then(|| ProxiedTls {
            version: TlsVersion::from_name(info.tls_version.as_str()),
            server_name: text(info.server_name),
            alpn: (!alpn.is_empty()).then(|| Bytes::copy_from_slice(alpn)),
            client_name: text(info.client_name),
        });
        Some(ClientInfo { host: text(info.host), tls, ..ClientInfo::new(info.address.into(), info.scheme.as_str()) })
    }

    pub(crate) fn upgrade(&mut self) -> Option<Upgrade> {
        // SAFETY: the handle is owned and borrowed for this one call.
        let table = unsafe { (self.table.extension())(self.request, EXTENSION_UPGRADE) };
        // SAFETY: the number stands for this type, and what the host gives by it lives as long as the
        // process.
        let table = unsafe { table.cast::<FfiUpgrade>().as_ref() }?;
        // SAFETY: the handle is owned; the text lives as long as it, and is copied before it can end.
        unsafe {
            let protocol = (table.protocol)(self.request).to_string();
            Some(Upgrade::new((table.begin)(self.request), &protocol))
        }
    }

    /// Makes an ordinary request of the handle. `None` if the head is not valid, which a host that
    /// keeps the contract never sends.
    pub(crate) fn into_request(self) -> Option<Request<Body>> {
        let mut head = FfiHead::default();
        // SAFETY: the handle is owned; `head` lives for the call.
        unsafe { (self.table.head())(self.request, &raw mut head) };
        let count = head.header_count as usize;
        let mut few = [FfiSpan::default(); SPANS];
        let mut many = Vec::new();
        let spans = if count <= SPANS {
            &mut few[..count]
        } else {
            many.resize(count, FfiSpan::default());
            &mut many[..]
        };
        let mut buffer = Vec::with_capacity(head.text_len);
        // SAFETY: the buffer has room for `text_len` bytes and `spans` for `header_count` items, and
        // the host fills all of both.
        unsafe {
            (self.table.fill())(self.request, buffer.as_mut_ptr(), spans.as_mut_ptr());
            buffer.set_len(head.text_len);
        }
        let mut texts = Texts { buffer: buffer.into(), at: 0 };
        let method = method(&head, &mut texts)?;
        let uri = uri(&head, &mut texts)?;
        let headers = headers(spans, &mut texts)?;
        let mut request = Request::new(Body::from_host(self, head.ended));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = match head.version {
            9 => Version::HTTP_09,
            10 => Version::HTTP_10,
            20 => Version::HTTP_2,
            30 => Version::HTTP_3,
            _ => Version::HTTP_11,
        };
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// The texts of a head, one behind the other.
struct Texts {
    buffer: Bytes,
    at: usize,
}

impl Texts {
    fn next(&mut self, len: u32) -> Option<std::ops::Range<usize>> {
        let end = self.at.checked_add(len as usize).filter(|end| *end <= self.buffer.len())?;
        let range = self.at..end;
        self.at = end;
        Some(range)
    }

    fn bytes(&mut self, len: u32) -> Option<Bytes> {
        self.next(len).map(|range| self.buffer.slice(range))
    }

    fn borrowed(&mut self, len: u32) -> Option<&[u8]> {
        self.next(len).map(|range| &self.buffer[range])
    }
}

fn method(head: &FfiHead, texts: &mut Texts) -> Option<Method> {
    Some(match head.method {
        1 => Method::GET,
        2 => Method::HEAD,
        3 => Method::POST,
        4 => Method::PUT,
        5 => Method::DELETE,
        6 => Method::OPTIONS,
        7 => Method::PATCH,
        8 => Method::CONNECT,
        9 => Method::TRACE,
        _ => Method::from_bytes(texts.borrowed(head.method_len)?).ok()?,
    })
}

fn uri(head: &FfiHead, texts: &mut Texts) -> Option<Uri> {
    let scheme = match texts.borrowed(head.scheme_len)? {
        b"" => None,
        b"http" => Some(Scheme::HTTP),
        b"https" => Some(Scheme::HTTPS),
        other => Some(Scheme::try_from(other).ok()?),
    };
    let authority = texts.bytes(head.authority_len)?;
    let path = texts.bytes(head.path_len)?;
    if scheme.is_none() && authority.is_empty() {
        return PathAndQuery::from_maybe_shared(path).ok().map(Uri::from);
    }
    let mut parts = http::uri::Parts::default();
    parts.scheme = scheme;
    if !authority.is_empty() {
        parts.authority = Some(Authority::from_maybe_shared(authority).ok()?);
    }
    if !path.is_empty() {
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).ok()?);
    }
    Uri::from_parts(parts).ok()
}

fn headers(spans: &[FfiSpan], texts: &mut Texts) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(spans.len());
    for span in spans {
        let name = HeaderName::from_bytes(texts.borrowed(span.name_len)?).ok()?;
        let value = texts.bytes(span.value_len & !SENSITIVE)?;
        // SAFETY: the host takes these bytes from a `HeaderValue` of its own, whose rules are those
        // of RFC 9110 in every release. Checking each byte again costs more than the rest of this.
        // The documentation of `http` 1.5.0 asks for UTF-8, which a value needn't be (`obs-text`, RFC 9110
        // section 5.5); its code doesn't rely on that (src/header/value.rs: the bytes are kept as they are,
        // `to_str` checks each), and hyper 1.12.0 itself calls it with any value (src/proto/h1/role.rs). The
        // test `a_value_that_is_no_utf8_is_kept_and_no_text` fails when that changes.
        let mut value = unsafe { HeaderValue::from_maybe_shared_unchecked(value) };
        value.set_sensitive(span.value_len & SENSITIVE != 0);
        headers.append(name, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests;
