//! A connection in nobody's care, and the papers that it travels with.
//!
//! Owns what is said of a connection to the worker that goes on with it. Both are the same binary.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::papers::{End, MAX_HEAD, Papers};
use crate::handover::{MAX_PAPERS, Parcel};
use crate::http::{History, MAX_UNREAD};
use app_host_services::loader::{Address, Connection};

const _: () = assert!(MAX_HEAD + MAX_UNREAD <= MAX_PAPERS);

/// A connection in nobody's care: on its way from one worker to another, or at rest.
#[derive(Debug)]
pub(super) struct Detached {
    pub(super) socket: OwnedFd,
    pub(super) connection: Connection,
    pub(super) opened: Instant,
    /// What has been read of it and nobody has seen.
    pub(super) unread: Bytes,
    pub(super) history: History,
    /// The serving thread that has it, or has had it last.
    pub(super) thread: usize,
    /// Keeps that thread from being done before it is known what becomes of this.
    pub(super) held: mpsc::Sender<Infallible>,
}

/// A listener's name, and whether it is a Unix socket.
pub(super) type Known = (&'static str, bool);

impl Detached {
    /// A connection with these papers, for a thread. `None` if they can't be read, or nobody here knows the listener.
    pub(super) fn read(
        papers: &[u8],
        socket: OwnedFd,
        listeners: &[Known],
        (thread, held): (usize, mpsc::Sender<Infallible>),
    ) -> Option<Self> {
        let (papers, unread) = Papers::read(papers)?;
        let Papers { listener, peer, local, age, history } = papers;
        let &(listener, unix) = listeners.iter().find(|(name, _)| *name == listener)?;
        let (peer, local) = match (peer, local) {
            (Some(peer), Some(local)) if !unix => (Address::Tcp(peer.address()), Address::Tcp(local.address())),
            (None, None) if unix => (Address::Unix, Address::Unix),
            // A listener of this name was of another kind.
            _ => return None,
        };
        let connection = Connection { peer, local, listener, scheme: "http" };
        let now = Instant::now();
        let opened = now.checked_sub(age).unwrap_or(now);
        let unread = Bytes::copy_from_slice(unread);
        Some(Self { socket, connection, opened, unread, history, thread, held })
    }
}

fn end(address: Address) -> Option<End> {
    match address {
        Address::Tcp(address) => Some(End::of(address)),
        Address::Unix => None,
    }
}

impl Parcel for Detached {
    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn write_papers(&self, packet: &mut Vec<u8>) -> bool {
        let Self { connection, opened, history, unread, .. } = self;
        let papers = Papers {
            listener: connection.listener,
            peer: end(connection.peer),
            local: end(connection.local),
            age: opened.elapsed(),
            history: *history,
        };
        let begin = packet.len();
        let written = papers.write(packet) && packet.len() - begin <= MAX_HEAD;
        packet.extend_from_slice(unread);
        written && unread.len() <= MAX_UNREAD
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::{Handover, Spoken};

    /// An idle connection that has had so many requests.
    pub(crate) fn idle(socket: OwnedFd, requests: u64, held: mpsc::Sender<Infallible>) -> Detached {
        let connection = Connection { peer: Address::Unix, local: Address::Unix, listener: "test", scheme: "http" };
        let history = History { spoken: Spoken::Http1, requests, ..Handover::accepted(()).history };
        Detached { socket, connection, opened: Instant::now(), unread: Bytes::new(), history, thread: 0, held }
    }

    #[test]
    fn papers_are_read_as_they_were_written() {
        let null = || std::fs::File::open("/dev/null").unwrap().into();
        let (held, _holds) = mpsc::channel(1);
        let mut sent = idle(null(), u64::MAX, held.clone());
        let name: &'static str = "ü\"".repeat(85).leak();
        let peer = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap();
        let (peer, local) = (Address::Tcp(peer), Address::Tcp("127.0.0.1:1".parse().unwrap()));
        sent.connection = Connection { peer, local, listener: name, scheme: "http" };
        sent.opened -= Duration::from_secs(3);
        sent.history.ticks = 2;
        sent.history.next_tick = Duration::from_millis(1234);
        sent.unread = Bytes::from_static(vec![0xff; MAX_UNREAD].leak());
        let mut packet = vec![1, 2, 3];
        assert!(sent.write_papers(&mut packet));
        let papers = &packet[3..];
        assert!(papers.len() <= MAX_PAPERS);
        let read = |papers: &[u8], listeners: &[Known]| Detached::read(papers, null(), listeners, (7, held.clone()));

        let found = read(papers, &[("other", false), (name, false)]).unwrap();
        assert_eq!((found.connection, found.history, found.thread), (sent.connection.clone(), sent.history, 7));
        assert_eq!(found.unread, sent.unread);
        assert!(found.opened.elapsed() >= Duration::from_secs(3) && found.opened.elapsed() < Duration::from_secs(63));

        assert!(read(papers, &[("other", false)]).is_none(), "the listener is not here");
        assert!(read(papers, &[(name, true)]).is_none(), "the listener is another");
        for length in 0..100 {
            assert!(read(&papers[..length], &[(name, false)]).is_none());
        }
        // Nobody's clock goes so far.
        sent.history.ticks = u32::MAX;
        sent.history.next_tick = Duration::MAX;
        let mut papers = Vec::new();
        assert!(sent.write_papers(&mut papers));
        let mut found = read(&papers, &[(name, false)]).unwrap();
        assert!(!found.history.waits_on() && Instant::now().checked_add(found.history.next_tick).is_some());

        sent.unread = Bytes::from_static(vec![0xff; MAX_UNREAD + 1].leak());
        assert!(!sent.write_papers(&mut Vec::new()), "too much to travel");
    }
}
