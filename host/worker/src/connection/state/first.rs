//! Protocol detection: the first bytes of a connection tell HTTP/2 from HTTP/1.
//!
//! ```text
//!              bytes that differ from the preface of HTTP/2, or are all of it
//! first bytes ────────────────────────────────────────────────────────────────▶ HTTP/1 or HTTP/2
//!      ├── drain with a transfer ──▶ to another worker, with what has been read
//!      ├── drain with a close, `linger` over; cut ──▶ dismissed
//!      ├── 30 s over, counted from the accept by whichever worker ──▶ late
//!      └── the client's end ──▶ gone
//! ```

use std::time::Instant;

use super::{Ending, Phase};

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A major version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// The protocol that begins with `bytes`, if that is certain.
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        let compared = bytes.len().min(PREFACE.len());
        if bytes[..compared] != PREFACE[..compared] {
            Some(Self::Http1)
        } else if compared == PREFACE.len() {
            Some(Self::Http2)
        } else {
            None
        }
    }
}

/// How a connection ends before its protocol is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    /// It goes to another worker.
    Leaves,
    /// The client has ended it.
    Gone,
    /// The client has taken too long.
    Late,
    /// The drain has ended it.
    Dismissed,
}

/// The state of a connection whose first bytes are awaited.
#[derive(Debug)]
pub struct FirstBytes {
    /// When the client has taken too long.
    late: Instant,
    /// When the drain ends the connection, if it is to close.
    dismissed: Option<Instant>,
}

impl FirstBytes {
    /// Waits until `late`.
    pub const fn new(late: Instant) -> Self {
        Self { late, dismissed: None }
    }

    /// The worker's phase has changed.
    pub fn on_phase(&mut self, phase: Phase) -> Option<Early> {
        match phase {
            Phase::Serving => None,
            Phase::Draining { ending: Ending::HandOver, .. } => Some(Early::Leaves),
            Phase::Draining { since, linger, ending: Ending::Close } => {
                self.dismissed = Some(since + linger);
                None
            }
            Phase::Cut => Some(Early::Dismissed),
        }
    }

    /// Nothing more has come by `now`. Returns the end, or when to check again.
    pub fn on_timer(&self, now: Instant) -> Result<Instant, Early> {
        match self.dismissed {
            Some(dismissed) if dismissed < self.late => {
                if now < dismissed {
                    Ok(dismissed)
                } else {
                    Err(Early::Dismissed)
                }
            }
            _ if now < self.late => Ok(self.late),
            _ => Err(Early::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_tells_when_it_differs() {
        assert_eq!(Protocol::detect(b"G"), Some(Protocol::Http1));
        assert_eq!(Protocol::detect(b"P"), None);
        assert_eq!(Protocol::detect(b"PO"), Some(Protocol::Http1));
        assert_eq!(Protocol::detect(&PREFACE[..23]), None);
        assert_eq!(Protocol::detect(PREFACE), Some(Protocol::Http2));
        assert_eq!(Protocol::detect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"), Some(Protocol::Http2));
    }
}
