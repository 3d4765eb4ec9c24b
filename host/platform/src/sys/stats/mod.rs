//! The stats page: memory that a worker writes and its master reads, also after the worker's death.
//!
//! Owns its layout and the mapping. What the figures mean to a restart, and when a heartbeat is too
//! old, is for who reads them.
//!
//! Every field is an atomic that one serving thread writes and others only read, so all accesses are
//! relaxed. A snapshot is therefore no instant: its figures may be a few instructions apart, and a
//! route that is being replaced while it is read comes out torn, half old and half new.

mod going_on;
mod leaving;
mod route;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};

use app_host_core::config::MAX_THREADS;
use app_host_core::foreign;
use app_host_core::not_moved::NotMoved;
use app_host_core::not_resumed::{LongLived, NotResumed};
use app_host_core::refused::Refused;

pub use route::Route;
pub use snapshot::{Latency, StatsSnapshot, ThreadSnapshot};

/// What the page begins with, so that another kind of descriptor is not taken for one.
const MAGIC: u64 = u64::from_le_bytes(*b"app-host");

const WORDS: usize = 16;

/// The most bytes of a route (method, a space, path) that the page holds.
pub const MAX_ROUTE: usize = WORDS * 8;

/// How long the requests of each class of latency take at most, in nanoseconds: 0.1 ms to 10 s. One more
/// class has those that take longer.
pub const LATENCY_BOUNDS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// How many classes of latency there are.
pub const LATENCIES: usize = LATENCY_BOUNDS.len() + 1;

/// The classes of responses: their status codes' first digits, from 1 on.
pub const STATUS_CLASSES: usize = 5;

/// How many reasons there are to refuse a client.
pub const REFUSALS: usize = Refused::ALL.len();

/// How many reasons there are that a WebSocket or an event stream does not go on in another worker.
pub const NOT_RESUMED: usize = NotResumed::ALL.len();

/// How many reasons there are that an HTTP/2 connection does not go on in another worker.
pub const NOT_MOVED: usize = NotMoved::ALL.len();

#[repr(C)]
struct Page {
    magic: AtomicU64,
    /// The size of this struct. Both sides are the same binary, so a difference is a bug.
    size: AtomicU64,
    threads: [ThreadStats; MAX_THREADS as usize],
}

/// What one serving thread says of itself. Aligned so that no two threads write to one pair of
/// cache lines (processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct ThreadStats {
    heartbeat: AtomicU64,
    accepted: AtomicU64,
    connections: AtomicU64,
    requests: AtomicU64,
    in_flight: AtomicU64,
    cut: AtomicU64,
    responses: [AtomicU64; STATUS_CLASSES],
    /// Whether requests are timed, which costs two looks at the clock each.
    timed: AtomicU64,
    latencies: [AtomicU64; LATENCIES],
    /// The sum of what was timed, in nanoseconds.
    latency_sum: AtomicU64,
    route_length: AtomicU64,
    route: [AtomicU64; WORDS],
    handed_over: AtomicU64,
    /// How many connections are on their way to another worker: no more counted here, nor yet there.
    leaving: AtomicU64,
    taken_over: AtomicU64,
    dismissed: AtomicU64,
    handshakes: AtomicU64,
    resumed_handshakes: AtomicU64,
    failed_handshakes: AtomicU64,
    refused: [AtomicU64; REFUSALS],
    /// By kind, as what did not.
    went_on: [AtomicU64; LongLived::COUNT],
    not_resumed: [[AtomicU64; NOT_RESUMED]; LongLived::COUNT],
    moved_http2: AtomicU64,
    not_moved: [AtomicU64; NOT_MOVED],
}

/// Adds without a locked instruction, which is enough because one thread writes each field.
fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(number), Relaxed);
}

fn subtract(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Relaxed).wrapping_sub(number), Relaxed);
}

impl ThreadStats {
    /// Says that the thread is alive now.
    pub fn beat(&self) {
        self.heartbeat.store(monotonic_ms(), Relaxed);
    }

    /// Counts a connection that was accepted.
    pub fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// Counts a connection as open until [`ThreadStats::closed`].
    pub fn opened(&self) {
        add(&self.connections, 1);
    }

    /// Ends what [`ThreadStats::opened`] began.
    pub fn closed(&self) {
        subtract(&self.connections, 1);
    }

