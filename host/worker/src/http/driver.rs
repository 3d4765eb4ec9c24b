//! Drives hyper's connections: polls them, listens to the drain signal, keeps the time.
//!
//! Tells the connection's [state](super::state) what phase it is and how late, and does what that decides. Costs a
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
use super::activity::Activity;
use super::drain::DrainSignal;
use super::handover::{Handover, Leaving};
use super::io::{Io, Parts};
use super::request::answer;
use super::state::{Exit, Finish, Goal, Next, Order, Phase, Timeouts};
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

impl Ended {
    /// The same for the connection's state.
    fn finish(&self) -> Finish {
        match self {
            Self::Done => Finish::Done,
            Self::Failed(_) => Finish::Failed,
            Self::TimedOut | Self::Cut => Finish::GivenUp,
        }
    }
}

/// Drives an HTTP/1 connection.
pub(super) async fn http1<T, A, F>(
    io: Io<T>,
    app: A,
    activity: &Arc<Activity>,
    mut timeouts: Timeouts,
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
    let ended = drive(&mut connection, http1::Connection::graceful_shutdown, activity, &mut timeouts, wakes).await;
    let state = &activity.state;
    let exit = state.on_end(ended.finish());
    if exit == Exit::Close {
        return Outcome::Ended(ended);
    }
    let parts = connection.into_parts();
    let Parts { transport, replay } = parts.io.into_inner().into_parts();
    if let Exit::Leave { to, head } = exit {
        if is_given_back(&parts.read_buf, head) {
            let unread = joined(parts.read_buf, replay);
            let history = timeouts.http1_history(state, Instant::now().into_std());
            let leaving = Handover { transport, unread, history };
            return Outcome::Leaves(if to == Goal::Park { Leaving::Rests(leaving) } else { Leaving::Moves(leaving) });
        }
        let length = parts.read_buf.len();
        tracing::error!(head, length, "a connection can't be handed over: hyper's bytes are not what was counted");
        state.on_wrong_bytes();
    }
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
pub(super) async fn http2<T, A, F>(
    io: Io<T>,
    app: A,
    activity: &Arc<Activity>,
    mut timeouts: Timeouts,
    wakes: &mut Wakes<'_, F>,
) -> Ended
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
    drive(&mut connection, http2::Connection::graceful_shutdown, activity, &mut timeouts, wakes).await
}

/// Polls `connection` to its end, which for one that leaves is that of hyper's part in it.
async fn drive<C, F>(
    connection: &mut C,
    shut_down_gracefully: fn(Pin<&mut C>),
    activity: &Activity,
    timeouts: &mut Timeouts,
    wakes: &mut Wakes<'_, F>,
) -> Ended
where
    C: Future<Output = hyper::Result<()>> + Unpin,
    F: Future<Output = ()>,
{
    let state = &activity.state;
    poll_fn(|cx| {
        loop {
            if let Some(phase) = wakes.news(cx) {
                match timeouts.on_phase(state, phase, wakes.announces_close()) {
                    Order::DriveOn => {}
                    Order::MayInvite => {
                        if wakes.takes_invitation() {
                            state.on_invited();
                        }
                    }
                    Order::ShutDown => shut_down_gracefully(Pin::new(connection)),
                    Order::Cut => {
                        // Counted here, because dropping the connection ends what is in flight.
                        activity.count_cut();
                        return Poll::Ready(Ended::Cut);
                    }
                }
            }
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ended::Done),
                Poll::Ready(Err(error)) => return Poll::Ready(Ended::Failed(error)),
                Poll::Pending => {}
            }
            if !timeouts.are_to_be_looked_at(state, wakes.is_elapsed()) {
                return Poll::Pending;
            }
            match timeouts.on_timer(state, Instant::now().into_std()) {
                Next::Wait => return Poll::Pending,
                Next::WaitUntil(deadline) => {
                    if wakes.wait_until(deadline.into(), cx) {
                        return Poll::Pending;
                    }
                }
                Next::Leave(look_again) => drop(wakes.wait_until(look_again.into(), cx)),
                Next::ShutDown => shut_down_gracefully(Pin::new(connection)),
                Next::Drop => return Poll::Ready(Ended::TimedOut),
            }
        }
    })
    .await
}
