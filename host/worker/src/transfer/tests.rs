//! Transfer threads in one process, with a test in the master's part.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use app_host_core::message::ToTransfer;
use app_host_platform::channel::send_now;
use app_host_platform::sys::packet::{self, Socket};

use super::outbox::{Reply, WINDOW};
use super::wire::{Ack, MAX_ACK};
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A connection on its way.
#[derive(Debug)]
pub(super) struct TestConnection {
    pub(super) socket: OwnedFd,
    pub(super) record: Vec<u8>,
    /// Where its outcome is sent.
    pub(super) outcome: Option<oneshot::Sender<Outcome<Self>>>,
}

impl Transferable for TestConnection {
    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn write_record(&self, packet: &mut Vec<u8>) -> bool {
        packet.extend_from_slice(&self.record);
        true
    }
}

/// The connections that have arrived, and how many more may.
#[derive(Default)]
struct Arrivals {
    arrived: Mutex<Vec<TestConnection>>,
    /// How many were accepted.
    connections: AtomicU64,
    invited: AtomicU64,
    room: AtomicU64,
}

struct TestReceiver(Arc<Arrivals>);

impl Receiver for TestReceiver {
    type Connection = TestConnection;

    type Reservation = ();

    async fn reserve(&self) {}

    fn accept<'a>(
        &self,
        (): (),
        arrived: impl Iterator<Item = (OwnedFd, &'a [u8])>,
    ) -> (Vec<Result<(), Rejection>>, Commit) {
        let mut connections = Vec::new();
        let answers = arrived.map(|(socket, record)| {
            if record == b"unknown" {
                return Err(Rejection::Unknown);
            }
            if self.0.room.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(1)).is_err() {
                return Err(Rejection::Full);
            }
            connections.push(TestConnection { socket, record: record.to_vec(), outcome: None });
            Ok(())
        });
        let answers = answers.collect();
        self.0.connections.fetch_add(connections.len() as u64, Relaxed);
        let arrivals = Arc::clone(&self.0);
        (answers, Box::new(move || arrivals.arrived.lock().unwrap().append(&mut connections)))
    }

    fn connections(&self) -> u64 {
        self.0.connections.load(Relaxed)
    }

    fn invite(&self, connections: u64) {
        self.0.invited.store(connections, Relaxed);
    }

    fn report(&self, outcomes: Vec<Outcome<TestConnection>>) {
        for mut outcome in outcomes {
            let (Outcome::Accepted(connection) | Outcome::Returned(connection)) = &mut outcome;
            let sender = connection.outcome.take().expect("no outcome is reported twice");
            sender.send(outcome).unwrap();
        }
    }
}

/// A worker's transfer thread, and the master's socket to it.
struct Worker {
    handle: TransferHandle<TestConnection>,
    arrivals: Arc<Arrivals>,
    master: OwnedFd,
}

impl Worker {
    fn new() -> Self {
        let (handle, queue) = channel();
        let (master, theirs) = packet::pair().unwrap();
        let arrivals = Arc::new(Arrivals { room: AtomicU64::new(u64::MAX), ..Arrivals::default() });
        queue.spawn(theirs, TestReceiver(Arc::clone(&arrivals))).unwrap();
        Self { handle, arrivals, master }
    }

    /// Waits for `count` connections to arrive: their sender is told a little before.
    async fn arrived(&self, count: usize) -> Vec<TestConnection> {
        let all = async {
            while self.arrivals.arrived.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, all).await.expect("what was accepted arrives");
        let arrived = std::mem::take(&mut *self.arrivals.arrived.lock().unwrap());
        assert_eq!(arrived.len(), count);
        arrived
    }

    fn send_on(&self, end: &OwnedFd, invited: Option<u64>) {
        send_now(self.master.as_fd(), &ToTransfer::Send { invited }, &[end.as_fd()]).unwrap();
    }

    fn link_to(&self, other: &Self) {
        let (ours, theirs) = packet::pair().unwrap();
        send_now(other.master.as_fd(), &ToTransfer::Receive, &[theirs.as_fd()]).unwrap();
        self.send_on(&ours, None);
    }