    /// Counts a request, in flight until [`ThreadStats::ended`].
    pub fn began(&self) {
        add(&self.requests, 1);
        add(&self.in_flight, 1);
    }

    /// Ends what [`ThreadStats::began`] began.
    pub fn ended(&self) {
        subtract(&self.in_flight, 1);
    }

    /// The moment at which a request begins, if somebody wants to know how long it takes.
    pub fn clock(&self) -> Option<Instant> {
        (self.timed.load(Relaxed) != 0).then(Instant::now)
    }

    /// Counts a request that took so long.
    pub fn took(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let class = LATENCY_BOUNDS.partition_point(|bound| *bound < nanos);
        add(&self.latencies[class], 1);
        add(&self.latency_sum, nanos);
    }

    /// Counts a response by the first digit of its status code.
    pub fn responded(&self, status: u16) {
        if let Some(class) = self.responses.get(usize::from(status / 100).wrapping_sub(1)) {
            add(class, 1);
        }
    }

    /// Counts requests that were given up at the end of a drain.
    pub fn cut(&self, requests: u64) {
        add(&self.cut, requests);
    }

    /// Counts connections that another worker has taken over.
    pub fn handed_over(&self, connections: u64) {
        add(&self.handed_over, connections);
    }

    /// Counts connections that were taken over from another worker.
    pub fn taken_over(&self, connections: u64) {
        add(&self.taken_over, connections);
    }

    /// Counts a connection that was ended because the worker drains.
    pub fn dismissed(&self) {
        add(&self.dismissed, 1);
    }

    /// Counts a TLS handshake that is done, by a ticket if it was `resumed`.
    pub fn shook(&self, resumed: bool) {
        add(if resumed { &self.resumed_handshakes } else { &self.handshakes }, 1);
    }

    /// Counts a TLS handshake that has failed, or has taken too long.
    pub fn handshake_failed(&self) {
        add(&self.failed_handshakes, 1);
    }

    /// Counts a client that is refused below the app.
    pub fn refused(&self, why: Refused) {
        add(&self.refused[why as usize], 1);
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// How many connections are open.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Says which request the app is about to work on.
    pub fn enter(&self, route: &Route) {
        let length = usize::from(route.length);
        for (word, bytes) in self.route.iter().zip(route.bytes.chunks_exact(8)).take(length.div_ceil(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().expect("a chunk of 8 bytes")), Relaxed);
        }
        self.route_length.store(length as u64, Relaxed);
    }

    /// Says that the app has given the thread back.
    pub fn leave(&self) {
        self.route_length.store(0, Relaxed);
    }

    /// What the page says of the thread at this moment.
    pub fn snapshot(&self) -> ThreadSnapshot {
        let mut route = Vec::with_capacity(MAX_ROUTE);
        let length = usize::try_from(self.route_length.load(Relaxed)).unwrap_or(0).min(MAX_ROUTE);
        if length > 0 {
            for word in &self.route {
                route.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
            }
            route.truncate(length);
        }
        ThreadSnapshot {
            heartbeat: match self.heartbeat.load(Relaxed) {
                0 => None,
                beat => Some(Duration::from_millis(beat)),
            },
            accepted: self.accepted.load(Relaxed),
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            cut: self.cut.load(Relaxed),
            responses: self.responses.each_ref().map(|class| class.load(Relaxed)),
            latency: Latency {
                classes: self.latencies.each_ref().map(|class| class.load(Relaxed)),
                nanos: self.latency_sum.load(Relaxed),
            },
            handed_over: self.handed_over.load(Relaxed),
            taken_over: self.taken_over.load(Relaxed),
            dismissed: self.dismissed.load(Relaxed),
            handshakes: self.handshakes.load(Relaxed),
            resumed_handshakes: self.resumed_handshakes.load(Relaxed),
            failed_handshakes: self.failed_handshakes.load(Relaxed),
            refused: self.refused.each_ref().map(|reason| reason.load(Relaxed)),
            went_on: self.went_on.each_ref().map(|kind| kind.load(Relaxed)),
            not_resumed: self.not_resumed.each_ref().map(|kind| kind.each_ref().map(|reason| reason.load(Relaxed))),
            moved_http2: self.moved_http2.load(Relaxed),
            not_moved: self.not_moved.each_ref().map(|reason| reason.load(Relaxed)),
            route: (length > 0).then(|| foreign::line(&String::from_utf8_lossy(&route), usize::MAX)),
        }
    }
}

