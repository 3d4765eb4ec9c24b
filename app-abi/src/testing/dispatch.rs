//! Dispatch among the apps that one [`TestHost`](super::TestHost) and its clones start: what one of them
//! publishes all hear, itself included. The bounds are those of a host, but for what waits on its way.

use super::{TestWorker, lock};
use crate::abi::{DispatchService, FfiChunk, FfiFault, FfiHeard, FfiMessage, FfiMessages, FfiMessagesVtable};
use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RStr},
};
use async_ffi::FfiContext;
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, Weak},
    task::Waker,
};

/// The longest topic and the longest message, in bytes.
const MAX_TOPIC: usize = 255;
const MAX_MESSAGE: usize = 64 * 1024;

/// How far a subscription may be behind.
const MAX_BEHIND: usize = 256;
const MAX_BEHIND_BYTES: usize = 1024 * 1024;

pub(super) const TABLE: &WithMetadata<DispatchService> = &WithMetadata::new(DispatchService { publish, subscribe });

/// All subscriptions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Bus(Arc<Mutex<Vec<Weak<Queue>>>>);

#[derive(Debug)]
struct Queue {
    topic: String,
    behind: Mutex<Behind>,
}

/// What a subscriber hasn't heard yet.
#[derive(Debug, Default)]
struct Behind {
    lost: u64,
    messages: VecDeque<QueuedMessage>,
    bytes: usize,
    waker: Option<Waker>,
}

#[derive(Debug, Clone)]
struct QueuedMessage {
    slot: u16,
    generation: u64,
    bytes: Bytes,
}

impl Bus {
    fn publish(&self, topic: &str, message: &QueuedMessage) {
        let mut queues = lock(&self.0);
        queues.retain(|queue| queue.strong_count() > 0);
        for queue in queues.iter().filter_map(Weak::upgrade).filter(|queue| queue.topic == topic) {
            let mut behind = lock(&queue.behind);
            behind.bytes += message.bytes.len();
            behind.messages.push_back(message.clone());
            while behind.messages.len() > MAX_BEHIND || behind.bytes > MAX_BEHIND_BYTES {
                let Some(oldest) = behind.messages.pop_front() else { break };
                behind.bytes -= oldest.bytes.len();
                behind.lost += 1;
            }
            if let Some(waker) = behind.waker.take() {
                drop(behind);
                waker.wake();
            }
        }
    }

    fn subscribe(&self, topic: &str) -> Arc<Queue> {
        let queue = Arc::new(Queue { topic: topic.to_owned(), behind: Mutex::default() });
        lock(&self.0).push(Arc::downgrade(&queue));
        queue
    }
}

fn check(topic: &str) -> Result<(), FfiFault> {
    if (1..=MAX_TOPIC).contains(&topic.len()) {
        return Ok(());
    }
    Err(invalid(format!("a topic of {} bytes, expected 1 to {MAX_TOPIC}", topic.len())))
}

fn invalid(text: String) -> FfiFault {
    FfiFault { code: 5, text: text.into() }
}

unsafe extern "C" fn publish(data: *const (), topic: RStr<'_>, message: FfiChunk) -> RResult<(), FfiFault> {
    let bytes = Bytes::from(message);
    if let Err(fault) = check(topic.as_str()) {
        return RErr(fault);
    }
    if bytes.len() > MAX_MESSAGE {
        return RErr(invalid(format!("a message of {} bytes, expected at most {MAX_MESSAGE}", bytes.len())));
    }
    // SAFETY: the app passes what it was handed; so in each function below.
    let host = unsafe { &TestWorker::of(data).host };
    host.bus.publish(topic.as_str(), &QueuedMessage { slot: host.slot, generation: host.generation, bytes });
    ROk(())
}

unsafe extern "C" fn subscribe(data: *const (), topic: RStr<'_>) -> RResult<FfiMessages, FfiFault> {
    if let Err(fault) = check(topic.as_str()) {
        return RErr(fault);
    }
    // SAFETY: see `publish`.
    let queue = unsafe { TestWorker::of(data) }.host.bus.subscribe(topic.as_str());
    ROk(FfiMessages { state: Arc::into_raw(queue).cast_mut().cast(), vtable: VTABLE })
}

const VTABLE: &FfiMessagesVtable = &FfiMessagesVtable { poll_next, drop: drop_subscription };

unsafe extern "C" fn poll_next(state: *mut (), context: *mut FfiContext<'_>) -> FfiHeard {
    // SAFETY: the app calls with the state that it was handed, which it owns.
    let queue = unsafe { &*state.cast::<Queue>() };
    let mut behind = lock(&queue.behind);
    if behind.lost > 0 {
        return FfiHeard::Lost(std::mem::take(&mut behind.lost));
    }
    if let Some(QueuedMessage { slot, generation, bytes }) = behind.messages.pop_front() {
        behind.bytes -= bytes.len();
        return FfiHeard::Message(FfiMessage { slot, generation, bytes: bytes.into() });
    }
    // SAFETY: the context lives for this call.
    behind.waker = Some(unsafe { (*context).with_context(|context| context.waker().clone()) });
    FfiHeard::Pending
}

unsafe extern "C" fn drop_subscription(state: *mut ()) {
    // SAFETY: called once, with what `subscribe` gave.
    drop(unsafe { Arc::from_raw(state.cast::<Queue>().cast_const()) });
}
