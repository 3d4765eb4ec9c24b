//! Messages and locks between workers, a worker's end: publish, subscribe, and claims to locks that only one worker holds.
//!
//! Owns the subscriptions ([`subscriptions`]) and the claims ([`claims`]). The bounds, the form of a packet and the queue
//! on the way out are [`app_host_core::dispatch`]'s; routing between workers, and which claim is granted, are the master's
//! business. `app_abi`'s `Host::publish` promises where something is dropped, and who learns of it.
//!
//! ```text
//! app ── publish ──▶ backlog ──┐ thread "dispatch" ┌──▶ subscriptions ──▶ app
//!        refused when full     └──▶ the socket ◀───┘    the oldest dropped when full
//! ```
//! The thread runs no code of the app's but the wakers of its tasks, so messages go on being delivered while an app blocks
//! its serving threads; and no serving thread ever waits for the socket.

mod claims;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;

use app_host_core::dispatch::wire::{self, Packet};
use app_host_core::dispatch::{Backlog, MAX_WAITING, MAX_WAITING_BYTES, queues};
use app_host_core::error::chain;
use app_host_platform::sys::packet::{Socket, is_the_end};

use claims::Claims;
use subscriptions::Subscriptions;

pub use subscriptions::Delivery;

/// Why a message isn't published, a topic not subscribed to, or a lock not granted. The texts are for the app's developer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DispatchFault {
    #[error("a topic has from 1 to {max} bytes, this one has {0}", max = wire::MAX_TOPIC)]
    Topic(usize),
    #[error("a message has at most {max} bytes, this one has {0}", max = wire::MAX_MESSAGE)]
    TooLong(usize),
    #[error("{MAX_WAITING} messages or {MAX_WAITING_BYTES} bytes of them wait already on their way out of this worker")]
    OutgoingFull,
    #[error("this worker has {} subscriptions already", subscriptions::MAX_READERS)]
    TooManySubscriptions,
    #[error("this worker subscribes to {} topics already", subscriptions::MAX_TOPICS)]
    TooManyTopics,
    #[error("the master that carries messages has gone")]
    Gone,
    #[error("a lock's name has from 1 to {max} bytes, this one has {0}", max = wire::MAX_TOPIC)]
    Lock(usize),
    #[error("this worker holds, or waits for, {max} locks already", max = queues::MAX_CLAIMS)]
    TooManyLocks,
    #[error("this worker drains, and is granted no lock any more")]
    Draining,
}

/// A worker's end of the dispatch. Cheap to clone, and usable on every thread.
#[derive(Clone)]
pub struct Dispatch(Arc<Shared>);

struct Shared {
    outgoing: Mutex<Outgoing>,
    /// Notified when there is something to send.
    to_send: Notify,
    /// Notified when there is nothing left to send.
    idle: Condvar,
    subscriptions: Mutex<Subscriptions>,
    claims: Mutex<Claims>,
}

#[derive(Default)]
struct Outgoing {
    backlog: Backlog,
    /// A packet was taken from the backlog and is being sent.
    sending: bool,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dispatch {
    /// Starts the thread, which ends with the other end of `socket`.
    pub fn open(socket: OwnedFd) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let socket = {
            let _inside = runtime.enter();
            Arc::new(Socket::new(socket)?)
        };
        let shared = Arc::new(Shared {
            outgoing: Mutex::default(),
            to_send: Notify::new(),
            idle: Condvar::new(),
            subscriptions: Mutex::default(),
            claims: Mutex::default(),
        });
        let dispatch = Self(Arc::clone(&shared));
        std::thread::Builder::new().name("dispatch".to_owned()).spawn(move || {
            runtime.spawn(send(Arc::clone(&shared), Arc::clone(&socket)));
            runtime.block_on(receive(&shared, &socket));
            shared.close();
        })?;
        Ok(dispatch)
    }

    /// Queues a message. Never blocks.
    pub fn publish(&self, topic: &str, bytes: &[u8]) -> Result<(), DispatchFault> {
        check(topic)?;
        if bytes.len() > wire::MAX_MESSAGE {
            return Err(DispatchFault::TooLong(bytes.len()));
        }
        let packet = wire::message(topic, bytes);
        {
            let mut outgoing = lock(&self.0.outgoing);
            if outgoing.closed {
                return Err(DispatchFault::Gone);
            }
            if !outgoing.backlog.has_room_for(&packet) {
                return Err(DispatchFault::OutgoingFull);
            }
            outgoing.backlog.push(packet);
        }
        self.0.to_send.notify_one();
        Ok(())
    }

    /// Subscribes to what is published on the topic from now on.
    pub fn subscribe(&self, topic: &str) -> Result<Subscription, DispatchFault> {
        check(topic)?;
        let (topic, reader) = lock(&self.0.subscriptions).subscribe(topic)?;
        Ok(Subscription { shared: Arc::clone(&self.0), topic, reader })
    }

