//! An app that does whatever its configuration or a request tells it to, however bad it is.
//!
//! `app.config` has the keys of [`Config`]. Paths: `/whoami` answers JSON, `/block` says so in the log
//! and never gives the thread back, `/spin` does the same with all the CPU it can get, `/deaf` ignores
//! SIGABRT besides, `/close` closes what the host waits with, `/close/all` all that it has open, `/grow/MIB` needs so much memory more from now on, `/never` never answers nor reads, `/sleep/MS` answers late, `/panic`
//! panics, `/upload` counts a body, `/download/BYTES` makes one of known length while it is sent and
//! `/stream/BYTES` one of unknown length, `/whole/BYTES` has it ready, `/made` tells how many bytes were
//! made, `/noted/NUMBER` writes the number down and answers as `/whoami`, `/noted_late/NUMBER` 5 ms later, `/echo` sends one back, `/header/NAME` shows a header of the request, `/connection` shows what is known of the connection, `/tls` of its TLS, `/child` shows
//! what a process spawned by the app inherits, `/orphan` leaves one behind, `/garbage` writes what is no message to every pipe
//! of the process, `/smuggle` sends descriptors of several kinds on every socket to the master and tells how many packets went.
#![expect(clippy::disallowed_methods, reason = "the app has no runtime, and bad manners")]

use std::fs::{File, OpenOptions};
use std::future::{Future, pending};
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use app_abi::http_body::{Frame, SizeHint};
use app_abi::{App, Body, Bytes, Host, Level, Request, RequestExt, Response, StartError, StatusCode, serde_json};

#[derive(Default, app_abi::serde::Deserialize)]
#[serde(crate = "app_abi::serde", default, deny_unknown_fields)]
struct Config {
    /// `abort`, `exit`, `hang`, `panic`, `error`, `long_error` of 8 MiB, or `null_listeners`: makes the listeners unusable.
    on_start: String,
    /// Limits `on_start` and `die_after_ms` to one slot.
    only_slot: Option<u16>,
    /// How long `start` takes.
    start_ms: u64,
    /// The file that `start` makes while it is at work, and fails where another start is at it.
    migration: Option<String>,
    /// The process ends this long after its start.
    die_after_ms: Option<u64>,
    /// `start` aborts while this file exists.
    die_if: Option<String>,
    /// `hang`.
    on_stop: String,
    /// Has an exit handler: `print`, or `hang`.
    on_exit: String,
    /// Shown by `/whoami`.
    marker: String,
    /// The file that `/noted` writes to.
    notes: Option<String>,
}

struct Misbehaving {
    host: Host,
    config: Config,
    notes: Option<File>,
}

