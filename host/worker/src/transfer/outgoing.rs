//! The loop of the transfer thread: takes connections from the serving threads, sends them on links, and reports what
//! became of them.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};

use app_host_core::error::chain;
use app_host_core::message::ToTransfer;
use app_host_platform::channel::{ChannelError, FromMaster};
use app_host_platform::sys::packet::{Socket, is_the_end};

use super::incoming::receive;
use super::outbox::{BATCH, Outbox, Outcome};
use super::wire::{self, Ack, MAX_ACK};
use super::{Mode, Receiver, TransferQueue};

/// How many batches of connections are taken from the queue before everything else is looked at again.
const AT_ONCE: usize = BATCH;

/// How long nothing is sent when the kernel has too many descriptors in flight.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a worker that serves gives connections away for balance.
const BALANCING: Duration = Duration::from_secs(1);

/// What has happened on a link that this worker sends on.
enum LinkEvent {
    Acked(Ack),
    Writable,
    Gone,
}

/// A link that this worker sends on. Its acknowledgements are read until it is dropped.
struct OutgoingLink {
    socket: Rc<Socket>,
    reader: AbortHandle,
}

impl Drop for OutgoingLink {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The state of the transfer thread.
struct TransferLoop<R: Receiver> {
    outbox: Outbox<R::Connection>,
    links: HashMap<u64, OutgoingLink>,
    events: mpsc::UnboundedSender<(u64, LinkEvent)>,
    receiver: Rc<R>,
    /// Whether connections that arrive are accepted.
    accepts: Rc<Cell<bool>>,
    begin: Instant,
    logged: Logged,
}

/// What is logged once a worker.
#[derive(Default)]
struct Logged {
    returned: bool,
    paused: bool,
}

/// Runs until no thread can send connections any more.
pub(super) async fn run<R: Receiver>(queue: TransferQueue<R::Connection>, channel: FromMaster, receiver: Rc<R>) {
    let TransferQueue { mut connections, mut mode } = queue;
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut this = TransferLoop {
        outbox: Outbox::new(),
        links: HashMap::new(),
        events: sender,
        receiver,
        accepts: Rc::new(Cell::new(true)),
        begin: Instant::now(),
        logged: Logged::default(),
    };
    let (mut has_master, mut has_mode) = (true, true);
    let mut taken = Vec::with_capacity(AT_ONCE);
    loop {
        this.send_all();
        let now = this.begin.elapsed();
        let deadline = this.outbox.deadline(now).map(|deadline| this.begin + deadline);
        tokio::select! {
            // The mode before the connections that it is about, and acknowledgements before what needs their room.
            biased;
            changed = mode.changed(), if has_mode => match changed {
                Ok(()) => {
                    let mode = *mode.borrow_and_update();
                    this.set_mode(mode);
                }
                Err(_) => has_mode = false,
            },
            message = channel.receive::<ToTransfer>(), if has_master => match message {
                Ok(Some((message, descriptors))) => this.add_link(message, descriptors),
                Ok(None) | Err(ChannelError::Socket(_)) => has_master = false,
                Err(error) => tracing::error!(error = chain(&error), "unreadable link message from the master"),
            },
            Some((link, event)) = events.recv() => this.handle(link, event),
            count = connections.recv_many(&mut taken, AT_ONCE) => {
                if count == 0 {
                    return;
                }
                let now = this.begin.elapsed();
                taken.drain(..).flatten().for_each(|connection| this.outbox.push(connection, now));
            }
            () = sleep_until(deadline) => {
                let now = this.begin.elapsed();
                this.outbox.tick(now);
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

impl<R: Receiver> TransferLoop<R> {
    fn set_mode(&mut self, mode: Mode) {
        let now = self.begin.elapsed();
        self.accepts.set(mode == Mode::Serve);
        match mode {
            Mode::Serve => {}
            Mode::Transfer => {
                self.outbox.end_early(now);
                self.outbox.expect_links(now);
            }
            Mode::Close => self.outbox.close(),
            Mode::Cut => self.outbox.cut(),
        }
    }

    fn add_link(&mut self, message: ToTransfer, descriptors: Vec<OwnedFd>) {
        let made = descriptors.into_iter().next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        let socket = match made.and_then(Socket::new) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                tracing::warn!(error = chain(&error), "a link to another worker can't be used");
                return;
            }
        };
        match message {
            ToTransfer::Receive => {
                spawn_local(receive(socket, Rc::clone(&self.receiver), Rc::clone(&self.accepts)));
            }
            ToTransfer::Send { invited } => {
                let now = self.begin.elapsed();
                let number = self.outbox.add_link(invited.map(|_| now + BALANCING), now);
                let reader = spawn_local(read_acks(Rc::clone(&socket), number, self.events.clone())).abort_handle();
                self.links.insert(number, OutgoingLink { socket, reader });
                if let Some(connections) = invited {
                    self.receiver.invite(connections);
                }
            }
        }
    }

    fn handle(&mut self, link: u64, event: LinkEvent) {
        let now = self.begin.elapsed();
        match event {
            LinkEvent::Acked(Ack { connections, replies }) => {
                self.outbox.acknowledge(link, &replies, connections, now);
            }
            LinkEvent::Writable => self.outbox.set_blocked(link, false),
            LinkEvent::Gone => self.remove_link(link),
        }
    }

    fn remove_link(&mut self, link: u64) {
        if self.links.remove(&link).is_some() {
            let now = self.begin.elapsed();
            self.outbox.link_gone(link, now);
        }
    }

    /// Sends what can be sent, and reports what is decided.
    fn send_all(&mut self) {
        loop {
            let now = self.begin.elapsed();
            let Some((link, count)) = self.outbox.next(now) else { break };
            let socket = self.links.get(&link).map(|link| &link.socket);
            let (packet, descriptors) = wire::pack(self.outbox.waiting().take(count));
            let count = descriptors.len();
            if count == 0 {
                self.outbox.return_first();
                continue;
            }
            let sent = socket.map(|socket| socket.try_send(&packet, &descriptors));
            match sent {
                Some(Ok(())) => self.outbox.mark_sent(link, count, now),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outbox.set_blocked(link, true);
                    let (socket, events) = (socket.map(Rc::clone), self.events.clone());
                    spawn_local(async move {
                        // The next attempt to send meets the same error.
                        if let Some(socket) = socket {
                            let _ = socket.writable().await;
                        }
                        let _ = events.send((link, LinkEvent::Writable));
                    });
                }
                // More is in flight between all workers of this user than one may have open, or there is
                // no memory at the moment.
                Some(Err(error)) if is_transient(&error) => {
                    if !std::mem::replace(&mut self.logged.paused, true) {
                        tracing::debug!(error = chain(&error), "connections wait for their turn to be sent");
                    }
                    self.outbox.pause_until(now + PAUSE);
                }
                // What it had accepted before is still to be read: its listening task reads that, and then the end.
                Some(Err(error)) if is_the_end(&error) => self.outbox.set_blocked(link, true),
                Some(Err(error)) => {
                    tracing::warn!(error = chain(&error), "connections can't be sent to another worker");
                    self.remove_link(link);
                }
                None => self.outbox.link_gone(link, now),
            }
        }
        let now = self.begin.elapsed();
        for link in self.outbox.take_ended(now) {
            self.links.remove(&link);
            self.receiver.invite(0);
        }
        let outcomes = self.outbox.take_outcomes();
        if outcomes.is_empty() {
            return;
        }
        let any_returned = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Returned(_)));
        if any_returned && !std::mem::replace(&mut self.logged.returned, true) {
            tracing::info!("no other worker accepts a connection; it is closed here");
        }
        self.receiver.report(outcomes);
    }
}

/// Whether the same call may succeed a little later.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOMEM | libc::ENOBUFS | libc::EINTR))
}

/// Reads the acknowledgements on a link until it ends.
async fn read_acks(socket: Rc<Socket>, link: u64, events: mpsc::UnboundedSender<(u64, LinkEvent)>) {
    let mut buffer = [0; MAX_ACK];
    loop {
        let ack = match socket.receive_plain(&mut buffer).await {
            Ok(length @ 1..) => Ack::read(&buffer[..length]),
            Ok(0) | Err(_) => None,
        };
        let gone = ack.is_none();
        if events.send((link, ack.map_or(LinkEvent::Gone, LinkEvent::Acked))).is_err() || gone {
            return;
        }
    }
}
