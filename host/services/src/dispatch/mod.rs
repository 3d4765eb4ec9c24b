//! Dispatch, a worker's end of it: what the app publishes goes out, what others published comes in; and so do its
//! claims to locks that only one worker holds.
//!
//! Owns the subscriptions ([`hub`]) and the claims ([`claims`]). The bounds, the form of a packet and the queue on the
//! way out are [`app_host_core::dispatch`]'s; routing between workers, and which claim is granted, are the master's
//! business. Where something is dropped, and who is told, is promised in `app_abi`'s `Host::publish`.
//!
//! ```text
//! app ── publish ──▶ backlog ──┐ thread "dispatch" ┌──▶ hub ──▶ subscriptions ──▶ app
//!        refused when full     └──▶ the socket ◀───┘    the oldest dropped when full
//! ```
//! The thread runs no code of the app's but the wakers of its tasks, so an app that blocks its serving
//! threads keeps nobody from being heard; and no serving thread ever waits for the socket.

mod claims;
mod hub;

pub use hub::Heard;

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
use hub::Hub;

/// Why something isn't published or subscribed to. Prints as what the app's developer needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DispatchFault {
    #[error("a topic has from 1 to {max} bytes, this one has {0}", max = wire::MAX_TOPIC)]
    Topic(usize),
    #[error("a message has at most {max} bytes, this one has {0}", max = wire::MAX_MESSAGE)]
    TooLong(usize),
    #[error("{MAX_WAITING} messages or {MAX_WAITING_BYTES} bytes of them wait already on their way out of this worker")]
    OutgoingFull,
    #[error("this worker has {} subscriptions already", hub::MAX_READERS)]
    TooManySubscriptions,
    #[error("this worker subscribes to {} topics already", hub::MAX_TOPICS)]
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

/// A worker's dispatch. Cheap to clone, and at home on every thread.
#[derive(Clone)]
pub struct Dispatch(Arc<Shared>);

struct Shared {
    outgoing: Mutex<Outgoing>,
    /// Something is to be sent.
    news: Notify,
    /// Nothing is to be sent any more.
    idle: Condvar,
    hub: Mutex<Hub>,
    claims: Mutex<Claims>,
}

#[derive(Default)]
struct Outgoing {
    backlog: Backlog,
    /// A packet is being sent that is in the backlog no more.
    sending: bool,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dispatch {
    /// Makes the thread, which ends with the other end of `socket`.
    pub fn open(socket: OwnedFd) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let socket = {
            let _inside = runtime.enter();
            Arc::new(Socket::new(socket)?)
        };
        let shared = Arc::new(Shared {
            outgoing: Mutex::default(),
            news: Notify::new(),
            idle: Condvar::new(),
            hub: Mutex::default(),
            claims: Mutex::default(),
        });
        let dispatch = Self(Arc::clone(&shared));
        std::thread::Builder::new().name("dispatch".to_owned()).spawn(move || {
            runtime.spawn(speak(Arc::clone(&shared), Arc::clone(&socket)));
            runtime.block_on(listen(&shared, &socket));
            shared.close();
        })?;
        Ok(dispatch)
    }

    /// Gives a message on its way. Never blocks.
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
        self.0.news.notify_one();
        Ok(())
    }

    /// Hears what comes on the topic from now on.
    pub fn subscribe(&self, topic: &str) -> Result<Subscription, DispatchFault> {
        check(topic)?;
        let (topic, reader) = lock(&self.0.hub).subscribe(topic)?;
        Ok(Subscription { shared: Arc::clone(&self.0), topic, reader })
    }

    /// Takes a place in the queue for a lock.
    pub fn acquire(&self, lock_name: &str) -> Result<Place, DispatchFault> {
        if !(1..=wire::MAX_TOPIC).contains(&lock_name.len()) {
            return Err(DispatchFault::Lock(lock_name.len()));
        }
        let name: Arc<str> = Arc::from(lock_name);
        let number = lock(&self.0.claims).claim(&name)?;
        self.0.news.notify_one();
        Ok(Place { shared: Arc::clone(&self.0), name, number })
    }

    /// The worker drains: who waits for a lock waits in vain.
    pub fn refuse_locks(&self) {
        let wakers = lock(&self.0.claims).end(DispatchFault::Draining);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// Waits until everything is sent, but not for long. For a process that exits.
    pub fn finish(&self, limit: Duration) {
        let outgoing = lock(&self.0.outgoing);
        let is_busy = |outgoing: &mut Outgoing| {
            let is_quiet = outgoing.backlog.is_empty() && lock(&self.0.claims).is_quiet();
            !outgoing.closed && (outgoing.sending || !is_quiet)
        };
        // Late or not, the process exits now.
        let _ = self.0.idle.wait_timeout_while(outgoing, limit, is_busy);
    }
}

