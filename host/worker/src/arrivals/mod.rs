//! Connections that come to a serving thread: from other workers, returned by them, and to be parked.
//!
//! Owns where a connection goes: to the serving thread that has the fewest, and into its [`IdlePool`] if there is nothing
//! to do for it. How one leaves is for [`DetachQueue`](crate::detach_queue::DetachQueue), how it travels for `transfer`, what another worker is told of it
//! for [`Detached`], how it is served for `accept`.
//!
//! A connection that has left has no task any more: what is known of it waits with the transfer thread, which reports to
//! the connection's thread what became of it ([`run`]). Many travel together, at every step.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use futures_util::future::select_all;
use socket2::{SockRef, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use app_host_core::error::chain;
use app_host_platform::sys::stats::ThreadStats;

use crate::Listener;
use crate::client::{self, ConnectionMeta};
use crate::connection::{
    Detected, DrainControl, DrainSignal, Ending, Http2Settings, Limits, Phase, Suspended, http2_settings,
};
use crate::context::{ConnectionContext, ListenerRules, Opened, ThreadContext};
use crate::detach_queue::BATCH;
use crate::detached::{Detached, Here, ListenerKey};
use crate::idle_pool::{CHECK_INTERVAL, IdlePool};
use crate::stream::{Socket, Stream};
use crate::tls::{Layer, Travelling};
use crate::transfer::{Commit, Outcome, Receiver, Rejection};

/// How many batches of connections may wait for one serving thread.
const INBOX: usize = 16;

/// What became of connections that have left their thread.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// How many other workers have accepted.
    accepted: u64,
    /// Keeps the thread from being drained before it has counted them.
    held: Option<mpsc::Sender<Infallible>>,
    /// Those that no worker accepts: they go on here.
    returned: Vec<Detached>,
}

/// Sends connections to one serving thread.
pub(super) struct ThreadHandle {
    inbox: mpsc::Sender<Vec<Detached>>,
    outcomes: mpsc::UnboundedSender<Outcomes>,
    /// How many connections are in the inbox, or about to be.
    coming: Arc<AtomicU64>,
    held: mpsc::WeakSender<Infallible>,
    stats: &'static ThreadStats,
}

/// A thread's end of its [`ThreadHandle`], and of its [`DetachQueue`](crate::detach_queue::DetachQueue).
pub(super) struct Inbox {
    arrivals: mpsc::Receiver<Vec<Detached>>,
    /// Up to as many connections as this worker has had.
    outcomes: mpsc::UnboundedReceiver<Outcomes>,
    /// Connections of this thread that are to be parked: up to as many as it has.
    idle: mpsc::UnboundedReceiver<Detached>,
    coming: Arc<AtomicU64>,
}

/// The channels to a thread whose connections hold `held`: from other workers, and for those of its own that are to be
/// parked.
pub(super) fn channel(
    stats: &'static ThreadStats,
    held: &mpsc::Sender<Infallible>,
) -> (ThreadHandle, mpsc::UnboundedSender<Detached>, Inbox) {
    let (inbox, arrivals) = mpsc::channel(INBOX);
    let (report, outcomes) = mpsc::unbounded_channel();
    let (park, idle) = mpsc::unbounded_channel();
    let coming = Arc::<AtomicU64>::default();
    let handle = ThreadHandle { inbox, outcomes: report, coming: Arc::clone(&coming), held: held.downgrade(), stats };
    (handle, park, Inbox { arrivals, outcomes, idle, coming })
}

impl Inbox {
    /// How many connections are in it, or about to be.
    pub(super) fn coming(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.coming)
    }
}

impl ThreadHandle {
    /// How many connections the thread has, including those in its inbox.
    fn connections(&self) -> u64 {
        self.stats.connections() + self.coming.load(Relaxed)
    }
}

/// Room for a batch of connections on one thread.
pub(super) struct Reservation {
    thread: usize,
    permit: mpsc::OwnedPermit<Vec<Detached>>,
    held: mpsc::Sender<Infallible>,
    /// How many connections the thread has, including these.
    connections: u64,
    batch: Vec<Detached>,
}

impl Reservation {
    fn new(thread: usize, handle: &ThreadHandle, permit: mpsc::OwnedPermit<Vec<Detached>>) -> Option<Self> {
        // A thread without connections is about to end.
        let held = handle.held.upgrade()?;
        Some(Self { thread, permit, held, connections: handle.connections(), batch: Vec::new() })
    }
}

/// The serving threads, as the receiver of connections that arrive.
pub(super) struct ServingThreads {
    threads: Vec<ThreadHandle>,
    listeners: Vec<ListenerKey>,
    /// The settings of its HTTP/2, if that goes on with connections of others.
    http2: Option<Http2Settings>,
    drain: DrainControl,
}

