//! Clients that mean harm, each kind of them for a while: a client beside them is served as fast as without them, and the
//! workers' memory stays bounded.
//!
//! Attackers are other machines. Here they have processors of their own, and the service and its well-behaved client have
//! another one: what attackers take from the client is what the service spends on them, not what they spend themselves.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use app_host_tests::tls::Authority;
use app_host_tests::{Host, machine, process};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

/// How many attackers there are of each kind at a time.
const ATTACKERS: usize = 20;

/// For how long the well-behaved client measures.
const SPAN: Duration = Duration::from_millis(1500);

/// How often a kind is tried before its client was too slow: somebody else may have had the processors.
const TRIALS: usize = 4;

/// Below this the scheduler makes the difference: the two workers share a processor, and whoever wants it while another has
/// it waits for the end of a slice. What a flood takes that isn't held back is more: 10 to 30 ms for SETTINGS and PINGs.
const FLOOR: Duration = Duration::from_millis(3);
/// Where attackers have no processor of their own.
const SHARED_FLOOR: Duration = Duration::from_millis(20);

/// How much more memory all workers together may have than before the first flood.
const MEMORY_KIB: u64 = 48 * 1024;

/// Where the service is attacked.
#[derive(Clone, Copy)]
struct Target {
    http: SocketAddr,
    https: SocketAddr,
}

/// Who runs where.
struct Places {
    /// The service and its well-behaved client.
    service: CpuSet,
    attackers: CpuSet,
    /// A slower answer than this, and than twice that without a flood, is the flood's.
    floor: Duration,
}

impl Places {
    /// One processor for the service, and all others for attackers. Where there is one, they share it.
    fn new(service: usize) -> Self {
        let mut attackers = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let ours = (0..CpuSet::count()).filter(|number| attackers.is_set(*number) == Ok(true)).count();
        let floor = if ours > 1 {
            attackers.unset(service).unwrap();
            FLOOR
        } else {
            SHARED_FLOOR
        };
        let mut only = CpuSet::new();
        only.set(service).unwrap();
        Self { service: only, attackers, floor }
    }
}

/// The first processor that this process may use.
fn first_processor() -> usize {
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).find(|number| ours.is_set(*number) == Ok(true)).unwrap()
}

/// Confines the calling thread to these processors.
fn move_to(processors: &CpuSet) {
    sched_setaffinity(Pid::from_raw(0), processors).unwrap();
}

