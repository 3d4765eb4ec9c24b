//! Subscriptions in scenarios, and a property over any order of steps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::prelude::*;

use super::*;

const ORIGIN: Publisher = Publisher { slot: 1, generation: 2 };

fn next(subscriptions: &mut Subscriptions, topic: &str, reader: u64) -> Poll<Option<Delivery>> {
    subscriptions.poll(topic, reader, Waker::noop()).0
}

fn message(text: &str) -> Poll<Option<Delivery>> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Poll::Ready(Some(Delivery::Message { origin: ORIGIN, bytes }))
}

#[test]
fn readers_get_their_topic_in_order_from_their_begin_on_and_then_it_is_forgotten() {
    let mut subscriptions = Subscriptions::default();
    let (_, early) = subscriptions.subscribe("a").unwrap();
    subscriptions.deliver("a", ORIGIN, b"1");
    subscriptions.deliver("b", ORIGIN, b"of another topic");
    let (_, late) = subscriptions.subscribe("a").unwrap();
    subscriptions.deliver("a", ORIGIN, b"2");
    assert_eq!(next(&mut subscriptions, "a", early), message("1"));
    assert_eq!(next(&mut subscriptions, "a", late), message("2"));
    assert_eq!(next(&mut subscriptions, "a", late), Poll::Pending);
    assert_eq!(subscriptions.topics["a"].queue.len(), 1, "the early one has not read it yet");
    assert_eq!(next(&mut subscriptions, "a", early), message("2"));
    assert_eq!(next(&mut subscriptions, "a", early), Poll::Pending);
    assert!(subscriptions.topics["a"].queue.is_empty() && subscriptions.topics["a"].bytes == 0);
}

#[test]
fn reader_that_is_behind_loses_the_oldest_and_is_told_how_many_in_their_place() {
    let mut subscriptions = Subscriptions::default();
    let (_, slow) = subscriptions.subscribe("a").unwrap();
    let (_, fast) = subscriptions.subscribe("a").unwrap();
    for number in 0..MAX_QUEUED + 10 {
        let text = number.to_string();
        subscriptions.deliver("a", ORIGIN, text.as_bytes());
        assert_eq!(next(&mut subscriptions, "a", fast), message(&text));
    }
    assert_eq!(next(&mut subscriptions, "a", slow), Poll::Ready(Some(Delivery::Lost(10))));
    assert_eq!(next(&mut subscriptions, "a", slow), message("10"));
    assert_eq!(next(&mut subscriptions, "a", fast), Poll::Pending);
    // By their bytes as well.
    let long = vec![0; 64 * 1024];
    for _ in 0..100 {
        subscriptions.deliver("a", ORIGIN, &long);
    }
    assert!(subscriptions.topics["a"].bytes <= MAX_QUEUED_BYTES);
    assert_eq!(next(&mut subscriptions, "a", fast), Poll::Ready(Some(Delivery::Lost(84))));
}

#[test]
fn what_was_lost_elsewhere_is_told_between_what_came_before_and_after() {
    let mut subscriptions = Subscriptions::default();
    let (_, reader) = subscriptions.subscribe("a").unwrap();
    let (_, other) = subscriptions.subscribe("b").unwrap();
    subscriptions.deliver("a", ORIGIN, b"before");
    subscriptions.lose("a", 3);
    subscriptions.lose("", 4);
    subscriptions.deliver("a", ORIGIN, b"after");
    assert_eq!(next(&mut subscriptions, "a", reader), message("before"));
    assert_eq!(next(&mut subscriptions, "a", reader), Poll::Ready(Some(Delivery::Lost(7))));
    assert_eq!(next(&mut subscriptions, "a", reader), message("after"));
    assert_eq!(next(&mut subscriptions, "b", other), Poll::Ready(Some(Delivery::Lost(4))));
    subscriptions.lose("a", 1);
    assert_eq!(
        next(&mut subscriptions, "a", reader),
        Poll::Ready(Some(Delivery::Lost(1))),
        "also without a message after it"
    );
    assert_eq!(next(&mut subscriptions, "a", reader), Poll::Pending);
}

