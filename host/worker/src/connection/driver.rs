//! Drives connections, hyper's of HTTP/1 and our own of HTTP/2: polls them, watches the drain signal, and keeps the time-outs.
//!
//! Tells the connection's [state](super::state) the phase and the time, and does what it decides. Costs a request next to
//! nothing: while a connection serves, its one timer is looked at, not armed, and the signal is an atomic load.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use app_host_core::config::Http;
use app_host_core::not_resumed::{LongLived, NotResumed};
use app_host_core::refused::Refused;

use super::Application;
use super::drain::DrainSignal;
use super::going_on;
use super::http2::{self, Http2, Http2Snapshot};
use super::refusal;
use super::request::{Way, answer};
use super::request_body::Incoming;
use super::shared::Shared;
use super::state::{Detected, Exit, Finish, Goal, Next, Order, Phase, Timeouts};
use super::suspended::{Leaving, Suspended};
use super::transport::{Parts, Transport};
use super::tunnel;
use super::upgrade::PendingUpgrade;

/// How long a head hyper reads by itself (`DEFAULT_MAX_BUFFER_SIZE`).
const HYPERS_BUFFER: usize = 417_792;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the client has not answered a PING")]
    Unanswered,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Properly, from either side.
    Done,
    /// The client broke off or did not speak HTTP.
    Failed(Failure),
    /// No request came in time.
    TimedOut,
    /// The host has refused the client, which has been counted.
    Refused(Refused),
    /// By the cut, with whatever was in flight, which has been counted.
    Cut,
    /// In the midst of a response, with which another worker goes on.
    LetGo,
    /// Between two requests of HTTP/2, with which another worker goes on.
    Left,
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

    /// Sets the timer for the next poll.
    pub(super) fn set(&mut self, deadline: Instant) {
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
            self.registered = None;
        }
    }

    /// Sets the timer. Returns false if the deadline is over already.
    pub(super) fn wait_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        self.set(deadline);
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
            Self::TimedOut | Self::Refused(_) | Self::Cut | Self::LetGo | Self::Left => Finish::GivenUp,
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
    let service = service_fn(move |request: Request<_>| {
        let way = Way { interim: for_requests.interim.clone(), pending: &upgrades };
        answer(app.clone(), Arc::clone(&for_requests), way, request.map(Incoming::Http1))
    });
    // hyper's own time-out would allocate and arm a timer a request.
    let limits = &shared.limits.http;
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_header_size(usize::try_from(limits.max_head).unwrap_or(usize::MAX));
    // hyper's buffer grows this far by itself, and a longer head must find room.
    if let Some(most) = usize::try_from(limits.max_head).ok().filter(|most| *most > HYPERS_BUFFER) {
        builder.max_buf_size(most);
    }
    // hyper reads as many as it does by itself without an allocation.
    if limits.max_headers != Http::DEFAULT.max_headers {
        builder.max_headers(limits.max_headers.into());
    }
    let mut connection = builder.serve_connection(TokioIo::new(transport), service);
    let ended = drive(&mut connection, http1::Connection::graceful_shutdown, shared, &mut timeouts, wakeups).await;
    let state = &shared.state;
    if let Some(what) = shared.resumed.filter(|_| state.is_cut() && state.awaits_grant()) {
        shared.count_not_resumed(what, NotResumed::Cut);
    }
    if let Ended::Refused(why) = ended
        && state.may_be_answered()
    {
        // The request in flight ends with hyper's connection. Boxed for the same reason as below.
        Box::pin(refusal::answer(connection.into_parts().io.into_inner(), why)).await;
        return Driven::Ended(ended);
    }
    if let Ended::LetGo = ended {
        let parts = connection.into_parts();
        return Box::pin(going_on::let_go(parts.io.into_inner(), &parts.read_buf, shared, timeouts.opened())).await;
    }
    let exit = state.on_end(ended.finish());
    if exit == Exit::Close {
        if let Some(what) = shared.resumed {
            let transport = connection.into_parts().io.into_inner();
            if transport.is_refused() {
                tracing::debug!(?what, "a client does not go on here: the app has answered otherwise");
                shared.count_not_resumed(what, NotResumed::NotGranted);
                state.on_last_response();
                Box::pin(going_on::say_that_it_ends(transport, what)).await;
            }
        }
        return Driven::Ended(ended);
    }
    let parts = connection.into_parts();
    let Parts { transport, rewind, swallows } = parts.io.into_inner().into_parts();
    if let Exit::Leave { to, head } = exit {
        if is_head_of(&parts.read_buf, head) {
            let unread = joined(parts.read_buf, rewind);
            let mut history = timeouts.http1_history(state, Instant::now().into_std());
            let mut left = None;
            if let Some(what) = shared.resumed.filter(|_| swallows) {
                history.detected = Detected::Resumed(what);
                left = shared.left();
            }
            let opened = timeouts.opened();
            let suspended = Suspended { transport, opened, unread, history, left, snapshot: None };
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
    let unread = [parts.read_buf, rewind];
    let granted = pending.take();
    if swallows && granted.is_some() {
        shared.count_resumed(LongLived::WebSocket);
    }
    Box::pin(tunnel::carry(transport, unread, granted, (shared, timeouts.opened()), wakeups)).await
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

/// Drives an HTTP/2 connection, which may have come with a snapshot.
pub(super) async fn http2<T, A, F>(
    transport: Transport<T>,
    app: A,
    shared: &Arc<Shared>,
    (mut timeouts, snapshot): (Timeouts, Option<Box<Http2Snapshot>>),
    wakeups: &mut Wakeups<'_, F>,
) -> Driven<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
    F: Future<Output = ()>,
{
    let (mut connection, slot) = Http2::new(transport, app, Arc::clone(shared), snapshot.as_deref());
    let ended = drive(&mut connection, Http2::graceful_shutdown, shared, &mut timeouts, wakeups).await;
    drop(connection);
    let dropped = tunnel::lock(&slot).take();
    http2::driven(dropped, ended, shared, &timeouts).await
}

/// Polls a connection to its end, which for one that leaves is not the end of the client's connection.
async fn drive<C, E, F>(
    connection: &mut C,
    shut_down_gracefully: fn(Pin<&mut C>),
    shared: &Shared,
    timeouts: &mut Timeouts,
    wakeups: &mut Wakeups<'_, F>,
) -> Ended
where
    C: Future<Output = Result<(), E>> + Unpin,
    E: Into<Failure>,
    F: Future<Output = ()>,
{
    let state = &shared.state;
    let driven = poll_fn(|cx| {
        shared.interim.iter().for_each(|interim| interim.set_waker(cx.waker()));
        loop {
            if let Some(phase) = wakeups.new_phase(cx) {
                let order = timeouts.on_phase(state, phase, wakeups.announces_close());
                shared.notify_phase();
                match order {
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
            state.on_poll();
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ended::Done),
                Poll::Ready(Err(error)) => return Poll::Ready(Ended::Failed(error.into())),
                Poll::Pending if state.has_let_go() => return Poll::Ready(Ended::LetGo),
                Poll::Pending if state.takes_leave() => return Poll::Ready(Ended::Left),
                Poll::Pending => {}
            }
            if !timeouts.must_be_checked(state, wakeups.is_elapsed()) {
                return Poll::Pending;
            }
            match timeouts.on_timer(state, Instant::now().into_std()) {
                Next::WaitUntil(deadline) => {
                    if wakeups.wait_until(deadline.into(), cx) {
                        return Poll::Pending;
                    }
                }
                Next::Leave(look_again) => drop(wakeups.wait_until(look_again.into(), cx)),
                Next::ShutDown => shut_down_gracefully(Pin::new(connection)),
                Next::Drop => return Poll::Ready(Ended::TimedOut),
                Next::Refuse(why) => {
                    if state.is_cut() {
                        shared.count_cut();
                    }
                    shared.refuse(why, refusal::detail(why));
                    return Poll::Ready(Ended::Refused(why));
                }
            }
        }
    });
    let ended = driven.await;
    shared.interim.iter().for_each(|interim| interim.end());
    ended
}
