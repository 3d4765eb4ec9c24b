//! What goes on in another worker, and why it did not: the words in the metrics.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// What lasts for as long as its client stays, and may go on in another worker if its app says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LongLived {
    WebSocket,
    /// Server-sent events (WHATWG HTML Standard, section 9.2).
    EventStream,
}

impl LongLived {
    /// How many kinds there are.
    pub const COUNT: usize = 2;
}

words! {
    /// Why a WebSocket or an event stream did not go on in another worker, although its app allows it. Each is counted. The
    /// client of a WebSocket is told a code where one is named here; an event stream ends between two events, except where it
    /// is cut, and its client comes back by itself.
    pub enum NotResumed {
        /// An extension was negotiated (`permessage-deflate`), or a content coding, of which the new version would know
        /// nothing. 1001.
        Extension = "extension",
        /// The request's head is too long to travel, itself or with what its client has sent behind it; or it can't say the last
        /// event's id. 1001.
        LongHead = "head too long",
        /// The event stream is one of HTTP/2.
        Http2 = "HTTP/2",
        /// The event stream's request can't be asked again: it has a body, or is no GET of HTTP/1.1 that accepts
        /// `text/event-stream`.
        NotRepeatable = "not repeatable",
        /// No other worker goes on: the service ends, or `restart.handover` is off. 1001.
        NoSuccessor = "no successor",
        /// The new version has not granted the request again. 1012.
        NotGranted = "not granted again",
        /// The app has not let go, or a message or an event did not end, before the worker's time was over; or its client took
        /// nothing.
        Cut = "cut",
    }
}
