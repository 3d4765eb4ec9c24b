//! Drives hyper's connections: polls them, watches the drain signal, and keeps the time-outs.
//!
//! Tells the connection's [state](super::state) the phase and the time, and does what it decides. Costs a request next to
//! nothing: while a connection serves, its one timer is looked at, not armed, and the signal is an atomic load.

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
use super::drain::DrainSignal;
use super::request::answer;
use super::shared::Shared;
use super::state::{Exit, Finish, Goal, Next, Order, Phase, Timeouts};
use super::suspended::{Leaving, Suspended};
use super::transport::{Parts, Transport};
use super::tunnel::{self, PendingUpgrade};

/// The most requests of one HTTP/2 connection that are in flight.
const MAX_STREAMS: u32 = 250;

/// The most bytes of the header fields of an HTTP/2 request (RFC 9113, section 6.5.2).
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// How often an idle HTTP/2 client is sent a PING, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Properly, from either side.
    Done,
    /// The client broke off or did not speak HTTP.
    Failed(hyper::Error),
    /// No request, or only a part of one, came in time.
    TimedOut,
    /// By the cut, with whatever was in flight, which has been counted.
    Cut,
}

/// What became of a connection that was driven.
pub(super) enum Driven<T> {
    Ended(Ended),
    /// It goes on in another worker, or later.
    Leaves(Leaving<T>),
}

/// What wakes a connection besides its transport: a new phase, and one timer.
///
/// Both are polled only when the task's waker changes or they have been set anew. That saves a lock and a list at each
/// poll. It is enough because a new phase is announced on the connection's own thread ([`DrainSignal::relayed`]): if it
/// were announced in the middle of a poll, it could be seen first and notified after that, and the notification would take
/// `change` off its list for nothing.
pub(super) struct Wakeups<'a, F> {
    drain: DrainSignal,
    listen: fn(DrainSignal) -> F,
    change: Pin<&'a mut F>,
    sleep: Pin<&'a mut Sleep>,
    registered: Option<Waker>,
}

impl<'a, F: Future<Output = ()>> Wakeups<'a, F> {
    pub(super) fn new(
        drain: DrainSignal,
        listen: fn(DrainSignal) -> F,
        change: Pin<&'a mut F>,
        sleep: Pin<&'a mut Sleep>,
    ) -> Self {
        let mut this = Self { drain, listen, change, sleep, registered: None };
        // For a connection that is accepted while its worker drains.
        this.repeat_phase();
        this
    }

    /// The phase, if it is new. Call it at the beginning of every poll.
    pub(super) fn new_phase(&mut self, cx: &mut Context<'_>) -> Option<Phase> {
        let new_phase = self.drain.new_phase();
        if new_phase.is_some() {
            self.change.set((self.listen)(self.drain.clone()));
            self.registered = None;
        }
        self.register(cx);
        new_phase
    }

    /// Whether this connection is one of those that are invited to leave a worker that serves. Counts it.
    fn accept_invitation(&self) -> bool {
        self.drain.accept_invitation()
    }

    /// Whether the responses of a worker that serves announce the close of their connection.
    fn announces_close(&self) -> bool {
        self.drain.announces_close()
    }

