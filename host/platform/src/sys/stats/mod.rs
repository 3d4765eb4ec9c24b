//! The stats page: memory that a worker writes and its master reads, also after the worker's death.
//!
//! Owns its layout and the mapping. What the figures mean to a restart, and when a heartbeat is too
//! old, is for who reads them.
//!
//! Every field is an atomic that one serving thread writes and others only read, so all accesses are
//! relaxed. A snapshot is therefore no instant: its figures may be a few instructions apart, and a
//! route that is being replaced while it is read comes out torn, half old and half new.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use app_host_core::config::MAX_THREADS;
use app_host_core::foreign;

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

#[repr(C)]
struct Page {
    magic: AtomicU64,
    /// The size of this struct. Both sides are the same binary, so a difference is a bug.
    size: AtomicU64,
    lanes: [Lane; MAX_THREADS as usize],
}

/// What one serving thread says of itself. Aligned so that no two threads write to one pair of
/// cache lines (processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Lane {
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
    taken_over: AtomicU64,
    dismissed: AtomicU64,
}

/// Adds without a locked instruction, which is enough because each lane has one writing thread.
fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(number), Relaxed);
}

fn subtract(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Relaxed).wrapping_sub(number), Relaxed);
}

impl Lane {
    /// Says that the thread is alive now.
    pub fn beat(&self) {
        self.heartbeat.store(monotonic_ms(), Relaxed);
    }

    /// Counts a connection that was accepted.
    pub fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// Counts a connection as open until [`Lane::closed`].
    pub fn opened(&self) {
        add(&self.connections, 1);
    }

    /// Ends what [`Lane::opened`] began.
    pub fn closed(&self) {
        subtract(&self.connections, 1);
    }

    /// Counts a request, in flight until [`Lane::ended`].
    pub fn began(&self) {
        add(&self.requests, 1);
        add(&self.in_flight, 1);
    }

    /// Ends what [`Lane::began`] began.
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

    /// What the lane says at this moment.
    pub fn snapshot(&self) -> LaneSnapshot {
        let mut route = Vec::with_capacity(MAX_ROUTE);
        let length = usize::try_from(self.route_length.load(Relaxed)).unwrap_or(0).min(MAX_ROUTE);
        if length > 0 {
            for word in &self.route {
                route.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
            }
            route.truncate(length);
        }
        LaneSnapshot {
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
            route: (length > 0).then(|| foreign::line(&String::from_utf8_lossy(&route), usize::MAX)),
        }
    }
}

/// A method and a path, cut to [`MAX_ROUTE`] bytes, ready to be stored in a lane.
#[derive(Clone)]
pub struct Route {
    length: u8,
    bytes: [u8; MAX_ROUTE],
}

impl Route {
    /// The route of a request.
    pub fn new(method: &str, path: &str) -> Self {
        let mut route = Self { length: 0, bytes: [0; MAX_ROUTE] };
        for part in [method, " ", path] {
            route.push(part.as_bytes());
        }
        route
    }

    fn push(&mut self, part: &[u8]) {
        let rest = &mut self.bytes[usize::from(self.length)..];
        let length = part.len().min(rest.len());
        rest[..length].copy_from_slice(&part[..length]);
        self.length += u8::try_from(length).expect("a route has at most 128 bytes");
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({})", String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]))
    }
}

/// What a lane said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// When the thread was last alive, by `CLOCK_MONOTONIC`; `None` before its first beat.
    pub heartbeat: Option<Duration>,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections open.
    pub connections: u64,
    /// Requests handed to the app so far.
    pub requests: u64,
    /// Requests whose response is not complete yet.
    pub in_flight: u64,
    /// Requests given up at the end of a drain.
    pub cut: u64,
    /// Responses by the first digit of their status codes, from 1 on.
    pub responses: [u64; STATUS_CLASSES],
    pub latency: Latency,
    /// Connections that another worker has taken over.
    pub handed_over: u64,
    /// Connections taken over from another worker.
    pub taken_over: u64,
    /// Connections ended because the worker drained.
    pub dismissed: u64,
    /// The request that the app holds the thread with, on one line; `None` while it doesn't.
    pub route: Option<String>,
}

