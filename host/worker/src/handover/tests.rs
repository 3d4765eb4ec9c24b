//! Roads in one process, between which a test plays the master.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::outbox::WINDOW;
use super::*;
use app_host_platform::channel::send_now;
use app_host_platform::sys::packet;

const LIMIT: Duration = Duration::from_secs(20);

/// A connection on its way.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) socket: OwnedFd,
    pub(super) papers: Vec<u8>,
    /// Who waits for what becomes of it.
    pub(super) told: Option<oneshot::Sender<Given<Self>>>,
}

impl Parcel for Letter {
    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn write_papers(&self, packet: &mut Vec<u8>) -> bool {
        packet.extend_from_slice(&self.papers);
        true
    }
}

/// What has arrived, and how much may.
#[derive(Default)]
struct Quay {
    arrived: Mutex<Vec<Letter>>,
    /// How many have arrived, or are about to.
    holds: AtomicU64,
    invited: AtomicU64,
    room: AtomicU64,
}

struct Berths(Arc<Quay>);

impl Harbour for Berths {
    type Parcel = Letter;

    type Room = ();

    async fn room(&self) {}

    fn berth<'a>(&self, (): (), come: impl Iterator<Item = (OwnedFd, &'a [u8])>) -> (Vec<Result<(), NoBerth>>, Settle) {
        let mut letters = Vec::new();
        let answers = come.map(|(socket, papers)| {
            if papers == b"unknown" {
                return Err(NoBerth::Unknown);
            }
            if self.0.room.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(1)).is_err() {
                return Err(NoBerth::Full);
            }
            letters.push(Letter { socket, papers: papers.to_vec(), told: None });
            Ok(())
        });
        let answers = answers.collect();
        self.0.holds.fetch_add(letters.len() as u64, Relaxed);
        let quay = Arc::clone(&self.0);
        (answers, Box::new(move || quay.arrived.lock().unwrap().append(&mut letters)))
    }

    fn holds(&self) -> u64 {
        self.0.holds.load(Relaxed)
    }

    fn invite(&self, connections: u64) {
        self.0.invited.store(connections, Relaxed);
    }

    fn tell(&self, given: Vec<Given<Letter>>) {
        for mut given in given {
            let (Given::Taken(letter) | Given::Back(letter)) = &mut given;
            let told = letter.told.take().expect("nothing is told of twice");
            told.send(given).unwrap();
        }
    }
}

/// A worker's end of the road, and the master's socket to it.
struct Worker {
    road: Road<Letter>,
    quay: Arc<Quay>,
    master: OwnedFd,
}

impl Worker {
    fn new() -> Self {
        let (road, plan) = plan();
        let (master, theirs) = packet::pair().unwrap();
        let quay = Arc::new(Quay { room: AtomicU64::new(u64::MAX), ..Quay::default() });
        plan.open(theirs, Berths(Arc::clone(&quay))).unwrap();
        Self { road, quay, master }
    }

    /// What has arrived, which are so many: their sender is told a little before.
    async fn arrived(&self, count: usize) -> Vec<Letter> {
        let all = async {
            while self.quay.arrived.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, all).await.expect("what was taken arrives");
        let arrived = std::mem::take(&mut *self.quay.arrived.lock().unwrap());
        assert_eq!(arrived.len(), count);
        arrived
    }

    fn give_end(&self, end: &OwnedFd, invited: Option<u64>) {
        send_now(self.master.as_fd(), &ToRoad::Give { invited }, &[end.as_fd()]).unwrap();
    }

    fn joins(&self, other: &Self) {
        let (ours, theirs) = packet::pair().unwrap();
        send_now(other.master.as_fd(), &ToRoad::Take, &[theirs.as_fd()]).unwrap();
        self.give_end(&ours, None);
    }

    /// Gives `count` parcels at the same time.
    async fn give(&self, count: usize, papers: &[u8]) -> (usize, Vec<Letter>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut clients, mut given) = (Vec::new(), Vec::new());
        for _ in 0..count {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let socket = OwnedFd::from(listener.accept().unwrap().0);
            let (told, outcome) = oneshot::channel();
            self.road.give(vec![Letter { socket, papers: papers.to_vec(), told: Some(told) }]).unwrap();
            given.push(outcome);
        }
        let (mut taken, mut back) = (0, Vec::new());
        for given in given {
            match timeout(LIMIT, given).await.expect("it is known soon").unwrap() {
                Given::Taken(_) => taken += 1,
                Given::Back(parcel) => back.push(parcel),
            }
        }
        (taken, back, clients)
    }
}

