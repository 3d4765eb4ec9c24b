//! Clients that keep a connection each, in every way that HTTP/1.1 has, and say when it is taken from them.
//!
//! A client opens a connection only when it has none. So over restarts that nobody sees, as many were opened as there
//! are clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Address, Connection, request};
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

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// This path.
    For(&'static str),
    /// This path with a number behind it that no other request of this process has. The answer must be JSON
    /// that has the `pid` of its worker.
    Numbered(&'static str),
}

/// A way, and where.
#[derive(Clone, Debug)]
pub struct Steady {
    /// Where to.
    pub address: Address,
    /// What for.
    pub asks: Asks,
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
    /// Which worker has answered which number.
    pub answers: Vec<(u64, u32)>,
    /// Which worker had answered last on a connection when which other did.
    pub moves: Vec<(u32, u32)>,
    /// Requests that were not, each with the connection that it was on.
    pub failures: Vec<Loss>,
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that were closed while no request was in flight, and closes that were announced.
    pub closes: Vec<Loss>,
    /// The longest time from a request to its answer.
    pub slowest: Duration,
}

/// A connection that is no more, and with it the request that was on it.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What was seen.
    pub what: String,
    /// The numbers of requests that have got no answer.
    pub numbers: Vec<u64>,
    /// When the request was begun, just before its first byte; without one, when the last answer was there,
    /// or just before the connection was opened.
    pub began: Instant,
    /// When it was seen.
    pub seen: Instant,
    /// Who had answered last on the connection, if numbers were sent.
    pub last: Option<u32>,
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
    /// The numbers that wait for an answer.
    numbers: VecDeque<u64>,
}

/// What a client has between two requests.
struct Kept {
    connection: Connection,
    last: Option<u32>,
    since: Instant,
}

struct Client {
    steady: Steady,
    allowed: Arc<Allowed>,
    kept: Option<Kept>,
    seen: Seen,
}

/// The number of the next request that has one.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Client {
    fn new(steady: Steady, allowed: Arc<Allowed>) -> Self {
        let seen = Seen {
            way: steady.way,
            answered: 0,
            answers: Vec::new(),
            moves: Vec::new(),
            failures: Vec::new(),
            opened: 0,
            closes: Vec::new(),
            slowest: Duration::ZERO,
        };
        Self { steady, allowed, kept: None, seen }
    }

    fn run(mut self, stopped: &Receiver<()>) -> Seen {
        let pause = match self.steady.way {
            Way::Thinks(pause) => pause,
            _ => Duration::ZERO,
        };
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            self.turn();
        }
        self.seen
    }

    /// One request, or as many as are sent together. The connection stays unless something is wrong.
    fn turn(&mut self) {
        let loss = |what: &str, kept: Option<&Kept>, began: Instant| Loss {
            what: what.to_owned(),
            numbers: Vec::new(),
            began,
            seen: Instant::now(),
            last: kept.and_then(|kept| kept.last),
        };
        let mut kept = if let Some(kept) = self.kept.take() {
            kept
        } else {
            self.seen.opened += 1;
            let since = Instant::now();
            match Connection::connect(&self.steady.address) {
                Ok(connection) => Kept { connection, last: None, since },
                Err(error) => return self.seen.failures.push(loss(&format!("connect: {error}"), None, since)),
            }
        };
        // Before the look: what dies behind it has died with a request.
        let began = Instant::now();
        match kept.connection.is_closed() {
            Ok(false) => {}
            Ok(true) => return self.seen.closes.push(loss("closed", Some(&kept), kept.since)),
            Err(error) => {
                let what = format!("between requests: {error}");
                return self.seen.failures.push(loss(&what, Some(&kept), kept.since));
            }
        }
        let mut sent = self.sends();
        match self.exchange(&mut kept, &mut sent, began) {
            Ok(Next::Stays) => self.kept = Some(Kept { since: Instant::now(), ..kept }),
            Ok(Next::Closes) => self.seen.closes.push(loss("announced", Some(&kept), began)),
            Err(what) => {
                let numbers = sent.numbers.into();
                self.seen.failures.push(Loss { numbers, ..loss(&what, Some(&kept), began) });
            }
        }
    }

    fn exchange(&mut self, kept: &mut Kept, sent: &mut Sent, began: Instant) -> Result<Next, String> {
        let allowed = self.allowed.now();
        let failed = |what: &str, error: std::io::Error| format!("{what} after {:?}: {error}", began.elapsed());
        let connection = &mut kept.connection;
        let piece = if self.steady.way == Way::ByteByByte { 1 } else { sent.bytes.len() };
        for piece in sent.bytes.chunks(piece) {
            connection.send(piece).map_err(|error| failed("write", error))?;
        }
        let mut closes = false;
        for _ in 0..sent.answers {
            if closes {
                return Err("a close was announced before the last answer".to_owned());
            }
            let status = connection.receive().map_err(|error| failed("read", error))?;
            self.check(status, connection, sent.length, allowed)?;
            if let Some(number) = sent.numbers.front() {
                let pid = pid(connection).ok_or_else(|| format!("no pid in {:?}", connection.text()))?;
                self.seen.answers.push((*number, pid));
                if let Some(last) = kept.last.replace(pid).filter(|last| *last != pid) {
                    self.seen.moves.push((last, pid));
                }
                sent.numbers.pop_front();
            }
            self.seen.answered += 1;
            closes = connection.announced_close();
        }
        self.seen.slowest = self.seen.slowest.max(began.elapsed());
        Ok(if closes { Next::Closes } else { Next::Stays })
    }

    fn sends(&self) -> Sent {
        let mut numbers = VecDeque::new();
        let mut path = || match self.steady.asks {
            Asks::For(path) => path.to_owned(),
            Asks::Numbered(path) => {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                numbers.push_back(number);
                format!("{path}/{number}")
            }
        };
        let get = |path: String| request("GET", &path, &[]).into_bytes();
        let post = |path: String, length: usize| {
            let head = request("POST", &path, &[&format!("content-length: {length}")]);
            [head.into_bytes(), vec![b'x'; length]].concat()
        };
        let (bytes, answers, length) = match self.steady.way {
            Way::Post(length) => (post(path(), length), 1, Some(length)),
            Way::Chunked(length) => {
                let path = path();
                let head = request("POST", &path, &["transfer-encoding: chunked"]);
                let mut bytes = head.into_bytes();
                for chunk in vec![b'x'; length].chunks(1000) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
                (bytes, 1, Some(length))
            }
            Way::Pipelined(count) => ((0..count).flat_map(|_| get(path())).collect(), count, None),
            Way::ByteByByte if self.seen.answered.is_multiple_of(2) => (post(path(), 20), 1, Some(20)),
            Way::Get | Way::Thinks(_) | Way::ByteByByte => (get(path()), 1, None),
        };
        Sent { bytes, answers, length, numbers }
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

/// What becomes of a connection after its answers.
enum Next {
    Stays,
    Closes,
}

/// The process that says in an answer that it has given it.
fn pid(answer: &Connection) -> Option<u32> {
    let answer: Value = serde_json::from_slice(answer.body()).ok()?;
    u32::try_from(answer["pid"].as_u64()?).ok()
}