impl ServingThreads {
    pub(super) fn new(
        threads: Vec<ThreadHandle>,
        listeners: &[Listener],
        limits: &Limits,
        drain: DrainControl,
    ) -> Self {
        let key = |listener: &Listener| ListenerKey {
            name: listener.rules.name,
            unix: listener.rules.unix,
            tls: listener.rules.tls.is_some(),
            announced: listener.rules.peers.proxy_protocol.is_some(),
        };
        let http2 = (!limits.stays).then(|| http2_settings(limits));
        Self { threads, listeners: listeners.iter().map(key).collect(), http2, drain }
    }
}

impl Receiver for ServingThreads {
    type Connection = Detached;

    /// On each thread that has room.
    type Reservation = Vec<Reservation>;

    async fn reserve(&self) -> Vec<Reservation> {
        let threads = || self.threads.iter().enumerate().filter(|(_, handle)| handle.held.strong_count() > 0);
        let free = threads().filter_map(|(thread, handle)| {
            let permit = handle.inbox.clone().try_reserve_owned().ok()?;
            Reservation::new(thread, handle, permit)
        });
        let reservations: Vec<Reservation> = free.collect();
        if !reservations.is_empty() {
            return reservations;
        }
        // Waits for the thread that has room first, and keeps that permit instead of trying all again: others may wait for
        // the same room, and each gets it in turn.
        let waits = threads().map(|(thread, handle)| {
            Box::pin(async move {
                let permit = handle.inbox.clone().reserve_owned().await.ok()?;
                Reservation::new(thread, handle, permit)
            })
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() { reservations } else { select_all(waits).await.0.into_iter().collect() }
    }

    fn accept<'a>(
        &self,
        mut reservations: Vec<Reservation>,
        arrived: impl Iterator<Item = (OwnedFd, &'a [u8])>,
    ) -> (Vec<Result<(), Rejection>>, Commit) {
        let answers = arrived.map(|(socket, record)| {
            let room = reservations.iter_mut().min_by_key(|room| room.connections).ok_or(Rejection::Full)?;
            let worker = Here { listeners: &self.listeners, http2: self.http2.as_ref() };
            let connection =
                Detached::read(record, socket, worker, (room.thread, room.held.clone())).ok_or(Rejection::Unknown)?;
            room.batch.push(connection);
            room.connections += 1;
            Ok(())
        });
        let answers = answers.collect();
        reservations.retain(|room| !room.batch.is_empty());
        for room in &reservations {
            self.threads[room.thread].coming.fetch_add(room.batch.len() as u64, Relaxed);
        }
        let commit = move || {
            for Reservation { permit, batch, .. } in reservations {
                permit.send(batch);
            }
        };
        (answers, Box::new(commit))
    }

    fn connections(&self) -> u64 {
        self.threads.iter().map(ThreadHandle::connections).sum()
    }

    fn invite(&self, connections: u64) {
        self.drain.invite(connections);
    }

    fn report(&self, outcomes: Vec<Outcome<Detached>>) {
        let mut by_thread: Vec<Outcomes> = self.threads.iter().map(|_| Outcomes::default()).collect();
        for outcome in outcomes {
            match outcome {
                Outcome::Accepted(Detached { thread, held, .. }) => {
                    by_thread[thread].accepted += 1;
                    by_thread[thread].held = Some(held);
                }
                Outcome::Returned(connection) => by_thread[connection.thread].returned.push(connection),
            }
        }
        for (handle, outcomes) in self.threads.iter().zip(by_thread) {
            if outcomes.accepted > 0 || !outcomes.returned.is_empty() {
                // The thread lives as long as the process.
                let _ = handle.outcomes.send(outcomes);
            }
        }
    }
}

/// Serves or parks what comes to the thread that this runs on.
pub(super) async fn run(inbox: Inbox, mut pool: IdlePool, mut drain: DrainSignal, thread: Arc<ThreadContext>) {
    let Inbox { mut arrivals, mut outcomes, mut idle, coming } = inbox;
    let stats = pool.stats;
    let mut phase = drain.phase();
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    let signal = drain.clone();
    let (queue, resume) = (&thread.detach_queue, |connection| serve(connection, &thread, signal.clone()));
    loop {
        tokio::select! {
            // The phase before the connections that it is about.
            biased;
            changed = drain.next() => {
                phase = changed;
                match phase {
                    Phase::Serving => {
                        let invited = (0..pool.len()).take_while(|_| drain.accept_invitation()).count();
                        let taken = pool.take(invited);
                        stats.leaves(taken.len() as u64);
                        queue.send(taken);
                    }
                    Phase::Draining { ending, .. } => {
                        if ending == Ending::HandOver {
                            stats.leaves(pool.len() as u64);
                        }
                        let mut all = pool.close();
                        loop {
                            let some: Vec<_> = all.by_ref().take(BATCH).collect();
                            if some.is_empty() {
                                break;
                            }
                            if ending == Ending::HandOver { queue.send(some) } else { some.into_iter().for_each(resume) }
                            // Other connections of this thread have something to do.
                            tokio::task::yield_now().await;
                        }
                    }
                    Phase::Cut => pool.close().for_each(resume),
                }
            }
            Some(outcomes) = outcomes.recv() => {
                stats.handed_over(outcomes.accepted);
                stats.left(outcomes.accepted + outcomes.returned.len() as u64);
                for connection in outcomes.returned {
                    if phase == Phase::Serving {
                        park(&mut pool, connection, resume);
                    } else {
                        serve(connection, &thread, signal.clone().without_transfer());
                    }
                }
            }
            ready = pool.ready(), if !pool.is_empty() => ready.into_iter().for_each(resume),
            Some(arrived) = arrivals.recv() => {
                let count = arrived.len() as u64;
                stats.taken_over(count);
                for mut connection in arrived {
                    if let Some(rules) = rules_of(&connection, &thread) {
                        connection.permit = client::adopt(&connection.connection, &thread, rules);
                    }
                    if phase == Phase::Serving { park(&mut pool, connection, resume) } else { resume(connection) }
                }
                coming.fetch_sub(count, Relaxed);
            }
            Some(connection) = idle.recv() => {
                let (listener, requests) = (connection.connection.listener, connection.history.requests);
                tracing::trace!(listener, requests, "connection parked");
                if phase == Phase::Serving { park(&mut pool, connection, resume) } else { resume(connection) }
            }
            _ = check.tick(), if !pool.is_empty() => {
                pool.take_expired(Instant::now()).into_iter().for_each(resume);
            }
        }
    }
}

/// Parks a connection if there is nothing to do for it; resumes it otherwise.
fn park(pool: &mut IdlePool, connection: Detached, resume: impl Fn(Detached)) {
    let may_park =
        connection.history.may_park(&connection.unread) && connection.tls.as_deref().is_none_or(Travelling::may_park);
    let refused = if may_park { pool.park(connection) } else { Some(connection) };
    refused.into_iter().for_each(resume);
}

/// The rules of the connection's listener.
fn rules_of<'a>(connection: &Detached, thread: &'a ThreadContext) -> Option<&'a Arc<ListenerRules>> {
    thread.listeners.iter().find(|rules| rules.name == connection.connection.listener)
}

