//! The load generator: closed-loop clients at full speed that never forgive and never retry.
//!
//! A client that has written one byte of a request and does not get a complete 200 with an answer
//! that was allowed at that moment counts as failed, and so does a connection that can't be opened.
//! Only a close that was there before the first byte was written is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{self, Address, Connection};

/// How the clients use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One connection each, for as long as the host keeps it.
    KeepAlive,
    /// A connection a request.
    ConnectionPerRequest,
}

/// Which requests have bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posts {
    /// None: GET only.
    None,
    /// Every other request, which is a POST then, with a body of this length that is told
    /// beforehand.
    Sized(usize),
    /// The same, with the body in chunks.
    Chunked(usize),
}

impl Posts {
    /// The length of a body.
    fn length(self) -> usize {
        match self {
            Self::None => 0,
            Self::Sized(length) | Self::Chunked(length) => length,
        }
    }

    /// A whole request.
    fn request(self, path: &str) -> Vec<u8> {
        let head = |length: &str| client::request("POST", path, &[length]).into_bytes();
        let body = vec![b'x'; self.length()];
        match self {
            Self::None | Self::Sized(_) => [head(&format!("content-length: {}", body.len())), body].concat(),
            Self::Chunked(_) => {
                let mut request = head("transfer-encoding: chunked");
                for chunk in body.chunks(CHUNK) {
                    request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    request.extend_from_slice(chunk);
                    request.extend_from_slice(b"\r\n");
                }
                request.extend_from_slice(b"0\r\n\r\n");
                request
            }
        }
    }
}

/// The length of a chunk.
const CHUNK: usize = 1_000;

/// What to send, and for how long at most.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub address: Address,
    /// How many clients there are, each with a thread of its own.
    pub clients: usize,
    /// How they use connections.
    pub kind: Kind,
    /// Which requests have bodies.
    pub posts: Posts,
    /// The path that is asked for.
    pub path: String,
    /// The load ends by itself after this.
    pub limit: Duration,
}

/// Which answers are right now. The apps answer `a` or `b`, with the length of the body behind it
/// when there was one.
#[derive(Debug, Default)]
pub struct Allowed(AtomicU64);

impl Allowed {
    /// From now on these first letters are right.
    pub fn set(&self, letters: &str) {
        self.0.store(letters.bytes().map(Self::bit).sum(), Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn bit(letter: u8) -> u64 {
        if letter.is_ascii_lowercase() { 1 << (letter - b'a') } else { 0 }
    }
}

/// A load that runs.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Outcome>>,
    clock: Arc<Clock>,
}

/// When any client was answered last, and the longest time that none was.
#[derive(Debug)]
struct Clock {
    began: Instant,
    last: AtomicU64,
    longest_gap: AtomicU64,
}

impl Clock {
    fn answered(&self) {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let last = self.last.swap(now, Ordering::Relaxed);
        self.longest_gap.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }
}

/// What a load came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Requests answered rightly.
    pub answered: u64,
    /// Requests that were not.
    pub failed: u64,
    /// What happened to the first of those that were not.
    pub failures: Vec<String>,
    /// Closes that were there before a request's first byte was written, unannounced.
    pub closed: u64,
    /// Closes that the answer before had announced.
    pub announced: u64,
    /// Answers by their first letter.
    pub letters: [u64; 26],
    /// The longest time without any answered request.
    pub longest_gap: Duration,
    /// How long it lasted.
    pub elapsed: Duration,
    latencies: Vec<u32>,
}

/// How many failures are described.
const DESCRIBED: usize = 10;

impl Load {
    /// Starts the clients.
    pub fn start(&self, allowed: &Arc<Allowed>) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let clock = Arc::new(Clock { began: Instant::now(), last: AtomicU64::new(0), longest_gap: AtomicU64::new(0) });
        let clients = (0..self.clients)
            .map(|_| {
                let mut client = Client {
                    load: self.clone(),
                    allowed: Arc::clone(allowed),
                    clock: Arc::clone(&clock),
                    outcome: Outcome::default(),
                    caller: Caller::new(self.address.clone(), self.kind),
                };
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || client.run(&stop))
            })
            .collect();
        Running { stop, clients, clock }
    }
}

impl Running {
    /// Ends the load and adds up what the clients saw.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        self.finish()
    }

    /// Waits until the load has ended by itself.
    pub fn finish(self) -> Outcome {
        let mut total = Outcome::default();
        for client in self.clients {
            total.add(client.join().expect("a client doesn't panic"));
        }
        total.elapsed = self.clock.began.elapsed();
        total.longest_gap = Duration::from_nanos(self.clock.longest_gap.load(Ordering::Relaxed));
        total.latencies.sort_unstable();
        total
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.closed += other.closed;
        self.announced += other.announced;
        self.failures.extend(other.failures);
        self.failures.truncate(DESCRIBED);
        self.latencies.extend(other.latencies);
        for (total, letters) in self.letters.iter_mut().zip(other.letters) {
            *total += letters;
        }
    }

    /// The latency that this share of the answered requests kept, in microseconds' precision.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among fewer than 2^52 latencies"
    )]
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = (self.latencies.len() as f64 * share) as usize;
        let latency = self.latencies.get(rank.min(self.latencies.len().saturating_sub(1))).copied();
        Duration::from_micros(u64::from(latency.unwrap_or_default()))
    }

    /// Answered requests a second.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