    /// Makes the phase new once more, for the next poll.
    pub(super) fn repeat_phase(&mut self) {
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
            // The phase changed after it was asked for, from another thread. The next poll returns it; until then a future
            // that has ended must not be polled again.
            self.change.set((self.listen)(self.drain.clone()));
            cx.waker().wake_by_ref();
            return;
        }
        // `is_elapsed` is asked when it matters.
        let _ = self.sleep.as_mut().poll(cx);
        self.registered = Some(cx.waker().clone());
    }

    /// Whether the timer has fired.
    fn is_elapsed(&self) -> bool {
        self.sleep.is_elapsed()
    }

    /// Sets the timer. Returns false if the deadline is over already.
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
    /// The end, as the connection's state sees it.
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
    transport: Transport<T>,
    app: A,
    shared: &Arc<Shared>,
    mut timeouts: Timeouts,
    wakeups: &mut Wakeups<'_, F>,
) -> Driven<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
    F: Future<Output = ()>,
{
    let pending = PendingUpgrade::default();
    let (for_requests, upgrades) = (Arc::clone(shared), pending.clone());
    let service = service_fn(move |request| answer(app.clone(), Arc::clone(&for_requests), &upgrades, request));
    // hyper's own time-out would allocate and arm a timer a request.
    let mut connection =
        http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(transport), service);
    let ended = drive(&mut connection, http1::Connection::graceful_shutdown, shared, &mut timeouts, wakeups).await;
    let state = &shared.state;
    let exit = state.on_end(ended.finish());
    if exit == Exit::Close {
        return Driven::Ended(ended);
    }
    let parts = connection.into_parts();
    let Parts { transport, rewind } = parts.io.into_inner().into_parts();
    if let Exit::Leave { to, head } = exit {
        if is_head_of(&parts.read_buf, head) {
            let unread = joined(parts.read_buf, rewind);
            let history = timeouts.http1_history(state, Instant::now().into_std());
            let suspended = Suspended { transport, unread, history };
            let leaving = if to == Goal::Park { Leaving::Park(suspended) } else { Leaving::Transfer(suspended) };
            return Driven::Leaves(leaving);
        }
        let length = parts.read_buf.len();
        tracing::error!(
            head,
            length,
            "a connection can't be handed over: hyper has not returned the bytes that it was given"
        );
        state.on_wrong_bytes();
    }
    // Boxed, so that the future of a connection that ends by itself has no room for this.
    Driven::Ended(Box::pin(tunnel::carry(transport, [parts.read_buf, rewind], pending.take(), shared, wakeups)).await)
}

/// Whether hyper has returned a head of that length, and nothing else. It may have taken empty lines before the head.
fn is_head_of(read: &[u8], head: usize) -> bool {
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
    transport: Transport<T>,
    app: A,
    shared: &Arc<Shared>,
    mut timeouts: Timeouts,
    wakeups: &mut Wakeups<'_, F>,
) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
    F: Future<Output = ()>,
{
    // Streams are upgraded, never the connection.
    let pending = PendingUpgrade::default();
    let for_requests = Arc::clone(shared);
    let service = service_fn(move |request| answer(app.clone(), Arc::clone(&for_requests), &pending, request));
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(transport), service);
    drive(&mut connection, http2::Connection::graceful_shutdown, shared, &mut timeouts, wakeups).await
}

/// Polls hyper's `connection` to its end, which for one that leaves is not the end of the client's connection.
async fn drive<C, F>(
    connection: &mut C,
    shut_down_gracefully: fn(Pin<&mut C>),
    shared: &Shared,
    timeouts: &mut Timeouts,
    wakeups: &mut Wakeups<'_, F>,
) -> Ended
where
    C: Future<Output = hyper::Result<()>> + Unpin,
    F: Future<Output = ()>,
{
    let state = &shared.state;
    poll_fn(|cx| {
        loop {
            if let Some(phase) = wakeups.new_phase(cx) {
                match timeouts.on_phase(state, phase, wakeups.announces_close()) {
                    Order::DriveOn => {}
                    Order::MayInvite => {
                        if wakeups.accept_invitation() {
                            state.on_invited();
                        }
                    }
                    Order::ShutDown => shut_down_gracefully(Pin::new(connection)),
                    Order::Cut => {
                        // Before the connection is dropped, because that ends what is in flight.
                        shared.count_cut();
                        return Poll::Ready(Ended::Cut);
                    }
                }
            }
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ended::Done),
                Poll::Ready(Err(error)) => return Poll::Ready(Ended::Failed(error)),
                Poll::Pending => {}
            }
            if !timeouts.must_be_checked(state, wakeups.is_elapsed()) {
                return Poll::Pending;
            }
            match timeouts.on_timer(state, Instant::now().into_std()) {
                Next::Wait => return Poll::Pending,
                Next::WaitUntil(deadline) => {
                    if wakeups.wait_until(deadline.into(), cx) {
                        return Poll::Pending;
                    }
                }
                Next::Leave(look_again) => drop(wakeups.wait_until(look_again.into(), cx)),
                Next::ShutDown => shut_down_gracefully(Pin::new(connection)),
                Next::Drop => return Poll::Ready(Ended::TimedOut),
            }
        }
    })
    .await
}
