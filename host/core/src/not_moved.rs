//! Why an HTTP/2 connection did not go on in another worker: the words in the metrics.

use crate::words::words;

words! {
    /// Why a connection of HTTP/2 did not go on in another worker, although `restart.http2` is `"move"`: it was ended by
    /// GOAWAY instead (RFC 9113, section 6.8). Each is counted.
    pub enum NotMoved {
        /// The client has not shown that it has given up its table of header fields (RFC 7541, section 4.2) when it was told
        /// to.
        Table = "table",
        /// The settings of one side were not acknowledged in time, or came while the connection was leaving.
        Settings = "settings",
        /// It has had no request yet.
        NoRequest = "no request",
        /// One side has already said that it goes (GOAWAY).
        Closing = "closing",
        /// Streams were open until the worker had waited for as long as it lets a connection linger
        /// (`restart.idle_linger`), or there were more of them than can be followed.
        Streams = "streams",
        /// More had come for streams that had to wait than can travel.
        Unread = "unread",
        /// A frame came that HTTP/2 refuses, or that is too long to be followed; or one side sent `PUSH_PROMISE`.
        Frame = "frame",
        /// It has moved as often as a connection may.
        Moves = "moves",
        /// This worker's HTTP/2 does not go on as it should: its self-test failed when the worker began.
        SelfTest = "self-test",
        /// The new worker's HTTP/2 began otherwise than the client knows it. The client was told GOAWAY before anything else.
        Mismatch = "mismatch",
        /// No other worker has taken it.
        NoSuccessor = "no successor",
    }
}
