//! Where one HTTP/1 request ends and the next begins, told from the bytes alone.
//!
//! hyper doesn't say whether it has read a further request behind the one that is being answered,
//! and a draining connection must know: announcing its close then would lose that request. So this
//! watches the bytes on their way to hyper. It is pure, costs one search for line feeds per head, and
//! copies bytes only where a read went beyond a head: small bodies and pipelined requests.
//!
//! ```text
//!            first byte of a line           end of head            request(Some(n))
//! Start ────────────────────────▶ Head ──────────────────▶ Ended ──────────────────▶ Body ──n bytes──▶ Start
//!   ▲ │ empty lines are skipped                               │
//!   └─┘                                                       └─ request(None) ──▶ Lost, for good
//! ```

/// The most bytes of memory that an emptied tail keeps for the next one.
const KEPT_TAIL: usize = 4096;

/// What has been delivered to hyper behind the request that is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// No byte of a further request.
    Nothing,
    /// At least one byte of a further request.
    Something,
    /// A body of unknown length came before, so nobody knows.
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
    /// Behind a body of unknown length.
    Lost,
}

impl Boundary {
    pub(super) fn new() -> Self {
        Self { place: Place::Start, tail: Vec::new(), seen: 0 }
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
            Place::Start | Place::Body(_) => Behind::Nothing,
            Place::Line | Place::LineFeed | Place::Return | Place::Ended => Behind::Something,
            Place::Lost => Behind::Unknown,
        }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.place, Place::Line | Place::LineFeed | Place::Return)
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
            (self.place, at) = match self.place {
                Place::Start => match rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
                    Some(blank) => (Place::Line, at + blank),
                    None => (Place::Start, bytes.len()),
                },
                Place::Line => match memchr::memchr(b'\n', rest) {
                    Some(length) => (Place::LineFeed, at + length + 1),
                    None => (Place::Line, bytes.len()),
                },
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
                Place::Lost => (Place::Lost, bytes.len()),
            };
        }
        bytes.len()
    }
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
    fn behind_a_chunked_body_nothing_is_known_any_more() {
        let mut boundary = after(b"POST / HTTP/1.1\r\n\r\n4\r\nbody\r\n0\r\n\r\n", None);
        assert_eq!(boundary.behind(), Behind::Unknown);
        boundary.delivered(b"GET / HTTP/1.1\r\n\r\n");
        boundary.request(Some(0));
        assert_eq!(boundary.behind(), Behind::Unknown);
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
    }

    prop_compose! {
        fn sent()(
            blank in 0_usize..3,
            lines in prop::collection::vec("[A-Za-z:/ ]{1,20}", 1..5),
            bare in any::<bool>(),
            body in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..30),
        ) -> Sent {
            let end = if bare { "\n" } else { "\r\n" };
            let mut head = lines.join(end).into_bytes();
            head.extend_from_slice(end.as_bytes());
            head.extend_from_slice(end.as_bytes());
            Sent { blank, head, body }
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
                    boundary.request(Some(requests[taken].body.len() as u64));
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
