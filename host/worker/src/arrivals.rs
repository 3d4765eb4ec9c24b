//! Connections that come to a serving thread: from other workers, back from the road, and to rest.
//!
//! Owns the place that a connection gets: with the serving thread that has the fewest, and at rest if it has nothing to
//! do. How one leaves is for [`Gate`], how it travels for `handover`, how it rests for [`Dormitory`], what is said of
//! it for [`Detached`], how it is served for `accept`.
//!
//! A connection that has left has no task any more: what is known of it waits with the road, and comes back to its
//! thread's [`adopt`] when the road says what has become of it. Many travel together, at every step.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::select_all;
use socket2::{SockRef, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::Listener;
use super::accept::{Known, Seat, see_to};
use super::detached::{self, Detached};
use super::gate::{AT_ONCE, Gate};
use super::rest::{Dormitory, LOOK};
use super::stream::{Socket, Stream};
use crate::handover::{Given, Harbour, NoBerth, Settle};
use crate::http::{DrainControl, DrainSignal, Ending, Handover, History, Phase};
use app_host_core::error::chain;
use app_host_platform::sys::stats::Lane;
use app_host_services::loader::Address;

/// How many batches of connections wait for one serving thread at most.
const INBOX: usize = 16;

/// What has become of connections that have left their thread.
#[derive(Debug, Default)]
pub(super) struct Returned {
    /// How many another worker has.
    taken: u64,
    /// Keeps the thread from being done before it has counted them.
    held: Option<mpsc::Sender<Infallible>>,
    /// Those that nobody takes: they go on here.
    back: Vec<Detached>,
}

/// The way to one serving thread.
pub(super) struct Berth {
    inbox: mpsc::Sender<Vec<Detached>>,
    returns: mpsc::UnboundedSender<Returned>,
    /// How many connections are in its inbox, or about to be.
    coming: Arc<AtomicU64>,
    held: mpsc::WeakSender<Infallible>,
    lane: &'static Lane,
}

/// A thread's end of the way to it.
pub(super) struct Inbox {
    arrivals: mpsc::Receiver<Vec<Detached>>,
    /// As many as this worker has had at most.
    returns: mpsc::UnboundedReceiver<Returned>,
    /// As many as the thread has at most.
    tired: mpsc::UnboundedReceiver<Detached>,
    coming: Arc<AtomicU64>,
}

/// The ways to a thread, whose connections hold `held`: from other workers, and for those of its own that are to rest.
pub(super) fn berth(
    lane: &'static Lane,
    held: &mpsc::Sender<Infallible>,
) -> (Berth, mpsc::UnboundedSender<Detached>, Inbox) {
    let (inbox, arrivals) = mpsc::channel(INBOX);
    let (returns, returned) = mpsc::unbounded_channel();
    let (beds, tired) = mpsc::unbounded_channel();
    let coming = Arc::<AtomicU64>::default();
    let berth = Berth { inbox, returns, coming: Arc::clone(&coming), held: held.downgrade(), lane };
    (berth, beds, Inbox { arrivals, returns: returned, tired, coming })
}

impl Berth {
    /// How many connections the thread has, or will have in an instant.
    fn holds(&self) -> u64 {
        self.lane.connections() + self.coming.load(Relaxed)
    }
}

/// A place that is kept for connections on one thread.
pub(super) struct Place {
    thread: usize,
    permit: mpsc::OwnedPermit<Vec<Detached>>,
    held: mpsc::Sender<Infallible>,
    /// How many connections the thread has, with these.
    holds: u64,
    for_these: Vec<Detached>,
}

impl Place {
    fn new(thread: usize, berth: &Berth, permit: mpsc::OwnedPermit<Vec<Detached>>) -> Option<Self> {
        // A thread that has nothing any more is about to end.
        let held = berth.held.upgrade()?;
        Some(Self { thread, permit, held, holds: berth.holds(), for_these: Vec::new() })
    }
}

/// Where connections arrive.
pub(super) struct Berths {
    threads: Vec<Berth>,
    listeners: Vec<detached::Known>,
    drain: DrainControl,
}

impl Berths {
    pub(super) fn new(threads: Vec<Berth>, listeners: &[Listener], drain: DrainControl) -> Self {
        let listeners = listeners.iter().map(|listener| (listener.name, listener.unix)).collect();
        Self { threads, listeners, drain }
    }
}

impl Harbour for Berths {
    type Parcel = Detached;

    /// On each thread that has room.
    type Room = Vec<Place>;

    async fn room(&self) -> Vec<Place> {
        let threads = || self.threads.iter().enumerate().filter(|(_, berth)| berth.held.strong_count() > 0);
        let free = threads().filter_map(|(thread, berth)| {
            let permit = berth.inbox.clone().try_reserve_owned().ok()?;
            Place::new(thread, berth, permit)
        });
        let places: Vec<Place> = free.collect();
        if !places.is_empty() {
            return places;
        }
        // Whichever is first. What it makes is kept: others may wait for the same, and were there before.
        let waits = threads().map(|(thread, berth)| {
            Box::pin(async move {
                let permit = berth.inbox.clone().reserve_owned().await.ok()?;
                Place::new(thread, berth, permit)
            })
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() { places } else { select_all(waits).await.0.into_iter().collect() }
    }

    fn berth<'a>(
        &self,
        mut places: Vec<Place>,
        come: impl Iterator<Item = (OwnedFd, &'a [u8])>,
    ) -> (Vec<Result<(), NoBerth>>, Settle) {
        let answers = come.map(|(socket, papers)| {
            let place = places.iter_mut().min_by_key(|place| place.holds).ok_or(NoBerth::Full)?;
            let here = (place.thread, place.held.clone());
            let connection = Detached::read(papers, socket, &self.listeners, here).ok_or(NoBerth::Unknown)?;
            place.for_these.push(connection);
            place.holds += 1;
            Ok(())
        });
        let answers = answers.collect();
        places.retain(|place| !place.for_these.is_empty());
        for place in &places {
            self.threads[place.thread].coming.fetch_add(place.for_these.len() as u64, Relaxed);
        }
        let settle = move || {
            for Place { permit, for_these, .. } in places {
                permit.send(for_these);
            }
        };
        (answers, Box::new(settle))
    }

    fn holds(&self) -> u64 {
        self.threads.iter().map(Berth::holds).sum()
    }

    fn invite(&self, connections: u64) {
        self.drain.invite(connections);
    }

    fn tell(&self, given: Vec<Given<Detached>>) {
        let mut returns: Vec<Returned> = self.threads.iter().map(|_| Returned::default()).collect();
        for given in given {
            match given {
                Given::Taken(Detached { thread, held, .. }) => {
                    returns[thread].taken += 1;
                    returns[thread].held = Some(held);
                }
                Given::Back(connection) => returns[connection.thread].back.push(connection),
            }
        }
        for (berth, returned) in self.threads.iter().zip(returns) {
            if returned.taken > 0 || !returned.back.is_empty() {
                // The thread lives as long as the process.
                let _ = berth.returns.send(returned);
            }
        }
    }
}

/// Begins with what arrives, on the thread that this runs on, and goes on with what comes back. What has nothing to do
/// rests. `seat` makes a seat for each.
pub(super) async fn adopt(
    inbox: Inbox,
    mut dormitory: Dormitory,
    mut drain: DrainSignal,
    gate: Arc<Gate>,
    seat: impl Fn(mpsc::Sender<Infallible>) -> Seat + Sync,
) {
    let Inbox { mut arrivals, mut returns, mut tired, coming } = inbox;
    let lane = dormitory.lane;
    let mut phase = drain.phase();
    let mut look = tokio::time::interval(LOOK);
    let wakes = |connection| begin(connection, &seat, Back::No);
    loop {
        tokio::select! {
            // News first: they say what becomes of those that come.
            biased;
            news = drain.next() => {
                phase = news;
                match phase {
                    Phase::Serving => {
                        let invited = (0..dormitory.len()).take_while(|_| drain.takes_invitation()).count();
                        gate.give(dormitory.any(invited));
                    }
                    Phase::Draining { ending, .. } => {
                        let mut all = dormitory.close();
                        loop {
                            let some: Vec<_> = all.by_ref().take(AT_ONCE).collect();
                            if some.is_empty() {
                                break;
                            }
                            if ending == Ending::HandOver { gate.give(some) } else { some.into_iter().for_each(wakes) }
                            // Others of this thread have something to do.
                            tokio::task::yield_now().await;
                        }
                    }
                    Phase::Cut => dormitory.close().for_each(wakes),
                }
            }
            Some(returned) = returns.recv() => {
                lane.handed_over(returned.taken);
                for it in returned.back {
                    if phase == Phase::Serving { settle(&mut dormitory, it, wakes) } else { begin(it, &seat, Back::Yes) }
                }
            }
            awake = dormitory.awake(), if !dormitory.is_empty() => awake.into_iter().for_each(wakes),
            Some(arrived) = arrivals.recv() => {
                let count = arrived.len() as u64;
                lane.taken_over(count);
                for it in arrived {
                    if phase == Phase::Serving { settle(&mut dormitory, it, wakes) } else { wakes(it) }
                }
                coming.fetch_sub(count, Relaxed);
            }
            Some(it) = tired.recv() => {
                tracing::trace!(listener = it.connection.listener, requests = it.history.requests, "connection rests");
                if phase == Phase::Serving { settle(&mut dormitory, it, wakes) } else { wakes(it) }
            }
            _ = look.tick(), if !dormitory.is_empty() => {
                dormitory.out_of_patience(Instant::now()).into_iter().for_each(wakes);
            }
        }
    }
}

/// Lets a connection rest that has nothing to do.
fn settle(dormitory: &mut Dormitory, connection: Detached, wakes: impl Fn(Detached)) {
    let rests = connection.history.may_park(&connection.unread);
    let awake = if rests { dormitory.take_in(connection) } else { Some(connection) };
    awake.into_iter().for_each(wakes);
}

/// Whether nobody else has taken a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    Yes,
    No,
}

/// Begins to serve a connection.
fn begin(connection: Detached, seat: &impl Fn(mpsc::Sender<Infallible>) -> Seat, back: Back) {
    let unix = connection.connection.peer == Address::Unix;
    let Detached { socket, connection, opened, unread, history, held, .. } = connection;
    let known = Known { connection: Arc::new(connection), opened };
    let mut seat = seat(held);
    if back == Back::Yes {
        seat.drain = seat.drain.staying();
    }
    let begun = if unix {
        serve::<UnixStream>(socket, unread, history, known, seat)
    } else {
        serve::<TcpStream>(socket, unread, history, known, seat)
    };
    if let Err(error) = begun {
        warn(&error, "a connection that was taken over can't be served");
    }
}

fn serve<S: Socket>(socket: OwnedFd, unread: Bytes, history: History, known: Known, seat: Seat) -> io::Result<()> {
    check(&socket)?;
    let transport = Stream::<S>::shared(socket)?;
    let age_ms = u64::try_from(known.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::trace!(listener = known.connection.listener, age_ms, requests = history.requests, "connection taken over");
    tokio::spawn(see_to(Handover { transport, unread, history }, known, seat));
    Ok(())
}

/// Checks that what another worker has sent can keep this one from nothing: it is a connection, and no call on it waits.
fn check(socket: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM || socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no connection"));
    }
    socket.set_nonblocking(true)
}

fn warn(error: &io::Error, message: &str) {
    tracing::warn!(error = chain(error), "{message}");
}

#[cfg(test)]
mod tests;
