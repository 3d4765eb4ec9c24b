//! Handover: connections on their way from one worker to another.
//!
//! Owns the road between workers: who a connection is sent to ([`outbox`]), how many travel together ([`wire`]),
//! that none is lost nor served twice, and the bounds of all that. Knows nothing of HTTP, listeners or threads: it
//! moves a descriptor with papers, which somebody writes at the one end and reads at the other. Which workers are
//! joined by a link, and when, is the master's decision; it makes the link and is no part of it.
//!
//! ```text
//!                  the master ── one end each, on their handover sockets ──┐
//!                      ▼                                                   ▼
//! serving thread ─▶ thread "handover" ═══ a link: connections, papers ══▶ thread "handover" ─▶ serving thread
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
//! [`outbox::WINDOW`] connections are on a link. Before it wait no more than the worker had, each with less than it
//! took to serve it. What arrives waits within bounds for its serving thread, or is not taken. No descriptor to
//! spare here, too many in flight, a worker that is stopped or gone: a connection that nobody takes goes back to
//! where it came from, and is closed politely there.

mod harbour;
mod outbox;
mod take;
mod wire;

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use app_host_core::error::chain;
use app_host_core::message::ToRoad;
use app_host_platform::channel::{ChannelError, FromMaster};
use app_host_platform::sys::packet::Socket;
pub use harbour::{Harbour, NoBerth, Parcel, Settle};
pub use outbox::Given;
use outbox::{BATCH, Outbox};
use take::take;
use wire::{MAX_WORD, Word};

/// The most bytes that a connection's papers have.
pub const MAX_PAPERS: usize = 96 * 1024;

/// How many batches of connections are taken in before the road looks at what else there is.
const AT_ONCE: usize = BATCH;

/// How long nothing is sent when the kernel has too many descriptors in flight.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a worker that serves lets go of connections for the sake of balance.
const BALANCING: Duration = Duration::from_secs(1);

/// What the worker is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It serves, and takes what it is sent.
    Serves,
    /// It drains, and its connections are to go to others.
    Leaves,
    /// It drains, and nobody is there to take its connections.
    Closes,
    /// As before, and no answer is waited for any more.
    Ends,
}

/// The way to the thread. Cheap to clone, and at home on every thread.
#[derive(Debug)]
pub struct Road<P> {
    /// As many connections as there are in this worker.
    orders: mpsc::UnboundedSender<Vec<P>>,
    stance: Arc<watch::Sender<Stance>>,
}

impl<P> Clone for Road<P> {
    fn clone(&self) -> Self {
        Self { orders: self.orders.clone(), stance: Arc::clone(&self.stance) }
    }
}

/// A road that is not open yet.
#[derive(Debug)]
pub struct Plan<P> {
    orders: mpsc::UnboundedReceiver<Vec<P>>,
    stance: watch::Receiver<Stance>,
}

/// A road, and what makes its thread.
pub fn plan<P>() -> (Road<P>, Plan<P>) {
    let (orders, queue) = mpsc::unbounded_channel();
    let (stance, stances) = watch::channel(Stance::Serves);
    (Road { orders, stance: Arc::new(stance) }, Plan { orders: queue, stance: stances })
}

impl<P> Road<P> {
    /// Gives connections to other workers. What becomes of them is [told](Harbour::tell); they are returned if
    /// there is nobody who could, which only a bug does.
    pub fn give(&self, parcels: Vec<P>) -> Result<(), Vec<P>> {
        self.orders.send(parcels).map_err(|mpsc::error::SendError(parcels)| parcels)
    }

    /// From now on the worker is about this.
    pub fn stand(&self, stance: Stance) {
        self.stance.send_replace(stance);
    }
}

impl<P: Parcel> Plan<P> {
    /// Makes the thread. `socket` is the worker's handover socket, on which links come.
    pub fn open<H: Harbour<Parcel = P> + Send>(self, socket: OwnedFd, harbour: H) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = {
            let _inside = runtime.enter();
            FromMaster::new(socket)?
        };
        std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, serve(self, channel, Rc::new(harbour)));
        })?;
        Ok(())
    }
}

/// What has happened on a link that this worker sends on.
enum Happened {
    Said(Word),
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
struct Post<H: Harbour> {
    outbox: Outbox<H::Parcel>,
    links: HashMap<u64, Sending>,
    happened: mpsc::UnboundedSender<(u64, Happened)>,
    harbour: Rc<H>,
    /// Whether what arrives is taken.
    takes: Rc<Cell<bool>>,
    begin: Instant,
    /// What has been said once: that nobody takes a connection, and that too many are in flight.
    said: (bool, bool),
}

async fn serve<H: Harbour>(plan: Plan<H::Parcel>, channel: FromMaster, harbour: Rc<H>) {
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
    let mut given = Vec::with_capacity(AT_ONCE);
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
            count = orders.recv_many(&mut given, AT_ONCE) => {
                if count == 0 {
                    // Everybody who could give something is gone.
                    return;
                }
                let now = post.begin.elapsed();
                given.drain(..).flatten().for_each(|parcel| post.outbox.push(parcel, now));
            }
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
            Stance::Ends => self.outbox.cut(),
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
            Happened::Said(Word { held, answers }) => self.outbox.answered(link, &answers, held, now),
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
            let Some((link, count)) = self.outbox.next(now) else { break };
            let socket = self.links.get(&link).map(|sending| &sending.socket);
            let (packet, descriptors) = wire::pack(self.outbox.waiting().take(count));
            let count = descriptors.len();
            if count == 0 {
                self.outbox.refuse_first();
                continue;
            }
            let sent = socket.map(|it| it.try_send(&packet, &descriptors));
            match sent {
                Some(Ok(())) => self.outbox.sent(link, count, now),
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
                    if !app_host_platform::sys::packet::is_the_end(&error) {
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
        let given = self.outbox.take_done();
        if given.is_empty() {
            return;
        }
        let comes_back = given.iter().any(|given| matches!(given, Given::Back(_)));
        if comes_back && !std::mem::replace(&mut self.said.0, true) {
            tracing::info!("no other worker takes a connection; it ends here");
        }
        self.harbour.tell(given);
    }
}

/// Whether the same may succeed in a little.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOMEM | libc::ENOBUFS | libc::EINTR))
}

/// Hears what the worker at the other end of a link says.
async fn listen(socket: Rc<Socket>, link: u64, happened: mpsc::UnboundedSender<(u64, Happened)>) {
    let mut buffer = [0; MAX_WORD];
    loop {
        let word = match socket.receive_plain(&mut buffer).await {
            Ok(length @ 1..) => Word::read(&buffer[..length]),
            Ok(0) | Err(_) => None,
        };
        let gone = word.is_none();
        if happened.send((link, word.map_or(Happened::Gone, Happened::Said))).is_err() || gone {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
