//! An app that talks: to other workers by dispatch, and to clients on listeners of its own.
//!
//! `app.config` has the keys of [`Config`]. A topic or a text is the rest of the path:
//! `/whoami` answers JSON; `POST /publish/TOPIC` publishes the body; `/flood/TOPIC/COUNT` publishes so many
//! messages from a thread of its own, each again for as long as the queue is full, and answers when it
//! has; `/listen/TOPIC` streams a line for each message until the client goes, `/live/TOPIC` until the worker
//! drains; `/count/TOPIC` begins to count what comes, and `/counted/TOPIC` tells it; `/draining` answers
//! when the worker drains; `/garbage` sends nonsense on every socket to the master.
#![expect(clippy::disallowed_methods, reason = "the app has no runtime, and bad manners")]

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use app_abi::http_body::Frame;
use app_abi::{
    App, AppListener, Body, Bytes, Draining, Host, Level, Lost, Message, PublishError, Request, Response, StartError,
    StatusCode, Subscription, serde_json,
};

#[derive(Default, app_abi::serde::Deserialize)]
#[serde(crate = "app_abi::serde", default, deny_unknown_fields)]
struct Config {
    /// The listeners that it takes in its start, each of which then answers who it is and echoes lines.
    take: Vec<String>,
    /// Goes on without those that it can't have.
    take_what_there_is: bool,
    /// How long the start takes after that.
    start_ms: u64,
    /// What it publishes in its stop.
    farewell: Option<String>,
}

struct Talkative {
    host: Host,
    config: Config,
    counts: Mutex<HashMap<String, Arc<Count>>>,
}

#[derive(Default)]
struct Count {
    received: AtomicU64,
    lost: AtomicU64,
    ended: AtomicBool,
}

