//! A model of everything around the machine: a client, an HTTP/1 implementation, an app and a driver.
//!
//! The model knows the client's stream beforehand: where each request begins, where its head and its body end. It tells
//! the machine no more than a transport, hyper and the driver do, does what the machine decides, and compares that with
//! its own account after every step. A connection that leaves is resumed by a new machine, as in another worker.

mod check;
mod http;

use std::ops::Range;

use super::*;
use http::Worker;

/// A request as the client sends it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Empty lines before it.
    pub blank: usize,
    pub body: SentBody,
}

#[derive(Clone, Debug)]
pub enum SentBody {
    Sized(Vec<u8>),
    /// One chunk and the last.
    Chunked(Vec<u8>),
}

/// A request in the client's stream.
#[derive(Clone, Debug)]
struct Span {
    /// With its empty lines.
    all: Range<usize>,
    head: Range<usize>,
    /// What HTTP says of its body.
    length: Option<u64>,
}

/// Where the connection is.
enum Location {
    Served(Box<Worker>),
    Parked { history: History, due: Instant },
    Gone,
}

/// The model.
pub struct World {
    now: Instant,
    location: Location,
    stream: Vec<u8>,
    spans: Vec<Span>,
    /// How many bytes the client has sent, and the transports have read.
    sent: usize,
    taken: usize,
    client_ended: bool,
    /// What has been read and goes along to the next worker.
    unread: Vec<u8>,
    /// Requests that an app was given, and that were answered in full.
    begun: usize,
    answered: usize,
    /// Whether a response has announced the close.
    closes: bool,
    /// Since when the connection has been idle between two requests or before the first, and since when in a head.
    idle_since: Option<Instant>,
    head_since: Option<Instant>,
    /// Since when a response has been on its way and no byte has moved.
    blocked_since: Option<Instant>,
    opened: Instant,
    /// The most bytes that one read finds.
    piece: usize,
    /// How many bytes the transport takes before it is full.
    window: usize,
    pub moves: usize,
    pub parks: usize,
}

const RESPONSE: usize = 100;

