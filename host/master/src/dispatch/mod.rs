//! Dispatch, the master's part: what one worker publishes goes to all, and a lock to one of those who claim it.
//!
//! Owns a thread of its own with the dispatch sockets of all workers, so that a flood of messages delays
//! no event of the machine's, which never sees one. Each worker has its turn: so many packets, then the
//! others'. What a worker doesn't read waits within bounds, and then the oldest is dropped and counted
//! by topic; nobody else waits for it.
//!
//! ```text
//! worker 0 ── socket ──▶ reader ──┐ stamp ┌──▶ outgoing 0 ──▶ writer ── socket ──▶ worker 0
//! worker 1 ── socket ──▶ reader ──┴───────┴──▶ outgoing 1 ──▶ writer ── socket ──▶ worker 1
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, LocalSet, spawn_local, yield_now};
use tracing::{debug, warn};

use app_host_core::dispatch::Backlog;
use app_host_core::dispatch::queues::{Claim, Queues, TooMany};
use app_host_core::dispatch::wire::{self, Packet, Publisher, WireError};
use app_host_core::error::chain;
use app_host_core::foreign::printable;
use app_host_core::ids::{Generation, Slot, WorkerId};
use app_host_platform::sys::packet::{self, Socket, is_the_end};

/// How many packets of one worker are read before the others have their turn.
const TURN: usize = 16;

/// How many packets of a worker that has exited are read: more than its socket has room for.
const LAST_PACKETS: usize = 8192;

/// For how many topics losses are counted apart; those of others are told to all.
const MAX_LOST_TOPICS: usize = 64;

/// The way to the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Dispatch(mpsc::UnboundedSender<Order>);

/// Has locks be granted, where none were so far.
#[derive(Debug)]
pub(super) struct Granter(mpsc::UnboundedSender<Order>);

impl Granter {
    /// From now on; what was claimed already is granted at once.
    pub(super) fn grant(self) {
        let _ = self.0.send(Order::GrantFromNow);
    }
}

#[derive(Debug)]
enum Order {
    Join { worker: WorkerId, origin: Publisher, socket: OwnedFd },
    Leave { worker: WorkerId },
    GrantNoLocks,
    GrantNotYet,
    GrantFromNow,
}

impl Dispatch {
    /// Makes the thread.
    pub(super) fn open() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        // As many orders wait as workers were spawned or have exited in an instant.
        let (orders, queue) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("dispatch".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, serve(queue)))?;
        Ok(Self(orders))
    }

    /// A worker is there; `socket` is the master's end of its dispatch socket.
    pub(super) fn join(&self, worker: WorkerId, slot: Slot, generation: Generation, socket: OwnedFd) {
        let origin = Publisher { slot: slot.0, generation: generation.0 };
        // Without the thread, which only a bug ends, workers hear the end of their sockets.
        let _ = self.0.send(Order::Join { worker, origin, socket });
    }

    /// No lock is granted until it is said: workers that an earlier master left behind may hold some.
    pub(super) fn grant_locks_later(&self) -> Granter {
        let _ = self.0.send(Order::GrantNotYet);
        Granter(self.0.clone())
    }

    /// From now on no lock is granted.
    pub(super) fn grant_no_locks(&self) {
        let _ = self.0.send(Order::GrantNoLocks);
    }

    /// A worker has exited.
    pub(super) fn leave(&self, worker: WorkerId) {
        let _ = self.0.send(Order::Leave { worker });
    }
}

async fn serve(mut orders: mpsc::UnboundedReceiver<Order>) {
    let switch = Rc::new(Switch::default());
    while let Some(order) = orders.recv().await {
        match order {
            Order::Join { worker, origin, socket } => {
                if let Err(error) = Switch::join(&switch, worker, origin, socket) {
                    let Publisher { slot, generation } = origin;
                    warn!(slot, generation, error = chain(&error), "a worker gets no messages of others");
                }
            }
            Order::Leave { worker } => switch.leave(worker),
            Order::GrantNoLocks => switch.grants.set(Grants::Never),
            Order::GrantNotYet => switch.grants.set(Grants::Later),
            Order::GrantFromNow => switch.grant_from_now(),
        }
    }
}

