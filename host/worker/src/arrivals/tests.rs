//! The receiver of connections, without threads that serve.

use std::time::Duration;

use futures_util::future::join;
use tokio::time::timeout;

use super::*;
use crate::connection::drain_signal;
use crate::detached::tests::idle;
use crate::transfer::Transferable;

const LIMIT: Duration = Duration::from_secs(20);

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

struct Bench {
    threads: ServingThreads,
    inboxes: Vec<Inbox>,
    held: Vec<mpsc::Sender<Infallible>>,
}

fn threads(count: usize) -> Bench {
    let (mut threads, mut inboxes, mut all_held) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (held, _) = mpsc::channel(1);
        let (handle, _, inbox) = channel(Box::leak(Box::default()), &held);
        threads.push(handle);
        inboxes.push(inbox);
        all_held.push(held);
    }
    let threads = ServingThreads {
        threads,
        listeners: vec![ListenerKey { name: "test", unix: true, tls: false, announced: false }],
        http2: None,
        drain: drain_signal().0,
    };
    Bench { threads, inboxes, held: all_held }
}

/// The records of `count` connections.
fn records(held: &mpsc::Sender<Infallible>, count: u64) -> Vec<Vec<u8>> {
    let write = |number| {
        let mut record = Vec::new();
        assert!(idle(null(), number, held.clone()).write_record(&mut record));
        record
    };
    (0..count).map(write).collect()
}

#[tokio::test]
async fn connections_go_to_the_thread_that_has_fewest_once_their_sender_has_been_told() {
    let Bench { threads, mut inboxes, held } = threads(3);
    threads.threads[1].stats.opened();
    let mut records = records(&held[0], 9);
    records[4] = b"?".to_vec();
    let arrived = records.iter().map(|record| (null(), record.as_slice()));
    let (answers, commit) = threads.accept(threads.reserve().await, arrived);
    let unknown = answers.iter().position(Result::is_err).unwrap();
    assert_eq!((unknown, answers[unknown], answers.len()), (4, Err(Rejection::Unknown), 9));
    assert_eq!(threads.connections(), 9, "with the one that was there");
    assert!(inboxes.iter_mut().all(|inbox| inbox.arrivals.try_recv().is_err()));
    commit();
    let arrived = inboxes.iter_mut().map(|inbox| inbox.arrivals.try_recv().unwrap());
    let arrived: Vec<Vec<u64>> = arrived.map(|all| all.iter().map(|it| it.history.requests).collect()).collect();
    assert_eq!(arrived, [vec![0, 2, 6], vec![3, 7], vec![1, 5, 8]]);
}

#[tokio::test]
async fn a_thread_that_has_drained_gets_nothing() {
    let Bench { threads, mut inboxes, mut held } = threads(2);
    let records = records(&held[0], 2);
    held.remove(0);
    let arrived = || records.iter().map(|record| (null(), record.as_slice()));
    let (answers, commit) = threads.accept(threads.reserve().await, arrived());
    commit();
    assert_eq!(answers, [Ok(()), Ok(())]);
    assert!(inboxes[0].arrivals.try_recv().is_err());
    assert_eq!(inboxes[1].arrivals.try_recv().unwrap().len(), 2);
    held.clear();
    let room = timeout(LIMIT, threads.reserve()).await.expect("no thread is waited for that makes no room");
    let (answers, _) = threads.accept(room, arrived());
    assert_eq!(answers, [Err(Rejection::Full), Err(Rejection::Full)]);
}

#[tokio::test]
async fn each_sender_that_waits_gets_room() {
    let Bench { threads, mut inboxes, held } = threads(2);
    let records = records(&held[0], 2);
    for _ in 0..INBOX {
        let arrived = records.iter().map(|record| (null(), record.as_slice()));
        threads.accept(threads.reserve().await, arrived).1();
    }
    let full = timeout(Duration::from_millis(20), threads.reserve()).await;
    assert!(full.is_err());
    // Two senders wait, and one thread takes two batches.
    let waiting = join(timeout(LIMIT, threads.reserve()), timeout(LIMIT, threads.reserve()));
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
async fn outcomes_are_reported_to_the_thread_that_the_connection_left() {
    let Bench { threads, mut inboxes, held } = threads(2);
    let of = |thread, number| Detached { thread, ..idle(null(), number, held[thread].clone()) };
    threads.report(vec![
        Outcome::Accepted(of(0, 1)),
        Outcome::Returned(of(1, 2)),
        Outcome::Accepted(of(0, 3)),
        Outcome::Accepted(of(1, 4)),
    ]);
    let Outcomes { accepted, held: keeps, returned } = inboxes[0].outcomes.try_recv().unwrap();
    assert_eq!((accepted, returned.len()), (2, 0));
    assert!(keeps.is_some(), "the thread lives until it has counted them");
    let Outcomes { accepted, returned, .. } = inboxes[1].outcomes.try_recv().unwrap();
    assert_eq!((accepted, returned.iter().map(|it| it.history.requests).collect::<Vec<_>>()), (1, vec![2]));
    assert!(inboxes.iter_mut().all(|inbox| inbox.outcomes.try_recv().is_err()));
}

#[test]
fn what_is_no_connection_is_refused_and_no_call_on_one_waits() {
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
