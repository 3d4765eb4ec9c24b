//! Drives hyper's connections: polls them, listens to the drain signal, keeps the time.
//!
//! Owns every decision about a connection's end. Costs a request next to nothing: while a connection
//! serves, its one timer is looked at, not armed, and the signal is an atomic load.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::activity::{Activity, Announce};
use super::drain::{DrainSignal, Phase};
use super::io::Io;
use super::request::answer;
use super::sniff::Protocol;
use super::tunnel::{self, Turn};
use super::{Application, HEAD_TIMEOUT};

/// After how many ticks of [`HEAD_TIMEOUT`] an idle connection is closed: 90 to 120 s, longer than
/// the 60 s for which proxies commonly keep theirs, so that it is they who close.
const IDLE_TICKS: u32 = 4;

/// After how many ticks without a byte a connection is dropped whose app waits for more of a request:
/// 60 to 90 s. An app that has its whole request may be silent for as long as it likes.
const STARVED_TICKS: u32 = 3;

/// How many requests of one HTTP/2 connection may be in flight.
const MAX_STREAMS: u32 = 250;

/// How many bytes the header fields of an HTTP/2 request may take (RFC 9113, section 6.5.2).
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// After how long an HTTP/2 client is asked whether it is there, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Properly, from either side.
    Done,
    /// The client broke off or spoke no HTTP.
    Failed(hyper::Error),
    /// No request came in time, or not all of it.
    TimedOut,
    /// At the end of a drain, with whatever was in flight, which has been counted.
    Cut,
}

/// What wakes a connection besides its transport: news of the drain, and one timer.
///
/// While the worker serves, both are polled only when the task's waker changes or they have been set
/// anew. That saves a lock and a list at each poll.
pub(super) struct Wakes<'a, F> {
    drain: DrainSignal,
    listen: fn(DrainSignal) -> F,
    change: Pin<&'a mut F>,
    sleep: Pin<&'a mut Sleep>,
    registered: Option<Waker>,
    /// The drain has begun, so `change` is polled every time. Whoever begins a phase sets it first and
    /// notifies then: news that were seen in between are followed by a notification that takes
    /// `change` off its list without another phase to tell of.
    drains: bool,
}

impl<'a, F: Future<Output = ()>> Wakes<'a, F> {
    pub(super) fn new(
        drain: DrainSignal,
        listen: fn(DrainSignal) -> F,
        change: Pin<&'a mut F>,
        sleep: Pin<&'a mut Sleep>,
    ) -> Self {
        let mut this = Self { drain, listen, change, sleep, registered: None, drains: false };
        // A connection that is accepted while its worker drains has to know that, too.
        this.repeat_news();
        this
    }

    /// The phase, when it is new. Call at the beginning of every poll.
    pub(super) fn news(&mut self, cx: &mut Context<'_>) -> Option<Phase> {
        let news = self.drain.news();
        if news.is_some() {
            self.change.set((self.listen)(self.drain.clone()));
            self.registered = None;
            self.drains = news != Some(Phase::Serving);
        }
        self.register(cx);
        news
    }

    /// Makes the phase new once more, for whoever polls next.
    pub(super) fn repeat_news(&mut self) {
        self.drain.repeat();
    }

    fn register(&mut self, cx: &mut Context<'_>) {
        if !self.drains && self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return;
        }
        // Without budget left, tokio's futures would be pending without having registered.
        if !tokio::task::coop::has_budget_remaining() {
            cx.waker().wake_by_ref();
            return;
        }
        if self.change.as_mut().poll(cx).is_ready() {
            // The news came after they were asked for, from another thread. They are told at the next
            // poll; until then a future that has ended must not be polled again.
            self.change.set((self.listen)(self.drain.clone()));
            cx.waker().wake_by_ref();
            return;
        }
        // Whether it has elapsed is asked when it matters.
        let _ = self.sleep.as_mut().poll(cx);
        self.registered = Some(cx.waker().clone());
    }

    /// Whether the timer's time has come.
    fn is_elapsed(&self) -> bool {
        self.sleep.is_elapsed()
    }

    /// Sets the timer; false when its time has come already.
    pub(super) fn wait_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
            self.registered = None;
        }
        self.register(cx);
        !self.is_elapsed()
    }
}

/// Drives an HTTP/1 connection.
pub(super) async fn http1<T, A, F>(io: Io<T>, app: A, activity: &Arc<Activity>, wakes: &mut Wakes<'_, F>) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
    F: Future<Output = ()>,
{
    let shared = Arc::clone(activity);
    let turn = Turn::default();
    let turns = turn.clone();
    let service = service_fn(move |request| answer(app.clone(), Arc::clone(&shared), turns.clone(), request));
    // hyper's own time-out would allocate and arm a timer a request.
    let mut connection = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(io), service);
    let shut_down_gracefully = http1::Connection::graceful_shutdown;
    let ended = drive(&mut connection, shut_down_gracefully, Protocol::Http1, activity, wakes).await;
    // hyper leaves the transport as it is once a request has asked for an upgrade, granted or not.
    if !matches!(ended, Ended::Done) || activity.is_closing() {
        return ended;
    }
    let parts = connection.into_parts();
    let (transport, replay) = parts.io.into_inner().into_parts();
    // Boxed, so that the many connections that have no other end don't take its room.
    Box::pin(tunnel::carry(transport, [parts.read_buf, replay], turn.take(), activity, wakes)).await
}

