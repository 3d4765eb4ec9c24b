//! Drives hyper's connections: polls them, listens to the drain signal, keeps the time.
//!
//! Owns how a connection ends; when it does for want of a request is decided in [`patience`](super::patience). Costs a
//! request next to nothing: while a connection serves, its one timer is looked at, not armed, and the signal is an
//! atomic load.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::Application;
use super::activity::{Activity, Announce};
use super::drain::{DrainSignal, Ending, Phase};
use super::handover::{Handover, Leaving, Spoken};
use super::io::{Io, Parts};
use super::patience::{Drain, Next, Patience};
use super::request::answer;
use super::sniff::Protocol;
use super::tunnel::{self, Turn};

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

/// What has become of a connection here.
pub(super) enum Outcome<T> {
    Ended(Ended),
    /// It goes on elsewhere, or later.
    Leaves(Leaving<T>),
}

/// What wakes a connection besides its transport: news of the drain, and one timer.
///
/// Both are polled only when the task's waker changes or they have been set anew. That saves a lock and a list at
/// each poll. It is enough because news are told on the connection's own thread ([`DrainSignal::here`]): were they
/// told in the middle of a poll, they could be seen first and notified after that, and the notification would take
/// `change` off its list for nothing.
pub(super) struct Wakes<'a, F> {
    drain: DrainSignal,
    listen: fn(DrainSignal) -> F,
    change: Pin<&'a mut F>,
    sleep: Pin<&'a mut Sleep>,
    registered: Option<Waker>,
}

impl<'a, F: Future<Output = ()>> Wakes<'a, F> {
    pub(super) fn new(
        drain: DrainSignal,
        listen: fn(DrainSignal) -> F,
        change: Pin<&'a mut F>,
        sleep: Pin<&'a mut Sleep>,
    ) -> Self {
        let mut this = Self { drain, listen, change, sleep, registered: None };
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
        }
        self.register(cx);
        news
    }

    /// Whether this connection is one of those that are to leave a worker that serves.
    fn takes_invitation(&self) -> bool {
        self.drain.takes_invitation()
    }

    /// Whether connections that are served say that they aren't kept.
    fn announces_close(&self) -> bool {
        self.drain.announces_close()
    }

    /// Makes the phase new once more, for whoever polls next.
    pub(super) fn repeat_news(&mut self) {
        self.drain.repeat();
    }

    fn register(&mut self, cx: &mut Context<'_>) {
        if self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
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
pub(super) async fn http1<T, A, F>(
    io: Io<T>,
    app: A,
    activity: &Arc<Activity>,
    mut patience: Patience,
    wakes: &mut Wakes<'_, F>,
) -> Outcome<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
    F: Future<Output = ()>,
{
    let shared = Arc::clone(activity);
    let turn = Turn::default();
    let turns = turn.clone();
    let service = service_fn(move |request| answer(app.clone(), Arc::clone(&shared), &turns, request));
    // hyper's own time-out would allocate and arm a timer a request.
    let mut connection = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(io), service);
    let shut_down_gracefully = http1::Connection::graceful_shutdown;
    let ended = drive(&mut connection, shut_down_gracefully, Protocol::Http1, activity, &mut patience, wakes).await;
    let hyper_left = matches!(ended, Ended::Done) && !activity.is_closing();
    // So ends hyper that has half a head.
    let may_leave = activity.is_leaving() && matches!(ended, Ended::Failed(_));
    if !hyper_left && !may_leave {
        return Outcome::Ended(ended);
    }
    let parts = connection.into_parts();
    let Parts { transport, replay, left } = parts.io.into_inner().into_parts();
    if let Some(head) = left {
        if is_given_back(&parts.read_buf, head) {
            let unread = joined(parts.read_buf, replay);
            let history = patience.history(Spoken::Http1, activity.begun(), activity.boundary().in_head());
            let leaving = Handover { transport, unread, history };
            return Outcome::Leaves(if patience.rests { Leaving::Rests(leaving) } else { Leaving::Moves(leaving) });
        }
        let length = parts.read_buf.len();
        tracing::error!(head, length, "a connection can't be handed over: hyper's bytes are not what was counted");
        activity.dismiss();
    } else if !hyper_left {
        return Outcome::Ended(ended);
    }
    // hyper leaves the transport as it is once a request has asked for an upgrade, granted or not.
    // Boxed, so that the many connections that have no other end don't take its room.
    Outcome::Ended(Box::pin(tunnel::carry(transport, [parts.read_buf, replay], turn.take(), activity, wakes)).await)
}

