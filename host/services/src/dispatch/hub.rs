//! The subscriptions of a worker: who hears what, and how far each has come.
//!
//! A topic keeps each message until all its readers have read it, within bounds. Every message of a
//! topic has a position, and a reader knows the position that it reads next; a gap between that and
//! what is there is a loss, whoever dropped what was there. Pure: knows no socket, no thread and no
//! clock, and wakes nobody itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;

use super::DispatchFault;
use app_host_core::dispatch::wire::Origin;

/// The most subscriptions of a worker, and the most topics of them.
pub(super) const MAX_READERS: usize = 65_536;
pub(super) const MAX_TOPICS: usize = 1024;

/// The most messages that a topic keeps for readers that are behind, and the most bytes of them.
const MAX_HELD: usize = 256;
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// What a reader hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Message { origin: Origin, bytes: Bytes },
    Lost(u64),
}

#[derive(Default)]
pub(super) struct Hub {
    topics: HashMap<Arc<str>, Topic>,
    readers: usize,
    last_reader: u64,
    ended: bool,
}

#[derive(Default)]
struct Topic {
    held: VecDeque<Held>,
    bytes: usize,
    /// The position that the next message gets.
    end: u64,
    readers: HashMap<u64, Reader>,
}

struct Held {
    position: u64,
    /// How many readers still have to read it.
    unread: usize,
    origin: Origin,
    bytes: Bytes,
}

struct Reader {
    /// The position that it reads next.
    next: u64,
    waker: Option<Waker>,
}

impl Hub {
    /// Adds a reader of what comes from now on.
    pub(super) fn subscribe(&mut self, topic: &str) -> Result<(Arc<str>, u64), DispatchFault> {
        if self.ended {
            return Err(DispatchFault::Gone);
        }
        if self.readers >= MAX_READERS {
            return Err(DispatchFault::TooManySubscriptions);
        }
        let name = match self.topics.get_key_value(topic) {
            Some((name, _)) => Arc::clone(name),
            None if self.topics.len() >= MAX_TOPICS => return Err(DispatchFault::TooManyTopics),
            None => Arc::from(topic),
        };
        self.readers += 1;
        self.last_reader += 1;
        let topic = self.topics.entry(Arc::clone(&name)).or_default();
        topic.readers.insert(self.last_reader, Reader { next: topic.end, waker: None });
        Ok((name, self.last_reader))
    }

    /// Removes a reader; what it leaves is for the caller to drop.
    pub(super) fn unsubscribe(&mut self, name: &str, reader: u64) -> Option<Waker> {
        let topic = self.topics.get_mut(name)?;
        let left = topic.readers.remove(&reader)?;
        self.readers -= 1;
        if topic.readers.is_empty() {
            self.topics.remove(name);
        } else {
            let unread = topic.held.iter_mut().rev().take_while(|held| held.position >= left.next);
            unread.for_each(|held| held.unread -= 1);
            topic.trim();
        }
        left.waker
    }

    /// Takes in a message; gives those who wait for it.
    pub(super) fn deliver(&mut self, topic: &str, origin: Origin, bytes: &[u8]) -> Vec<Waker> {
        // What nobody here has subscribed to isn't even copied.
        let Some(topic) = self.topics.get_mut(topic) else { return Vec::new() };
        topic.bytes += bytes.len();
        topic.held.push_back(Held {
            position: topic.end,
            unread: topic.readers.len(),
            origin,
            bytes: Bytes::copy_from_slice(bytes),
        });
        topic.end += 1;
        while topic.held.len() > MAX_HELD || topic.bytes > MAX_HELD_BYTES {
            topic.drop_oldest();
        }
        topic.waiting()
    }

    /// Takes note of messages that were dropped elsewhere: of one topic, or of any.
    pub(super) fn lose(&mut self, topic: &str, count: u64) -> Vec<Waker> {
        let mut waiting = Vec::new();
        for (name, each) in &mut self.topics {
            if topic.is_empty() || **name == *topic {
                each.end = each.end.saturating_add(count);
                waiting.append(&mut each.waiting());
            }
        }
        waiting
    }

