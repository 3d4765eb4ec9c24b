//! The access log: one line a request, and the id by which a request is found again.
//!
//! Owns the ids and which clients may give theirs, the fields of a line and their bounds. When a request begins and ends
//! is for `connection`; the format of a line and how it is written are for `logging`.
//!
//! The id is the request's header `x-request-id`, which the app sees like any other: a new one, unless a trusted peer has
//! sent one.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use app_abi::Address;
use app_host_services::loader::{Client, Connection};
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::{Method, Request, StatusCode, Uri, Version};
use tracing::Level;

use app_host_core::config::Trusted;
use app_host_core::ids::{Generation, Slot};
use app_host_core::refused::Refused;
use app_host_platform::logging::{AppEvent, AppValue};
use app_host_platform::logging::{AppLines, LineWriter};

use crate::client::address_of;

/// The header that carries the id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client's that is kept, in bytes.
const MAX_ID: usize = 128;

/// The most bytes of a URI, and of any other text of the client's, in a line.
const MAX_URI: usize = 2048;
const MAX_TEXT: usize = 256;

/// The access log of one worker.
pub struct AccessLog {
    lines: AppLines,
    writer: LineWriter,
    trusted: Vec<Trusted>,
    slot: Slot,
    generation: Generation,
    /// The first half of every id, which differs between workers.
    prefix: u64,
    /// The second half of the next one.
    next: AtomicU64,
}

impl AccessLog {
    /// A log whose lines are formatted by `lines` and written by `writer`.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn open(
        writer: LineWriter,
        lines: AppLines,
        trusted: Vec<Trusted>,
        (slot, generation): (Slot, Generation),
    ) -> io::Result<Self> {
        let prefix = getrandom::u64().map_err(io::Error::other)?;
        Ok(Self { lines, writer, trusted, slot, generation, prefix, next: AtomicU64::new(0) })
    }

    /// The log of one connection's requests.
    pub fn connection(self: &Arc<Self>, connection: &Arc<Connection>) -> Arc<ConnectionLog> {
        let address = address_of(connection.peer);
        let trusted = self.trusted.iter().any(|trusted| trusted.includes(address));
        Arc::new(ConnectionLog { log: Arc::clone(self), connection: Arc::clone(connection), trusted })
    }

    /// Writes the line of a client that is refused below the app: why, and what exactly was wrong.
    pub fn refused(&self, peer: Address, listener: &str, why: Refused, detail: &str) {
        let peer = peer_text(peer);
        let fields = vec![
            ("outcome", AppValue::Text("refused")),
            ("reason", AppValue::Text(why.as_str())),
            ("detail", AppValue::Text(cut(detail, MAX_TEXT))),
            ("peer", AppValue::Text(&peer)),
            ("listener", AppValue::Text(listener)),
            ("slot", AppValue::Uint(self.slot.0.into())),
            ("generation", AppValue::Uint(self.generation.0)),
        ];
        let event = AppEvent { level: Level::INFO, target: "access", message: "refused", fields, spans: Vec::new() };
        self.writer.write(Level::INFO, &self.lines.render(&event));
    }

    /// Writes to another file from now on.
    pub fn reopen(&self, file: OwnedFd) {
        self.writer.redirect(file);
    }

    /// Waits until all lines are written, up to `limit` and for no log that is stalled; says whether they are.
    pub fn finish(&self, limit: Duration) -> bool {
        self.writer.flush_unless_stalled(limit)
    }

    fn new_id(&self) -> HeaderValue {
        let id = format!("{:016x}{:016x}", self.prefix, self.next.fetch_add(1, Relaxed));
        HeaderValue::from_str(&id).expect("digits are a header's value")
    }
}

/// The log of one connection.
pub struct ConnectionLog {
    log: Arc<AccessLog>,
    connection: Arc<Connection>,
    /// Whether the ids that the client gives are kept.
    trusted: bool,
}

impl ConnectionLog {
    /// Begins the line of a request, and gives the request its id.
    pub fn begin<B>(self: &Arc<Self>, request: &mut Request<B>) -> Box<RequestLog> {
        let id = self.id(request.headers()).unwrap_or_else(|| self.log.new_id());
        request.headers_mut().insert(REQUEST_ID, id.clone());
        let header = |name| request.headers().get(name).cloned();
        Box::new(RequestLog {
            connection: Arc::clone(self),
            client: request.extensions().get().cloned().or_else(|| self.connection.client.clone()),
            began: Instant::now(),
            id,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: header(HOST),
            user_agent: header(USER_AGENT),
            referer: header(REFERER),
            received: Arc::default(),
            status: None,
            sent: 0,
            expected: None,
            whole: false,
        })
    }

