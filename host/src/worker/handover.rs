//! Connections that leave this worker, those that it takes over from others, and the papers that they travel with.
//!
//! Owns what is said of a connection to the worker that goes on with it, and the place that it gets there: with
//! the serving thread that has the fewest. How it travels is for `handover`, how it is served for `accept`.
//!
//! A connection that leaves has no task any more: what is known of it waits with the road, and comes back to its
//! thread's [`adopt`] when the road says what has become of it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::Listener;
use super::accept::{Known, Seat, see_to};
use super::rest::{Dormitory, LOOK};
use super::stream::{Socket, Stream};
use crate::causes::chain;
use crate::handover::{Given, Harbour, MAX_PAPERS, NoBerth, Parcel, Road};
use crate::http::{DrainControl, DrainSignal, Ending, Handover, History, MAX_UNREAD, Phase};
use crate::loader::{Address, Connection};
use crate::sys::stats::Lane;

/// How many connections wait for one serving thread at most.
const INBOX: usize = 1024;

/// How many connections leave at once.
const AT_ONCE: usize = 64;

/// How long the first part of the papers is at most: it names a listener, among a few numbers.
const MAX_HEAD: usize = MAX_PAPERS - MAX_UNREAD - 2;

/// What a connection travels with: the length of this in two bytes, this, and what has been read of the
/// connection.
#[derive(Debug, Serialize, Deserialize)]
struct Papers {
    listener: String,
    /// The ends of a TCP connection.
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    /// How long ago it was accepted, wherever that was.
    age: Duration,
    history: History,
}

/// Writes a connection's papers; `None` for one that can't travel.
fn write(known: &Known, history: History, unread: &[u8]) -> Option<Vec<u8>> {
    let Known { connection, opened } = known;
    let papers = Papers {
        listener: connection.listener.to_owned(),
        peer: address(connection.peer),
        local: address(connection.local),
        age: opened.elapsed(),
        history,
    };
    let head = serde_json::to_vec(&papers).ok().filter(|head| head.len() <= MAX_HEAD && unread.len() <= MAX_UNREAD)?;
    let mut all = Vec::with_capacity(2 + head.len() + unread.len());
    all.extend_from_slice(&u16::try_from(head.len()).ok()?.to_ne_bytes());
    all.extend_from_slice(&head);
    all.extend_from_slice(unread);
    Some(all)
}

fn read(papers: &[u8]) -> Option<(Papers, Bytes)> {
    let (length, rest) = papers.split_first_chunk()?;
    let (head, unread) = rest.split_at_checked(u16::from_ne_bytes(*length).into())?;
    Some((serde_json::from_slice(head).ok()?, Bytes::copy_from_slice(unread)))
}

const fn address(address: Address) -> Option<SocketAddr> {
    match address {
        Address::Tcp(address) => Some(address),
        Address::Unix => None,
    }
}

/// A connection that has come here.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) socket: OwnedFd,
    unix: bool,
    known: Known,
    unread: Bytes,
    pub(super) history: History,
    /// Keeps the thread from being done before it has begun with this.
    held: mpsc::Sender<Infallible>,
}

/// What has become of a connection that has left its thread.
#[derive(Debug)]
pub(super) enum Returned {
    /// Another worker has it.
    Taken(mpsc::Sender<Infallible>),
    /// Nobody takes it: it goes on here.
    Back(Arrival),
}

/// The way out of a serving thread for its connections.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) road: Road,
    /// The way back. What is on it are connections that this worker has had.
    pub(super) returns: mpsc::UnboundedSender<Returned>,
}

/// The way to one serving thread.
pub(super) struct Berth {
    pub(super) inbox: mpsc::Sender<Arrival>,
    pub(super) held: mpsc::WeakSender<Infallible>,
    pub(super) lane: &'static Lane,
}

/// A thread's inbox.
pub(super) fn inbox() -> (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>) {
    mpsc::channel(INBOX)
}

impl Berth {
    /// How many connections the thread has, or will have in an instant: those with a place in its inbox count.
    fn holds(&self) -> u64 {
        self.lane.connections() + (self.inbox.max_capacity() - self.inbox.capacity()) as u64
    }
}

