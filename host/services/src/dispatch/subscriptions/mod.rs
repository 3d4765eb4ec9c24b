//! The subscriptions of a worker: which reader reads which topic, and how far each has come.
//!
//! A topic keeps each message until all its readers have read it, within bounds. Every message of a topic has a position,
//! and a reader knows the position that it reads next; a gap between that and the first message that is there is a loss,
//! here or on the way. Pure: knows no socket, no thread and no clock, and returns wakers instead of waking them.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;

use app_host_core::dispatch::wire::Publisher;

use super::DispatchFault;

/// The most subscriptions of a worker, and the most topics of them.
pub(super) const MAX_READERS: usize = 65_536;
pub(super) const MAX_TOPICS: usize = 1024;

/// The most messages that a topic keeps for readers that are behind, and the most bytes of them.
const MAX_QUEUED: usize = 256;
const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Message { origin: Publisher, bytes: Bytes },
    Lost(u64),
}

#[derive(Default)]
pub(super) struct Subscriptions {
    topics: HashMap<Arc<str>, Topic>,
    readers: usize,
    last_reader: u64,
    ended: bool,
}

#[derive(Default)]
struct Topic {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// The position that the next message gets.
    end: u64,
    readers: HashMap<u64, Reader>,
}

struct Queued {
    position: u64,
    /// How many readers still have to read it.
    unread: usize,
    origin: Publisher,
    bytes: Bytes,
}

struct Reader {
    /// The position that it reads next.
    next: u64,
    waker: Option<Waker>,
}

impl Subscriptions {
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

    /// Removes a reader. Its waker is for the caller to drop.
    pub(super) fn unsubscribe(&mut self, name: &str, reader: u64) -> Option<Waker> {
        let topic = self.topics.get_mut(name)?;
        let left = topic.readers.remove(&reader)?;
        self.readers -= 1;
        if topic.readers.is_empty() {
            self.topics.remove(name);
        } else {
            let unread = topic.queue.iter_mut().rev().take_while(|message| message.position >= left.next);
            unread.for_each(|message| message.unread -= 1);
            topic.trim();
        }
        left.waker
    }

    /// Queues a message. Returns the wakers of the readers that wait for it.
    pub(super) fn deliver(&mut self, topic: &str, origin: Publisher, bytes: &[u8]) -> Vec<Waker> {
        // A message without a subscription isn't even copied.
        let Some(topic) = self.topics.get_mut(topic) else { return Vec::new() };
        topic.bytes += bytes.len();
        topic.queue.push_back(Queued {
            position: topic.end,
            unread: topic.readers.len(),
            origin,
            bytes: Bytes::copy_from_slice(bytes),
        });
        topic.end += 1;
        while topic.queue.len() > MAX_QUEUED || topic.bytes > MAX_QUEUED_BYTES {
            topic.drop_oldest();
        }
        topic.waiting()
    }

    /// Notes that messages were lost on the way: of one topic, or of any.
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

    /// Ends all subscriptions. Returns the wakers of all readers that wait.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        self.ended = true;
        self.topics.values_mut().flat_map(Topic::waiting).collect()
    }

    /// What a reader gets next, or `waker` is kept for it. The second value is for the caller to drop.
    pub(super) fn poll(&mut self, name: &str, reader: u64, waker: &Waker) -> (Poll<Option<Delivery>>, Option<Waker>) {
        let Some(topic) = self.topics.get_mut(name) else { return (Poll::Ready(None), None) };
        let Some(reader) = topic.readers.get_mut(&reader) else { return (Poll::Ready(None), None) };
        let index = topic.queue.partition_point(|message| message.position < reader.next);
        let position = topic.queue.get(index).map_or(topic.end, |message| message.position);
        if position > reader.next {
            let count = position - reader.next;
            reader.next = position;
            return (Poll::Ready(Some(Delivery::Lost(count))), None);
        }
        if let Some(queued) = topic.queue.get_mut(index) {
            reader.next += 1;
            queued.unread -= 1;
            let message = Delivery::Message { origin: queued.origin, bytes: queued.bytes.clone() };
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

    /// Drops the messages that all readers have read.
    fn trim(&mut self) {
        while self.queue.front().is_some_and(|message| message.unread == 0) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.queue.pop_front() {
            self.bytes -= oldest.bytes.len();
        }
        if self.queue.is_empty() {
            // A topic that is quiet again keeps no memory.
            self.queue = VecDeque::new();
        }
    }
}
