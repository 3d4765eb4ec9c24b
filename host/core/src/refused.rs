//! Why a client is refused below the app: the word in a line of the access log and in the metrics.
//!
//! Whoever refuses a client for a new reason adds a value here, and a row to `docs/operate/client-limits.md`.

use crate::words::words;

words! {
    /// Why a client is refused before its request reaches the app, or given up while it does. Each is a line `refused` of
    /// the access log, and counted.
    pub enum Refused {
        /// A head that isn't HTTP (RFC 9112, section 2.2), or frames that aren't HTTP/2 (RFC 9113, section 5.4.1).
        Malformed = "malformed request",
        /// A Host that is missing, doubled, or no host (RFC 9112, section 3.2).
        BadHost = "bad host",
        /// A target of a form that the method doesn't have (RFC 9112, section 3.2).
        BadTarget = "bad target",
        /// CONNECT, TRACE, or a method with too long a name (RFC 9110, section 15.6.2).
        MethodNotImplemented = "method not implemented",
        /// A transfer coding beside the chunked one (RFC 9112, section 6.1).
        BadCoding = "transfer coding not implemented",
        /// A line of a head that ends without a carriage return (RFC 9112, section 2.2).
        BareLineFeed = "bare line feed",
        /// A chunked body that isn't formed as RFC 9112, section 7.1, wants it.
        BadChunk = "bad chunk",
        /// A head with too many bytes or lines (RFC 6585, section 5).
        HeadTooLarge = "head too large",
        /// RFC 9110, section 15.5.15.
        UriTooLong = "URI too long",
        /// A head that has begun and didn't end in time (RFC 9110, section 15.5.9).
        HeadTimedOut = "head timed out",
        /// A body that the app waits for and that comes too slowly.
        BodyTimedOut = "body timed out",
        /// A response that the client takes too slowly.
        ResponseTimedOut = "response timed out",
        /// A body of more bytes than `http.max_body` (RFC 9110, section 15.5.14).
        BodyTooLarge = "body too large",
        /// A request beyond `http.max_in_flight` (RFC 9110, section 15.6.4).
        TooManyInFlight = "too many in flight",
        /// A client that took or gave nothing for `restart.stall_timeout` while its worker drained.
        Stalled = "stalled",
        /// More of what a server must work on than it will bear (RFC 9113, section 7, `ENHANCE_YOUR_CALM`).
        Flood = "flood",
        /// A peer that isn't trusted, at a listener where one has to say who the client is.
        UntrustedPeer = "untrusted peer",
        /// A header of the PROXY protocol that is bad, too long, late or missing.
        BadProxyHeader = "bad proxy header",
        /// A connection beyond `connections.max_per_address`.
        TooManyConnections = "too many connections",
        /// A TLS handshake that has failed, or has taken too long.
        HandshakeFailed = "handshake failed",
    }
}