/// Whether what hyper gives back is a head of that length, and nothing else. It takes empty lines before a
/// head, or leaves them.
fn is_given_back(read: &[u8], head: usize) -> bool {
    let blank = read.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    read.len() - blank == head
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    if second.is_empty() {
        return first;
    }
    let mut both = BytesMut::from(first);
    both.extend_from_slice(&second);
    both.freeze()
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
    let service = service_fn(move |request| answer(app.clone(), Arc::clone(&shared), &turn, request));
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    // Not looked at: HTTP/2 asks its idle clients by itself whether they are there.
    let mut patience = Patience::new(Instant::now());
    drive(&mut connection, http2::Connection::graceful_shutdown, Protocol::Http2, activity, &mut patience, wakes).await
}

/// Polls `connection` to its end, which for one that leaves is that of hyper's part in it.
async fn drive<C, F>(
    connection: &mut C,
    shut_down_gracefully: fn(Pin<&mut C>),
    protocol: Protocol,
    activity: &Activity,
    patience: &mut Patience,
    wakes: &mut Wakes<'_, F>,
) -> Ended
where
    C: Future<Output = hyper::Result<()>> + Unpin,
    F: Future<Output = ()>,
{
    let mut drain: Option<Drain> = None;
    let mut polled = false;
    poll_fn(|cx| {
        loop {
            match wakes.news(cx) {
                Some(Phase::Cut) => {
                    // Counted here, because dropping the connection ends what is in flight.
                    activity.cut();
                    activity.dismiss();
                    return Poll::Ready(Ended::Cut);
                }
                Some(Phase::Draining { since, linger, ending }) => {
                    let known = drain.as_ref().map(|drain| drain.ending);
                    match protocol {
                        _ if known == Some(ending) => {}
                        Protocol::Http1 => {
                            activity.leaves(ending == Ending::HandOver);
                            if ending == Ending::Close {
                                activity.announce(Announce::IfAlone);
                            }
                        }
                        Protocol::Http2 if known.is_none() => {
                            activity.dismiss();
                            shut_down_gracefully(Pin::new(connection));
                        }
                        Protocol::Http2 => {}
                    }
                    match &mut drain {
                        Some(drain) => drain.ending = ending,
                        none => *none = Some(Drain::new(since, linger, ending)),
                    }
                }
                Some(Phase::Serving) if protocol == Protocol::Http1 => {
                    activity.keeps_alive(!wakes.announces_close());
                    // One that has just come here stays for a while.
                    if polled && activity.begun() > 0 && activity.is_idle() && wakes.takes_invitation() {
                        activity.leaves(true);
                    }
                }
                // One that comes when this is said already has nowhere else to go.
                Some(Phase::Serving) if polled && wakes.announces_close() => {
                    shut_down_gracefully(Pin::new(connection));
                }
                Some(Phase::Serving) | None => {}
            }
            polled = true;
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
                Next::Rest(look_again) => {
                    activity.leaves(true);
                    wakes.wait_until(look_again, cx);
                }
                Next::Close => {
                    if drain.is_some() {
                        activity.dismiss();
                    }
                    activity.announce(Announce::Always);
                    shut_down_gracefully(Pin::new(connection));
                }
                Next::Drop => {
                    if drain.is_some() {
                        activity.dismiss();
                    }
                    return Poll::Ready(Ended::TimedOut);
                }
            }
        }
    })
    .await
}