impl App for Misbehaving {
    async fn start(host: Host) -> Result<Self, StartError> {
        let config: Config = host.config()?;
        if let Some(path) = &config.migration {
            let claimed = OpenOptions::new().write(true).create_new(true).open(path);
            claimed.map_err(|_| StartError::new("two migrations at a time"))?;
        }
        sleep(Duration::from_millis(config.start_ms)).await;
        if let Some(path) = &config.migration {
            let _ = std::fs::remove_file(path);
        }
        if config.die_if.as_ref().is_some_and(|path| std::path::Path::new(path).exists()) {
            std::process::abort();
        }
        if config.only_slot.is_none_or(|slot| slot == host.slot()) {
            match config.on_start.as_str() {
                "abort" => std::process::abort(),
                "exit" => std::process::exit(0),
                "hang" => block(),
                "panic" => panic!("start was told to panic"),
                "error" => return Err(StartError::new("start was told to fail")),
                "long_error" => return Err(StartError::new(format!("\u{1b}[2J\n{}", "long\n".repeat(8 << 18)))),
                "null_listeners" => listeners::make_unusable(),
                "" => {}
                other => return Err(StartError::new(format!("unknown on_start: {other}"))),
            }
            if let Some(ms) = config.die_after_ms {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(ms));
                    std::process::abort();
                });
            }
        }
        match config.on_exit.as_str() {
            "print" => exits::register(exits::print),
            "hang" => exits::register(exits::hang),
            _ => {}
        }
        let open = |path: &String| OpenOptions::new().append(true).create(true).open(path);
        let notes = config.notes.as_ref().map(open).transpose().map_err(StartError::new)?;
        Ok(Self { host, config, notes })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (route, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number = || argument.parse().unwrap_or(0);
        match route {
            "whoami" => self.whoami(),
            "tls" => Response::new(Body::from(tls(&request))),
            "noted" => {
                self.note(argument);
                self.whoami()
            }
            "noted_late" => {
                self.note(argument);
                sleep(Duration::from_millis(5)).await;
                self.whoami()
            }
            "block" => {
                self.host.log(Level::Info, "the app blocks a thread");
                block()
            }
            "spin" => {
                self.host.log(Level::Info, "the app spins");
                loop {
                    std::hint::spin_loop();
                }
            }
            "deaf" => {
                signals::ignore_abort();
                self.host.log(Level::Info, "the app blocks a thread");
                block()
            }
            "close" => {
                listeners::close(if argument == "all" { "" } else { "anon_inode:[eventpoll]" });
                self.whoami()
            }
            "grow" => {
                grow(number());
                self.whoami()
            }
            "never" => pending().await,
            "sleep" => {
                sleep(Duration::from_millis(number())).await;
                self.whoami()
            }
            "panic" => panic!("a handler was told to panic"),
            "upload" => upload(request.into_body()).await,
            "download" => Response::new(Body::stream(Made { left: number(), sized: true })),
            "stream" => Response::new(Body::stream(Made { left: number(), sized: false })),
            "whole" => Response::new(vec![b'x'; usize::try_from(number()).unwrap_or(0)].into()),
            "made" => Response::new(MADE.load(Ordering::Relaxed).to_string().into()),
            "echo" => Response::new(request.into_body()),
            "connection" => {
                let text = format!("{:?} {:?}", request.connection(), request.version());
                Response::new(text.into())
            }
            "log" => {
                self.host.log_with(Level::Info, "the app says something", &[("key", "value")]);
                self.whoami()
            }
            "header" => {
                let values: Vec<_> =
                    request.headers().get_all(argument).iter().map(app_abi::http::HeaderValue::as_bytes).collect();
                Response::new(values.join(&b", "[..]).into())
            }
            "garbage" => Response::new(master::write_garbage().to_string().into()),
            "smuggle" => Response::new(master::smuggle().to_string().into()),
            "child" => Response::new(show_child().into()),
            "orphan" => Response::new(make_orphan().into()),
            _ => {
                let mut response = Response::new(Body::from("not found"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    async fn stop(&self) {
        if self.config.on_stop == "hang" {
            block();
        }
        self.host.log(Level::Info, "the app has stopped");
    }
}

impl Misbehaving {
    fn whoami(&self) -> Response<Body> {
        let body = serde_json::json!({
            "pid": self.host.worker_pid(),
            "slot": self.host.slot(),
            "generation": self.host.generation(),
            "marker": self.config.marker,
        });
        Response::new(body.to_string().into())
    }

    /// Writes down that a request has come here, with one `write(2)`.
    fn note(&self, number: &str) {
        let line = format!("{number} {}\n", self.host.worker_pid());
        let written = self.notes.as_ref().map(|mut notes| notes.write(line.as_bytes()));
        assert!(matches!(written, Some(Ok(length)) if length == line.len()), "{line:?} can't be noted: {written:?}");
    }
}

/// Never gives the thread back.
fn block() -> ! {
    loop {
        std::thread::park();
    }
}

/// Leaks memory that is really there, because every page of it was written to.
fn grow(mib: u64) {
    let bytes = usize::try_from(mib << 20).unwrap_or(0);
    std::mem::forget(std::hint::black_box(vec![1_u8; bytes]));
}

async fn upload(mut body: Body) -> Response<Body> {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => total += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return Response::new(format!("error: {error}").into()),
        }
    }
    Response::new(total.to_string().into())
}

/// How many bytes of bodies this worker has made.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A body that is made while it is sent. Each chunk has memory of its own, so that reading ahead
/// would show.
struct Made {
    left: u64,
    sized: bool,
}

impl app_abi::http_body::Body for Made {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        const CHUNK: usize = 64 * 1024;
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK);
        self.left -= length as u64;
        MADE.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; length].into()))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}