/// Starts the task that serves a connection.
fn serve(connection: Detached, thread: &Arc<ThreadContext>, drain: DrainSignal) {
    let spawned = match rules_of(&connection, thread) {
        Some(listener) if listener.unix => spawn::<UnixStream>(connection, listener, thread, drain),
        Some(listener) => spawn::<TcpStream>(connection, listener, thread, drain),
        None => Err(invalid("its listener is not here")),
    };
    if let Err(error) = spawned {
        tracing::warn!(error = chain(&error), "a connection that was taken over can't be served");
    }
}

fn spawn<S: Socket>(
    connection: Detached,
    listener: &Arc<ListenerRules>,
    thread: &Arc<ThreadContext>,
    drain: DrainSignal,
) -> io::Result<()> {
    let Detached { socket, connection, opened, permit, unread, history, left, snapshot, tls, held, .. } = connection;
    check(&socket)?;
    let mut transport = Stream::<S>::shared(socket)?;
    let open = Opened::new(thread.stats);
    let meta = ConnectionMeta { connection: Arc::new(connection), opened, permit, _open: open };
    let (thread, listener) = (Arc::clone(thread), Arc::clone(listener));
    let context = ConnectionContext { thread, listener, drain, held };
    let age_ms = u64::try_from(meta.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::trace!(listener = meta.connection.listener, age_ms, requests = history.requests, "connection taken over");
    if history.detected == Detected::Unannounced {
        tokio::spawn(Box::pin(client::serve_announced(transport, unread.into(), meta, context)));
        return Ok(());
    }
    match tls.map(|tls| *tls) {
        None => {}
        Some(Travelling::Records(suspended)) => {
            let layer = Layer::resume(suspended);
            transport = transport.encrypted(layer.ok_or_else(|| invalid("its keys are none"))?);
        }
        Some(Travelling::Nothing(read)) => {
            tokio::spawn(Box::pin(client::serve_encrypted(transport, read, meta, context)));
            return Ok(());
        }
    }
    tokio::spawn(client::serve(Suspended { transport, opened, unread, history, left, snapshot }, meta, context));
    Ok(())
}

/// Checks that a descriptor which another worker has sent can't block this thread: it is a connection, and no call on it
/// waits.
fn check(socket: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM || socket.is_listener()? {
        return Err(invalid("it is no connection"));
    }
    socket.set_nonblocking(true)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests;