impl App for Talkative {
    async fn start(host: Host) -> Result<Self, StartError> {
        let config: Config = host.config()?;
        for name in &config.take {
            match host.listener(name) {
                Ok(listener) => drop(thread::spawn(move || serve(host, &listener))),
                Err(error) if config.take_what_there_is => {
                    host.log_with(Level::Info, "a listener is not there", &[("error", &error.to_string())]);
                }
                // Not in the error's own words, so that the worker must know by itself what it was.
                Err(_) => return Err(StartError::new("the app can't start")),
            }
        }
        thread::sleep(Duration::from_millis(config.start_ms));
        Ok(Self { host, config, counts: Mutex::default() })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (route, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        match route {
            "whoami" => json(&serde_json::json!({
                "pid": self.host.worker_pid(),
                "slot": self.host.slot(),
                "generation": self.host.generation(),
            })),
            "publish" => {
                let body = request.into_body().bytes(1 << 20).await.unwrap_or_default();
                match self.host.publish(argument, &body) {
                    Ok(()) => Response::new(Body::empty()),
                    Err(error) => refused(&error),
                }
            }
            "flood" => self.flood(argument).await,
            "listen" | "live" => match self.host.subscribe(argument) {
                Ok(heard) => {
                    let draining = (route == "live").then(|| self.host.draining());
                    Response::new(Body::stream(Lines { heard, draining, greeted: false }))
                }
                Err(error) => refused(&error),
            },
            "count" => self.count(argument),
            "counted" => match self.counts.lock().unwrap().get(argument) {
                Some(count) => json(&serde_json::json!({
                    "received": count.received.load(Ordering::Relaxed),
                    "lost": count.lost.load(Ordering::Relaxed),
                    "ended": count.ended.load(Ordering::Relaxed),
                })),
                None => refused(&"nobody counts"),
            },
            "draining" => {
                let before = self.host.is_draining();
                self.host.draining().await;
                Response::new(format!("{before} {}", self.host.is_draining()).into())
            }
            "garbage" => Response::new(sockets::send_garbage().to_string().into()),
            _ => refused(&"there is nothing here"),
        }
    }

    async fn stop(&self) {
        if let Some(farewell) = &self.config.farewell {
            self.host.publish("farewell", farewell).expect("the master is there");
        }
    }
}

impl Talkative {
    async fn flood(&self, argument: &str) -> Response<Body> {
        let (topic, count) = argument.split_once('/').expect("a topic and a number");
        let (host, topic, count) = (self.host, topic.to_owned(), count.parse::<u64>().expect("a number"));
        let done = Arc::new(Done::default());
        let told = Arc::clone(&done);
        thread::spawn(move || {
            let mut full = 0_u64;
            for number in 0..count {
                let message = format!("{number:0100}");
                loop {
                    match host.publish(&topic, &message) {
                        Ok(()) => break,
                        Err(PublishError::Full(_)) => {
                            full += 1;
                            thread::sleep(Duration::from_micros(200));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            told.finish(full);
        });
        let full = poll_fn(|context| done.poll(context)).await;
        json(&serde_json::json!({ "published": count, "full": full }))
    }

    fn count(&self, topic: &str) -> Response<Body> {
        let mut subscription = match self.host.subscribe(topic) {
            Ok(subscription) => subscription,
            Err(error) => return refused(&error),
        };
        let count = Arc::new(Count::default());
        self.counts.lock().unwrap().insert(topic.to_owned(), Arc::clone(&count));
        thread::spawn(move || {
            while let Some(heard) = block_on(subscription.next()) {
                match heard {
                    Ok(_) => count.received.fetch_add(1, Ordering::Relaxed),
                    Err(Lost { count: lost }) => count.lost.fetch_add(lost, Ordering::Relaxed),
                };
            }
            count.ended.store(true, Ordering::Relaxed);
        });
        Response::new(Body::empty())
    }
}

fn json(value: &serde_json::Value) -> Response<Body> {
    Response::new(value.to_string().into())
}

fn refused(why: &dyn std::fmt::Display) -> Response<Body> {
    let mut response = Response::new(why.to_string().into());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// A number that another thread comes to.
#[derive(Default)]
struct Done(Mutex<(Option<u64>, Option<Waker>)>);

impl Done {
    fn finish(&self, number: u64) {
        let mut state = self.0.lock().unwrap();
        state.0 = Some(number);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<u64> {
        let mut state = self.0.lock().unwrap();
        state.1 = Some(context.waker().clone());
        state.0.map_or(Poll::Pending, Poll::Ready)
    }
}

/// A body of lines: `SLOT GENERATION BYTES`, or `lost COUNT`. The first one is `listening`.
struct Lines {
    heard: Subscription,
    draining: Option<Draining>,
    greeted: bool,
}

impl app_abi::http_body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let line = |text: String| Poll::Ready(Some(Ok(Frame::data(text.into()))));
        if !std::mem::replace(&mut self.greeted, true) {
            return line("listening\n".to_owned());
        }
        if let Some(draining) = &mut self.draining
            && Pin::new(draining).poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        match self.heard.poll_heard(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(Message { bytes, slot, generation, .. }))) => {
                line(format!("{slot} {generation} {}\n", String::from_utf8_lossy(&bytes)))
            }
            Poll::Ready(Some(Err(Lost { count }))) => line(format!("lost {count}\n")),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

/// Accepts until the worker drains or the listener is shut down; says in the log what ended it.
fn serve(host: Host, listener: &AppListener) {
    let why = loop {
        if host.is_draining() {
            break "draining".to_owned();
        }
        sockets::wait_for_client(listener);
        match accept(listener) {
            Ok(stream) => drop(thread::spawn(move || echo(host, stream))),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => break error.kind().to_string(),
        }
    };
    host.log_with(Level::Info, "the app's own listener is done", &[("why", &why)]);
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

fn accept(listener: &AppListener) -> std::io::Result<Box<dyn Stream>> {
    Ok(match listener {
        AppListener::Tcp(listener) => {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            Box::new(stream)
        }
        AppListener::Unix(listener) => {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            Box::new(stream)
        }
    })
}

/// Says who it is, and then sends back what comes.
fn echo(host: Host, mut stream: Box<dyn Stream>) {
    let hello = format!("{} {}\n", host.generation(), host.worker_pid());
    let mut buffer = [0; 1024];
    if stream.write_all(hello.as_bytes()).is_ok() {
        while let Ok(length) = stream.read(&mut buffer)
            && length > 0
            && stream.write_all(&buffer[..length]).is_ok()
        {}
    }
}

mod sockets {
    #![expect(unsafe_code, reason = "an app can reach every descriptor of its process by number")]

    use std::fs;
    use std::os::fd::{AsFd, AsRawFd};

    /// Waits a little for a client.
    pub(crate) fn wait_for_client(listener: &impl AsFd) {
        let mut poll = libc::pollfd { fd: listener.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which lives for the call.
        unsafe { libc::poll(&raw mut poll, 1, 20) };
    }

    /// Sends what nobody understands on each socket that carries packets; says on how many.
    pub(crate) fn send_garbage() -> usize {
        let open = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
        let open = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let packets = open.filter(|descriptor| option(*descriptor, libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET));
        let mut sockets = 0;
        for descriptor in packets.collect::<Vec<_>>() {
            sockets += 1;
            for length in [1, 11, 12, 300, 70_000] {
                let garbage = vec![0xfe_u8; length];
                // SAFETY: the pointer is to so many bytes.
                unsafe { libc::send(descriptor, garbage.as_ptr().cast(), garbage.len(), libc::MSG_DONTWAIT) };
            }
        }
        sockets
    }

    fn option(descriptor: i32, option: i32) -> Option<i32> {
        let mut value: libc::c_int = 0;
        let mut length: libc::socklen_t = size_of::<libc::c_int>().try_into().expect("four fits");
        // SAFETY: the pointers are to an integer and to its length.
        let result =
            unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut length) };
        (result == 0).then_some(value)
    }
}

app_abi::export_app!(Talkative);
