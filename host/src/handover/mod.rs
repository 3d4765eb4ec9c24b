//! Handover: connections on their way from one worker to another.
//!
//! Owns the road between workers: who a connection is sent to ([`outbox`]), that it is never lost nor served
//! twice, and the bounds of all that. Knows nothing of HTTP, listeners or threads: it moves a descriptor with
//! papers, which somebody writes at the one end and reads at the other. Which workers are joined by a
//! link, and when, is the master's decision; it makes the link and is no part of it.
//!
//! ```text
//!                  the master ── one end each, on their handover sockets ──┐
//!                      ▼                                                   ▼
//! serving thread ─▶ thread "handover" ═══ a link: connection, papers ═══▶ thread "handover" ─▶ serving thread
//!       ▲               │        ▲                                         │
//!       └── taken, back ┘        └───────────── taken, no room ────────────┘
//! ```
//! # Whose a connection is
//! Each has one owner at any moment. It is the sender's until the receiver has *said* that it takes it, and
//! the receiver says so before it reads a byte. So a receiver that dies without having said it has read nothing, and
//! the sender, which has kept a duplicate, gives the connection to another. A receiver whose word can't
//! be sent has a sender that is gone, and is the only owner. Because the duplicate may live a little longer than
//! the receiver's interest, that one ends a connection by `shutdown(2)` and not by closing it alone.
//!
//! # What is bounded
//! [`outbox::WINDOW`] connections are on a link, and [`outbox::WAITING`] before it; all others wait where they
//! were served, on no thread. What arrives waits within bounds for its serving thread, or is not taken. No
//! descriptor to spare here, too many in flight, a worker that is stopped or gone: a connection that nobody
//! takes goes back to where it came from, and is closed politely there.

mod outbox;

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use crate::causes::chain;
use crate::channel::{Channel, ChannelError};
use crate::message::ToRoad;
use crate::sys::packet::Socket;
use outbox::{Answer, Done, Outbox};

/// The most bytes that a connection's papers have.
pub const MAX_PAPERS: usize = 96 * 1024;

/// Room in a link's socket: the longest papers, and many short ones.
pub const SOCKET_BYTES: usize = 512 * 1024;

/// How long nothing is sent when the kernel has too many descriptors in flight.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a worker that serves lets go of connections for the sake of balance.
const BALANCING: Duration = Duration::from_secs(1);

/// A connection that changes its worker, and what must be known of it.
#[derive(Debug)]
pub struct Parcel {
    /// The connection.
    pub socket: OwnedFd,
    /// At most [`MAX_PAPERS`].
    pub papers: Vec<u8>,
}

/// What became of a parcel.
#[derive(Debug)]
pub enum Given {
    /// Another worker serves it.
    Taken,
    /// Nobody takes it.
    Back(Parcel),
    /// It is closed: the thread is gone, which only a bug does.
    Lost,
}

/// What the worker is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It serves, and takes what it is sent.
    Serves,
    /// It drains, and its connections are to go to others.
    Leaves,
    /// It drains, and nobody is there to take its connections.
    Closes,
}

/// Where parcels arrive.
pub trait Harbour: 'static {
    /// Finds a place for a parcel; what it gives is called when the sender has been told, and must not fail.
    fn berth(&self, parcel: Parcel) -> Result<Box<dyn FnOnce()>, NoBerth>;

    /// How many connections this worker has.
    fn holds(&self) -> u64;

    /// So many idle connections are to be given away.
    fn invite(&self, connections: u64);
}

/// Why a parcel has no place; it is dropped here, and its sender goes on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBerth {
    /// None is free.
    Full,
    /// Nobody here knows its papers, or the listener in them.
    Unknown,
}

/// The way to the thread. Cheap to clone, and at home on every thread.
#[derive(Clone, Debug)]
pub struct Road {
    orders: mpsc::Sender<Order>,
    stance: Arc<watch::Sender<Stance>>,
}

#[derive(Debug)]
struct Order {
    parcel: Parcel,
    done: oneshot::Sender<Given>,
}

/// A road that is not open yet.
#[derive(Debug)]
pub struct Plan {
    orders: mpsc::Receiver<Order>,
    stance: watch::Receiver<Stance>,
}

/// A road, and what makes its thread.
pub fn plan() -> (Road, Plan) {
    let (orders, queue) = mpsc::channel(outbox::WAITING);
    let (stance, stances) = watch::channel(Stance::Serves);
    (Road { orders, stance: Arc::new(stance) }, Plan { orders: queue, stance: stances })
}

impl Road {
    /// Gives a connection to another worker. Waits until it is known what becomes of it.
    pub async fn give(&self, parcel: Parcel) -> Given {
        let (done, outcome) = oneshot::channel();
        match self.orders.send(Order { parcel, done }).await {
            Ok(()) => outcome.await.unwrap_or(Given::Lost),
            Err(mpsc::error::SendError(order)) => Given::Back(order.parcel),
        }
    }

    /// From now on the worker is about this.
    pub fn stand(&self, stance: Stance) {
        self.stance.send_replace(stance);
    }
}

