//! A machine with its clock, and the situations that a connection may be in.

use super::*;

/// A connection's machine, and its clock.
pub struct Bench {
    pub state: ConnState,
    pub timeouts: Timeouts,
    pub now: Instant,
}

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\n\r\n";

impl Bench {
    pub fn new(protocol: Protocol) -> Self {
        let now = Instant::now();
        Self {
            state: ConnState::new(protocol, 0),
            timeouts: Timeouts::resume(&History::NEW, now, &Limits::TEST, now),
            now,
        }
    }

    pub fn phase(&mut self, phase: Phase) -> Order {
        self.timeouts.on_phase(&self.state, phase, false)
    }

    pub fn drain(&mut self, ending: Ending) -> Order {
        self.phase(Phase::Draining { since: self.now, linger: LINGER, ending })
    }

    pub fn gets(&self, bytes: &[u8]) {
        self.state.on_read(Found::Bytes(bytes.len()));
        self.state.on_delivered(bytes);
    }

    /// HTTP has read and found nothing.
    pub fn waits(&self) {
        self.state.on_read(Found::Nothing);
    }

    pub fn request(&self, bytes: &[u8], body: Option<u64>) {
        self.gets(bytes);
        self.state.on_request(body);
    }

    /// The response is handed over, and is on its way.
    pub fn answers(&self) {
        self.state.on_response();
        self.state.on_response_end();
        self.state.on_write();
    }

    pub fn flushes(&self) -> bool {
        self.state.on_flushed()
    }

    pub fn check(&mut self, after: Duration) -> Next {
        self.now += after;
        self.timeouts.on_timer(&self.state, self.now)
    }
}

/// Where a connection may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// Nothing has been read.
    New,
    /// The first head has begun.
    FirstHead,
    /// Between two requests.
    Idle,
    /// In the head of a second request.
    HalfHead,
    /// In the head of a second request, which is too long to travel.
    LongHead,
    /// The app has a request.
    InFlight,
    /// It has one, and a byte of a further request has been read.
    Pipelined,
    /// The app waits for more of a request's body.
    Upload,
    /// The app has answered before it had a request's body.
    Refused,
    /// A response has not gone out in full.
    Unflushed,
    /// A response to a request has been given to HTTP, which has not written it, and nothing else has to go out.
    Unwritten,
    /// Bytes have come that HTTP should not have taken.
    Lost,
    /// The app has upgraded it.
    Carried,
    /// HTTP/2 without a stream.
    Http2,
    /// HTTP/2 with a stream.
    Streams,
}

pub use Situation::{
    Carried, FirstHead, HalfHead, Http2, Idle, InFlight, LongHead, Lost, New, Pipelined, Refused, Streams, Unflushed,
    Unwritten, Upload,
};

pub const ALL: [Situation; 15] = [
    New, FirstHead, Idle, HalfHead, LongHead, InFlight, Pipelined, Upload, Refused, Unflushed, Unwritten, Lost,
    Carried, Http2, Streams,
];

pub fn bench(situation: Situation) -> Bench {
    let bench = Bench::new(if matches!(situation, Http2 | Streams) { Protocol::Http2 } else { Protocol::Http1 });
    let one_request = || {
        bench.request(GET, Some(0));
        bench.answers();
        assert!(!bench.flushes());
    };
    match situation {
        New | Http2 => {}
        FirstHead => bench.gets(b"GET / HT"),
        Idle => one_request(),
        HalfHead => {
            one_request();
            bench.gets(b"GET / HT");
        }
        LongHead => {
            one_request();
            bench.gets(&vec![b'x'; MAX_UNREAD + 1]);
        }
        InFlight | Streams => bench.request(GET, Some(0)),
        Pipelined => bench.request(b"GET / HTTP/1.1\r\n\r\nG", Some(0)),
        Upload => {
            bench.request(POST, Some(9));
            bench.state.on_body_awaited(true);
        }
        Refused => {
            bench.request(POST, Some(9));
            bench.answers();
            bench.flushes();
        }
        Unflushed => {
            bench.request(GET, Some(0));
            bench.answers();
        }
        Unwritten => {
            bench.request(GET, Some(0));
            bench.state.on_response();
            bench.state.on_response_end();
        }
        Lost => {
            one_request();
            bench.gets(b"G");
            bench.state.on_request(Some(0));
            bench.answers();
            bench.flushes();
        }
        Carried => {
            bench.request(GET, Some(0));
            bench.state.on_carried();
        }
    }
    bench.waits();
    bench
}

/// Every situation has its row.
pub fn each<T: Copy>(rows: [(Situation, T); ALL.len()]) -> impl Iterator<Item = (Situation, Bench, T)> {
    assert_eq!(rows.map(|(situation, _)| situation), ALL);
    rows.into_iter().map(|(situation, row)| (situation, bench(situation), row))
}
