//! Alerts: what one side tells the other before it gives up a connection.

/// Why a connection is given up (RFC 8446, section 6; RFC 5246, section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// The sender sends nothing more. No error.
    CloseNotify = 0,
    /// A message that has no place here.
    UnexpectedMessage = 10,
    /// A record that was not made with the connection's key.
    BadRecordMac = 20,
    /// A record that is longer than one may be.
    RecordOverflow = 22,
    /// A field with a value that it can't have.
    IllegalParameter = 47,
    /// A message that can't be read.
    DecodeError = 50,
    /// A fault of ours.
    InternalError = 80,
    /// The sender gives up what it was about to do. No error.
    UserCanceled = 90,
    /// TLS 1.2: no second handshake on this connection. No error.
    NoRenegotiation = 100,
}

impl Alert {
    /// Its number in the protocol.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why a connection can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The client has broken the protocol, or somebody has changed what it sent.
    #[error("{what}")]
    Broken {
        /// What was wrong.
        what: &'static str,
        /// What the client is told.
        alert: Alert,
    },
    /// The client has given up, with this alert's number.
    #[error("the client gave up with alert {0}")]
    AlertReceived(u8),
    /// As many records have been sent as one key may protect, and TLS 1.2 has no other.
    #[error("the key is used up")]
    KeyUsedUp,
    /// The handshake has failed; the alert is among the bytes to send.
    #[error("handshake: {0}")]
    Handshake(String),
}

impl TlsError {
    pub(crate) const fn broken(what: &'static str, alert: Alert) -> Self {
        Self::Broken { what, alert }
    }
}