impl Plan {
    /// Makes the thread. `socket` is the worker's handover socket, on which links come.
    pub fn open<H: Harbour + Send>(self, socket: OwnedFd, harbour: H) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = {
            let _inside = runtime.enter();
            Channel::from_owned_fd(socket)?
        };
        std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, serve(self, channel, Rc::new(harbour)));
        })?;
        Ok(())
    }
}

/// What has happened on a link that this worker sends on.
#[derive(Clone, Copy)]
enum Happened {
    Answered(Answer, u64),
    /// How many connections the other worker has, said at the beginning.
    Holds(u64),
    Writable,
    Gone,
}

struct Sending {
    socket: Rc<Socket>,
    listens: AbortHandle,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.listens.abort();
    }
}

/// What the thread has.
struct Post<H> {
    outbox: Outbox<Order>,
    links: HashMap<u64, Sending>,
    happened: mpsc::UnboundedSender<(u64, Happened)>,
    harbour: Rc<H>,
    /// Whether what arrives is taken.
    takes: Rc<Cell<bool>>,
    begin: Instant,
    /// What has been said once: that nobody takes a connection, and that too many are in flight.
    said: (bool, bool),
}

async fn serve<H: Harbour>(plan: Plan, channel: Channel, harbour: Rc<H>) {
    let Plan { mut orders, mut stance } = plan;
    let (happened, mut events) = mpsc::unbounded_channel();
    let mut post = Post {
        outbox: Outbox::new(),
        links: HashMap::new(),
        happened,
        harbour,
        takes: Rc::new(Cell::new(true)),
        begin: Instant::now(),
        said: (false, false),
    };
    let (mut connected, mut directed) = (true, true);
    loop {
        post.send_all();
        let now = post.begin.elapsed();
        let deadline = post.outbox.deadline(now).map(|deadline| post.begin + deadline);
        tokio::select! {
            // Answers make room, and news of the worker come before its connections.
            biased;
            changed = stance.changed(), if directed => match changed {
                Ok(()) => {
                    let stance = *stance.borrow_and_update();
                    post.stand(stance);
                }
                Err(_) => directed = false,
            },
            received = channel.receive::<ToRoad>(), if connected => match received {
                Ok(Some((message, descriptors))) => post.link(message, descriptors),
                Ok(None) | Err(ChannelError::Socket(_)) => connected = false,
                Err(error) => tracing::error!(error = chain(&error), "word of a link is not understood"),
            },
            Some((link, event)) = events.recv() => post.happened(link, event),
            order = orders.recv(), if post.outbox.has_room() => match order {
                Some(order) => {
                    let now = post.begin.elapsed();
                    post.outbox.push(order, now);
                }
                // Everybody who could give something is gone.
                None => return,
            },
            () = sleep_until(deadline) => {
                let now = post.begin.elapsed();
                post.outbox.tick(now);
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl<H: Harbour> Post<H> {
    fn stand(&mut self, stance: Stance) {
        let now = self.begin.elapsed();
        self.takes.set(stance == Stance::Serves);
        match stance {
            Stance::Serves => {}
            Stance::Leaves => {
                self.outbox.end_early(now);
                self.outbox.expect_links(now);
            }
            Stance::Closes => self.outbox.close(),
        }
    }

    fn link(&mut self, message: ToRoad, descriptors: Vec<OwnedFd>) {
        let made = descriptors.into_iter().next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        let socket = match made.and_then(Socket::new) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                tracing::warn!(error = chain(&error), "a link to another worker can't be used");
                return;
            }
        };
        match message {
            ToRoad::Take => drop(spawn_local(take(socket, Rc::clone(&self.harbour), Rc::clone(&self.takes)))),
            ToRoad::Give { invited } => {
                let now = self.begin.elapsed();
                let number = self.outbox.add_link(invited.map(|_| now + BALANCING), now);
                let listens = spawn_local(listen(Rc::clone(&socket), number, self.happened.clone())).abort_handle();
                self.links.insert(number, Sending { socket, listens });
                if let Some(connections) = invited {
                    self.harbour.invite(connections);
                }
            }
        }
    }

    fn happened(&mut self, link: u64, event: Happened) {
        let now = self.begin.elapsed();
        match event {
            Happened::Answered(answer, held) => self.outbox.answered(link, answer, held, now),
            Happened::Holds(held) => self.outbox.holds(link, held),
            Happened::Writable => self.outbox.block(link, false),
            Happened::Gone => self.gone(link),
        }
    }

    fn gone(&mut self, link: u64) {
        if self.links.remove(&link).is_some() {
            let now = self.begin.elapsed();
            self.outbox.gone(link, now);
        }
    }

    /// Sends what can be sent, and tells of what is decided.
    fn send_all(&mut self) {
        loop {
            let now = self.begin.elapsed();
            let Some((link, order)) = self.outbox.next(now) else { break };
            let socket = self.links.get(&link).map(|sending| &sending.socket);
            let sent = socket.map(|it| it.try_send(&order.parcel.papers, &[order.parcel.socket.as_fd()]));
            match sent {
                Some(Ok(())) => self.outbox.sent(link, now),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outbox.block(link, true);
                    let (socket, happened) = (socket.map(Rc::clone), self.happened.clone());
                    spawn_local(async move {
                        // An error is what the next try says.
                        if let Some(socket) = socket {
                            let _ = socket.writable().await;
                        }
                        let _ = happened.send((link, Happened::Writable));
                    });
                }
                // More is in flight between all workers of this user than one may have open, or there is
                // no memory at the moment.
                Some(Err(error)) if is_passing(&error) => {
                    if !std::mem::replace(&mut self.said.1, true) {
                        tracing::debug!(error = chain(&error), "connections wait for their turn to be sent");
                    }
                    self.outbox.pause(now + PAUSE);
                }
                Some(Err(error)) => {
                    if !crate::dispatch::is_the_end(&error) {
                        tracing::warn!(error = chain(&error), "connections can't be sent to another worker");
                    }
                    self.gone(link);
                }
                None => self.outbox.gone(link, now),
            }
        }
        let now = self.begin.elapsed();
        for link in self.outbox.take_ended(now) {
            self.links.remove(&link);
            self.harbour.invite(0);
        }
        for done in self.outbox.take_done() {
            // Whoever has given it may be cut meanwhile.
            let _ = match done {
                Done::Taken(order) => order.done.send(Given::Taken),
                Done::Back(order) => {
                    if !std::mem::replace(&mut self.said.0, true) {
                        tracing::info!("no other worker takes a connection; it ends here");
                    }
                    order.done.send(Given::Back(order.parcel))
                }
            };
        }
    }
}

/// Whether the same may succeed in a little.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOMEM | libc::ENOBUFS | libc::EINTR))
}