    /// Sends `count` connections at the same time. Returns how many were accepted, those that were returned, and the clients.
    async fn send(&self, count: usize, record: &[u8]) -> (usize, Vec<TestConnection>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut clients, mut outcomes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let socket = OwnedFd::from(listener.accept().unwrap().0);
            let (sender, outcome) = oneshot::channel();
            self.handle.send(vec![TestConnection { socket, record: record.to_vec(), outcome: Some(sender) }]).unwrap();
            outcomes.push(outcome);
        }
        let (mut accepted, mut returned) = (0, Vec::new());
        for outcome in outcomes {
            match timeout(LIMIT, outcome).await.expect("the outcome is known soon").unwrap() {
                Outcome::Accepted(_) => accepted += 1,
                Outcome::Returned(connection) => returned.push(connection),
            }
        }
        (accepted, returned, clients)
    }
}

/// Asserts that each client reaches the worker that has its connection now.
fn assert_alive(clients: &mut [TcpStream], connections: &[TestConnection]) {
    for client in &mut *clients {
        client.write_all(b"?").unwrap();
    }
    for connection in connections {
        let mut stream = TcpStream::from(connection.socket.try_clone().unwrap());
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(b"!").unwrap();
    }
    for client in clients {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
    }
}

#[tokio::test]
async fn connections_and_records_arrive_and_are_spread_evenly() {
    for (record, spread) in [
        // A worker whose thread stands still gets no more than its window, and the other gets the rest.
        (b"record".to_vec(), 150 - WINDOW / 2..=150 + WINDOW / 2),
        // Few of these fit into a link's socket: the slower worker gets fewer.
        (vec![7; MAX_RECORD], 0..=300),
    ] {
        let (from, to_one, to_other) = (Worker::new(), Worker::new(), Worker::new());
        from.link_to(&to_one);
        from.link_to(&to_other);
        from.handle.set_mode(Mode::Transfer);
        let (accepted, returned, mut clients) = from.send(300, &record).await;
        assert_eq!((accepted, returned.len()), (300, 0));
        let one = usize::try_from(to_one.arrivals.connections.load(Relaxed)).unwrap();
        assert!(spread.contains(&one), "{one} of those with {} bytes", record.len());
        let mut connections = to_one.arrived(one).await;
        connections.append(&mut to_other.arrived(300 - one).await);
        assert!(connections.iter().all(|connection| connection.record == record));
        assert_alive(&mut clients, &connections);
    }
}

#[tokio::test]
async fn what_a_dying_worker_has_not_accepted_goes_to_another() {
    let (from, successor) = (Worker::new(), Worker::new());
    // It lives for as long as the test holds its end, and never replies.
    let (out, dying) = packet::pair().unwrap();
    from.send_on(&out, None);
    drop(out);
    from.handle.set_mode(Mode::Transfer);
    let linking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        from.link_to(&successor);
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(dying);
    };
    let ((accepted, returned, mut clients), ()) = tokio::join!(from.send(200, b"record"), linking);
    assert_eq!((accepted, returned.len()), (200, 0));
    let connections = successor.arrived(200).await;
    assert_alive(&mut clients, &connections);
}