/// One client's way with connections: what it sends, it sends once.
#[derive(Debug)]
pub struct Caller {
    address: Address,
    kind: Kind,
    connection: Option<Connection>,
    /// Closes that were there before a request's first byte was written, unannounced.
    pub closed: u64,
    /// Closes that the answer before had announced.
    pub announced: u64,
}

impl Caller {
    /// A client without a connection yet.
    pub const fn new(address: Address, kind: Kind) -> Self {
        Self { address, kind, connection: None, closed: 0, announced: 0 }
    }

    /// One request, sent once, on a connection that was open when its first byte was written. `begin` is
    /// called just before that byte; `check` gets what it gave, the status, and what was received.
    ///
    /// # Errors
    /// The text says how the request failed, or what `check` found. The connection is not used again.
    pub fn exchange<B, T>(
        &mut self,
        request: &[u8],
        begin: impl Fn() -> B,
        check: impl FnOnce(B, u16, &Connection) -> Result<T, String>,
    ) -> Result<T, String> {
        loop {
            let (mut connection, reused) = match self.connection.take() {
                Some(connection) => (connection, true),
                None => (Connection::connect(&self.address).map_err(|error| format!("connect: {error}"))?, false),
            };
            if reused && connection.is_closed().map_err(|error| error.to_string())? {
                self.closed += 1;
                continue;
            }
            let moment = begin();
            let mut written = 0;
            while written < request.len() {
                match connection.send_some(&request[written..]) {
                    Ok(bytes) => written += bytes,
                    // The close came between the look and the write, and no byte went out.
                    Err(_) if written == 0 && reused => break,
                    Err(error) => return Err(format!("write after {written} bytes: {error}")),
                }
            }
            if written == 0 {
                self.closed += 1;
                continue;
            }
            let status = connection.receive().map_err(|error| {
                let age = if reused { "kept-alive" } else { "new" };
                let method = request.split(|byte| *byte == b' ').next().unwrap_or_default();
                format!("read of the answer to {} on a {age} connection: {error}", String::from_utf8_lossy(method))
            })?;
            let checked = check(moment, status, &connection)?;
            if connection.announced_close() {
                self.announced += 1;
            } else if self.kind == Kind::KeepAlive {
                self.connection = Some(connection);
            }
            return Ok(checked);
        }
    }
}

struct Client {
    load: Load,
    allowed: Arc<Allowed>,
    clock: Arc<Clock>,
    outcome: Outcome,
    caller: Caller,
}

impl Client {
    fn run(&mut self, stop: &AtomicBool) -> Outcome {
        let get = client::request("GET", &self.load.path, &[]).into_bytes();
        let post = self.load.posts.request(&self.load.path);
        let mut posts = false;
        while !stop.load(Ordering::Relaxed) && self.clock.began.elapsed() < self.load.limit {
            let request = if posts { &post } else { &get };
            match self.request(request, posts) {
                Ok(()) => self.outcome.answered += 1,
                Err(failure) => {
                    self.outcome.failed += 1;
                    if self.outcome.failures.len() < DESCRIBED {
                        self.outcome.failures.push(failure);
                    }
                }
            }
            posts = self.load.posts != Posts::None && !posts;
        }
        let Caller { closed, announced, .. } = self.caller;
        Outcome { closed, announced, ..std::mem::take(&mut self.outcome) }
    }

    fn request(&mut self, request: &[u8], posts: bool) -> Result<(), String> {
        let Self { load, allowed, outcome, caller, .. } = self;
        let begin = || (Instant::now(), allowed.now());
        caller.exchange(request, begin, |(began, allowed_then), status, connection| {
            let latency = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
            outcome.check(load.posts, status, connection.body(), posts, allowed_then | allowed.now())?;
            outcome.latencies.push(latency);
            Ok(())
        })?;
        self.clock.answered();
        Ok(())
    }
}

impl Outcome {
    fn check(&mut self, bodies: Posts, status: u16, body: &[u8], posts: bool, allowed: u64) -> Result<(), String> {
        let text = String::from_utf8_lossy(body);
        if status != 200 {
            return Err(format!("status {status}: {text}"));
        }
        if allowed == 0 {
            return Ok(());
        }
        let mut words = text.split_whitespace();
        let letter = words.next().and_then(|word| word.bytes().next()).unwrap_or(b'?');
        let length = words.next().and_then(|word| word.parse().ok());
        if Allowed::bit(letter) & allowed == 0 || (posts && length != Some(bodies.length())) {
            return Err(format!("an answer that is not allowed now: {text:?}"));
        }
        self.letters[usize::from(letter - b'a')] += 1;
        Ok(())
    }
}