#[test]
fn end_comes_after_the_last_message_and_wakes_every_reader() {
    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut subscriptions = Subscriptions::default();
    let (_, first) = subscriptions.subscribe("a").unwrap();
    let (_, second) = subscriptions.subscribe("b").unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    for (topic, reader) in [("a", first), ("b", second)] {
        assert_eq!(subscriptions.poll(topic, reader, &waker).0, Poll::Pending);
        assert_eq!(subscriptions.poll(topic, reader, &waker).0, Poll::Pending);
    }
    for waker in subscriptions.deliver("a", ORIGIN, b"last") {
        waker.wake();
    }
    for waker in subscriptions.end() {
        waker.wake();
    }
    assert_eq!(count.0.load(Ordering::Relaxed), 2, "each once");
    assert_eq!(next(&mut subscriptions, "a", first), message("last"));
    assert_eq!(next(&mut subscriptions, "a", first), Poll::Ready(None));
    assert_eq!(next(&mut subscriptions, "b", second), Poll::Ready(None));
    assert_eq!(subscriptions.subscribe("a").unwrap_err(), DispatchFault::Gone);
}

#[test]
fn subscriptions_and_topics_are_bounded_and_leave_nothing_behind() {
    let mut subscriptions = Subscriptions::default();
    let mut readers: Vec<_> =
        (0..MAX_TOPICS).map(|number| subscriptions.subscribe(&number.to_string()).unwrap()).collect();
    assert_eq!(subscriptions.subscribe("one more").unwrap_err(), DispatchFault::TooManyTopics);
    while readers.len() < MAX_READERS {
        readers.push(subscriptions.subscribe("0").unwrap());
    }
    assert_eq!(subscriptions.subscribe("0").unwrap_err(), DispatchFault::TooManySubscriptions);
    subscriptions.deliver("0", ORIGIN, b"unread");
    for (topic, reader) in &readers {
        subscriptions.unsubscribe(topic, *reader);
        // A second time changes nothing.
        subscriptions.unsubscribe(topic, *reader);
    }
    assert!(subscriptions.topics.is_empty() && subscriptions.readers == 0);
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe,
    Unsubscribe(usize),
    Deliver,
    Lose(u64),
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Subscribe),
        1 => (0..8_usize).prop_map(Step::Unsubscribe),
        300 => Just(Step::Deliver),
        2 => (1..9_u64).prop_map(Step::Lose),
        100 => (0..8_usize).prop_map(Step::Read),
    ]
}

proptest! {
    /// However readers come, go and read: each gets every message since its begin, or how many were lost, once and in
    /// order; and what all have read is kept no longer.
    #[test]
    fn no_reader_gets_a_message_twice_or_misses_one_unawares(steps in proptest::collection::vec(step(), 0..1500)) {
        let mut subscriptions = Subscriptions::default();
        let mut readers: Vec<(u64, u64)> = Vec::new();
        let mut end = 0_u64;
        let read = |subscriptions: &mut Subscriptions, (reader, expected): &mut (u64, u64)| match next(subscriptions, "t", *reader) {
            Poll::Ready(Some(Delivery::Lost(count))) => {
                *expected += count;
                true
            }
            Poll::Ready(Some(Delivery::Message { bytes, .. })) => {
                assert_eq!(bytes[..], expected.to_ne_bytes());
                *expected += 1;
                true
            }
            _ => false,
        };
        for step in steps {
            match step {
                Step::Subscribe if readers.len() < 8 => {
                    // The first one makes the topic anew, and it begins at 0.
                    if readers.is_empty() {
                        end = 0;
                    }
                    readers.push((subscriptions.subscribe("t").unwrap().1, end));
                }
                Step::Unsubscribe(index) if index < readers.len() => {
                    let (reader, _) = readers.remove(index);
                    subscriptions.unsubscribe("t", reader);
                }
                Step::Deliver if !readers.is_empty() => {
                    subscriptions.deliver("t", ORIGIN, &end.to_ne_bytes());
                    end += 1;
                }
                Step::Lose(count) if !readers.is_empty() => {
                    subscriptions.lose("t", count);
                    end += count;
                }
                Step::Read(index) if index < readers.len() => {
                    read(&mut subscriptions, &mut readers[index]);
                }
                _ => {}
            }
            if let Some(topic) = subscriptions.topics.get("t") {
                prop_assert!(topic.queue.len() <= MAX_QUEUED);
                prop_assert_eq!(topic.bytes, topic.queue.len() * 8);
            }
        }
        for reader in &mut readers {
            while read(&mut subscriptions, reader) {}
            prop_assert_eq!(reader.1, end);
        }
        prop_assert!(subscriptions.topics.values().all(|topic| topic.queue.is_empty()));
    }
}