/// How long what a receiver says is: what it is, and how many connections its worker has.
const WORD: usize = 9;

const TAKEN: u8 = 1;
const NO_ROOM: u8 = 2;
const UNKNOWN: u8 = 3;
const HOLDS: u8 = 4;

fn word(kind: u8, held: u64) -> [u8; WORD] {
    let mut word = [kind; WORD];
    word[1..].copy_from_slice(&held.to_ne_bytes());
    word
}

fn understand(word: &[u8]) -> Option<Happened> {
    let (kind, held) = word.split_first()?;
    let held = u64::from_ne_bytes(held.try_into().ok()?);
    Some(match *kind {
        TAKEN => Happened::Answered(Answer::Taken, held),
        NO_ROOM => Happened::Answered(Answer::NoRoom, held),
        UNKNOWN => Happened::Answered(Answer::Unknown, held),
        HOLDS => Happened::Holds(held),
        _ => return None,
    })
}

/// Hears what the worker at the other end of a link says.
async fn listen(socket: Rc<Socket>, link: u64, happened: mpsc::UnboundedSender<(u64, Happened)>) {
    let mut buffer = [0; WORD];
    loop {
        let event = match socket.receive_plain(&mut buffer).await {
            Ok(length @ 1..) => understand(&buffer[..length]),
            Ok(0) | Err(_) => None,
        };
        let event = event.unwrap_or(Happened::Gone);
        let gone = matches!(event, Happened::Gone);
        if happened.send((link, event)).is_err() || gone {
            return;
        }
    }
}

/// Takes what comes on a link, until its end.
async fn take<H: Harbour>(socket: Rc<Socket>, harbour: Rc<H>, takes: Rc<Cell<bool>>) {
    let mut buffer = vec![0; MAX_PAPERS];
    // Whoever can't be told is gone, which the next read says.
    let _ = socket.send(&word(HOLDS, harbour.holds()), &[]).await;
    loop {
        let berth = match socket.receive(&mut buffer).await {
            Ok((0, _)) => return,
            Ok((length, descriptors)) => match descriptors.into_iter().next() {
                Some(connection) if takes.get() => {
                    harbour.berth(Parcel { socket: connection, papers: buffer[..length].to_vec() })
                }
                Some(_) => Err(NoBerth::Full),
                None => Err(NoBerth::Unknown),
            },
            // A connection has come and found no descriptor free here: it is still its sender's.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(NoBerth::Full),
            Err(error) => {
                if !crate::dispatch::is_the_end(&error) {
                    tracing::warn!(error = chain(&error), "connections of another worker can't be received");
                }
                return;
            }
        };
        let (kind, settle) = match berth {
            Ok(settle) => (TAKEN, Some(settle)),
            Err(NoBerth::Full) => (NO_ROOM, None),
            Err(NoBerth::Unknown) => (UNKNOWN, None),
        };
        let held = harbour.holds() + u64::from(settle.is_some());
        // In this order: nobody else can serve it once it has been said that it is served here, and from
        // then on nobody else does.
        let _ = socket.send(&word(kind, held), &[]).await;
        if let Some(settle) = settle {
            settle();
        }
    }
}

#[cfg(test)]
mod tests;
