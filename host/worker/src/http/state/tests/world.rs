//! A client, an HTTP/1 implementation, an app and a driver around the machine, with their own account of what is true.
//!
//! The model knows the client's stream beforehand: where each request begins, where its head and its body end. It tells
//! the machine no more than a transport, hyper and the driver do, does what the machine decides, and compares that with
//! its own account after every step. A connection that leaves is gone on with by a new machine, as another worker does.

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
struct Place {
    /// With its empty lines.
    all: Range<usize>,
    head: Range<usize>,
    /// What HTTP says of its body.
    length: Option<u64>,
}

/// Where the connection is.
enum Now {
    Served(Box<Worker>),
    Parked { history: History, due: Instant },
    Gone,
}

pub struct World {
    now: Instant,
    here: Now,
    stream: Vec<u8>,
    places: Vec<Place>,
    /// How much the client has sent, and the transports have taken.
    sent: usize,
    taken: usize,
    client_ended: bool,
    /// What has been read and is carried along.
    unread: Vec<u8>,
    /// Requests that an app was given, and that were answered in full.
    begun: usize,
    answered: usize,
    /// Whether a response has said that the connection closes.
    closes: bool,
    /// Since when it has been idle between two requests or before the first, and since when in a head.
    idle_since: Option<Instant>,
    head_since: Option<Instant>,
    opened: Instant,
    /// How many bytes a read finds at most.
    piece: usize,
    /// How many bytes the transport takes before it is full.
    window: usize,
    pub moves: usize,
    pub parks: usize,
}

const RESPONSE: usize = 100;

