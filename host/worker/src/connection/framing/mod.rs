//! HTTP/1 framing: where one request ends and the next begins, from the bytes alone.
//!
//! hyper doesn't say whether it has read a further request behind the one that is being answered, and a draining
//! connection must know: announcing its close then would lose that request, and transferring it would take a body for a
//! request. So this watches the bytes on their way to hyper. It is pure, costs one search for line feeds a head, and copies
//! bytes only where a read went beyond a head: small bodies and pipelined requests.
//!
//! ```text
//!            first byte of a line           end of head            request(Some(n))
//! Start ────────────────────────▶ Head ──────────────────▶ Ended ──────────────────▶ Body ──n bytes──▶ Start
//!   ▲ │ empty lines are skipped                               │
//!   └─┘                                                       └─ request(None) ──▶ Chunks ──last one──▶ Start
//! ```
//! Where bytes are not what hyper would accept, the position is lost for good: what isn't known is never claimed.

mod chunks;
#[cfg(test)]
mod tests;

use chunks::Chunks;

/// The most bytes of memory that an emptied tail keeps for the next one.
const KEPT_TAIL: usize = 4096;

/// What hyper has been given behind the request that is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// No byte of a further request.
    Nothing,
    /// At least one byte of a further request.
    Something,
    /// The position is lost.
    Unknown,
}

/// What hyper accepts of a request and the standards don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A line of its head ends with a line feed alone.
    BareLineFeed,
    /// Its chunked body isn't formed as RFC 9112, section 7.1, wants it. The position is lost.
    Chunk,
}