/// Where connections arrive.
pub(super) struct Berths {
    threads: Vec<Berth>,
    /// By name, and whether it is a Unix socket.
    listeners: Vec<(&'static str, bool)>,
    drain: DrainControl,
}

impl Berths {
    pub(super) fn new(threads: Vec<Berth>, listeners: &[Listener], drain: DrainControl) -> Self {
        let listeners = listeners.iter().map(|listener| (listener.name, listener.unix)).collect();
        Self { threads, listeners, drain }
    }
}

impl Harbour for Berths {
    fn berth(&self, parcel: Parcel) -> Result<Box<dyn FnOnce()>, NoBerth> {
        let Parcel { socket, papers } = parcel;
        let (papers, unread) = read(&papers).ok_or(NoBerth::Unknown)?;
        let Papers { listener, peer, local, age, history } = papers;
        let &(listener, unix) = self.listeners.iter().find(|(name, _)| **name == *listener).ok_or(NoBerth::Unknown)?;
        let end = |address: Option<SocketAddr>| match address {
            Some(address) if !unix => Ok(Address::Tcp(address)),
            None if unix => Ok(Address::Unix),
            // A listener of this name was of another kind.
            _ => Err(NoBerth::Unknown),
        };
        let connection = Connection { peer: end(peer)?, local: end(local)?, listener, scheme: "http" };
        let opened = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        let known = Known { connection: Arc::new(connection), opened };
        let mut threads: Vec<&Berth> = self.threads.iter().collect();
        threads.sort_by_key(|berth| berth.holds());
        for berth in threads {
            // A thread that has nothing any more is about to end.
            let Some(held) = berth.held.upgrade() else { continue };
            let Ok(place) = berth.inbox.clone().try_reserve_owned() else { continue };
            return Ok(Box::new(move || {
                place.send(Arrival { socket, unix, known, unread, history, held });
            }));
        }
        Err(NoBerth::Full)
    }

    async fn room(&self, parcels: usize) {
        let living = || self.threads.iter().filter(|berth| berth.held.strong_count() > 0);
        if living().any(|berth| berth.inbox.capacity() >= parcels) {
            return;
        }
        if let Some(berth) = living().max_by_key(|berth| berth.inbox.capacity()) {
            // Given back at once. An error is what the berths say.
            let _ = berth.inbox.reserve_many(parcels.min(INBOX)).await;
        }
    }

    fn holds(&self) -> u64 {
        self.threads.iter().map(Berth::holds).sum()
    }

    fn invite(&self, connections: u64) {
        self.drain.invite(connections);
    }
}

/// Hands a connection over, which ends here.
pub(super) fn leave<S: Socket>(leaving: Handover<Stream<S>>, known: Known, seat: Seat) {
    let Handover { transport, unread, history } = leaving;
    let Seat { lane, gate, held, .. } = seat;
    match transport.leave() {
        Ok(socket) => gate.give(Arrival { socket, unix: S::UNIX, known, unread, history, held }),
        Err(error) => {
            warn(&error, "a connection could not be handed over, and is closed");
            lane.dismissed();
        }
    }
}

impl Gate {
    /// Hands a connection over. What becomes of it is returned to its thread, which lives as long as the process.
    fn give(&self, leaving: Arrival) {
        let returns = self.returns.clone();
        let Some(papers) = write(&leaving.known, leaving.history, &leaving.unread) else {
            let _ = returns.send(Returned::Back(leaving));
            return;
        };
        let Arrival { socket, unix, known, unread, history, held } = leaving;
        self.road.give(Parcel { socket, papers }, move |given| {
            let returned = match given {
                Given::Taken => Returned::Taken(held),
                Given::Back(Parcel { socket, .. }) => {
                    Returned::Back(Arrival { socket, unix, known, unread, history, held })
                }
            };
            let _ = returns.send(returned);
        });
    }
}

/// Begins with what arrives, on the thread that this runs on, and goes on with what comes back. What has nothing to do
/// rests. `seat` makes a seat for each.
pub(super) async fn adopt(
    mut inbox: mpsc::Receiver<Arrival>,
    mut returned: mpsc::UnboundedReceiver<Returned>,
    mut drain: DrainSignal,
    gate: Arc<Gate>,
    lane: &'static Lane,
    seat: impl Fn(mpsc::Sender<Infallible>) -> Seat + Sync,
) {
    let mut dormitory = match Dormitory::new(lane) {
        Ok(dormitory) => dormitory,
        Err(error) => return warn(&error, "no connection can be taken over"),
    };
    let mut phase = drain.phase();
    let mut look = tokio::time::interval(LOOK);
    let wakes = |arrival| begin(arrival, &seat, Back::No);
    loop {
        tokio::select! {
            // News first: they say what becomes of those that come.
            biased;
            news = drain.next() => {
                phase = news;
                match phase {
                    Phase::Serving => while !dormitory.is_empty() && drain.takes_invitation() {
                        dormitory.any().into_iter().for_each(|it| gate.give(it));
                    },
                    Phase::Draining { ending, .. } => for (count, it) in dormitory.close().enumerate() {
                        // Others of this thread have something to do.
                        if count % AT_ONCE == 0 {
                            tokio::task::yield_now().await;
                        }
                        if ending == Ending::HandOver { gate.give(it) } else { wakes(it) }
                    },
                    Phase::Cut => dormitory.close().for_each(wakes),
                }
            }
            Some(returned) = returned.recv() => match returned {
                Returned::Taken(_held) => lane.handed_over(),
                Returned::Back(arrival) if phase == Phase::Serving => settle(&mut dormitory, arrival, wakes),
                Returned::Back(arrival) => begin(arrival, &seat, Back::Yes),
            },
            Some(arrival) = inbox.recv() => {
                lane.taken_over();
                if phase == Phase::Serving { settle(&mut dormitory, arrival, wakes) } else { wakes(arrival) }
            }
            awake = dormitory.awake(), if !dormitory.is_empty() => awake.into_iter().for_each(wakes),
            _ = look.tick(), if !dormitory.is_empty() => {
                dormitory.out_of_patience(Instant::now()).into_iter().for_each(wakes);
            }
        }
    }
}

/// Lets a connection rest that has nothing to do.
fn settle(dormitory: &mut Dormitory, arrival: Arrival, wakes: impl Fn(Arrival)) {
    let rests = arrival.unread.is_empty() && arrival.history.is_idle();
    let awake = if rests { dormitory.take_in(arrival).err() } else { Some(arrival) };
    awake.into_iter().for_each(wakes);
}

/// Whether nobody else has taken a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    Yes,
    No,
}