/// Drives an HTTP/2 connection.
pub(super) async fn http2<T, A, F>(io: Io<T>, app: A, activity: &Arc<Activity>, wakes: &mut Wakes<'_, F>) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
    F: Future<Output = ()>,
{
    let shared = Arc::clone(activity);
    // Streams are upgraded, never the connection.
    let turn = Turn::default();
    let service = service_fn(move |request| answer(app.clone(), Arc::clone(&shared), turn.clone(), request));
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    drive(&mut connection, http2::Connection::graceful_shutdown, Protocol::Http2, activity, wakes).await
}

/// Polls `connection` to its end.
///
/// Handing an HTTP/1 connection over belongs here: in the place of a drain's first step, the
/// transport is told to report the end of the stream at the next boundary, and `connection`, when it is
/// done, gives transport and unread bytes by `into_parts`.
async fn drive<C, F>(
    connection: &mut C,
    shut_down_gracefully: fn(Pin<&mut C>),
    protocol: Protocol,
    activity: &Activity,
    wakes: &mut Wakes<'_, F>,
) -> Ended
where
    C: Future<Output = hyper::Result<()>> + Unpin,
    F: Future<Output = ()>,
{
    let mut drain: Option<Drain> = None;
    let mut patience = Patience::default();
    poll_fn(|cx| {
        loop {
            match wakes.news(cx) {
                Some(Phase::Cut) => {
                    // Counted here, because dropping the connection ends what is in flight.
                    activity.cut();
                    return Poll::Ready(Ended::Cut);
                }
                Some(Phase::Draining { since, linger }) if drain.is_none() => {
                    drain = Some(Drain { since, linger, idle: None, asked: false });
                    match protocol {
                        Protocol::Http1 => activity.announce(Announce::IfAlone),
                        Protocol::Http2 => shut_down_gracefully(Pin::new(connection)),
                    }
                }
                Some(Phase::Draining { .. } | Phase::Serving) | None => {}
            }
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ended::Done),
                Poll::Ready(Err(error)) => return Poll::Ready(Ended::Failed(error)),
                Poll::Pending => {}
            }
            let next = match &mut drain {
                // HTTP/2 asks its idle clients by itself whether they are there.
                None if protocol == Protocol::Http2 || !wakes.is_elapsed() => return Poll::Pending,
                None => patience.tick(activity),
                Some(drain) => drain.look(activity, Instant::now()),
            };
            match next {
                Next::Wait => return Poll::Pending,
                Next::WaitUntil(deadline) => {
                    if wakes.wait_until(deadline, cx) {
                        return Poll::Pending;
                    }
                }
                Next::Close => {
                    activity.announce(Announce::Always);
                    shut_down_gracefully(Pin::new(connection));
                }
                Next::Drop => return Poll::Ready(Ended::TimedOut),
            }
        }
    })
    .await
}

/// What comes next for a connection that waits.
enum Next {
    Wait,
    WaitUntil(Instant),
    /// A graceful shutdown, which ends an idle connection at once.
    Close,
    /// The end, because there is nothing that would be lost.
    Drop,
}

/// The patience of a connection that serves. Looked at once a [`HEAD_TIMEOUT`], so what is late is
/// closed after one to two of them; that spares each request a look at the clock.
#[derive(Default)]
struct Patience {
    /// What was waited for at the last tick.
    last: Option<Awaited>,
    /// At how many ticks in a row.
    ticks: u32,
}

/// What a client is to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The request after so many.
    Request { after: u64, in_head: bool },
    /// More of a request's body, when so many bytes had gone either way.
    Body { bytes: u64 },
}

impl Patience {
    fn tick(&mut self, activity: &Activity) -> Next {
        let again = Next::WaitUntil(Instant::now() + HEAD_TIMEOUT);
        let awaited = if activity.is_closing() {
            None
        } else if activity.is_idle() {
            Some(Awaited::Request { after: activity.begun(), in_head: activity.boundary().in_head() })
        } else {
            activity.is_starved().then(|| Awaited::Body { bytes: activity.bytes() })
        };
        self.ticks = if awaited == self.last { self.ticks + 1 } else { 1 };
        self.last = awaited;
        match awaited {
            Some(Awaited::Request { after: 0, .. }) => Next::Drop,
            Some(Awaited::Request { in_head: true, .. }) if self.ticks > 1 => Next::Drop,
            Some(Awaited::Request { .. }) if self.ticks >= IDLE_TICKS => {
                self.last = None;
                Next::Close
            }
            Some(Awaited::Body { .. }) if self.ticks >= STARVED_TICKS => Next::Drop,
            Some(_) | None => again,
        }
    }
}

/// The drain of one connection.
struct Drain {
    since: Instant,
    linger: Duration,
    /// After how many requests the connection became idle, and when that was noticed.
    idle: Option<((u64, u64), Instant)>,
    /// The connection has been asked to end.
    asked: bool,
}

impl Drain {
    fn look(&mut self, activity: &Activity, now: Instant) -> Next {
        let patience_ends = self.since + self.linger;
        if now >= patience_ends {
            activity.announce(Announce::Always);
        }
        if !activity.is_idle() || activity.is_closing() {
            self.idle = None;
            return if now < patience_ends { Next::WaitUntil(patience_ends) } else { Next::Wait };
        }
        // HTTP/2 hands a response over as soon as its first byte fits the client's window, and says
        // nothing of the rest: only the bytes that go out tell that there is one.
        let progress = (activity.begun(), activity.bytes_sent());
        let since = match self.idle {
            Some((known, since)) if known == progress => since,
            _ => now,
        };
        self.idle = Some((progress, since));
        if now < since + self.linger {
            // An idle connection that began its wait before the drain's patience ends must be looked
            // at then, too.
            let deadline = since + self.linger;
            Next::WaitUntil(if now < patience_ends { deadline.min(patience_ends) } else { deadline })
        } else if self.asked {
            Next::Drop
        } else {
            self.asked = true;
            Next::Close
        }
    }
}