/// Starts a process as an app may, and tells its descriptors and signal dispositions.
fn show_child() -> String {
    let Ok(mut child) = std::process::Command::new("sleep").arg("60").spawn() else {
        return "no child".to_owned();
    };
    let proc = format!("/proc/{}", child.id());
    // `spawn` may return while the kernel still works on the exec, which gives the new command line
    // before it closes descriptors: only the new program itself comes to its sleep.
    let read = |file: &str| std::fs::read_to_string(format!("{proc}/{file}")).unwrap_or_default();
    let exec_is_done = || read("cmdline").starts_with("sleep") && read("status").contains("State:\tS");
    while !exec_is_done() && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut text = String::new();
    if let Ok(entries) = std::fs::read_dir(format!("{proc}/fd")) {
        for entry in entries.flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let (descriptor, target) = (entry.file_name(), target.to_string_lossy());
            text.extend(["fd ", &descriptor.to_string_lossy(), " ", &target, "\n"]);
        }
    }
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("Sig")) {
        text.push_str(line);
        text.push('\n');
    }
    let _ = child.kill();
    let _ = child.wait();
    text
}

/// Leaves a process behind whose parent has gone; answers its process id.
fn make_orphan() -> String {
    let output = std::process::Command::new("sh").args(["-c", "sleep 60 >&- 2>&- & echo $!"]).output();
    output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A timer without a runtime: a thread that wakes the task.
fn sleep(duration: Duration) -> Sleep {
    let state = Arc::new(SleepState { done: AtomicBool::new(duration.is_zero()), waker: Mutex::new(None) });
    if !duration.is_zero() {
        let state = Arc::clone(&state);
        std::thread::spawn(move || {
            std::thread::sleep(duration);
            state.done.store(true, Ordering::SeqCst);
            if let Some(waker) = state.waker.lock().ok().and_then(|mut waker| waker.take()) {
                waker.wake();
            }
        });
    }
    Sleep(state)
}

struct Sleep(Arc<SleepState>);

struct SleepState {
    done: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Ok(mut waker) = self.0.waker.lock() {
            *waker = Some(context.waker().clone());
        }
        if self.0.done.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

mod master {
    #![expect(unsafe_code, reason = "an app can reach every descriptor of its process by number")]

    use std::fs;
    use std::io::{IoSlice, Write};
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::net::sockopt::{set_socket_linger, socket_domain, socket_type};
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg};

    /// The descriptors of this process, without the standard three, whose links have this in their names.
    fn descriptors(kind: &str) -> Vec<BorrowedFd<'static>> {
        let entries = fs::read_dir("/proc/self/fd").expect("/proc is mounted").flatten();
        let is_of_kind =
            |path: &std::path::Path| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(kind));
        entries
            .filter(|entry| is_of_kind(&entry.path()))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|number| *number > 2)
            // SAFETY: it was just listed; the worker's own stay open, and what has gone is an error.
            .map(|number| unsafe { BorrowedFd::borrow_raw(number) })
            .collect()
    }

    /// Writes to every pipe that can be written to; how many those were.
    pub(crate) fn write_garbage() -> usize {
        let write = |pipe: &BorrowedFd<'_>| rustix::io::write(pipe, &[0xff; 1000]).is_ok();
        descriptors("pipe:").iter().filter(|pipe| write(pipe)).count()
    }

    /// Sends packets of every known form, each with a descriptor, on every socket that has packets; how many went.
    pub(crate) fn smuggle() -> usize {
        // A blocking one can be rewound, and a read of it never ends.
        let event = eventfd(0, EventfdFlags::empty()).expect("there is room for an eventfd");
        let mut sent = 0;
        for socket in descriptors("socket:") {
            let is_packets = socket_type(socket).is_ok_and(|kind| kind == SocketType::SEQPACKET)
                && socket_domain(socket).is_ok_and(|family| family == AddressFamily::UNIX);
            if is_packets {
                for form in [&b"b"[..], b"i\"Ready\"", b"p", &vec![0xff; 60_000]] {
                    sent += usize::from(send(socket, form, event.as_fd()));
                    let lingers = lingering();
                    sent += usize::from(send(socket, form, lingers.as_fd()));
                    // Whoever is last waits, and this may be us.
                    std::thread::spawn(move || drop(lingers));
                }
            }
        }
        sent
    }

    fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: BorrowedFd<'_>) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(&descriptor)))
            && sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
    }

    /// A connection whose last close waits for a minute, in whichever process that is.
    fn lingering() -> OwnedFd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (peer, _) = listener.accept().expect("a client is there");
        client.set_nonblocking(true).expect("it is a socket");
        while client.write(&vec![0; 65_536]).is_ok() {}
        set_socket_linger(&client, Some(Duration::from_mins(1))).expect("it is a socket");
        std::mem::forget(peer);
        client.into()
    }
}

