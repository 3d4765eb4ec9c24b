//! Requests that another worker may be asked once more: for a WebSocket, or for an event stream.
//!
//! Pure: the head of a request goes in, and comes out as the bytes of the head with which its connection travels, if the
//! app lets another worker go on.

use bytes::Bytes;
use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use app_abi::RESUMABLE;
use app_host_core::config::Http;
use app_host_core::not_resumed::{LongLived, NotResumed};

/// The longest head with which a connection travels, which what the client has sent comes behind.
const MAX_HEAD: usize = 32 * 1024;

/// The media type of an event stream.
const EVENT_STREAM: &[u8] = b"text/event-stream";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What another worker is to ask, or why none can.
pub(super) type Again = Result<Bytes, NotResumed>;

/// What the client asks for with a request that has no body, so that it may be asked again.
pub(super) struct Asked {
    what: LongLived,
    /// The most bytes that the head may have, and whether it may have another line.
    most: usize,
    has_room: bool,
    /// The head, but for its end and for what depends on the answer: the protocols and extensions that the client of a
    /// WebSocket offers, and the last event that the client of an event stream has had.
    head: Result<Vec<u8>, NotResumed>,
    last_event_id: Vec<u8>,
}

/// What a request asks for, if that may go on elsewhere.
pub(super) fn asked<B: Body>(request: &Request<B>, limits: &Http) -> Option<Asked> {
    let headers = request.headers();
    let is_websocket = || headers.get(UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let what = if request.extensions().get::<OnUpgrade>().is_some() && is_websocket() {
        Some(LongLived::WebSocket)
    } else {
        let is_named = |value: &HeaderValue| {
            value.as_bytes().windows(EVENT_STREAM.len()).any(|name| name.eq_ignore_ascii_case(EVENT_STREAM))
        };
        let accepts = || headers.get_all(ACCEPT).iter().any(is_named);
        (*request.method() == Method::GET && accepts()).then_some(LongLived::EventStream)
    }?;
    if request.body().size_hint().exact() != Some(0) {
        return None;
    }
    let head = match request.version() {
        Version::HTTP_11 => head_of(request),
        Version::HTTP_2 if what == LongLived::EventStream => Err(NotResumed::Http2),
        _ => return None,
    };
    let last_event_id = headers.get(LAST_EVENT_ID).map(|id| id.as_bytes().to_vec());
    let has_room = last_event_id.is_some() || headers.len() < limits.max_headers.into();
    let most = MAX_HEAD.min(usize::try_from(limits.max_head).unwrap_or(MAX_HEAD));
    Some(Asked { what, most, has_room, head, last_event_id: last_event_id.unwrap_or_default() })
}

impl Asked {
    /// Whether another worker could be asked, if the app lets it.
    pub(super) const fn is_repeatable(&self) -> bool {
        self.head.is_ok()
    }
}

fn head_of<B>(request: &Request<B>) -> Result<Vec<u8>, NotResumed> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        if ![SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, LAST_EVENT_ID].contains(name) {
            write(&mut head, name, value.as_bytes());
        }
    }
    if head.len() <= MAX_HEAD { Ok(head) } else { Err(NotResumed::LongHead) }
}

fn write(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    head.extend_from_slice(name.as_str().as_bytes());
    head.push(b':');
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// The whole head, if the app lets another worker go on with the WebSocket that it grants: it offers what the client was
/// granted, so that the next answer can agree on nothing else. None can go on where an extension has something to remember.
pub(super) fn granted_socket(asked: Asked, response: &HeaderMap) -> Option<Again> {
    if asked.what != LongLived::WebSocket || !response.contains_key(RESUMABLE) {
        return None;
    }
    if response.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Some(Err(NotResumed::Extension));
    }
    Some(asked.head.map(|mut head| {
        if let Some(protocol) = response.get(SEC_WEBSOCKET_PROTOCOL) {
            write(&mut head, &SEC_WEBSOCKET_PROTOCOL, protocol.as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head.shrink_to_fit();
        head.into()
    }))
}

/// Whether a response is an event stream without an end that is known.
pub(super) fn is_event_stream<B: Body>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let is_one = |kind: &HeaderValue| {
        let name = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(EVENT_STREAM)
    };
    response.status() == StatusCode::OK
        && response.body().size_hint().exact().is_none()
        && headers.get(CONTENT_TYPE).is_some_and(is_one)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Whether a response is sent as the app says it, so that it can be followed.
pub(super) fn is_plain(response: &HeaderMap) -> bool {
    !response.contains_key(CONTENT_ENCODING)
}

/// The head of a request for an event stream that another worker may go on with.
pub(super) struct StreamHead {
    head: Result<Vec<u8>, NotResumed>,
    most: usize,
    has_room: bool,
    /// The last event that the client had when it asked.
    pub(super) last_event_id: Vec<u8>,
}

/// The head, if the app lets another worker go on with the event stream that its response is.
pub(super) fn granted_stream<B: Body>(asked: Option<Asked>, response: &Response<B>) -> Option<StreamHead> {
    if !response.headers().contains_key(RESUMABLE) || !is_event_stream(response) {
        return None;
    }
    let unknown =
        StreamHead { head: Err(NotResumed::NotRepeatable), most: 0, has_room: false, last_event_id: Vec::new() };
    let asked = asked.filter(|asked| asked.what == LongLived::EventStream);
    let mut stream = asked.map_or(unknown, |asked| {
        let Asked { most, has_room, head, last_event_id, .. } = asked;
        StreamHead { head, most, has_room, last_event_id }
    });
    if !is_plain(response.headers()) {
        stream.head = Err(NotResumed::Extension);
    }
    Some(stream)
}

impl StreamHead {
    /// What another worker is to ask, where the client has had this event last.
    pub(super) fn after(&mut self, last_event_id: &[u8]) -> Again {
        let mut head = std::mem::replace(&mut self.head, Err(NotResumed::LongHead))?;
        // What a header can't say, or says without its blanks, would be another event's.
        let is_sayable = last_event_id.trim_ascii() == last_event_id && HeaderValue::from_bytes(last_event_id).is_ok();
        if !last_event_id.is_empty() {
            write(&mut head, &LAST_EVENT_ID, last_event_id);
        }
        head.extend_from_slice(b"\r\n");
        let fits = head.len() <= self.most && (self.has_room || last_event_id.is_empty());
        if fits && is_sayable { Ok(head.into()) } else { Err(NotResumed::LongHead) }
    }
}