/// How long requests took, from their heads until their responses were complete or given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many there were of each class.
    pub classes: [u64; LATENCIES],
    /// The sum of them all, in nanoseconds.
    pub nanos: u64,
}

/// What a page said: one entry a serving thread that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    pub lanes: Vec<LaneSnapshot>,
}

impl StatsSnapshot {
    /// A figure of all threads together. It stops at the largest number, because a page that an app has scribbled on
    /// must not end whoever adds.
    pub fn sum(&self, of: impl Fn(&LaneSnapshot) -> u64) -> u64 {
        self.lanes.iter().map(of).fold(0, u64::saturating_add)
    }

    /// What the app holds the threads with.
    pub fn routes(&self) -> String {
        listed(self.lanes.iter())
    }

    /// What the app holds those threads with that have given no sign of life for so long.
    pub fn routes_silent_for(&self, silence: Duration) -> String {
        let since = Duration::from_millis(monotonic_ms()).saturating_sub(silence);
        let silent = self.lanes.iter().filter(|lane| lane.heartbeat.is_some_and(|beat| beat <= since));
        listed(silent)
    }
}

fn listed<'a>(lanes: impl Iterator<Item = &'a LaneSnapshot>) -> String {
    let routes: Vec<_> = lanes.filter_map(|lane| lane.route.as_deref()).collect();
    foreign::line(&routes.join(", "), foreign::MAX_TEXT)
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
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        let length = nix::sys::stat::fstat(file)?.st_size;
        if usize::try_from(length) != Ok(size_of::<Page>()) {
            return Err(invalid("the stats page has another size than expected"));
        }
        let page = Self { map: MmapOptions::new().len(size_of::<Page>()).map_raw(file)? };
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

    /// Has the first `threads` lanes time their requests. Only they: the others' memory stays untouched.
    pub fn time_requests(&self, threads: u16) {
        for lane in self.page().lanes.iter().take(threads.into()) {
            lane.timed.store(1, Relaxed);
        }
    }

    /// The lanes, one a serving thread, for the rest of the process, which keeps the page mapped.
    pub fn into_lanes(self) -> &'static [Lane] {
        &Box::leak(Box::new(self)).page().lanes
    }

    /// The last sign of life of the thread that has been silent for the longest, and how many requests
    /// all of them have handed to the app.
    pub fn signs(&self) -> (Option<Duration>, u64) {
        let begun = self.page().lanes.iter().map(|lane| (lane.heartbeat.load(Relaxed), lane.requests.load(Relaxed)));
        let (mut oldest, mut requests) = (None, 0_u64);
        for (beat, served) in begun.take_while(|(beat, _)| *beat != 0) {
            oldest = Some(oldest.map_or(beat, |oldest: u64| oldest.min(beat)));
            requests = requests.wrapping_add(served);
        }
        (oldest.map(Duration::from_millis), requests)
    }

    /// How many connections the worker has.
    pub fn connections(&self) -> u64 {
        self.page().lanes.iter().map(Lane::connections).fold(0, u64::saturating_add)
    }

    /// What the worker's threads say at this moment.
    pub fn snapshot(&self) -> StatsSnapshot {
        let lanes = self.page().lanes.iter().map(Lane::snapshot);
        StatsSnapshot { lanes: lanes.take_while(|lane| lane.heartbeat.is_some()).collect() }
    }
}

/// The time that heartbeats are given in: `CLOCK_MONOTONIC`, which is one clock for all processes of
/// a machine, in milliseconds.
fn monotonic_ms() -> u64 {
    // This clock exists on every Linux (clock_gettime(2)), and never gives negative times.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

const _: () = assert!(size_of::<Lane>() == 512 && align_of::<Lane>() == 128);
// A route's length is a byte.
const _: () = assert!(MAX_ROUTE <= u8::MAX as usize);

#[cfg(test)]
mod tests;