    /// Writes the line of a client that is refused: why, and what exactly was wrong.
    pub fn refused(&self, why: Refused, detail: &str) {
        self.log.refused(self.connection.peer, self.connection.listener, why, detail);
    }

    /// The id that the client has given, if it is trusted.
    fn id(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.trusted {
            return None;
        }
        // Two ids are as good as none.
        let mut given = headers.get_all(REQUEST_ID).iter();
        let id = given.next().filter(|_| given.next().is_none())?;
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(byte);
        ((1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(fits)).then(|| id.clone())
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// By the client or the app.
    Normal,
    /// By the cut at the end of a drain.
    Cut,
}

/// The line of a request that is in flight, written at its end.
pub struct RequestLog {
    connection: Arc<ConnectionLog>,
    /// Who is asking, if a trusted peer has told.
    client: Option<Arc<Client>>,
    began: Instant,
    id: HeaderValue,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    received: Arc<AtomicU64>,
    status: Option<StatusCode>,
    sent: u64,
    /// How many bytes the response's body will have, if that is known.
    expected: Option<u64>,
    whole: bool,
}

impl RequestLog {
    /// Counts the bytes of the request's body that the app has read, on any thread.
    pub fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Notes the response's head, and how many bytes its body will have, if that is known.
    pub fn answered(&mut self, status: StatusCode, body: Option<u64>) {
        self.status = Some(status);
        self.expected = body;
        self.whole = body == Some(0);
    }

    /// Counts bytes of the response's body that were taken from the app.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
        self.whole |= self.expected.is_some_and(|expected| self.sent >= expected);
    }

    /// Notes the end of the response's body.
    pub const fn ended(&mut self) {
        self.whole = true;
    }

    /// Writes the line.
    pub fn write(&self, end: RequestEnd) {
        let (connection, log) = (&*self.connection.connection, &*self.connection.log);
        let uri = self.uri.to_string();
        let client = self.client.as_ref().map(|client| (client_text(client.address), client.scheme()));
        let peer = peer_text(connection.peer);
        let outcome = match end {
            _ if self.whole => "complete",
            RequestEnd::Cut => "cut",
            // The client has gone, or the app broke the response off.
            RequestEnd::Normal => "aborted",
        };
        let version = format!("{:?}", self.version);
        let texts = [&self.host, &self.user_agent, &self.referer];
        let [host, user_agent, referer] = texts.map(|value| value.as_ref().map(|value| text(value.as_bytes())));
        let mut fields = vec![
            ("request_id", AppValue::Text(self.id.to_str().unwrap_or_default())),
            ("method", AppValue::Text(cut(self.method.as_str(), MAX_TEXT))),
            ("uri", AppValue::Text(cut(&uri, MAX_URI))),
            ("version", AppValue::Text(&version)),
        ];
        if let Some(status) = self.status {
            fields.push(("status", AppValue::Uint(status.as_u16().into())));
        }
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        fields.extend([
            ("outcome", AppValue::Text(outcome)),
            ("duration_us", AppValue::Uint(micros)),
            ("received_bytes", AppValue::Uint(self.received.load(Relaxed))),
            ("sent_bytes", AppValue::Uint(self.sent)),
            ("peer", AppValue::Text(&peer)),
            ("listener", AppValue::Text(connection.listener)),
            ("slot", AppValue::Uint(log.slot.0.into())),
            ("generation", AppValue::Uint(log.generation.0)),
        ]);
        if let Some((address, scheme)) = &client {
            fields.extend([("client", AppValue::Text(address)), ("client_scheme", AppValue::Text(scheme))]);
        }
        for (name, text) in [("host", &host), ("user_agent", &user_agent), ("referer", &referer)] {
            if let Some(text) = text {
                fields.push((name, AppValue::Text(cut(text, MAX_TEXT))));
            }
        }
        let event = AppEvent { level: Level::INFO, target: "access", message: "request", fields, spans: Vec::new() };
        log.writer.write(Level::INFO, &log.lines.render(&event));
    }
}

/// A client's address: without a port where none was told.
fn client_text(client: Address) -> String {
    match client {
        Address::Tcp(address) if address.port() == 0 => address.ip().to_string(),
        other => peer_text(other),
    }
}

fn peer_text(peer: Address) -> String {
    match peer {
        Address::Tcp(address) => address.to_string(),
        Address::Unix => "unix".to_owned(),
    }
}

/// A header's value as text: bytes that are no UTF-8 are replaced.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)])
}

/// Up to `most` bytes of a text, in whole characters.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
