//! A connection outside of any runtime: on its way to another worker, or parked.
//!
//! Owns what another worker must know of the connection: how it becomes a [`ConnectionRecord`] and is made from one.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use app_abi::Resume;
use app_host_services::loader::{Address, Client, Connection, TlsInfo};
use app_host_tls::State;

use crate::addresses::Permit;
use crate::connection::{Detected, History, Http2Settings, Http2Snapshot, Legacy, MAX_UNREAD};
use crate::record::{ClientRecord, ConnectionRecord, Endpoint, MAX_HEAD, MAX_TLS, MAX_TLS_BYTES, TlsRecord};
use crate::tls::{SuspendedTls, Travelling};
use crate::transfer::{MAX_RECORD, Transferable};

const _: () = assert!(MAX_HEAD + MAX_TLS + Resume::MOST + MAX_UNREAD <= MAX_RECORD);

/// A connection that has no task: on its way from one worker to another, or parked.
#[derive(Debug)]
pub(super) struct Detached {
    pub(super) socket: OwnedFd,
    pub(super) connection: Connection,
    pub(super) opened: Instant,
    /// Its client's, if connections are counted by client.
    pub(super) permit: Option<Box<Permit>>,
    /// What has been read of it and was not handed to HTTP.
    pub(super) unread: Bytes,
    pub(super) history: History,
    /// What the app has left for whoever goes on.
    pub(super) left: Legacy,
    /// What HTTP/2 has to know, if it is that.
    pub(super) snapshot: Option<Box<Http2Snapshot>>,
    /// Its TLS, if it has one.
    pub(super) tls: Option<Box<Travelling>>,
    /// The serving thread that has the connection, or had it last.
    pub(super) thread: usize,
    /// Keeps that thread from being drained before it is known what became of the connection.
    pub(super) held: mpsc::Sender<Infallible>,
}

/// What a listener is found by when a connection of another worker arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerKey {
    pub(super) name: &'static str,
    /// Whether it is a Unix socket.
    pub(super) unix: bool,
    /// Whether its clients speak TLS.
    pub(super) tls: bool,
    /// Whether its connections begin with a header of the PROXY protocol.
    pub(super) announced: bool,
}

/// What a connection finds in a worker that it comes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    pub(super) listeners: &'a [ListenerKey],
    /// The settings of its HTTP/2, if that goes on with connections of others.
    pub(super) http2: Option<&'a Http2Settings>,
}

impl Detached {
    /// The connection of this record, for a thread. `None` if the record can't be read, or this worker does not have what
    /// it needs.
    pub(super) fn read(
        record: &[u8],
        socket: OwnedFd,
        here: Here<'_>,
        (thread, held): (usize, mpsc::Sender<Infallible>),
    ) -> Option<Self> {
        let (record, unread) = ConnectionRecord::read(record)?;
        let ConnectionRecord { listener, peer, local, age, history, tls, client, left, snapshot } = record;
        let &ListenerKey { name: listener, unix, tls: shakes_hands, announced } =
            here.listeners.iter().find(|key| key.name == listener)?;
        // A listener of this name waits for no header here.
        if history.detected == Detected::Unannounced && !announced {
            return None;
        }
        let fits = match (&snapshot, here.http2) {
            (Some(snapshot), Some(ours)) => history.detected == Detected::Http2 && snapshot.fits(ours),
            (Some(_), None) => false,
            (None, _) => history.detected != Detected::Http2,
        };
        if !fits {
            return None;
        }
        let (peer, local) = match (peer, local) {
            (Some(peer), Some(local)) if !unix => (Address::Tcp(peer.address()), Address::Tcp(local.address())),
            (None, None) if unix => (Address::Unix, Address::Unix),
            // A listener of this name was of another kind.
            _ => return None,
        };
        let (tls, info) = match tls {
            None => (None, None),
            // A listener of this name has no certificate here.
            Some(TlsRecord::Nothing(_)) if !shakes_hands => return None,
            Some(TlsRecord::Nothing(read)) => (Some(Travelling::Nothing(read.to_vec())), None),
            Some(TlsRecord::Records { version, server_name, client_certificate, state, raw, out }) => {
                let suspended = SuspendedTls { state: State::read(state)?, raw: raw.to_vec(), out: out.to_vec() };
                if raw.len() > MAX_TLS_BYTES {
                    return None;
                }
                let info = TlsInfo {
                    version,
                    server_name: server_name.map(Into::into),
                    client_certificate: client_certificate.map(Into::into),
                };
                (Some(Travelling::Records(suspended)), Some(Arc::new(info)))
            }
        };
        let connection = Connection { peer, local, listener, tls: info, client: client.map(read_client) };
        let now = Instant::now();
        let opened = now.checked_sub(age).unwrap_or(now);
        let unread = Bytes::copy_from_slice(unread);
        let (left, snapshot, tls) = (left.map(Into::into), snapshot.map(Box::new), tls.map(Box::new));
        Some(Self { socket, connection, opened, permit: None, unread, history, left, snapshot, tls, thread, held })
    }
}