impl World {
    pub fn new(requests: &[Sent], piece: usize) -> Self {
        let (mut stream, mut places) = (Vec::new(), Vec::new());
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
            places.push(Place { all: start..stream.len(), head: head..end, length });
        }
        let now = Instant::now();
        let mut world = Self {
            now,
            here: Now::Gone,
            stream,
            places,
            sent: 0,
            taken: 0,
            client_ended: false,
            unread: Vec::new(),
            begun: 0,
            answered: 0,
            closes: false,
            idle_since: Some(now),
            head_since: None,
            opened: now,
            piece,
            window: usize::MAX,
            moves: 0,
            parks: 0,
        };
        world.serve(&History { spoken: Spoken::Http1, ..History::NEW });
        world
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.here, Now::Gone)
    }

    pub fn answered(&self) -> usize {
        self.answered
    }

    /// A new worker goes on with the connection.
    fn serve(&mut self, history: &History) {
        let timeouts = Timeouts::resume(history, self.now);
        let timer = timeouts.due();
        self.here = Now::Served(Box::new(Worker {
            state: ConnState::new(Protocol::Http1, history.requests),
            timeouts,
            phase: Phase::Serving,
            told: self.now,
            news: Some(Phase::Serving),
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

    /// The client sends so many bytes more.
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
        if let Now::Served(worker) = &mut self.here {
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
            (worker.phase, worker.news) = (phase, Some(phase));
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
        let Now::Served(worker) = &mut self.here else { return };
        let Some(in_flight) = &mut worker.in_flight else { return };
        in_flight.reads &= reads;
        if !in_flight.answered {
            if in_flight.reads && in_flight.body_left > 0 {
                return;
            }
            in_flight.answered = true;
            let closes = worker.state.on_response();
            // What has been read beyond this request is lost with an announced close, so there is none before the
            // linger's end.
            let beyond = worker.buffer.len().saturating_sub(in_flight.body_left);
            let blank = self.stream[self.places[self.begun - 1].all.end..].iter();
            let blank = blank.take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            assert!(!closes || beyond <= blank || late, "a request that was read is given up for an announced close");
            worker.keeps &= !closes;
            self.closes |= closes;
            worker.out += RESPONSE;
        } else if !whole {
            worker.out += RESPONSE;
        }
        if whole {
            // What an app leaves of a body ends the connection.
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
            let due = match &mut self.here {
                Now::Served(worker) => worker.timer,
                Now::Parked { due, .. } => *due,
                Now::Gone => return,
            };
            // A timer that has been looked at and is not set anew wakes nobody.
            if due > until || due <= self.now {
                break;
            }
            self.now = due;
            if let Now::Parked { history, due } = &mut self.here {
                let goes_on = history.waits_on();
                *due += history.next_tick;
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

    /// The transport has something to say.
    fn wake(&mut self) {
        match &self.here {
            Now::Served(_) => self.settle(),
            Now::Parked { history, due } if self.sent > self.taken || self.client_ended => {
                let history = History { next_tick: due.saturating_duration_since(self.now), ..*history };
                self.serve(&history);
            }
            Now::Parked { .. } | Now::Gone => {}
        }
    }

    /// Whether the linger of the drain is over.
    fn is_late(&self) -> bool {
        match &self.here {
            Now::Served(worker) => worker.is_late(self.now),
            Now::Parked { .. } | Now::Gone => true,
        }
    }

    /// The driver's loop, as far as it gets.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let Now::Served(worker) = &mut self.here else { return };
            if let Some(phase) = worker.news.take() {
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
            let Now::Served(worker) = &mut self.here else { return };
            if worker.timeouts.are_to_be_looked_at(&worker.state, now >= worker.timer) {
                match worker.timeouts.on_timer(&worker.state, now) {
                    Next::Wait => {}
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
                    Next::Drop => return self.exit(Finish::GivenUp),
                }
            }
            if !wakes {
                return self.check();
            }
        }
        panic!("the driver never waits");
    }

    /// HTTP is done with the connection, or the driver is.
    fn exit(&mut self, finish: Finish) {
        let Now::Served(mut worker) = std::mem::replace(&mut self.here, Now::Gone) else {
            panic!("it has gone before")
        };
        let late = worker.is_late(self.now);
        match worker.state.on_end(finish) {
            Exit::Close => {
                assert!(!worker.told_end, "a connection that was to leave is closed");
                assert_ne!(worker.shutdown, Some(Shutdown::Leave), "a connection that was to leave is closed");
                if finish == Finish::GivenUp && worker.phase != Phase::Cut {
                    assert!(worker.in_flight.is_none() || late || self.is_body_late(), "a busy connection is dropped");
                }
            }
            Exit::Leave { to, head } => {
                assert!(
                    worker.told_end && !self.closes,
                    "it leaves because it was told to, and no close was announced"
                );
                assert!(matches!(worker.shutdown, None | Some(Shutdown::Leave)), "it is closed and leaves");
                assert!(worker.in_flight.is_none() && worker.out == 0, "it leaves with a response on its way");
                assert_eq!(self.answered, self.begun, "it leaves with a request that is not answered");
                let blank = worker.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                assert_eq!(worker.buffer.len() - blank, head, "what was counted is what HTTP gives back");
                let history = worker.timeouts.http1_history(&worker.state, self.now);
                assert_eq!(history.requests, self.begun as u64);
                worker.buffer.append(&mut self.unread);
                self.unread = worker.buffer;
                // All that was taken and is no answered request goes along; blank lines may have been skipped.
                let consumed = self.begun.checked_sub(1).map_or(0, |last| self.places[last].all.end);
                let rest = &self.stream[consumed..self.taken];
                let skipped = rest.len() - self.unread.len();
                assert!(rest[..skipped].iter().all(|byte| matches!(byte, b'\r' | b'\n')), "bytes are lost");
                assert_eq!(self.unread, rest[skipped..], "bytes are lost");
                if to == Goal::Park {
                    assert!(history.may_park(&self.unread) || !self.unread.is_empty());
                    let idle = self.now - self.idle_since.expect("it is idle");
                    assert!(idle >= HEAD_TIMEOUT, "it is parked after {idle:?}");
                    self.parks += 1;
                } else {
                    assert_eq!(to, Goal::Move);
                    self.moves += 1;
                }
                if to == Goal::Park && history.may_park(&self.unread) {
                    self.here = Now::Parked { history, due: self.now + history.next_tick };
                    self.wake();
                } else {
                    self.serve(&history);
                }
            }
            Exit::Carry => panic!("no request has asked for an upgrade"),
        }
    }

    /// Whether the client owes more of a request's body.
    fn is_body_late(&self) -> bool {
        self.begun > 0 && self.sent < self.places[self.begun - 1].all.end
    }

    /// What holds whenever the driver waits.
    fn check(&self) {
        let Some(idle_since) = self.idle_since else {
            if let Now::Served(worker) = &self.here {
                assert_eq!(worker.state.in_flight(), u64::from(worker.in_flight.is_some()));
                assert_ne!(worker.phase, Phase::Cut, "a connection outlives the cut");
            }
            return;
        };
        let phase = match &self.here {
            Now::Served(worker) => worker.phase,
            Now::Parked { .. } => Phase::Serving,
            Now::Gone => return,
        };
        match (phase, &self.here) {
            (Phase::Draining { ending, linger, .. }, Now::Served(worker)) => {
                assert!(self.now < idle_since.max(worker.told) + linger, "an idle connection outlives the linger");
                assert_eq!(ending, Ending::Close, "an idle connection stays where it could move");
            }
            (Phase::Cut, _) => panic!("a connection outlives the cut"),
            _ => {
                let idle = self.now - idle_since;
                assert!(idle <= HEAD_TIMEOUT * 4, "an idle connection is still there after {idle:?}");
                assert!(self.begun > 0 || self.now <= self.opened + HEAD_TIMEOUT, "no request has come in time");
                let in_head = self.head_since.map_or(Duration::ZERO, |since| self.now - since);
                assert!(in_head <= HEAD_TIMEOUT * 2, "half a head has been waited for: {in_head:?}");
            }
        }
    }
}