#[tokio::test]
async fn what_a_dying_worker_has_accepted_is_its_own_although_more_was_to_be_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = || {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = OwnedFd::from(listener.accept().unwrap().0);
        let (sender, outcome) = oneshot::channel();
        (client, TestConnection { socket, record: Vec::new(), outcome: Some(sender) }, outcome)
    };
    // What comes first, the acknowledgement or the failure to send more, is for the scheduler to say.
    for trial in 0..200 {
        let from = Worker::new();
        let (out, dying) = packet::pair().unwrap();
        from.send_on(&out, None);
        drop(out);
        from.handle.set_mode(Mode::Transfer);
        let ((_client, first, outcome), (_other_client, second, _other_outcome)) = (connection(), connection());
        from.handle.send(vec![first]).unwrap();
        let mut buffer = [0; 1024];
        let arrived = async {
            while packet::receive(dying.as_fd(), &mut buffer).is_err() {
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
        };
        timeout(LIMIT, arrived).await.expect("it arrives");
        packet::send(dying.as_fd(), &Ack { connections: 1, replies: vec![Reply::Accepted] }.write(), &[]).unwrap();
        drop(dying);
        from.handle.send(vec![second]).unwrap();
        let outcome = timeout(LIMIT, outcome).await.expect("the outcome is known soon").unwrap();
        assert!(matches!(outcome, Outcome::Accepted(_)), "trial {trial}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_no_worker_accepts_returns_alive() {
    // No other worker; one without room; one that drains; one that does not have the listener; a record that is too long.
    for case in 0..5 {
        let (from, to) = (Worker::new(), Worker::new());
        to.arrivals.room.store(if case == 1 { 10 } else { u64::MAX }, Relaxed);
        if case == 2 {
            to.handle.set_mode(Mode::Transfer);
        }
        from.handle.set_mode(Mode::Transfer);
        if case > 0 {
            from.link_to(&to);
        }
        let record = match case {
            3 => b"unknown".to_vec(),
            4 => vec![7; MAX_RECORD + 1],
            _ => b"record".to_vec(),
        };
        let (accepted, mut returned, mut clients) = from.send(100, &record).await;
        assert_eq!(accepted, if case == 1 { 10 } else { 0 }, "case {case}");
        returned.append(&mut to.arrived(accepted).await);
        assert_eq!(returned.len(), 100, "case {case}");
        assert_alive(&mut clients, &returned);
    }
}

#[tokio::test]
async fn a_worker_that_serves_sends_only_what_it_was_invited_to_and_not_for_long() {
    let (from, to) = (Worker::new(), Worker::new());
    let (accepted, returned, _clients) = from.send(3, b"record").await;
    assert_eq!((accepted, returned.len()), (0, 3), "there is no link");
    let (out, other_end) = packet::pair().unwrap();
    send_now(to.master.as_fd(), &ToTransfer::Receive, &[other_end.as_fd()]).unwrap();
    from.send_on(&out, Some(5));
    drop((out, other_end));
    while from.arrivals.invited.load(Relaxed) != 5 {
        tokio::task::yield_now().await;
    }
    let (accepted, returned, _clients) = from.send(5, b"record").await;
    assert_eq!((accepted, returned.len()), (5, 0));
    while from.arrivals.invited.load(Relaxed) != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (accepted, returned, _clients) = from.send(3, b"record").await;
    assert_eq!((accepted, returned.len()), (0, 3), "the link has ended");
}

#[tokio::test]
async fn what_waits_returns_when_the_service_ends() {
    // And not because of the stall time-out, which a machine that stands still for so long can't tell from this.
    let mut took = Vec::new();
    for _ in 0..5 {
        let from = Worker::new();
        from.handle.set_mode(Mode::Transfer);
        let ends = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            from.handle.set_mode(Mode::Close);
        };
        let began = Instant::now();
        let ((accepted, returned, _clients), ()) = tokio::join!(from.send(200, b"record"), ends);
        assert_eq!((accepted, returned.len()), (0, 200));
        took.push(began.elapsed());
        if took.iter().any(|took| *took < outbox::STALL_TIMEOUT) {
            return;
        }
    }
    panic!("{took:?}");
}

#[tokio::test]
async fn connection_whose_last_close_would_wait_is_refused_at_once() {
    let to = Worker::new();
    let (ours, theirs) = packet::pair().unwrap();
    send_now(to.master.as_fd(), &ToTransfer::Receive, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lingers = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    lingers.set_nonblocking(true).unwrap();
    while lingers.write(&vec![0; 65_536]).is_ok() {}
    socket2::SockRef::from(&lingers).set_linger(Some(Duration::from_mins(1))).unwrap();
    let packet = [&7_u32.to_ne_bytes()[..], b"unknown"].concat();
    packet::send(ours.as_fd(), &packet, &[lingers.as_fd()]).unwrap();
    drop(lingers);
    let sender = Socket::new(ours).unwrap();
    let mut buffer = [0; MAX_ACK];
    for replies in [0, 1] {
        let length = timeout(LIMIT, sender.receive_plain(&mut buffer)).await.expect("a reply").unwrap();
        assert_eq!(Ack::read(&buffer[..length]).unwrap().replies.len(), replies);
    }
    // The thread goes on.
    packet::send(sender.as_fd(), &packet, &[]).unwrap();
    timeout(LIMIT, sender.receive_plain(&mut buffer)).await.expect("a reply").unwrap();
}