    /// Nothing comes any more; gives everybody who waits.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        self.ended = true;
        self.topics.values_mut().flat_map(Topic::waiting).collect()
    }

    /// What a reader hears next, or `waker` is kept for it. The second is for the caller to drop.
    pub(super) fn poll(&mut self, name: &str, reader: u64, waker: &Waker) -> (Poll<Option<Heard>>, Option<Waker>) {
        let Some(topic) = self.topics.get_mut(name) else { return (Poll::Ready(None), None) };
        let Some(reader) = topic.readers.get_mut(&reader) else { return (Poll::Ready(None), None) };
        let place = topic.held.partition_point(|held| held.position < reader.next);
        let position = topic.held.get(place).map_or(topic.end, |held| held.position);
        if position > reader.next {
            let count = position - reader.next;
            reader.next = position;
            return (Poll::Ready(Some(Heard::Lost(count))), None);
        }
        if let Some(held) = topic.held.get_mut(place) {
            reader.next += 1;
            held.unread -= 1;
            let message = Heard::Message { origin: held.origin, bytes: held.bytes.clone() };
            topic.trim();
            return (Poll::Ready(Some(message)), None);
        }
        if self.ended {
            return (Poll::Ready(None), None);
        }
        match &reader.waker {
            Some(kept) if kept.will_wake(waker) => (Poll::Pending, None),
            _ => (Poll::Pending, reader.waker.replace(waker.clone())),
        }
    }
}

impl Topic {
    fn waiting(&mut self) -> Vec<Waker> {
        self.readers.values_mut().filter_map(|reader| reader.waker.take()).collect()
    }

