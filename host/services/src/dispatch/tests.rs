//! A worker's end against a real socket, whose other end plays the master.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::time::Instant;

use wire::Publisher;

use app_host_platform::sys::packet;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// Whatever happens, a test ends.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it comes soon")
}

async fn next(subscription: &mut Subscription) -> Option<Delivery> {
    soon(poll_fn(|context| subscription.poll_next(context))).await
}

fn message(bytes: &'static [u8]) -> Delivery {
    let origin = Publisher { slot: 4, generation: 5 };
    Delivery::Message { origin, bytes: bytes::Bytes::from_static(bytes) }
}

fn send(master: &OwnedFd, topic: &str, bytes: &[u8]) {
    let mut packet = wire::message(topic, bytes).to_vec();
    let stamped = wire::stamp(&mut packet, Publisher { slot: 4, generation: 5 }).unwrap();
    packet::send(master.as_fd(), &stamped, &[]).unwrap();
}

#[tokio::test]
async fn what_is_published_reaches_the_master_and_what_it_sends_the_subscribers() {
    let (master, socket) = packet::pair().unwrap();
    let dispatch = Dispatch::open(socket).unwrap();
    let mut first = dispatch.subscribe("t").unwrap();
    let mut second = dispatch.clone().subscribe("t").unwrap();
    dispatch.publish("t", b"out").unwrap();
    let reader = Socket::new(master.try_clone().unwrap()).unwrap();
    let mut buffer = vec![0; wire::MAX_PACKET];
    let length = soon(reader.receive_plain(&mut buffer)).await.unwrap();
    let origin = Publisher { slot: 0, generation: 0 };
    assert_eq!(wire::read(&buffer[..length]), Ok(Packet::Message { origin, topic: "t", bytes: b"out" }));
    send(&master, "other", b"not heard");
    // Garbage is survived, too.
    packet::send(master.as_fd(), b"garbage", &[]).unwrap();
    packet::send(master.as_fd(), &vec![1; wire::MAX_PACKET + 1], &[]).unwrap();
    send(&master, "t", b"in");
    packet::send(master.as_fd(), &wire::lost("t", 9), &[]).unwrap();
    for subscription in [&mut first, &mut second] {
        assert_eq!(next(subscription).await, Some(message(b"in")));
        assert_eq!(next(subscription).await, Some(Delivery::Lost(9)));
    }
    drop((master, reader));
    assert_eq!(next(&mut first).await, None);
    assert_eq!(dispatch.publish("t", b""), Err(DispatchFault::Gone));
    assert_eq!(dispatch.subscribe("t").err(), Some(DispatchFault::Gone));
}

#[test]
fn publisher_is_told_when_its_queue_is_full_and_never_waits() {
    let (master, socket) = packet::pair().unwrap();
    let dispatch = Dispatch::open(socket).unwrap();
    // The other end doesn't read: the socket takes a few, and then the queue fills.
    let began = Instant::now();
    let mut published = 0;
    // The first refusal counts: behind it, the socket may take one more out of the queue.
    let refused = loop {
        match dispatch.publish("t", &[0; 1000]) {
            Ok(()) => published += 1,
            Err(refused) => break refused,
        }
        assert!(published < 100_000, "it ends");
    };
    assert!(published >= MAX_WAITING, "{published}");
    assert_eq!(refused, DispatchFault::OutgoingFull);
    assert!(began.elapsed() < LIMIT);
    // An exit doesn't wait for it for long either, and not at all once the master has gone.
    dispatch.finish(Duration::from_millis(10));
    drop(master);
    let gone = Instant::now();
    dispatch.finish(LIMIT);
    assert!(gone.elapsed() < LIMIT / 2);
}

#[test]
fn last_messages_before_an_exit_are_sent() {
    let (master, socket) = packet::pair().unwrap();
    let dispatch = Dispatch::open(socket).unwrap();
    for _ in 0..100 {
        dispatch.publish("t", b"last").unwrap();
    }
    dispatch.finish(LIMIT);
    let mut buffer = vec![0; wire::MAX_PACKET];
    for _ in 0..100 {
        packet::receive_plain(master.as_fd(), &mut buffer).unwrap();
    }
}

#[test]
fn topics_and_messages_beyond_their_bounds_are_refused_naming_them() {
    let (_master, socket) = packet::pair().unwrap();
    let dispatch = Dispatch::open(socket).unwrap();
    for (topic, bytes, text) in [
        (String::new(), 0, "a topic has from 1 to 255 bytes, this one has 0"),
        ("x".repeat(256), 0, "a topic has from 1 to 255 bytes, this one has 256"),
        ("t".to_owned(), wire::MAX_MESSAGE + 1, "a message has at most 65536 bytes, this one has 65537"),
    ] {
        assert_eq!(dispatch.publish(&topic, &vec![0; bytes]).unwrap_err().to_string(), text);
    }
    assert_eq!(dispatch.subscribe("").err(), Some(DispatchFault::Topic(0)));
    dispatch.publish(&"x".repeat(255), &vec![0; wire::MAX_MESSAGE]).unwrap();
}