/// One client's attack, until it is told to stop. It begins anew when it is thrown out.
type Attack = fn(Target, &AtomicBool);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` as a block of fields (RFC 7541): method, scheme and path from the static table, `:authority: a`.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

#[expect(clippy::disallowed_methods, reason = "the pace of a client is no condition that could be waited for")]
fn rest(pause: Duration) {
    thread::sleep(pause);
}

/// Connects, sends `first`, and then `next` again and again for as long as that can be, `pause` apart.
fn flood(at: SocketAddr, going: &AtomicBool, first: &[u8], pause: Duration, mut next: impl FnMut() -> Vec<u8>) {
    while going.load(Relaxed) {
        let Ok(mut socket) = TcpStream::connect(at) else { continue };
        socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut sent = socket.write_all(first);
        while sent.is_ok() && going.load(Relaxed) {
            rest(pause);
            sent = socket.write_all(&next());
        }
    }
}

/// Nothing that is sent comes of itself.
const RARELY: Duration = Duration::from_millis(100);
/// As fast as twenty of them may on a machine that others use, too.
const OFTEN: Duration = Duration::from_millis(1);

fn slow_heads(at: Target, going: &AtomicBool) {
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(60_000));
    flood(at.http, going, head.as_bytes(), RARELY, || b"x".to_vec());
}

fn slow_bodies(at: Target, going: &AtomicBool) {
    flood(at.http, going, b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n", RARELY, || {
        b"x".to_vec()
    });
}

fn slow_readers(at: Target, going: &AtomicBool) {
    flood(at.http, going, b"GET /stream/1000000000 HTTP/1.1\r\nhost: a\r\n\r\n", RARELY, Vec::new);
}

fn half_open(at: Target, going: &AtomicBool) {
    flood(at.http, going, b"", RARELY, Vec::new);
}

fn endless_heads(at: Target, going: &AtomicBool) {
    flood(at.http, going, b"GET / HTTP/1.1\r\n", OFTEN, || "a: b\r\n".repeat(50).into_bytes());
}

fn rapid_reset(at: Target, going: &AtomicBool) {
    let mut stream = 1;
    flood(at.http, going, PREFACE, OFTEN, || {
        let both = [frame(1, 5, stream, GET), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
        stream += 2;
        both
    });
}

fn continuation(at: Target, going: &AtomicBool) {
    let first = [PREFACE, &frame(1, 1, 1, GET)].concat();
    flood(at.http, going, &first, OFTEN, || frame(9, 0, 1, &[0x90; 100]).repeat(10));
}

/// So many frames of one kind, that those who are cut off for them come again 800 times in a second, all together.
const AT_A_TIME: usize = 200;

/// Each is to be answered by another frame.
fn settings(at: Target, going: &AtomicBool) {
    flood(at.http, going, PREFACE, OFTEN, || frame(4, 0, 0, &[]).repeat(AT_A_TIME));
}

fn pings(at: Target, going: &AtomicBool) {
    flood(at.http, going, PREFACE, OFTEN, || frame(6, 0, 0, b"anybody?").repeat(AT_A_TIME));
}

/// The first half of a `ClientHello` (RFC 8446, section 4.1.2): the record and the message that it begins are 512 bytes long.
fn half_hello() -> Vec<u8> {
    [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 245]].concat()
}

fn slow_handshakes(at: Target, going: &AtomicBool) {
    flood(at.https, going, &half_hello(), RARELY, || vec![0]);
}

/// Each attacker has so many connections at a time.
const HANDSHAKES: usize = 30;

/// Connections that say nothing, or begin and say no more, a new one whenever one is thrown out.
fn endless_handshakes(at: Target, going: &AtomicBool) {
    let mut open: Vec<TcpStream> = Vec::new();
    let is_open = |socket: &TcpStream| {
        let read = (&*socket).read(&mut [0; 64]);
        // An alert may come before the end.
        !matches!(read, Ok(0)) && !read.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    };
    for number in 0_usize.. {
        if !going.load(Relaxed) {
            break;
        }
        open.retain(is_open);
        if open.len() < HANDSHAKES
            && let Ok(mut socket) = TcpStream::connect(at.https)
        {
            let begun = number.is_multiple_of(2).then(half_hello).unwrap_or_default();
            if socket.write_all(&begun).and_then(|()| socket.set_nonblocking(true)).is_ok() {
                open.push(socket);
            }
        }
        rest(OFTEN);
    }
}

const FLOODS: [(&str, Attack); 11] = [
    ("slow heads", slow_heads),
    ("slow bodies", slow_bodies),
    ("slow readers", slow_readers),
    ("half open", half_open),
    ("endless heads", endless_heads),
    ("rapid reset", rapid_reset),
    ("CONTINUATION", continuation),
    ("SETTINGS", settings),
    ("PING", pings),
    ("slow handshakes", slow_handshakes),
    ("handshakes that never end", endless_handshakes),
];

/// The slowest but one in a hundred of a client that keeps its connection and asks at its leisure.
fn percentile(at: SocketAddr) -> Duration {
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < SPAN {
        let asked = Instant::now();
        socket.write_all(b"GET /whoami HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut space = [0; 4096];
        let length = socket.read(&mut space).unwrap();
        assert!(space[..length].starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&space[..length]));
        took.push(asked.elapsed());
        rest(Duration::from_millis(2));
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// The same on the service's processor, while a flood lasts or while there is none.
fn percentile_beside(at: Target, places: &Places, flood: Option<Attack>) -> Duration {
    let going = &AtomicBool::new(true);
    thread::scope(|scope| {
        for attack in flood.into_iter().flat_map(|attack| [attack; ATTACKERS]) {
            scope.spawn(move || {
                move_to(&places.attackers);
                attack(at, going);
            });
        }
        let measured = scope.spawn(move || {
            move_to(&places.service);
            percentile(at.http)
        });
        let measured = measured.join();
        going.store(false, Relaxed);
        measured.unwrap()
    })
}

fn memory_kib(host: &Host) -> u64 {
    host.workers().into_iter().filter_map(process::private_kib).sum()
}

#[test]
fn no_flood_slows_others_down_or_fills_the_memory() {
    let _alone = machine::alone();
    let processor = first_processor();
    let places = Places::new(processor);
    let host = Host::misbehaving();
    let tls = json!({ "certificates": [Authority::new(host.directory()).localhost().config()] });
    let host = host
        .with("/admin", "127.0.0.1:0")
        .with("/cpus", json!([processor]))
        // So short that its end is seen.
        .with("/connections", json!({ "handshake_timeout": "1s" }))
        .with("/listen", json!(["127.0.0.1:0", { "address": "127.0.0.2:0", "name": "https", "tls": tls }]))
        .start();
    let at = Target { http: host.address().tcp(), https: host.address_of("https").tcp() };
    let before = memory_kib(&host);
    for (name, attack) in FLOODS {
        let mut seen = Vec::new();
        let kept = (0..TRIALS).any(|_| {
            let alone = percentile_beside(at, &places, None);
            let beside = percentile_beside(at, &places, Some(attack));
            seen.push((alone, beside));
            beside <= (alone * 2).max(places.floor)
        });
        assert!(kept, "{name}: without and beside, each time: {seen:?}");
        println!("{name}: without and beside {seen:?}");
        let memory = memory_kib(&host).saturating_sub(before);
        println!("{name}: {memory} KiB more");
        assert!(memory < MEMORY_KIB, "{name}: the workers have {memory} KiB more");
    }
    // What is thrown out is counted.
    for reason in ["head too large", "flood", "handshake failed"] {
        let refused = host.metrics().count(&format!("requests_refused_total{{reason=\"{reason}\"}}"));
        assert!(refused > 0, "{reason}");
    }
    host.restart_completes();
}