    /// Drops what all have read.
    fn trim(&mut self) {
        while self.held.front().is_some_and(|held| held.unread == 0) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(held) = self.held.pop_front() {
            self.bytes -= held.bytes.len();
        }
        if self.held.is_empty() {
            // A topic that is quiet again keeps no memory.
            self.held = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use proptest::prelude::*;

    const ORIGIN: Origin = Origin { slot: 1, generation: 2 };

    fn next(hub: &mut Hub, topic: &str, reader: u64) -> Poll<Option<Heard>> {
        hub.poll(topic, reader, Waker::noop()).0
    }

    fn heard(text: &str) -> Poll<Option<Heard>> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        Poll::Ready(Some(Heard::Message { origin: ORIGIN, bytes }))
    }

    #[test]
    fn readers_hear_their_topic_in_order_from_their_begin_on_and_then_it_is_forgotten() {
        let mut hub = Hub::default();
        let (_, early) = hub.subscribe("a").unwrap();
        hub.deliver("a", ORIGIN, b"1");
        hub.deliver("b", ORIGIN, b"of another topic");
        let (_, late) = hub.subscribe("a").unwrap();
        hub.deliver("a", ORIGIN, b"2");
        assert_eq!(next(&mut hub, "a", early), heard("1"));
        assert_eq!(next(&mut hub, "a", late), heard("2"));
        assert_eq!(next(&mut hub, "a", late), Poll::Pending);
        assert_eq!(hub.topics["a"].held.len(), 1, "the early one has not read it yet");
        assert_eq!(next(&mut hub, "a", early), heard("2"));
        assert_eq!(next(&mut hub, "a", early), Poll::Pending);
        assert!(hub.topics["a"].held.is_empty() && hub.topics["a"].bytes == 0);
    }

    #[test]
    fn reader_that_is_behind_loses_the_oldest_and_is_told_how_many_in_their_place() {
        let mut hub = Hub::default();
        let (_, slow) = hub.subscribe("a").unwrap();
        let (_, fast) = hub.subscribe("a").unwrap();
        for number in 0..MAX_HELD + 10 {
            let text = number.to_string();
            hub.deliver("a", ORIGIN, text.as_bytes());
            assert_eq!(next(&mut hub, "a", fast), heard(&text));
        }
        assert_eq!(next(&mut hub, "a", slow), Poll::Ready(Some(Heard::Lost(10))));
        assert_eq!(next(&mut hub, "a", slow), heard("10"));
        assert_eq!(next(&mut hub, "a", fast), Poll::Pending);
        // By their bytes as well.
        let long = vec![0; 64 * 1024];
        for _ in 0..100 {
            hub.deliver("a", ORIGIN, &long);
        }
        assert!(hub.topics["a"].bytes <= MAX_HELD_BYTES);
        assert_eq!(next(&mut hub, "a", fast), Poll::Ready(Some(Heard::Lost(84))));
    }

    #[test]
    fn what_was_lost_elsewhere_is_told_between_what_came_before_and_after() {
        let mut hub = Hub::default();
        let (_, reader) = hub.subscribe("a").unwrap();
        let (_, other) = hub.subscribe("b").unwrap();
        hub.deliver("a", ORIGIN, b"before");
        hub.lose("a", 3);
        hub.lose("", 4);
        hub.deliver("a", ORIGIN, b"after");
        assert_eq!(next(&mut hub, "a", reader), heard("before"));
        assert_eq!(next(&mut hub, "a", reader), Poll::Ready(Some(Heard::Lost(7))));
        assert_eq!(next(&mut hub, "a", reader), heard("after"));
        assert_eq!(next(&mut hub, "b", other), Poll::Ready(Some(Heard::Lost(4))));
        hub.lose("a", 1);
        assert_eq!(next(&mut hub, "a", reader), Poll::Ready(Some(Heard::Lost(1))), "also without a message after it");
        assert_eq!(next(&mut hub, "a", reader), Poll::Pending);
    }

    #[test]
    fn end_comes_after_the_last_message_and_wakes_everybody() {
        #[derive(Default)]
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut hub = Hub::default();
        let (_, first) = hub.subscribe("a").unwrap();
        let (_, second) = hub.subscribe("b").unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        for (topic, reader) in [("a", first), ("b", second)] {
            assert_eq!(hub.poll(topic, reader, &waker).0, Poll::Pending);
            assert_eq!(hub.poll(topic, reader, &waker).0, Poll::Pending);
        }
        for waker in hub.deliver("a", ORIGIN, b"last") {
            waker.wake();
        }
        for waker in hub.end() {
            waker.wake();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "each once");
        assert_eq!(next(&mut hub, "a", first), heard("last"));
        assert_eq!(next(&mut hub, "a", first), Poll::Ready(None));
        assert_eq!(next(&mut hub, "b", second), Poll::Ready(None));
        assert_eq!(hub.subscribe("a").unwrap_err(), DispatchFault::Gone);
    }

    #[test]
    fn subscriptions_and_topics_are_bounded_and_leave_nothing_behind() {
        let mut hub = Hub::default();
        let mut readers: Vec<_> = (0..MAX_TOPICS).map(|number| hub.subscribe(&number.to_string()).unwrap()).collect();
        assert_eq!(hub.subscribe("one more").unwrap_err(), DispatchFault::TooManyTopics);
        while readers.len() < MAX_READERS {
            readers.push(hub.subscribe("0").unwrap());
        }
        assert_eq!(hub.subscribe("0").unwrap_err(), DispatchFault::TooManySubscriptions);
        hub.deliver("0", ORIGIN, b"unread");
        for (topic, reader) in &readers {
            hub.unsubscribe(topic, *reader);
            // A second time changes nothing.
            hub.unsubscribe(topic, *reader);
        }
        assert!(hub.topics.is_empty() && hub.readers == 0);
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
        /// However readers come, go and read: each hears or is told of everything since its begin,
        /// once and in order, and what all have read is kept no longer.
        #[test]
        fn no_reader_hears_twice_or_misses_unawares(steps in proptest::collection::vec(step(), 0..1500)) {
            let mut hub = Hub::default();
            let mut readers: Vec<(u64, u64)> = Vec::new();
            let mut end = 0_u64;
            let read = |hub: &mut Hub, (reader, expected): &mut (u64, u64)| match next(hub, "t", *reader) {
                Poll::Ready(Some(Heard::Lost(count))) => {
                    *expected += count;
                    true
                }
                Poll::Ready(Some(Heard::Message { bytes, .. })) => {
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
                        readers.push((hub.subscribe("t").unwrap().1, end));
                    }
                    Step::Unsubscribe(index) if index < readers.len() => {
                        let (reader, _) = readers.remove(index);
                        hub.unsubscribe("t", reader);
                    }
                    Step::Deliver if !readers.is_empty() => {
                        hub.deliver("t", ORIGIN, &end.to_ne_bytes());
                        end += 1;
                    }
                    Step::Lose(count) if !readers.is_empty() => {
                        hub.lose("t", count);
                        end += count;
                    }
                    Step::Read(index) if index < readers.len() => {
                        read(&mut hub, &mut readers[index]);
                    }
                    _ => {}
                }
                if let Some(topic) = hub.topics.get("t") {
                    prop_assert!(topic.held.len() <= MAX_HELD);
                    prop_assert_eq!(topic.bytes, topic.held.len() * 8);
                }
            }
            for reader in &mut readers {
                while read(&mut hub, reader) {}
                prop_assert_eq!(reader.1, end);
            }
            prop_assert!(hub.topics.values().all(|topic| topic.held.is_empty()));
        }
    }
}
