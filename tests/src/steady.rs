//! Clients that keep a connection each, in every way that HTTP/1.1 has, and say when it is taken from them.
//!
//! A client opens a connection only when it has none. So over restarts that nobody sees, as many were opened as there
//! are clients.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Address, Connection};
use crate::load::Allowed;

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// GET after GET.
    Get,
    /// POST after POST, with a body of this length.
    Post(usize),
    /// The same, in chunks of a thousand bytes.
    Chunked(usize),
    /// GET, and a pause of this length.
    Thinks(Duration),
    /// So many GETs at once, and then their answers.
    Pipelined(usize),
    /// GET and POST in turn, each byte by itself.
    ByteByByte,
}

/// A way, and where.
#[derive(Clone, Debug)]
pub struct Steady {
    /// Where to.
    pub address: Address,
    /// The path that is asked for.
    pub path: &'static str,
    /// How.
    pub way: Way,
}

/// Clients that run.
#[derive(Debug)]
pub struct Running {
    stop: Vec<Sender<()>>,
    clients: Vec<JoinHandle<Seen>>,
}

/// What a client has seen.
#[derive(Debug)]
pub struct Seen {
    /// How it spoke.
    pub way: Way,
    /// Requests that were answered with 200 and what was allowed.
    pub answered: u64,
    /// Requests that were not, when, and what happened.
    pub failures: Vec<(Instant, String)>,
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that were closed while no request was in flight, and closes that were announced.
    pub closed: u64,
    /// The longest time from a request to its answer.
    pub slowest: Duration,
}

/// Starts these clients.
pub fn start(clients: impl IntoIterator<Item = Steady>, allowed: &Arc<Allowed>) -> Running {
    let mut running = Running { stop: Vec::new(), clients: Vec::new() };
    for steady in clients {
        let (stop, stopped) = channel();
        let allowed = Arc::clone(allowed);
        running.stop.push(stop);
        running.clients.push(std::thread::spawn(move || Client::new(steady, allowed).run(&stopped)));
    }
    running
}

impl Running {
    /// Ends them.
    pub fn stop(self) -> Vec<Seen> {
        drop(self.stop);
        self.clients.into_iter().map(|client| client.join().expect("a client doesn't panic")).collect()
    }
}

/// What is sent at once.
struct Sent {
    bytes: Vec<u8>,
    /// How many answers it is to have.
    answers: usize,
    /// The length of the body in it, if there is one.
    length: Option<usize>,
}

struct Client {
    steady: Steady,
    allowed: Arc<Allowed>,
    connection: Option<Connection>,
    seen: Seen,
}

impl Client {
    fn new(steady: Steady, allowed: Arc<Allowed>) -> Self {
        let seen =
            Seen { way: steady.way, answered: 0, failures: Vec::new(), opened: 0, closed: 0, slowest: Duration::ZERO };
        Self { steady, allowed, connection: None, seen }
    }

    fn run(mut self, stopped: &Receiver<()>) -> Seen {
        let pause = match self.steady.way {
            Way::Thinks(pause) => pause,
            _ => Duration::ZERO,
        };
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            if let Err(failure) = self.turn() {
                self.seen.failures.push((Instant::now(), failure));
            }
        }
        self.seen
    }

    /// One request, or as many as are sent together. The connection stays unless something is wrong.
    fn turn(&mut self) -> Result<(), String> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            self.seen.opened += 1;
            Connection::connect(&self.steady.address).map_err(|error| format!("connect: {error}"))?
        };
        if connection.is_closed().map_err(|error| format!("between requests: {error}"))? {
            self.seen.closed += 1;
            return Ok(());
        }
        let (began, allowed) = (Instant::now(), self.allowed.now());
        let Sent { bytes, answers, length } = self.sends();
        let failed = |what: &str, error: std::io::Error| format!("{what} after {:?}: {error}", began.elapsed());
        let piece = if self.steady.way == Way::ByteByByte { 1 } else { bytes.len() };
        for piece in bytes.chunks(piece) {
            connection.send(piece).map_err(|error| failed("write", error))?;
        }
        let mut closes = false;
        for _ in 0..answers {
            if closes {
                return Err("a close was announced before the last answer".to_owned());
            }
            let status = connection.receive().map_err(|error| failed("read", error))?;
            self.check(status, &connection, length, allowed)?;
            self.seen.answered += 1;
            closes = connection.announced_close();
        }
        self.seen.slowest = self.seen.slowest.max(began.elapsed());
        if closes {
            self.seen.closed += 1;
        } else {
            self.connection = Some(connection);
        }
        Ok(())
    }

    fn sends(&self) -> Sent {
        let path = self.steady.path;
        let get = || Sent {
            bytes: format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes(),
            answers: 1,
            length: None,
        };
        let post = |length: usize| {
            let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n");
            Sent { bytes: [head.into_bytes(), vec![b'x'; length]].concat(), answers: 1, length: Some(length) }
        };
        match self.steady.way {
            Way::Post(length) => post(length),
            Way::Chunked(length) => {
                let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
                let mut bytes = head.into_bytes();
                for chunk in vec![b'x'; length].chunks(1000) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
                Sent { bytes, answers: 1, length: Some(length) }
            }
            Way::Pipelined(count) => Sent { bytes: get().bytes.repeat(count), answers: count, length: None },
            Way::ByteByByte if self.seen.answered.is_multiple_of(2) => post(20),
            Way::Get | Way::Thinks(_) | Way::ByteByByte => get(),
        }
    }

    fn check(&self, status: u16, answer: &Connection, length: Option<usize>, allowed: u64) -> Result<(), String> {
        let text = answer.text();
        if status != 200 {
            return Err(format!("status {status}: {text}"));
        }
        let allowed = allowed | self.allowed.now();
        if allowed == 0 {
            return Ok(());
        }
        let mut words = text.split_whitespace();
        let letter = words.next().and_then(|word| word.bytes().next()).unwrap_or(b'?');
        let said = words.next().and_then(|word| word.parse().ok());
        if Allowed::bit(letter) & allowed == 0 || length.is_some_and(|length| said != Some(length)) {
            return Err(format!("an answer that is not allowed now: {text:?}"));
        }
        Ok(())
    }
}