    /// Claims a lock.
    pub fn acquire(&self, lock_name: &str) -> Result<LockClaim, DispatchFault> {
        if !(1..=wire::MAX_TOPIC).contains(&lock_name.len()) {
            return Err(DispatchFault::Lock(lock_name.len()));
        }
        let name: Arc<str> = Arc::from(lock_name);
        let number = lock(&self.0.claims).claim(&name)?;
        self.0.to_send.notify_one();
        Ok(LockClaim { shared: Arc::clone(&self.0), name, number })
    }

    /// Grants no lock any more, because the worker drains: tasks that wait for one get an error.
    pub fn refuse_locks(&self) {
        let wakers = lock(&self.0.claims).end(DispatchFault::Draining);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// Waits until everything is sent, up to `limit`. For a process that exits.
    pub fn finish(&self, limit: Duration) {
        let outgoing = lock(&self.0.outgoing);
        let is_busy = |outgoing: &mut Outgoing| {
            let is_quiet = outgoing.backlog.is_empty() && lock(&self.0.claims).is_quiet();
            !outgoing.closed && (outgoing.sending || !is_quiet)
        };
        // The process exits, whether it was in time or not.
        let _ = self.0.idle.wait_timeout_while(outgoing, limit, is_busy);
    }
}

fn check(topic: &str) -> Result<(), DispatchFault> {
    if (1..=wire::MAX_TOPIC).contains(&topic.len()) { Ok(()) } else { Err(DispatchFault::Topic(topic.len())) }
}

impl Shared {
    /// The next packet to send. The one before has been sent.
    fn next(&self) -> Option<bytes::Bytes> {
        let mut outgoing = lock(&self.outgoing);
        // Claims first: no message delays a lock of other workers.
        let claim = lock(&self.claims).next();
        let next = claim.or_else(|| outgoing.backlog.pop());
        outgoing.sending = next.is_some();
        if next.is_none() {
            self.idle.notify_all();
        }
        next
    }

    /// Ends subscriptions and claims: the master has gone.
    fn close(&self) {
        *lock(&self.outgoing) = Outgoing { closed: true, ..Outgoing::default() };
        self.idle.notify_all();
        let wakers = lock(&self.subscriptions).end();
        let waiting = lock(&self.claims).close();
        wakers.into_iter().chain(waiting).for_each(std::task::Waker::wake);
    }
}

/// Sends what there is to send, until the master has gone.
async fn send(shared: Arc<Shared>, socket: Arc<Socket>) {
    loop {
        let Some(packet) = shared.next() else {
            shared.to_send.notified().await;
            continue;
        };
        if let Err(error) = socket.send(&packet, &[]).await {
            if !is_the_end(&error) {
                tracing::error!(error = chain(&error), "messages to other workers can't be sent");
            }
            *lock(&shared.outgoing) = Outgoing { closed: true, ..Outgoing::default() };
            shared.idle.notify_all();
            return;
        }
    }
}

/// Receives what the master sends, until it has gone.
async fn receive(shared: &Shared, socket: &Socket) {
    let mut buffer = vec![0; wire::MAX_PACKET];
    loop {
        let length = match socket.receive_plain(&mut buffer).await {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(error = chain(&error), "unreadable message from the master");
                continue;
            }
            Err(error) => {
                if !is_the_end(&error) {
                    tracing::error!(error = chain(&error), "messages of other workers can't be received");
                }
                return;
            }
        };
        let wakers = match wire::read(&buffer[..length]) {
            Ok(Packet::Message { origin, topic, bytes }) => lock(&shared.subscriptions).deliver(topic, origin, bytes),
            Ok(Packet::Lost { topic, count }) => lock(&shared.subscriptions).lose(topic, count),
            Ok(Packet::Granted { number, .. }) => lock(&shared.claims).granted(number).into_iter().collect(),
            // Only workers send these.
            Ok(Packet::Claim { .. } | Packet::Release { .. }) => continue,
            Err(error) => {
                tracing::error!(error = chain(&error), "unreadable message from the master");
                continue;
            }
        };
        // Outside the lock: a waker runs the app's code, which may drop a task that holds a subscription.
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

/// One subscription to a topic. Dropping it ends it.
pub struct Subscription {
    shared: Arc<Shared>,
    topic: Arc<str>,
    reader: u64,
}

impl Subscription {
    /// What comes next; `None` when nothing will come any more.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let (heard, replaced) = lock(&self.shared.subscriptions).poll(&self.topic, self.reader, context.waker());
        // Outside the lock, as above.
        drop(replaced);
        heard
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let left = lock(&self.shared.subscriptions).unsubscribe(&self.topic, self.reader);
        drop(left);
    }
}

/// A claim to a lock, and the lock once it is held. Dropping it releases the lock.
pub struct LockClaim {
    shared: Arc<Shared>,
    name: Arc<str>,
    number: u64,
}

impl LockClaim {
    /// Whether the lock is held.
    pub fn poll_held(&self, context: &mut Context<'_>) -> Poll<Result<(), DispatchFault>> {
        let (held, replaced) = lock(&self.shared.claims).poll(self.number, context.waker());
        // Outside the lock, as above.
        drop(replaced);
        held
    }
}

impl Drop for LockClaim {
    fn drop(&mut self) {
        let left = lock(&self.shared.claims).release(&self.name, self.number);
        self.shared.to_send.notify_one();
        drop(left);
    }
}