/// Whether each client reaches whoever has its connection now.
fn assert_alive(clients: &mut [TcpStream], parcels: &[Letter]) {
    for client in &mut *clients {
        client.write_all(b"?").unwrap();
    }
    for parcel in parcels {
        let mut stream = TcpStream::from(parcel.socket.try_clone().unwrap());
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
async fn connections_and_papers_arrive_and_are_spread_evenly() {
    for (papers, spread) in [
        // A worker whose thread stands still leaves no more than its window unanswered, and the other gets the rest.
        (b"papers".to_vec(), 150 - WINDOW / 2..=150 + WINDOW / 2),
        // Few of these fit into a link's socket: who is slower gets fewer.
        (vec![7; MAX_PAPERS], 0..=300),
    ] {
        let (from, to_one, to_other) = (Worker::new(), Worker::new(), Worker::new());
        from.joins(&to_one);
        from.joins(&to_other);
        from.road.stand(Stance::Leaves);
        let (taken, back, mut clients) = from.give(300, &papers).await;
        assert_eq!((taken, back.len()), (300, 0));
        let one = usize::try_from(to_one.quay.holds.load(Relaxed)).unwrap();
        assert!(spread.contains(&one), "{one} of those with {} bytes", papers.len());
        let mut parcels = to_one.arrived(one).await;
        parcels.append(&mut to_other.arrived(300 - one).await);
        assert!(parcels.iter().all(|parcel| parcel.papers == papers));
        assert_alive(&mut clients, &parcels);
    }
}

#[tokio::test]
async fn what_a_dying_worker_has_not_taken_goes_to_another() {
    let (from, heir) = (Worker::new(), Worker::new());
    // It lives for as long as the test holds its end, and never says a word.
    let (out, dying) = packet::pair().unwrap();
    from.give_end(&out, None);
    drop(out);
    from.road.stand(Stance::Leaves);
    let giving = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        from.joins(&heir);
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(dying);
    };
    let ((taken, back, mut clients), ()) = tokio::join!(from.give(200, b"papers"), giving);
    assert_eq!((taken, back.len()), (200, 0));
    let parcels = heir.arrived(200).await;
    assert_alive(&mut clients, &parcels);
}

#[tokio::test]
async fn what_nobody_takes_comes_back_alive() {
    // Nobody to give to; somebody without room; somebody who drains; somebody who has not got the listener; papers
    // that are too long.
    for case in 0..5 {
        let (from, to) = (Worker::new(), Worker::new());
        to.quay.room.store(if case == 1 { 10 } else { u64::MAX }, Relaxed);
        if case == 2 {
            to.road.stand(Stance::Leaves);
        }
        from.road.stand(Stance::Leaves);
        if case > 0 {
            from.joins(&to);
        }
        let papers = match case {
            3 => b"unknown".to_vec(),
            4 => vec![7; MAX_PAPERS + 1],
            _ => b"papers".to_vec(),
        };
        let (taken, mut back, mut clients) = from.give(100, &papers).await;
        assert_eq!(taken, if case == 1 { 10 } else { 0 }, "case {case}");
        back.append(&mut to.arrived(taken).await);
        assert_eq!(back.len(), 100, "case {case}");
        assert_alive(&mut clients, &back);
    }
}

#[tokio::test]
async fn a_worker_that_serves_gives_only_what_it_was_invited_to_and_not_for_long() {
    let (from, to) = (Worker::new(), Worker::new());
    let (taken, back, _clients) = from.give(3, b"papers").await;
    assert_eq!((taken, back.len()), (0, 3), "there is no link");
    let (out, back_end) = packet::pair().unwrap();
    send_now(to.master.as_fd(), &ToRoad::Take, &[back_end.as_fd()]).unwrap();
    from.give_end(&out, Some(5));
    drop((out, back_end));
    while from.quay.invited.load(Relaxed) != 5 {
        tokio::task::yield_now().await;
    }
    let (taken, back, _clients) = from.give(5, b"papers").await;
    assert_eq!((taken, back.len()), (5, 0));
    while from.quay.invited.load(Relaxed) != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (taken, back, _clients) = from.give(3, b"papers").await;
    assert_eq!((taken, back.len()), (0, 3), "the link has ended");
}

#[tokio::test]
async fn what_waits_comes_back_when_the_service_ends() {
    // Not because its patience is at an end, which a machine that stands still for so long can't tell.
    let mut took = Vec::new();
    for _ in 0..5 {
        let from = Worker::new();
        from.road.stand(Stance::Leaves);
        let ends = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            from.road.stand(Stance::Closes);
        };
        let began = Instant::now();
        let ((taken, back, _clients), ()) = tokio::join!(from.give(200, b"papers"), ends);
        assert_eq!((taken, back.len()), (0, 200));
        took.push(began.elapsed());
        if took.iter().any(|took| *took < outbox::PATIENCE) {
            return;
        }
    }
    panic!("{took:?}");
}

#[tokio::test]
async fn connection_whose_last_close_would_wait_is_refused_at_once() {
    let to = Worker::new();
    let (ours, theirs) = packet::pair().unwrap();
    send_now(to.master.as_fd(), &ToRoad::Take, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lingers = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    lingers.set_nonblocking(true).unwrap();
    while lingers.write(&vec![0; 65_536]).is_ok() {}
    socket2::SockRef::from(&lingers).set_linger(Some(Duration::from_mins(1))).unwrap();
    let packet = [&7_u32.to_ne_bytes()[..], b"unknown"].concat();
    packet::send(ours.as_fd(), &packet, &[lingers.as_fd()]).unwrap();
    drop(lingers);
    let giver = Socket::new(ours).unwrap();
    let mut buffer = [0; MAX_WORD];
    for answers in [0, 1] {
        let length = timeout(LIMIT, giver.receive_plain(&mut buffer)).await.expect("it is answered").unwrap();
        assert_eq!(Word::read(&buffer[..length]).unwrap().answers.len(), answers);
    }
    // The thread goes on.
    packet::send(giver.as_fd(), &packet, &[]).unwrap();
    timeout(LIMIT, giver.receive_plain(&mut buffer)).await.expect("it is answered").unwrap();
}
