//! Where one HTTP/1 request ends and the next begins, told from the bytes alone.
//!
//! hyper doesn't say whether it has read a further request behind the one that is being answered,
//! and a draining connection must know: announcing its close then would lose that request, and handing
//! it over would take a body for a request. So this watches the bytes on their way to hyper. It is pure,
//! costs one search for line feeds per head, and copies bytes only where a read went beyond a head: small
//! bodies and pipelined requests.
//!
//! ```text
//!            first byte of a line           end of head            request(Some(n))
//! Start ────────────────────────▶ Head ──────────────────▶ Ended ──────────────────▶ Body ──n bytes──▶ Start
//!   ▲ │ empty lines are skipped                               │
//!   └─┘                                                       └─ request(None) ──▶ Chunks ──last one──▶ Start
//! ```
//! Where bytes are not what hyper would take, the place is lost for good: what isn't known is never claimed.

/// The most bytes of memory that an emptied tail keeps for the next one.
const KEPT_TAIL: usize = 4096;

/// What has been delivered to hyper behind the request that is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// No byte of a further request.
    Nothing,
    /// At least one byte of a further request.
    Something,
    /// The place is lost, so nobody knows.
    Unknown,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Boundary {
    place: Place,
    /// Bytes behind the head that ended, until the length of its body is known.
    tail: Vec<u8>,
    /// How much of `tail` has been looked at.
    seen: usize,
    /// How many bytes of a head that hasn't ended yet have been delivered.
    head: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
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
    /// In a body, of which so many bytes are to come.
    Body(u64),
    /// In a body that comes in chunks.
    Chunks(Chunks),
    /// In a stream that is not what it should be.
    Lost,
}

/// Where in a body that comes in chunks (RFC 9112, section 7.1). What is taken here is what hyper takes,
/// or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    /// Before the first digit of a chunk's size.
    Begin,
    /// Behind digits of a size, which is this so far.
    Size(u64),
    /// Behind blanks that follow a size.
    Blank(u64),
    /// In an extension of a chunk of this size.
    Extension(u64),
    /// Behind the carriage return that ends the line with this size.
    SizeReturn(u64),
    /// In a chunk, of which so many bytes are to come.
    Data(u64),
    /// Behind a chunk's bytes.
    DataEnd,
    /// Behind the carriage return that follows them.
    DataReturn,
    /// At the beginning of a line behind the last chunk.
    TrailerStart,
    /// In a trailer field.
    Trailer,
    /// Behind the carriage return that ends it.
    TrailerReturn,
    /// Behind the carriage return of the empty line that ends the body.
    LastReturn,
}