/// Follows the bytes of one connection on their way to hyper.
#[derive(Debug)]
pub(super) struct Framing {
    position: Position,
    /// Whether the last byte was a carriage return, in a line of a head.
    returned: bool,
    /// Whether a line of the head, or of the one that ended last, ends with a line feed alone.
    bare_line_feed: bool,
    /// Bytes behind the head that ended, until the length of its body is known.
    tail: Vec<u8>,
    /// How many bytes of `tail` have been scanned.
    scanned: usize,
    /// How many bytes hyper has been given of a head that hasn't ended yet.
    head: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Before a request line. Empty lines are skipped here, as hyper does (RFC 9112, section 2.2).
    Start,
    /// In a line of the head.
    Line,
    /// Behind a line feed of the head.
    LineFeed,
    /// Behind a line feed and a carriage return of the head.
    Return,
    /// Behind a head, and hyper hasn't said yet how long the body is.
    Ended,
    /// In a body, of which this many bytes are to come.
    Body(u64),
    /// In a chunked body.
    Chunks(Chunks),
    /// Behind a chunk that isn't formed as it must be: as good as lost.
    BadChunk,
    /// In a stream that is not HTTP as hyper would accept it.
    Lost,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self {
            position: Position::Start,
            returned: false,
            bare_line_feed: false,
            tail: Vec::new(),
            scanned: 0,
            head: 0,
        }
    }

    /// hyper has been given these bytes.
    pub(super) fn delivered(&mut self, bytes: &[u8]) {
        let used = if self.position == Position::Ended { 0 } else { self.scan(bytes) };
        if used < bytes.len() {
            self.tail.extend_from_slice(&bytes[used..]);
        }
    }

    /// hyper has handed out a request, whose body has this length; `None` if it is chunked. Returns what is wrong with the
    /// request as far as it has come.
    pub(super) fn request(&mut self, body: Option<u64>) -> Option<Fault> {
        let bare_line_feed = std::mem::take(&mut self.bare_line_feed);
        self.position = match (self.position, body) {
            (Position::Ended, Some(0)) => Position::Start,
            (Position::Ended, Some(length)) => Position::Body(length),
            (Position::Ended, None) => Position::Chunks(Chunks::Begin),
            // hyper has accepted a head that has not ended by the rules here: the rules differ.
            _ => Position::Lost,
        };
        let tail = std::mem::take(&mut self.tail);
        self.scanned += self.scan(&tail[self.scanned..]);
        self.tail = tail;
        if self.scanned == self.tail.len() {
            self.scanned = 0;
            self.tail.clear();
            self.tail.shrink_to(KEPT_TAIL);
        }
        if bare_line_feed { Some(Fault::BareLineFeed) } else { self.body_fault() }
    }

    /// What is wrong with the body of the request that hyper has handed out last, as far as it has come.
    pub(super) fn body_fault(&self) -> Option<Fault> {
        (self.position == Position::BadChunk).then_some(Fault::Chunk)
    }

    /// What lies behind the request that hyper has handed out last.
    pub(super) fn behind(&self) -> Behind {
        match self.position {
            Position::Start | Position::Body(_) | Position::Chunks(_) => Behind::Nothing,
            Position::Line | Position::LineFeed | Position::Return | Position::Ended => Behind::Something,
            Position::BadChunk | Position::Lost => Behind::Unknown,
        }
    }

    /// Whether the position is in a head.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.position, Position::Line | Position::LineFeed | Position::Return)
    }

    /// How many bytes hyper has been given of a request that it can't have handed out, because the head hasn't ended;
    /// `None` anywhere but in a head and between requests.
    pub(super) fn unfinished_head(&self) -> Option<usize> {
        match self.position {
            Position::Start => Some(0),
            Position::Line | Position::LineFeed | Position::Return => Some(self.head),
            Position::Ended | Position::Body(_) | Position::Chunks(_) | Position::BadChunk | Position::Lost => None,
        }
    }

    /// Whether the position is lost.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.position, Position::BadChunk | Position::Lost)
    }

    /// Whether bytes of the body that hyper has handed out last are still to come.
    pub(super) fn in_body(&self) -> bool {
        matches!(self.position, Position::Body(_) | Position::Chunks(_) | Position::BadChunk)
    }

    /// Whether all that has been read consists of whole requests.
    pub(super) fn is_clean(&self) -> bool {
        self.position == Position::Start
    }

    /// Scans `bytes` up to the end of a head. Returns how many were scanned.
    ///
    /// A head ends where httparse says so: at an empty line. A line ends with a line feed that may have a carriage return
    /// before it.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (position, began) = (self.position, at);
            (self.position, at) = match self.position {
                Position::Start => match rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
                    Some(blank) => {
                        self.head = 0;
                        (Position::Line, at + blank)
                    }
                    None => (Position::Start, bytes.len()),
                },
                Position::Line => self.line(bytes, at),
                Position::LineFeed => match rest[0] {
                    b'\n' => {
                        self.bare_line_feed = true;
                        (Position::Ended, at + 1)
                    }
                    b'\r' => (Position::Return, at + 1),
                    _ => (Position::Line, at),
                },
                Position::Return => match rest[0] {
                    b'\n' => (Position::Ended, at + 1),
                    _ => (Position::Line, at),
                },
                Position::Ended => return at,
                Position::Body(left) => {
                    let here = left.min(rest.len() as u64);
                    let position = if here == left { Position::Start } else { Position::Body(left - here) };
                    // `here` is not greater than the length of a slice.
                    (position, at + usize::try_from(here).unwrap_or(rest.len()))
                }
                Position::Chunks(Chunks::Data(left)) => {
                    let here = left.min(rest.len() as u64);
                    let next = if here == left { Chunks::DataEnd } else { Chunks::Data(left - here) };
                    (Position::Chunks(next), at + usize::try_from(here).unwrap_or(rest.len()))
                }
                Position::Chunks(chunks) => (chunks.then(rest[0]), at + 1),
                lost @ (Position::BadChunk | Position::Lost) => (lost, bytes.len()),
            };
            if matches!(position, Position::Line | Position::LineFeed | Position::Return) {
                self.head += at - began;
            }
        }
        bytes.len()
    }

    /// Scans from within a line of a head to the empty line, if it is there. Returns the position and the index behind it.
    /// It does what single steps from byte to byte would do, and is faster: it only looks for the ends of lines.
    fn line(&mut self, bytes: &[u8], mut at: usize) -> (Position, usize) {
        while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
            let returned = if length == 0 { self.returned } else { bytes[at + length - 1] == b'\r' };
            self.bare_line_feed |= !returned;
            self.returned = false;
            at += length + 1;
            match bytes[at..] {
                [] => return (Position::LineFeed, at),
                [b'\r'] => return (Position::Return, at + 1),
                [b'\n', ..] => {
                    self.bare_line_feed = true;
                    return (Position::Ended, at + 1);
                }
                [b'\r', b'\n', ..] => return (Position::Ended, at + 2),
                // Another line.
                [_, ..] => {}
            }
        }
        if at < bytes.len() {
            self.returned = bytes.ends_with(b"\r");
        }
        (Position::Line, bytes.len())
    }
}