/// The way to and from one worker.
struct Link {
    worker: WorkerId,
    origin: Publisher,
    socket: Socket,
    outgoing: RefCell<Outgoing>,
    /// It has sent what no worker of ours sends, and is not heard any more: neither now nor at its end.
    unheard: Cell<bool>,
    /// Something is to be sent.
    news: Notify,
}

struct Linked {
    link: Rc<Link>,
    tasks: [AbortHandle; 2],
}

/// All workers that haven't been seen to exit.
#[derive(Default)]
struct Switch {
    links: RefCell<HashMap<WorkerId, Linked>>,
    locks: RefCell<Queues>,
    grants: Cell<Grants>,
}

/// Whether who holds a lock is told so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Grants {
    #[default]
    Now,
    Later,
    Never,
}

/// A packet that no worker of ours sends.
#[derive(Debug, thiserror::Error)]
enum LinkViolation {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

impl Switch {
    fn join(switch: &Rc<Self>, worker: WorkerId, origin: Publisher, socket: OwnedFd) -> io::Result<()> {
        let socket = Socket::new(socket)?;
        packet::refuse_descriptors(&socket);
        let link = Rc::new(Link {
            worker,
            origin,
            socket,
            outgoing: RefCell::default(),
            unheard: Cell::new(false),
            news: Notify::new(),
        });
        let reader = spawn_local(read(Rc::clone(switch), Rc::clone(&link)));
        let writer = spawn_local(write(Rc::clone(&link)));
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        switch.links.borrow_mut().insert(worker, Linked { link, tasks });
        Ok(())
    }

    fn leave(&self, worker: WorkerId) {
        let Some(Linked { link, tasks }) = self.links.borrow_mut().remove(&worker) else { return };
        tasks.iter().for_each(AbortHandle::abort);
        // What it had sent before its end.
        let mut buffer = vec![0; wire::MAX_PACKET];
        // A socket that was shut down still has the packets that were in it.
        let last = if link.unheard.get() { 0 } else { LAST_PACKETS };
        for _ in 0..last {
            match packet::receive_plain(link.socket.as_fd(), &mut buffer) {
                Ok(0) => break,
                Ok(length) if self.route(&link, &mut buffer[..length]).is_ok() => {}
                Ok(_) | Err(_) => break,
            }
        }
        let granted = self.locks.borrow_mut().leave(worker);
        for (lock, claim) in granted {
            self.grant(&lock, claim);
        }
    }

    /// Sees to a packet of a worker.
    fn route(&self, from: &Link, packet: &mut [u8]) -> Result<(), LinkViolation> {
        let worker = from.worker;
        match wire::read(packet)? {
            Packet::Claim { lock, number } => {
                let claim = Claim { worker, generation: from.origin.generation, number };
                if self.locks.borrow_mut().claim(lock, claim)? {
                    self.grant(lock, claim);
                }
            }
            Packet::Release { lock, number } => {
                from.outgoing.borrow_mut().take_back(&wire::granted(lock, number));
                let next = self.locks.borrow_mut().release(lock, worker, number);
                if let Some(next) = next {
                    self.grant(lock, next);
                }
            }
            _ => self.publish(from, packet)?,
        }
        Ok(())
    }

    /// Tells all who hold a lock by now, unless none is granted any more.
    fn grant_from_now(&self) {
        if self.grants.get() == Grants::Later {
            self.grants.set(Grants::Now);
            let held = self.locks.borrow().held();
            for (lock, claim) in held {
                self.grant(&lock, claim);
            }
        }
    }

    /// Tells a worker that it holds a lock.
    fn grant(&self, lock: &str, claim: Claim) {
        if self.grants.get() == Grants::Now
            && let Some(Linked { link, .. }) = self.links.borrow().get(&claim.worker)
        {
            let Publisher { slot, generation } = link.origin;
            debug!(lock = %printable(lock), slot, generation, "lock granted");
            link.outgoing.borrow_mut().granted.push_back(wire::granted(lock, claim.number));
            link.news.notify_one();
        }
    }