/// Begins to serve a connection.
fn begin(arrival: Arrival, seat: &impl Fn(mpsc::Sender<Infallible>) -> Seat, back: Back) {
    let Arrival { socket, unix, known, unread, history, held } = arrival;
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
    let transport = Stream::<S>::shared(socket)?;
    let age_ms = u64::try_from(known.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::trace!(listener = known.connection.listener, age_ms, requests = history.requests, "connection taken over");
    tokio::spawn(see_to(Handover { transport, unread, history }, known, seat));
    Ok(())
}

fn warn(error: &io::Error, message: &str) {
    tracing::warn!(error = chain(error), "{message}");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::Spoken;

    /// An idle connection that has had so many requests.
    pub(in crate::worker) fn arrival(socket: OwnedFd, requests: u64, held: mpsc::Sender<Infallible>) -> Arrival {
        let connection = Connection { peer: Address::Unix, local: Address::Unix, listener: "test", scheme: "http" };
        let known = Known { connection: Arc::new(connection), opened: Instant::now() };
        let history = History { spoken: Spoken::Http1, requests, ..Handover::accepted(()).history };
        Arrival { socket, unix: true, known, unread: Bytes::new(), history, held }
    }

    #[test]
    fn papers_are_read_as_they_were_written() {
        let peer = "[fe80::1%3]:8080".parse().unwrap();
        let connection = Connection {
            peer: Address::Tcp(peer),
            local: Address::Tcp("127.0.0.1:1".parse().unwrap()),
            listener: "unix:\"ü",
            scheme: "http",
        };
        let known = Known { connection: Arc::new(connection), opened: Instant::now() };
        let mut history = Handover::accepted(()).history;
        history.requests = u64::MAX;
        let unread = vec![0xff; MAX_UNREAD];
        let papers = write(&known, history, &unread).unwrap();
        assert!(papers.len() <= MAX_PAPERS);
        let (found, rest) = read(&papers).unwrap();
        assert_eq!((found.peer, found.listener.as_str(), found.history), (Some(peer), "unix:\"ü", history));
        assert_eq!(rest, unread);
        assert!(write(&known, history, &vec![0; MAX_UNREAD + 1]).is_none());
        for length in 0..100 {
            assert!(read(&papers[..length]).is_none());
        }
    }
}