impl Chunks {
    /// The place behind `byte`, which is not one of a chunk's own bytes.
    fn then(self, byte: u8) -> Place {
        let next = match (self, byte) {
            (Self::Begin, _) if byte.is_ascii_hexdigit() => Self::Size(digit(byte)),
            (Self::Size(size), _) if byte.is_ascii_hexdigit() => {
                match size.checked_mul(16).and_then(|size| size.checked_add(digit(byte))) {
                    Some(size) => Self::Size(size),
                    None => return Place::Lost,
                }
            }
            (Self::Size(size) | Self::Blank(size), b' ' | b'\t') => Self::Blank(size),
            (Self::Size(size) | Self::Blank(size), b';') => Self::Extension(size),
            (Self::Size(size) | Self::Blank(size) | Self::Extension(size), b'\r') => Self::SizeReturn(size),
            (Self::Extension(size), _) if byte != b'\n' => Self::Extension(size),
            (Self::SizeReturn(0) | Self::TrailerReturn, b'\n') => Self::TrailerStart,
            (Self::SizeReturn(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataReturn,
            (Self::DataReturn, b'\n') => Self::Begin,
            (Self::TrailerStart, b'\r') => Self::LastReturn,
            (Self::Trailer, b'\r') => Self::TrailerReturn,
            (Self::TrailerStart | Self::Trailer, _) => Self::Trailer,
            (Self::LastReturn, b'\n') => return Place::Start,
            _ => return Place::Lost,
        };
        Place::Chunks(next)
    }
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u64 {
    char::from(byte).to_digit(16).unwrap_or_default().into()
}

impl Boundary {
    pub(super) fn new() -> Self {
        Self { place: Place::Start, tail: Vec::new(), seen: 0, head: 0 }
    }

    /// hyper has got these bytes.
    pub(super) fn delivered(&mut self, bytes: &[u8]) {
        let used = if self.place == Place::Ended { 0 } else { self.scan(bytes) };
        if used < bytes.len() {
            self.tail.extend_from_slice(&bytes[used..]);
        }
    }

    /// hyper has handed a request over, whose body has this length; `None` if its end is told by its
    /// own bytes (chunked).
    pub(super) fn request(&mut self, body: Option<u64>) {
        self.place = match (self.place, body) {
            (Place::Ended, Some(0)) => Place::Start,
            (Place::Ended, Some(length)) => Place::Body(length),
            (Place::Ended, None) => Place::Chunks(Chunks::Begin),
            // hyper taking a head that hasn't ended by our rules would mean that the rules differ.
            _ => Place::Lost,
        };
        let tail = std::mem::take(&mut self.tail);
        self.seen += self.scan(&tail[self.seen..]);
        self.tail = tail;
        if self.seen == self.tail.len() {
            self.seen = 0;
            self.tail.clear();
            self.tail.shrink_to(KEPT_TAIL);
        }
    }

    /// What lies behind the request that hyper has handed over last.
    pub(super) fn behind(&self) -> Behind {
        match self.place {
            Place::Start | Place::Body(_) | Place::Chunks(_) => Behind::Nothing,
            Place::Line | Place::LineFeed | Place::Return | Place::Ended => Behind::Something,
            Place::Lost => Behind::Unknown,
        }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.place, Place::Line | Place::LineFeed | Place::Return)
    }

    /// How many bytes have been delivered of a request that hyper can't have handed over yet, because its
    /// head hasn't ended; `None` anywhere but in a head and between requests.
    pub(super) fn unfinished_head(&self) -> Option<usize> {
        match self.place {
            Place::Start => Some(0),
            Place::Line | Place::LineFeed | Place::Return => Some(self.head),
            Place::Ended | Place::Body(_) | Place::Chunks(_) | Place::Lost => None,
        }
    }

    /// Whether nothing can be said of the stream any more.
    pub(super) fn is_lost(&self) -> bool {
        self.place == Place::Lost
    }

    /// Whether everything that the client has sent, as far as it has been read, was whole requests.
    pub(super) fn is_clean(&self) -> bool {
        self.place == Place::Start
    }

    /// Goes through `bytes` up to the end of a head; says how many of them that were.
    ///
    /// A head ends where httparse says so: at an empty line, and a line ends with a line feed that
    /// may have a carriage return before it.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (place, began) = (self.place, at);
            (self.place, at) = match self.place {
                Place::Start => match rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
                    Some(blank) => {
                        self.head = 0;
                        (Place::Line, at + blank)
                    }
                    None => (Place::Start, bytes.len()),
                },
                Place::Line => line(bytes, at),
                Place::LineFeed => match rest[0] {
                    b'\n' => (Place::Ended, at + 1),
                    b'\r' => (Place::Return, at + 1),
                    _ => (Place::Line, at + 1),
                },
                Place::Return => match rest[0] {
                    b'\n' => (Place::Ended, at + 1),
                    _ => (Place::Line, at + 1),
                },
                Place::Ended => return at,
                Place::Body(left) => {
                    let here = left.min(rest.len() as u64);
                    let place = if here == left { Place::Start } else { Place::Body(left - here) };
                    // `here` is at most the length of a slice.
                    (place, at + usize::try_from(here).unwrap_or(rest.len()))
                }
                Place::Chunks(Chunks::Data(left)) => {
                    let here = left.min(rest.len() as u64);
                    let next = if here == left { Chunks::DataEnd } else { Chunks::Data(left - here) };
                    (Place::Chunks(next), at + usize::try_from(here).unwrap_or(rest.len()))
                }
                Place::Chunks(chunks) => (chunks.then(rest[0]), at + 1),
                Place::Lost => (Place::Lost, bytes.len()),
            };
            if matches!(place, Place::Line | Place::LineFeed | Place::Return) {
                self.head += at - began;
            }
        }
        bytes.len()
    }
}