mod listeners {
    #![expect(unsafe_code, reason = "an app can reach every descriptor of its process by number")]

    use std::fs::{self, File};
    use std::os::fd::AsRawFd;

    /// Closes every descriptor of this kind beyond the standard three, as code does that closes what it doesn't own.
    pub(crate) fn close(kind: &str) {
        let entries: Vec<_> = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().collect();
        for entry in entries {
            let fits = fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with(kind));
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|number| fits && *number > 2) {
                // SAFETY: close(2) takes any number; that the descriptor is another's is what is tested.
                unsafe { libc::close(number) };
            }
        }
    }

    /// Puts `/dev/null` in the place of every listening socket of the process.
    pub(crate) fn make_unusable() {
        let null = File::open("/dev/null").expect("there is a /dev/null");
        let open: Vec<i32> = fs::read_dir("/proc/self/fd")
            .expect("/proc is mounted")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        for descriptor in open.into_iter().filter(|descriptor| is_listening(*descriptor)) {
            // SAFETY: both are numbers of descriptors, and nothing in this process relies on the
            // old one: to see what the worker makes of that is the point.
            unsafe { libc::dup2(null.as_raw_fd(), descriptor) };
        }
    }

    fn is_listening(descriptor: i32) -> bool {
        let mut listening: libc::c_int = 0;
        let mut length: libc::socklen_t = size_of::<libc::c_int>().try_into().expect("four fits");
        // SAFETY: the pointers are to an integer and to its length.
        let result = unsafe {
            libc::getsockopt(
                descriptor,
                libc::SOL_SOCKET,
                libc::SO_ACCEPTCONN,
                (&raw mut listening).cast(),
                &raw mut length,
            )
        };
        result == 0 && listening == 1
    }
}

mod exits {
    #![expect(unsafe_code, reason = "an app can have exit handlers, and use C's streams")]

    /// Has the function run when the process exits.
    pub(crate) fn register(call: extern "C" fn()) {
        // SAFETY: the library is never unloaded.
        unsafe { libc::atexit(call) };
    }

    /// Prints a line at once, and another one into C's buffer, which is written behind all handlers.
    pub(crate) extern "C" fn print() {
        println!("an exit handler prints");
        // SAFETY: both are C strings.
        unsafe { libc::printf(c"%s".as_ptr(), c"an exit handler leaves this to C\n".as_ptr()) };
    }

    pub(crate) extern "C" fn hang() {
        super::block()
    }
}

mod signals {
    #![expect(unsafe_code, reason = "an app can change what signals do to its process")]

    /// From now on SIGABRT ends nothing.
    pub(crate) fn ignore_abort() {
        // SAFETY: SIG_IGN runs no code, and nothing in this process relies on the old disposition: to see
        // what the master makes of that is the point.
        unsafe { libc::signal(libc::SIGABRT, libc::SIG_IGN) };
    }
}

app_abi::export_app!(Misbehaving);

/// What is known of a request's TLS: the version, the name that was asked for, and how long the client's certificate is.
fn tls(request: &Request<Body>) -> String {
    let scheme = request.connection().map_or("", |connection| connection.scheme);
    let Some(tls) = request.tls() else { return scheme.to_owned() };
    let certificate = tls.client_certificate.map_or(0, |certificate| certificate.len());
    format!("{scheme} {} {} {certificate}", tls.version, tls.server_name.unwrap_or_default())
}