fn check(topic: &str) -> Result<(), DispatchFault> {
    if (1..=wire::MAX_TOPIC).contains(&topic.len()) { Ok(()) } else { Err(DispatchFault::Topic(topic.len())) }
}

impl Shared {
    /// The next packet to send. Whatever was sent before has been sent.
    fn next(&self) -> Option<bytes::Bytes> {
        let mut outgoing = lock(&self.outgoing);
        // No message keeps a lock from others.
        let claim = lock(&self.claims).next();
        let next = claim.or_else(|| outgoing.backlog.pop());
        outgoing.sending = next.is_some();
        if next.is_none() {
            self.idle.notify_all();
        }
        next
    }

    /// Nothing comes and goes any more.
    fn close(&self) {
        *lock(&self.outgoing) = Outgoing { closed: true, ..Outgoing::default() };
        self.idle.notify_all();
        let wakers = lock(&self.hub).end();
        let waiting = lock(&self.claims).close();
        wakers.into_iter().chain(waiting).for_each(std::task::Waker::wake);
    }
}

async fn speak(shared: Arc<Shared>, socket: Arc<Socket>) {
    loop {
        let Some(packet) = shared.next() else {
            shared.news.notified().await;
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

/// Returns when the master has gone.
async fn listen(shared: &Shared, socket: &Socket) {
    let mut buffer = vec![0; wire::MAX_PACKET];
    loop {
        let length = match socket.receive_plain(&mut buffer).await {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(error = chain(&error), "a message of the master's is not understood");
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
            Ok(Packet::Message { origin, topic, bytes }) => lock(&shared.hub).deliver(topic, origin, bytes),
            Ok(Packet::Lost { topic, count }) => lock(&shared.hub).lose(topic, count),
            Ok(Packet::Granted { number, .. }) => lock(&shared.claims).granted(number).into_iter().collect(),
            // Those are the master's to hear.
            Ok(Packet::Claim { .. } | Packet::Release { .. }) => continue,
            Err(error) => {
                tracing::error!(error = chain(&error), "a message of the master's is not understood");
                continue;
            }
        };
        // Outside the lock: a waker is the app's, and may drop a task that holds a subscription.
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

/// One subscription to a topic; its drop ends it.
pub struct Subscription {
    shared: Arc<Shared>,
    topic: Arc<str>,
    reader: u64,
}

impl Subscription {
    /// What comes next; `None` when nothing ever will.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Heard>> {
        let (heard, replaced) = lock(&self.shared.hub).poll(&self.topic, self.reader, context.waker());
        // Outside the lock, as above.
        drop(replaced);
        heard
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let left = lock(&self.shared.hub).unsubscribe(&self.topic, self.reader);
        drop(left);
    }
}

/// A place in the queue for a lock, and the lock from then on; its drop gives it back.
pub struct Place {
    shared: Arc<Shared>,
    name: Arc<str>,
    number: u64,
}

impl Place {
    /// Whether the lock is held.
    pub fn poll_held(&self, context: &mut Context<'_>) -> Poll<Result<(), DispatchFault>> {
        let (held, replaced) = lock(&self.shared.claims).poll(self.number, context.waker());
        // Outside the lock, as above.
        drop(replaced);
        held
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = lock(&self.shared.claims).release(&self.name, self.number);
        self.shared.news.notify_one();
        drop(left);
    }
}

#[cfg(test)]
mod tests;