impl World {
    pub fn new(requests: &[Sent], piece: usize) -> Self {
        let (mut stream, mut spans) = (Vec::new(), Vec::new());
        for (number, Sent { blank, body }) in requests.iter().enumerate() {
            let start = stream.len();
            stream.extend(b"\r\n".repeat(*blank));
            let head = stream.len();
            stream.extend(format!("POST /{number} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes());
            let end = stream.len();
            let length = match body {
                SentBody::Sized(bytes) => {
                    stream.extend(bytes);
                    Some(bytes.len() as u64)
                }
                SentBody::Chunked(bytes) => {
                    if !bytes.is_empty() {
                        stream.extend(format!("{:x};x\r\n", bytes.len()).into_bytes());
                        stream.extend(bytes);
                        stream.extend(b"\r\n");
                    }
                    stream.extend(b"0\r\n\r\n");
                    None
                }
            };
            spans.push(Span { all: start..stream.len(), head: head..end, length });
        }
        let now = Instant::now();
        let mut world = Self {
            now,
            location: Location::Gone,
            stream,
            spans,
            sent: 0,
            taken: 0,
            client_ended: false,
            unread: Vec::new(),
            begun: 0,
            answered: 0,
            closes: false,
            idle_since: Some(now),
            head_since: None,
            blocked_since: None,
            opened: now,
            piece,
            window: usize::MAX,
            moves: 0,
            parks: 0,
        };
        world.serve(&History { detected: Detected::Http1, ..History::NEW });
        world
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.location, Location::Gone)
    }

    pub fn answered(&self) -> usize {
        self.answered
    }

    /// A new worker resumes the connection.
    fn serve(&mut self, history: &History) {
        let timeouts = Timeouts::resume(history, self.now, &Limits::TEST, self.now);
        let timer = timeouts.due();
        self.location = Location::Served(Box::new(Worker {
            state: ConnState::new(Protocol::Http1, history.requests),
            timeouts,
            phase: Phase::Serving,
            told: self.now,
            new_phase: Some(Phase::Serving),
            drains_since: None,
            timer,
            buffer: Vec::new(),
            in_flight: None,
            out: 0,
            keeps: true,
            graceful: false,
            told_end: false,
            shutdown: None,
        }));
        self.settle();
    }

    /// The client sends this many bytes more.
    pub fn client_sends(&mut self, bytes: usize) {
        if !self.client_ended {
            self.sent = (self.sent + bytes).min(self.stream.len());
            self.wake();
        }
    }

    /// The client ends its side.
    pub fn client_ends(&mut self) {
        self.client_ended = true;
        self.wake();
    }

    /// The worker begins a phase.
    pub fn phase(&mut self, phase: Phase) {
        if let Location::Served(worker) = &mut self.location {
            // A worker that drains never serves again.
            if phase == Phase::Serving && worker.phase != Phase::Serving {
                return;
            }
            let ends = |phase| match phase {
                Phase::Draining { ending, .. } => Some(ending),
                _ => None,
            };
            if ends(worker.phase) != ends(phase) {
                worker.told = self.now;
            }
            if let Phase::Draining { since, .. } = phase {
                worker.drains_since.get_or_insert(since);
            }
            (worker.phase, worker.new_phase) = (phase, Some(phase));
            self.settle();
        }
    }

    /// The worker drains from now on.
    pub fn drain(&mut self, ending: Ending) {
        self.phase(Phase::Draining { since: self.now, linger: LINGER, ending });
    }

    /// The app answers, in full or with more to come; with or without having read the body.
    pub fn app_answers(&mut self, whole: bool, reads: bool) {
        let late = self.is_late();
        let Location::Served(worker) = &mut self.location else { return };
        let Some(in_flight) = &mut worker.in_flight else { return };
        in_flight.reads &= reads;
        if !in_flight.answered {
            if in_flight.reads && in_flight.body_left > 0 {
                return;
            }
            in_flight.answered = true;
            let closes = worker.state.on_response();
            // What was read beyond this request is lost with an announced close, so there must be nothing before the
            // linger ends.
            let beyond = worker.buffer.len().saturating_sub(in_flight.body_left);
            let blank = self.stream[self.spans[self.begun - 1].all.end..].iter();
            let blank = blank.take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            assert!(!closes || beyond <= blank || late, "a request that was read is given up for an announced close");
            worker.keeps &= !closes;
            self.closes |= closes;
            worker.out += RESPONSE;
        } else if !whole {
            worker.out += RESPONSE;
        }
        if whole {
            // A body that the app leaves unread ends the connection.
            worker.keeps &= in_flight.body_left == 0;
            worker.in_flight = None;
            worker.state.on_response_end();
        }
        self.settle();
    }

    /// How many bytes the transport takes from now on.
    pub fn window(&mut self, bytes: usize) {
        self.window = bytes;
        self.wake();
    }

    /// Time goes by, with every timer at its moment.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let due = match &mut self.location {
                Location::Served(worker) => worker.timer,
                Location::Parked { due, .. } => *due,
                Location::Gone => return,
            };
            // A timer that has fired and is not set anew doesn't fire again.
            if due > until || due <= self.now {
                break;
            }
            self.now = due;
            if let Location::Parked { history, due } = &mut self.location {
                let goes_on = history.waits_on(Limits::TEST.look(), Limits::TEST.http.idle_timeout);
                *due += history.next_look;
                let history = *history;
                if !goes_on {
                    self.serve(&history);
                }
            } else {
                self.settle();
            }
        }
        self.now = until;
        self.check();
    }

    /// The transport has become ready.
    fn wake(&mut self) {
        match &self.location {
            Location::Served(_) => self.settle(),
            Location::Parked { history, due } if self.sent > self.taken || self.client_ended => {
                let mut history = *history;
                history.unpark(due.saturating_duration_since(self.now));
                self.serve(&history);
            }
            Location::Parked { .. } | Location::Gone => {}
        }
    }

    /// Whether the linger of the drain is over.
    fn is_late(&self) -> bool {
        match &self.location {
            Location::Served(worker) => worker.is_late(self.now),
            Location::Parked { .. } | Location::Gone => true,
        }
    }

    /// The driver's loop, as far as it gets.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let Location::Served(worker) = &mut self.location else { return };
            if let Some(phase) = worker.new_phase.take() {
                match worker.timeouts.on_phase(&worker.state, phase, false) {
                    Order::DriveOn => {}
                    Order::MayInvite => {
                        assert!(worker.in_flight.is_none(), "a busy connection is not invited");
                        worker.state.on_invited();
                    }
                    Order::ShutDown => worker.graceful = true,
                    Order::Cut => return self.exit(Finish::GivenUp),
                }
            }
            let (finish, wakes) = self.poll();
            if let Some(finish) = finish {
                return self.exit(finish);
            }
            let now = self.now;
            let Location::Served(worker) = &mut self.location else { return };
            if worker.timeouts.must_be_checked(&worker.state, now >= worker.timer) {
                match worker.timeouts.on_timer(&worker.state, now) {
                    Next::WaitUntil(at) => {
                        worker.timer = at;
                        if at <= now {
                            continue;
                        }
                    }
                    Next::Leave(at) => {
                        worker.timer = at;
                        continue;
                    }
                    Next::ShutDown => {
                        worker.graceful = true;
                        continue;
                    }
                    Next::Drop | Next::Refuse(_) => return self.exit(Finish::GivenUp),
                }
            }
            if !wakes {
                return self.check();
            }
        }
        panic!("the driver never waits");
    }
}
