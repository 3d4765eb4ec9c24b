//! Connections that this worker takes over from others, and the papers that they travel with.
//!
//! Owns what is said of a connection to the worker that goes on with it, and the place that it gets there: with
//! the serving thread that has the fewest. How it travels is for `handover`, how it is served for `accept`.

use std::convert::Infallible;
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
use super::stream::{Socket, Stream};
use crate::handover::{Harbour, MAX_PAPERS, NoBerth, Parcel};
use crate::http::{DrainControl, Handover, History, MAX_UNREAD};
use crate::loader::{Address, Connection};
use crate::sys::stats::Lane;

/// How many connections wait for one serving thread at most.
const INBOX: usize = 1024;

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
pub(super) fn write(known: &Known, history: History, unread: &[u8]) -> Option<Vec<u8>> {
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
    socket: OwnedFd,
    unix: bool,
    known: Known,
    unread: Bytes,
    history: History,
    /// Keeps the thread from being done before it has begun with this.
    held: mpsc::Sender<Infallible>,
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
    /// How many connections the thread has, or will have in an instant.
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

    fn holds(&self) -> u64 {
        self.threads.iter().map(Berth::holds).sum()
    }

    fn invite(&self, connections: u64) {
        self.drain.invite(connections);
    }
}

/// Begins with what arrives, on the thread that this runs on. `seat` makes one for each.
pub(super) async fn adopt(mut inbox: mpsc::Receiver<Arrival>, seat: impl Fn(mpsc::Sender<Infallible>) -> Seat) {
    while let Some(Arrival { socket, unix, known, unread, history, held }) = inbox.recv().await {
        let seat = seat(held);
        seat.lane.taken_over();
        let begun = if unix {
            begin::<UnixStream>(socket, unread, history, known, seat)
        } else {
            begin::<TcpStream>(socket, unread, history, known, seat)
        };
        if let Err(error) = begun {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a connection that was taken over can't be served");
        }
    }
}

fn begin<S: Socket>(socket: OwnedFd, unread: Bytes, history: History, known: Known, seat: Seat) -> std::io::Result<()> {
    let transport = Stream::<S>::shared(socket)?;
    let age_ms = u64::try_from(known.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::trace!(listener = known.connection.listener, age_ms, requests = history.requests, "connection taken over");
    tokio::spawn(see_to(Handover { transport, unread, history }, known, seat));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
