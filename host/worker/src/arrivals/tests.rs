//! Where connections arrive, without threads that serve.

use std::time::Duration;

use futures_util::future::join;
use tokio::time::timeout;

use super::detached::tests::idle;
use super::*;
use crate::handover::Parcel;
use crate::http::drain_signal;

const LIMIT: Duration = Duration::from_secs(20);

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

struct Threads {
    berths: Berths,
    inboxes: Vec<Inbox>,
    held: Vec<mpsc::Sender<Infallible>>,
}

fn threads(count: usize) -> Threads {
    let (mut threads, mut inboxes, mut all_held) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (held, _) = mpsc::channel(1);
        let (berth, _, inbox) = berth(Box::leak(Box::default()), &held);
        threads.push(berth);
        inboxes.push(inbox);
        all_held.push(held);
    }
    let berths = Berths { threads, listeners: vec![("test", true)], drain: drain_signal().0 };
    Threads { berths, inboxes, held: all_held }
}

/// Papers of so many connections.
fn papers(held: &mpsc::Sender<Infallible>, count: u64) -> Vec<Vec<u8>> {
    let papers = |number| {
        let mut papers = Vec::new();
        assert!(idle(null(), number, held.clone()).write_papers(&mut papers));
        papers
    };
    (0..count).map(papers).collect()
}

#[tokio::test]
async fn connections_get_a_place_with_whoever_has_fewest_once_their_sender_has_been_told() {
    let Threads { berths, mut inboxes, held } = threads(3);
    berths.threads[1].lane.opened();
    let mut papers = papers(&held[0], 9);
    papers[4] = b"?".to_vec();
    let come = papers.iter().map(|papers| (null(), papers.as_slice()));
    let (answers, settle) = berths.berth(berths.room().await, come);
    let unknown = answers.iter().position(Result::is_err).unwrap();
    assert_eq!((unknown, answers[unknown], answers.len()), (4, Err(NoBerth::Unknown), 9));
    assert_eq!(berths.holds(), 9, "with the one that was there");
    assert!(inboxes.iter_mut().all(|inbox| inbox.arrivals.try_recv().is_err()));
    settle();
    let arrived = inboxes.iter_mut().map(|inbox| inbox.arrivals.try_recv().unwrap());
    let arrived: Vec<Vec<u64>> = arrived.map(|all| all.iter().map(|it| it.history.requests).collect()).collect();
    assert_eq!(arrived, [vec![0, 2, 6], vec![3, 7], vec![1, 5, 8]]);
}

#[tokio::test]
async fn a_thread_that_has_nothing_any_more_gets_nothing() {
    let Threads { berths, mut inboxes, mut held } = threads(2);
    let papers = papers(&held[0], 2);
    held.remove(0);
    let come = || papers.iter().map(|papers| (null(), papers.as_slice()));
    let (answers, settle) = berths.berth(berths.room().await, come());
    settle();
    assert_eq!(answers, [Ok(()), Ok(())]);
    assert!(inboxes[0].arrivals.try_recv().is_err());
    assert_eq!(inboxes[1].arrivals.try_recv().unwrap().len(), 2);
    held.clear();
    let room = timeout(LIMIT, berths.room()).await.expect("nobody makes room who is waited for");
    let (answers, _) = berths.berth(room, come());
    assert_eq!(answers, [Err(NoBerth::Full), Err(NoBerth::Full)]);
}

#[tokio::test]
async fn room_that_is_made_is_for_each_who_waits() {
    let Threads { berths, mut inboxes, held } = threads(2);
    let papers = papers(&held[0], 2);
    for _ in 0..INBOX {
        let come = papers.iter().map(|papers| (null(), papers.as_slice()));
        berths.berth(berths.room().await, come).1();
    }
    let full = timeout(Duration::from_millis(20), berths.room()).await;
    assert!(full.is_err());
    // Two senders wait, and one thread takes two batches.
    let waiting = join(timeout(LIMIT, berths.room()), timeout(LIMIT, berths.room()));
    let takes = async {
        tokio::task::yield_now().await;
        for _ in 0..2 {
            inboxes[1].arrivals.recv().await.unwrap();
        }
    };
    let ((one, other), ()) = join(waiting, takes).await;
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn what_has_left_is_told_of_to_its_thread() {
    let Threads { berths, mut inboxes, held } = threads(2);
    let of = |thread, number| Detached { thread, ..idle(null(), number, held[thread].clone()) };
    berths.tell(vec![Given::Taken(of(0, 1)), Given::Back(of(1, 2)), Given::Taken(of(0, 3)), Given::Taken(of(1, 4))]);
    let Returned { taken, held: keeps, back } = inboxes[0].returns.try_recv().unwrap();
    assert_eq!((taken, back.len()), (2, 0));
    assert!(keeps.is_some(), "the thread lives until it has counted them");
    let Returned { taken, back, .. } = inboxes[1].returns.try_recv().unwrap();
    assert_eq!((taken, back.iter().map(|it| it.history.requests).collect::<Vec<_>>()), (1, vec![2]));
    assert!(inboxes.iter_mut().all(|inbox| inbox.returns.try_recv().is_err()));
}

#[test]
fn what_is_no_connection_is_not_begun_with_and_no_call_on_one_waits() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _peer = listener.accept().unwrap();
    let (datagrams, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
    for other in [null(), listener.into(), datagrams.into()] {
        assert!(check(&other).is_err());
    }
    let client = OwnedFd::from(client);
    check(&client).unwrap();
    let mut stream = std::net::TcpStream::from(client);
    let error = std::io::Read::read(&mut stream, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}