/// Goes on in a line of a head, to the empty line if it is there; says what comes then, and where. The same as
/// the machine's own steps, which would take longer for the many lines of a head than to find their ends.
fn line(bytes: &[u8], mut at: usize) -> (Place, usize) {
    while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
        at += length + 1;
        match bytes[at..] {
            [] => return (Place::LineFeed, at),
            [b'\r'] => return (Place::Return, at + 1),
            [b'\n', ..] => return (Place::Ended, at + 1),
            [b'\r', b'\n', ..] => return (Place::Ended, at + 2),
            // Another line.
            [_, ..] => {}
        }
    }
    (Place::Line, bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(bytes: &[u8], body: Option<u64>) -> Boundary {
        let mut boundary = Boundary::new();
        boundary.delivered(bytes);
        boundary.request(body);
        boundary
    }

    #[test]
    fn a_lone_request_has_nothing_behind_it() {
        assert_eq!(after(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some(0)).behind(), Behind::Nothing);
        assert_eq!(after(b"POST / HTTP/1.1\r\n\r\nbody", Some(4)).behind(), Behind::Nothing);
        assert_eq!(after(b"POST / HTTP/1.1\r\n\r\nbo", Some(4)).behind(), Behind::Nothing);
    }

    #[test]
    fn the_first_byte_of_a_second_request_is_seen() {
        assert_eq!(after(b"GET / HTTP/1.1\r\n\r\nG", Some(0)).behind(), Behind::Something);
        assert_eq!(after(b"POST / HTTP/1.1\n\n\r\n\r\nP", Some(4)).behind(), Behind::Something);
    }

    #[test]
    fn an_empty_line_behind_a_body_is_no_request() {
        assert_eq!(after(b"POST / HTTP/1.1\r\n\r\nbody\r\n", Some(4)).behind(), Behind::Nothing);
    }

    #[test]
    fn the_end_of_a_body_in_chunks_is_found() {
        for body in [
            "4\r\nbody\r\n0\r\n\r\n",
            "0\r\n\r\n",
            "00a \t;name=value\r\n\r\n\r\n0\r\n\r\n!\r\n1\r\n\n\r\n0;x\r\nTrailer: 0\r\nb: c\r\n\r\n",
        ] {
            let sent = format!("POST / HTTP/1.1\r\n\r\n{body}");
            let mut boundary = after(sent.as_bytes(), None);
            assert_eq!((boundary.behind(), boundary.is_clean()), (Behind::Nothing, true), "{body:?}");
            boundary.delivered(b"G");
            assert_eq!((boundary.behind(), boundary.unfinished_head()), (Behind::Something, Some(1)), "{body:?}");
            for end in "POST / HTTP/1.1\r\n\r\n".len()..sent.len() {
                let boundary = after(&sent.as_bytes()[..end], None);
                assert_eq!((boundary.is_clean(), boundary.unfinished_head()), (false, None), "{:?}", &sent[..end]);
            }
        }
    }

    #[test]
    fn behind_chunks_that_hyper_would_not_take_nothing_is_known_any_more() {
        for body in [
            "\r\n",
            "g\r\n",
            "1 1\r\n",
            "1\n",
            "1;\n",
            "1\r\nab",
            "1\r\na\n",
            "0\r\n\rX",
            "0\r\na\rb",
            "fffffffffffffffff",
        ] {
            let mut boundary = after(format!("POST / HTTP/1.1\r\n\r\n{body}").as_bytes(), None);
            assert!(boundary.is_lost(), "{body:?}");
            boundary.delivered(b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            boundary.request(Some(0));
            assert_eq!((boundary.behind(), boundary.unfinished_head()), (Behind::Unknown, None), "{body:?}");
        }
    }

    #[test]
    fn a_head_that_comes_slowly_is_noticed() {
        let mut boundary = Boundary::new();
        assert!(!boundary.in_head());
        boundary.delivered(b"\r\nGET / HT");
        assert!(boundary.in_head() && !boundary.is_clean());
        boundary.delivered(b"TP/1.1\r\n\r");
        assert!(boundary.in_head());
        boundary.delivered(b"\n");
        boundary.request(Some(0));
        assert!(!boundary.in_head() && boundary.is_clean());
    }

    /// One request as a client may send it.
    #[derive(Clone, Debug)]
    struct Sent {
        blank: usize,
        head: Vec<u8>,
        body: Vec<u8>,
        /// The body comes in chunks, so its length isn't told.
        chunked: bool,
    }

    prop_compose! {
        fn sent()(
            blank in 0_usize..3,
            lines in prop::collection::vec("[A-Za-z:/ ]{1,20}", 1..5),
            bare in any::<bool>(),
            body in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..30),
            chunk in prop::option::of(1_usize..20),
        ) -> Sent {
            let end = if bare { "\n" } else { "\r\n" };
            let mut head = lines.join(end).into_bytes();
            head.extend_from_slice(end.as_bytes());
            head.extend_from_slice(end.as_bytes());
            let body = chunk.map_or(body.clone(), |length| {
                let mut chunks = Vec::new();
                for chunk in body.chunks(length) {
                    chunks.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                    chunks.extend_from_slice(chunk);
                    chunks.extend_from_slice(b"\r\n");
                }
                chunks.extend_from_slice(b"0\r\n\r\n");
                chunks
            });
            Sent { blank, head, body, chunked: chunk.is_some() }
        }
    }

    proptest! {
        /// However the bytes are cut into reads, and whenever hyper takes a request, what is said to
        /// lie behind a request is what lies there.
        #[test]
        fn what_lies_behind_is_told_exactly(
            requests in prop::collection::vec(sent(), 1..6),
            cuts in prop::collection::vec(1_usize..40, 1..80),
            eager in any::<bool>(),
        ) {
            let mut stream = Vec::new();
            let mut places = Vec::new();
            for request in &requests {
                for _ in 0..request.blank {
                    stream.extend_from_slice(b"\r\n");
                }
                let start = stream.len();
                stream.extend_from_slice(&request.head);
                let head = stream.len();
                stream.extend_from_slice(&request.body);
                places.push((start, head, stream.len()));
            }
            let mut boundary = Boundary::new();
            let mut delivered = 0;
            let mut taken = 0;
            for cut in cuts.into_iter().chain([stream.len()]) {
                let read = cut.min(stream.len() - delivered);
                boundary.delivered(&stream[delivered..delivered + read]);
                delivered += read;
                // hyper takes a request once its head and all of the one before have been delivered.
                while taken < places.len()
                    && delivered >= places[taken].1
                    && (eager || delivered >= places[taken].2 || cut % 2 == 0)
                    && (taken == 0 || delivered >= places[taken - 1].2)
                {
                    let request = &requests[taken];
                    boundary.request((!request.chunked).then_some(request.body.len() as u64));
                    taken += 1;
                    let next = places.get(taken).map_or(usize::MAX, |place| place.0);
                    let truth = if delivered > next { Behind::Something } else { Behind::Nothing };
                    prop_assert_eq!(boundary.behind(), truth);
                }
            }
            prop_assert_eq!(taken, places.len());
            prop_assert!(boundary.is_clean());
            prop_assert!(boundary.tail.is_empty());
        }

        #[test]
        fn any_bytes_are_survived(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let mut boundary = Boundary::new();
            for (index, read) in reads.iter().enumerate() {
                boundary.delivered(read);
                if index % 3 == 0 {
                    boundary.request((index % 2 == 0).then_some(index as u64));
                }
            }
        }
    }
}