    /// Hands a packet of one worker to all of them, itself included.
    fn publish(&self, from: &Link, packet: &mut [u8]) -> Result<(), WireError> {
        let packet = wire::stamp(packet, from.origin)?;
        for linked in self.links.borrow().values() {
            linked.link.outgoing.borrow_mut().push(packet.clone());
            linked.link.news.notify_one();
        }
        Ok(())
    }
}

impl Link {
    /// No worker of ours sends such a thing: what it has for others is not heard any more, so that a flood of it costs
    /// nothing.
    fn close(&self, error: &(dyn std::error::Error + 'static)) {
        let Publisher { slot, generation } = self.origin;
        warn!(
            slot,
            generation,
            error = chain(error),
            "unreadable packet from a worker for others; nothing more of it is received"
        );
        self.unheard.set(true);
        // Whatever it sends fails from now on. One that has gone doesn't need to be told.
        let _ = shutdown(self.socket.as_fd().as_raw_fd(), Shutdown::Read);
    }
}

/// Reads what a worker publishes, until its end.
async fn read(switch: Rc<Switch>, link: Rc<Link>) {
    let mut buffer = vec![0; wire::MAX_PACKET];
    loop {
        for _ in 0..TURN {
            match link.socket.receive_plain(&mut buffer).await {
                Ok(0) => return,
                Ok(length) => {
                    if let Err(error) = switch.route(&link, &mut buffer[..length]) {
                        link.close(&error);
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    link.close(&error);
                    return;
                }
                Err(error) => {
                    if !is_the_end(&error) {
                        let Publisher { slot, generation } = link.origin;
                        warn!(slot, generation, error = chain(&error), "a worker's messages can't be received");
                    }
                    return;
                }
            }
        }
        yield_now().await;
    }
}

/// Sends a worker what others publish, for as long as it can be sent.
async fn write(link: Rc<Link>) {
    loop {
        let next = link.outgoing.borrow_mut().next();
        let Some(packet) = next else {
            link.news.notified().await;
            continue;
        };
        if let Err(error) = link.socket.send(&packet, &[]).await {
            if !is_the_end(&error) {
                let Publisher { slot, generation } = link.origin;
                warn!(slot, generation, error = chain(&error), "a worker can't be sent messages of others");
            }
            link.outgoing.borrow_mut().close();
            return;
        }
    }
}

/// What waits for one worker.
#[derive(Default)]
struct Outgoing {
    /// Never dropped, and no more than its worker has claims.
    granted: VecDeque<Bytes>,
    backlog: Backlog,
    lost: Losses,
    closed: bool,
}

impl Outgoing {
    fn push(&mut self, packet: Bytes) {
        if self.closed {
            return;
        }
        while !self.backlog.has_room_for(&packet)
            && let Some(oldest) = self.backlog.pop()
        {
            self.lost.add(&oldest);
        }
        self.backlog.push(packet);
    }

    /// What is to be sent next: word of what was dropped comes before what came after it.
    fn next(&mut self) -> Option<Bytes> {
        self.granted.pop_front().or_else(|| self.lost.next()).or_else(|| self.backlog.pop())
    }

    /// Says no more that a claim was granted which was given back meanwhile.
    fn take_back(&mut self, granted: &Bytes) {
        if let Some(place) = self.granted.iter().position(|it| it == granted) {
            self.granted.remove(place);
        }
    }

    fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }
}

/// How many messages of each topic were dropped.
#[derive(Default)]
struct Losses {
    /// The empty topic stands for those beyond the bound.
    counts: HashMap<String, u64>,
}

impl Losses {
    fn add(&mut self, packet: &[u8]) {
        let Ok(Packet::Message { topic, .. }) = wire::read(packet) else { return };
        let topic = if self.counts.contains_key(topic) || self.counts.len() < MAX_LOST_TOPICS { topic } else { "" };
        match self.counts.get_mut(topic) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(topic.to_owned(), 1)),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let topic = self.counts.keys().next()?.clone();
        let count = self.counts.remove(&topic)?;
        Some(wire::lost(&topic, count))
    }
}

#[cfg(test)]
mod tests;