fn end(address: Address) -> Option<Endpoint> {
    match address {
        Address::Tcp(address) => Some(Endpoint::of(address)),
        Address::Unix => None,
    }
}

/// What another worker must know of a client. It has no host: that is told with each request.
fn write_client(client: &Client) -> ClientRecord {
    let Client { address, encrypted, tls, .. } = client;
    ClientRecord { address: end(*address), encrypted: *encrypted, tls: tls.as_deref().cloned() }
}

fn read_client(record: ClientRecord) -> Arc<Client> {
    let ClientRecord { address, encrypted, tls } = record;
    let address = address.map_or(Address::Unix, |end| Address::Tcp(end.address()));
    Arc::new(Client { address, encrypted, host: None, tls: tls.map(Arc::new) })
}

impl Transferable for Detached {
    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn write_record(&self, packet: &mut Vec<u8>) -> bool {
        let Self { connection, opened, history, unread, left, snapshot, tls, .. } = self;
        let info = connection.tls.as_deref();
        let tls = match tls.as_deref() {
            None => None,
            Some(Travelling::Nothing(read)) => Some(TlsRecord::Nothing(read)),
            Some(Travelling::Records(SuspendedTls { state, raw, out })) => Some(TlsRecord::Records {
                version: info.map_or(0, |info| info.version),
                server_name: info.and_then(|info| info.server_name.as_deref()),
                client_certificate: info.and_then(|info| info.client_certificate.as_deref()),
                state: state.expose(),
                raw,
                out,
            }),
        };
        let most = if tls.is_some() { MAX_HEAD + MAX_TLS } else { MAX_HEAD };
        let record = ConnectionRecord {
            listener: connection.listener,
            peer: end(connection.peer),
            local: end(connection.local),
            age: opened.elapsed(),
            history: *history,
            tls,
            client: connection.client.as_deref().map(write_client),
            left: left.as_deref(),
            snapshot: snapshot.as_deref().copied(),
        };
        let begin = packet.len();
        let length = left.as_ref().map_or(0, |left| left.len());
        let written = record.write(packet) && packet.len() - begin <= most + length;
        packet.extend_from_slice(unread);
        written && unread.len() <= MAX_UNREAD && length <= Resume::MOST
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use app_host_core::proxied::ProxiedTls;

    use super::*;
    use crate::connection::{Limits, Suspended, http2_settings};

    /// An idle connection that has had this many requests.
    pub(crate) fn idle(socket: OwnedFd, requests: u64, held: mpsc::Sender<Infallible>) -> Detached {
        let connection =
            Connection { peer: Address::Unix, local: Address::Unix, listener: "test", tls: None, client: None };
        let history = History { detected: Detected::Http1, requests, ..Suspended::accepted(()).history };
        let opened = Instant::now();
        let (unread, left, snapshot) = (Bytes::new(), None, None);
        Detached {
            socket,
            connection,
            opened,
            permit: None,
            unread,
            history,
            left,
            snapshot,
            tls: None,
            thread: 0,
            held,
        }
    }

    /// The longest that there can be, and it must be this worker's.
    #[test]
    fn a_snapshot_is_read_where_it_fits() {
        let null = || std::fs::File::open("/dev/null").unwrap().into();
        let (held, _holds) = mpsc::channel(1);
        let ours = (1..=8).fold(Http2Settings::NONE, |all, number| all.with(number, u32::MAX));
        let [last, most] = [0x7fff_ffff; 2];
        let snapshot =
            Http2Snapshot { last, send_window: most, credit: most, client: ours, ours, moves: u32::MAX, proven: true };
        let listeners = &[ListenerKey { name: "test", unix: true, tls: false, announced: false }];
        let mut sent = idle(null(), u64::MAX, held.clone());
        sent.connection.listener = "test";
        let mut read = |snapshot: Option<Http2Snapshot>, detected, http2: Option<&Http2Settings>| {
            (sent.snapshot, sent.history.detected) = (snapshot.map(Box::new), detected);
            let mut record = Vec::new();
            assert!(sent.write_record(&mut record));
            Detached::read(&record, null(), Here { listeners, http2 }, (0, held.clone()))
                .map(|it| it.snapshot.map(|it| *it))
        };
        assert_eq!(read(Some(snapshot), Detected::Http2, Some(&ours)), Some(Some(snapshot)));
        assert_eq!(read(None, Detected::Http1, Some(&ours)), Some(None));
        assert_eq!(read(Some(snapshot), Detected::Http2, None), None, "this worker goes on with none");
        assert_eq!(read(Some(snapshot), Detected::Http2, Some(&ours.with(3, 7))), None, "it has other settings");
        assert_eq!(read(Some(snapshot), Detected::Http1, Some(&ours)), None);
        assert_eq!(read(None, Detected::Http2, Some(&ours)), None);
        assert_eq!(
            read(Some(Http2Snapshot { last: 2, ..snapshot }), Detected::Http2, Some(&ours)),
            None,
            "it is no client's"
        );
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let null = || std::fs::File::open("/dev/null").unwrap().into();
        let (held, _holds) = mpsc::channel(1);
        let mut sent = idle(null(), u64::MAX, held.clone());
        let name: &'static str = "ü\"".repeat(85).leak();
        let peer = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap();
        let (peer, local) = (Address::Tcp(peer), Address::Tcp("127.0.0.1:1".parse().unwrap()));
        let text = || "\u{e4}".repeat(127);
        let told = ProxiedTls {
            ends_there: true,
            version: Some(text().into()),
            server_name: Some(text().into()),
            alpn: Some(text().into_bytes().into()),
            client_name: Some(text().into()),
        };
        let client = Client { address: peer, encrypted: true, host: None, tls: Some(Arc::new(told)) };
        sent.connection = Connection { peer, local, listener: name, tls: None, client: Some(Arc::new(client)) };
        sent.opened -= Duration::from_secs(3);
        sent.history.waited = Duration::from_mins(1);
        sent.history.next_look = Duration::from_millis(1234);
        sent.unread = Bytes::from_static(vec![0xff; MAX_UNREAD].leak());
        sent.left = Some(vec![7; Resume::MOST].into());
        let mut packet = vec![1, 2, 3];
        assert!(sent.write_record(&mut packet));
        let record = &packet[3..];
        assert!(record.len() <= MAX_RECORD);
        let key = |name, unix| ListenerKey { name, unix, tls: false, announced: false };
        let ours = http2_settings(&Limits::TEST);
        let read = |record: &[u8], listeners: &[ListenerKey]| {
            Detached::read(record, null(), Here { listeners, http2: Some(&ours) }, (7, held.clone()))
        };

        let found = read(record, &[key("other", false), key(name, false)]).unwrap();
        assert_eq!((found.connection, found.history, found.thread), (sent.connection.clone(), sent.history, 7));
        assert_eq!((found.unread, found.left), (sent.unread.clone(), sent.left.clone()));
        assert!(found.opened.elapsed() >= Duration::from_secs(3) && found.opened.elapsed() < Duration::from_secs(63));

        assert!(read(record, &[key("other", false)]).is_none(), "the listener is not here");
        assert!(read(record, &[key(name, true)]).is_none(), "the listener is another");
        for length in 0..100 {
            assert!(read(&record[..length], &[key(name, false)]).is_none());
        }
        sent.history.detected = Detected::Unannounced;
        let mut unannounced = Vec::new();
        assert!(sent.write_record(&mut unannounced));
        assert!(read(&unannounced, &[key(name, false)]).is_none(), "the listener waits for no header");
        let waits = ListenerKey { announced: true, ..key(name, false) };
        assert_eq!(read(&unannounced, &[waits]).unwrap().history.detected, Detected::Unannounced);

        sent.history.detected = Detected::Http1;
        // No clock goes so far.
        sent.history.waited = Duration::MAX;
        sent.history.next_look = Duration::MAX;
        let mut record = Vec::new();
        assert!(sent.write_record(&mut record));
        let mut found = read(&record, &[key(name, false)]).unwrap();
        let day = Duration::from_hours(24);
        assert!(!found.history.waits_on(day, day) && Instant::now().checked_add(found.history.next_look).is_some());

        sent.unread = Bytes::from_static(vec![0xff; MAX_UNREAD + 1].leak());
        assert!(!sent.write_record(&mut Vec::new()), "too much to travel");
    }
}