/// A mapped stats page.
#[derive(Debug)]
pub struct StatsPage {
    map: MmapRaw,
}

impl StatsPage {
    /// Makes a new page, and the descriptor by which a worker opens it.
    ///
    /// It is sealed against a change of its size, so a worker can't make the master's reads fault.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create(c"app-host stats", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        // Or who may read it could open it once more, to write.
        nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)?;
        nix::unistd::ftruncate(&file, i64::try_from(size_of::<Page>()).expect("a page is small"))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
        let page = Self { map: MmapOptions::new().len(size_of::<Page>()).map_raw(&file)? };
        page.page().size.store(size_of::<Page>() as u64, Relaxed);
        page.page().magic.store(MAGIC, Relaxed);
        Ok((page, file))
    }

    /// Opens the page that another process made.
    ///
    /// Fails when the descriptor is no stats page of this binary's.
    pub fn open(file: &OwnedFd) -> io::Result<Self> {
        Self::mapped(file, |options| options.map_raw(file))
    }

    fn mapped(file: &OwnedFd, map: impl FnOnce(&MmapOptions) -> io::Result<MmapRaw>) -> io::Result<Self> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        let length = nix::sys::stat::fstat(file)?.st_size;
        if usize::try_from(length) != Ok(size_of::<Page>()) {
            return Err(invalid("the stats page has another size than expected"));
        }
        let page = Self { map: map(MmapOptions::new().len(size_of::<Page>()))? };
        if page.page().magic.load(Relaxed) != MAGIC || page.page().size.load(Relaxed) != size_of::<Page>() as u64 {
            return Err(invalid("the descriptor in the stats page's place is something else"));
        }
        Ok(page)
    }

    fn page(&self) -> &Page {
        #[expect(clippy::cast_ptr_alignment, reason = "mappings begin at a page boundary (mmap(2))")]
        let page = self.map.as_ptr().cast::<Page>();
        #[expect(unsafe_code, reason = "shared memory is reached through a pointer")]
        // SAFETY: the mapping is as long as `Page` and lives as long as `self`; the file behind it
        // can't shrink (sealed, and its length was checked). Mappings are aligned to 4 KiB. All of
        // `Page` is atomics, for which any bytes are valid and which other processes may write.
        unsafe {
            &*page
        }
    }

    /// Has the first `threads` threads time their requests. Only those: the memory of others stays untouched.
    pub fn time_requests(&self, threads: u16) {
        for thread in self.page().threads.iter().take(threads.into()) {
            thread.timed.store(1, Relaxed);
        }
    }

    /// What each serving thread writes to, for the rest of the process, which keeps the page mapped.
    pub fn into_threads(self) -> &'static [ThreadStats] {
        &Box::leak(Box::new(self)).page().threads
    }

    /// The last sign of life of the thread that has been silent for the longest, and how many requests
    /// all of them have handed to the app.
    pub fn signs(&self) -> (Option<Duration>, u64) {
        let begun =
            self.page().threads.iter().map(|thread| (thread.heartbeat.load(Relaxed), thread.requests.load(Relaxed)));
        let (mut oldest, mut requests) = (None, 0_u64);
        for (beat, served) in begun.take_while(|(beat, _)| *beat != 0) {
            oldest = Some(oldest.map_or(beat, |oldest: u64| oldest.min(beat)));
            requests = requests.wrapping_add(served);
        }
        (oldest.map(Duration::from_millis), requests)
    }

    /// How many connections the worker has.
    pub fn connections(&self) -> u64 {
        self.page().threads.iter().map(ThreadStats::connections).fold(0, u64::saturating_add)
    }

    /// What the worker's threads say at this moment.
    pub fn snapshot(&self) -> StatsSnapshot {
        let threads = self.page().threads.iter().map(ThreadStats::snapshot);
        StatsSnapshot { threads: threads.take_while(|thread| thread.heartbeat.is_some()).collect() }
    }
}

/// The time that heartbeats are given in: `CLOCK_MONOTONIC`, which is one clock for all processes of
/// a machine, in milliseconds.
fn monotonic_ms() -> u64 {
    // This clock exists on every Linux (clock_gettime(2)), and never gives negative times.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

const _: () = assert!(size_of::<ThreadStats>() == 896 && align_of::<ThreadStats>() == 128);
