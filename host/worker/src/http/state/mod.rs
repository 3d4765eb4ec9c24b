//! The state machine of one connection: decides whether it may leave, be parked, linger or close *now*.
//!
//! Pure: it knows no socket, no runtime, no hyper and no clock; the time is a value that it is told. Facts go in by
//! the methods that begin with `on_`, and what they return is done by whoever told the fact:
//!
//! ```text
//! transport   on_read_wanted ─▶ Read      on_read, on_delivered, on_write, on_sent
//!             on_flushed ─▶ wake?         on_shutdown ─▶ Shutdown
//! request     on_request                  on_response ─▶ announce the close?         on_response_end
//! body        on_body_awaited (from any thread)
//! driver      Timeouts: on_phase ─▶ Order, on_timer ─▶ Next      on_end ─▶ Exit      on_invited
//! ```
//! Before the protocol is known there is only [`FirstBytes`], and while nobody serves the connection only its
//! [`History`]. In between it goes through these stages, and leaves the last of them once:
//!
//! ```text
//!         a read, all is answered, not all has gone out
//!       ┌──────────────────────────────────────────────▶ Held
//!       │                                   flushed       │
//!      Open ◀─────────────────────────────────────────────┘
//!       │ │  a read, and no obstacle
//!       │ └────────────────────────────▶ Left ── HTTP gave back what was counted ──▶ moves, or is parked
//!       │  shutdown                        └──── it gave back something else ──┐
//!       └────────────────────────────▶ Closing ◀───────────────────────────────┘
//!                                         └──── at once, or after a lingering read ──▶ closed
//! ```
//! [`Phase::Cut`] and a time-out drop it wherever it is; a connection that the app upgrades is carried on as bytes.
//!
//! # Leaving
//! [`Goal`] says that a connection is to leave, [`Obstacle`] why it can't yet. Whatever else keeps a connection where
//! it is, such as the session of TLS or the streams of HTTP/2, is one more obstacle in [`ConnState::obstacle`].

mod cells;
mod first;
mod history;
mod phase;
#[cfg(test)]
mod tests;
mod timeouts;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::boundary::{Behind, Boundary};
use cells::{Choice, Countable, Flag, Number};

pub use first::{Early, FirstBytes, Protocol};
pub use history::{History, Spoken};
pub use phase::{Ending, Phase};
pub use timeouts::{Next, Order, Timeouts};

/// How long the first bytes of a connection may take, and, roughly, the rest of a request's head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes that a connection is handed over with. A longer head is waited for.
pub const MAX_UNREAD: usize = 64 * 1024;

/// Where a connection is to be as soon as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Here.
    Stay,
    /// At another worker.
    Move,
    /// Parked: it has been idle for so long that it needs no task, timers and buffers until something comes.
    Park,
}

/// Why a connection can't leave yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// What it speaks has a state that can't travel.
    Protocol,
    /// A request is in flight.
    InFlight,
    /// It is somewhere else than between two requests or in a head, or the place is not known.
    Place,
    /// It is in a head that is too long to travel.
    LongHead,
    /// A response has not gone out in full. Nothing else is in the way.
    Unflushed,
}

/// Which of the HTTP/1 responses to come say that the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// None.
    Never,
    /// The first that has no further request behind the one that it answers.
    IfAlone,
    /// The next.
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is read and written.
    Open,
    /// A read waits for a flush.
    Held,
    /// HTTP has been told the end of the stream, and lets go of it.
    Left,
    /// It is at its proper close, which is bounded by itself.
    Closing,
}

/// What a read that HTTP wants comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// It reads.
    On,
    /// It waits.
    Wait,
    /// It finds the end of the stream, so that HTTP lets go of the connection.
    End,
}

/// What a read has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The end of the client's side.
    End,
}

/// What a shutdown that HTTP wants comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing is done: the connection goes on elsewhere.
    Leave,
    /// It is closed at once.
    Close,
    /// The end of our side is sent, and the client's is read for a little.
    Linger,
}

/// How HTTP was done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// As it should.
    Done,
    /// By an error.
    Failed,
    /// It was not: the driver has given up.
    GivenUp,
}

/// What becomes of a connection that HTTP is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It has been closed, or is by being dropped.
    Close,
    /// It leaves, if HTTP gives back a head of so many bytes.
    Leave { to: Goal, head: usize },
    /// It is no HTTP any more: a tunnel if the app has granted one, and then a lingering close.
    Carry,
}

/// The state of one connection, for its transport, its requests and its driver, which run on one thread.
#[derive(Debug)]
pub struct ConnState {
    protocol: Protocol,
    goal: Choice<Goal>,
    stage: Choice<Stage>,
    announce: Choice<Announce>,
    /// Requests that were handed to an app so far.
    begun: Number,
    /// Requests whose response is complete or given up.
    ended: Number,
    /// How many requests had ended when everything was flushed last. That no byte waits says nothing of those that
    /// HTTP has not written yet.
    flushed: Number,
    received: Number,
    sent: Number,
    /// The last read found nothing.
    read_pending: Flag,
    /// The client has ended its side.
    client_ended: Flag,
    unflushed: Flag,
    /// It is this side that has ended it, because the worker drains.
    dismissed: Flag,
    cut: Flag,
    /// What the client sends is not HTTP any more.
    carried: Flag,
    /// Request bodies of which the app waits for more. The only value that other threads change.
    bodies_awaited: AtomicU32,
    framing: Mutex<Boundary>,
}

impl ConnState {
    /// The state of a connection that has had so many requests before.
    pub fn new(protocol: Protocol, requests: u64) -> Self {
        Self {
            protocol,
            goal: Choice::default(),
            stage: Choice::default(),
            announce: Choice::default(),
            begun: Number::new(requests),
            ended: Number::new(requests),
            flushed: Number::new(requests),
            received: Number::default(),
            sent: Number::default(),
            read_pending: Flag::default(),
            client_ended: Flag::default(),
            unflushed: Flag::default(),
            dismissed: Flag::default(),
            cut: Flag::default(),
            carried: Flag::default(),
            bodies_awaited: AtomicU32::new(0),
            framing: Mutex::new(Boundary::new()),
        }
    }

    /// HTTP wants to read.
    pub fn on_read_wanted(&self) -> Read {
        if self.goal.get() == Goal::Stay {
            return Read::On;
        }
        match self.obstacle() {
            None => {
                self.stage.set(Stage::Left);
                Read::End
            }
            // What is read now could be a request that another worker is to answer.
            Some(Obstacle::Unflushed) => {
                self.stage.set(Stage::Held);
                Read::Wait
            }
            Some(Obstacle::Protocol | Obstacle::InFlight | Obstacle::Place | Obstacle::LongHead) => Read::On,
        }
    }

    /// The transport has been read.
    pub fn on_read(&self, found: Found) {
        self.read_pending.set(found == Found::Nothing);
        match found {
            Found::Bytes(bytes) => self.received.add(bytes as u64),
            Found::Nothing => {}
            Found::End => self.client_ended.set(true),
        }
    }

    /// HTTP has got these bytes, read just now or before.
    pub fn on_delivered(&self, bytes: &[u8]) {
        if self.is_followed() {
            self.framing().delivered(bytes);
        }
    }

    /// Bytes are on their way out.
    pub fn on_write(&self) {
        self.unflushed.set(true);
    }

    /// The transport has taken so many bytes.
    pub fn on_sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// All bytes have gone out. Whether the connection is to be polled once more: HTTP has read in vain while a request
    /// was in flight, and waits for the transport to wake it before it reads again. A connection that leaves is not to
    /// wait for its client.
    pub fn on_flushed(&self) -> bool {
        self.unflushed.set(false);
        let ended = self.ended.get();
        let is_answered = self.flushed.replace(ended) != ended;
        let is_held = self.stage.get() == Stage::Held;
        if is_held {
            self.stage.set(Stage::Open);
        }
        is_held || (is_answered && self.goal.get() != Goal::Stay)
    }

    /// HTTP wants to shut the transport down.
    pub fn on_shutdown(&self) -> Shutdown {
        if self.stage.get() == Stage::Left {
            return Shutdown::Leave;
        }
        self.stage.set(Stage::Closing);
        let may_be_unread = !self.is_followed() || self.announce.get() != Announce::Never || !self.framing().is_clean();
        if may_be_unread && !self.client_ended.get() { Shutdown::Linger } else { Shutdown::Close }
    }

    /// HTTP has handed a request over, whose body has this length; `None` if its own bytes tell its end.
    pub fn on_request(&self, body: Option<u64>) {
        self.begun.add(1);
        if self.is_followed() {
            self.framing().request(body);
        }
    }

    /// A response is about to go out: whether its head says that the connection closes.
    pub fn on_response(&self) -> bool {
        let closes = self.protocol == Protocol::Http1
            && match self.announce.get() {
                Announce::Never => false,
                Announce::IfAlone => self.framing().behind() == Behind::Nothing,
                Announce::Always => true,
            };
        if closes {
            self.dismissed.set(true);
        }
        closes
    }

    /// A response is complete, or given up.
    pub fn on_response_end(&self) {
        self.ended.add(1);
    }

    /// The app waits for more of a request's body, or no longer does. On any thread.
    pub fn on_body_awaited(&self, awaits: bool) {
        if awaits {
            self.bodies_awaited.fetch_add(1, Relaxed);
        } else {
            self.bodies_awaited.fetch_sub(1, Relaxed);
        }
    }

    /// What is in flight is cut.
    pub fn on_cut(&self) {
        self.cut.set(true);
    }

    /// The connection is one of those that leave a worker which serves.
    pub fn on_invited(&self) {
        self.want_to(Goal::Move);
    }

    /// HTTP is done with the connection, or is done with by the driver.
    pub fn on_end(&self, finish: Finish) -> Exit {
        match (self.stage.get(), finish) {
            (_, Finish::GivenUp) | (Stage::Closing, _) | (Stage::Open | Stage::Held, Finish::Failed) => Exit::Close,
            // An error is what HTTP makes of an end in the midst of a head.
            (Stage::Left, Finish::Done | Finish::Failed) => {
                Exit::Leave { to: self.goal.get(), head: self.framing().unfinished_head().unwrap_or_default() }
            }
            // HTTP leaves the transport as it is once a request has asked for an upgrade, granted or not.
            (Stage::Open | Stage::Held, Finish::Done) => Exit::Carry,
        }
    }

    /// What HTTP gives back of a connection that leaves is not what was counted: it is closed instead.
    pub fn on_wrong_bytes(&self) {
        self.dismissed.set(true);
    }

    /// From now on the connection's bytes are not HTTP's.
    pub fn on_carried(&self) {
        self.carried.set(true);
        self.stage.set(Stage::Open);
    }

    /// Whether a drain has ended the connection.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.get()
    }

    /// Whether the connection was cut.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Requests whose response is not complete yet.
    pub fn in_flight(&self) -> u64 {
        self.begun.get().saturating_sub(self.ended.get())
    }

    /// Why the connection can't leave now; `None` if it can.
    fn obstacle(&self) -> Option<Obstacle> {
        if !self.is_followed() {
            return Some(Obstacle::Protocol);
        }
        if self.in_flight() > 0 {
            return Some(Obstacle::InFlight);
        }
        match self.framing().unfinished_head() {
            None => Some(Obstacle::Place),
            Some(head) if head > MAX_UNREAD => Some(Obstacle::LongHead),
            Some(_) if self.unflushed.get() || self.flushed.get() != self.ended.get() => Some(Obstacle::Unflushed),
            Some(_) => None,
        }
    }

    /// Whether the connection may leave without a byte of a request: one with half a head is better served.
    fn may_park(&self) -> bool {
        self.in_flight() == 0 && self.framing().unfinished_head() == Some(0)
    }

    /// Whether no request is in flight and every response has gone out.
    fn is_idle(&self) -> bool {
        self.in_flight() == 0 && !self.unflushed.get()
    }

    fn is_closing(&self) -> bool {
        self.stage.get() == Stage::Closing
    }

    /// Whether it is the client for whose bytes a request in flight waits.
    fn is_body_missing(&self) -> bool {
        self.bodies_awaited.load(Relaxed) > 0 && self.read_pending.get()
    }

    /// Bytes that went either way so far.
    fn bytes(&self) -> u64 {
        self.received.get().wrapping_add(self.sent.get())
    }

    /// Whether the place in the stream is followed: requests have boundaries in that of HTTP/1 alone.
    fn is_followed(&self) -> bool {
        self.protocol == Protocol::Http1 && !self.carried.get()
    }

    /// A drain has begun, or ends its connections in another way than before.
    fn on_drain(&self, ending: Ending) {
        match ending {
            Ending::HandOver => self.want_to(Goal::Move),
            Ending::Close => {
                self.want_to(Goal::Stay);
                self.announce.set(Announce::IfAlone);
            }
        }
    }

    /// Whether a connection that is served is kept: if not, its next response says so. What is to be announced for
    /// another reason stays.
    fn keep_alive(&self, keeps: bool) {
        match (self.announce.get(), keeps) {
            (Announce::IfAlone, true) => self.announce.set(Announce::Never),
            (Announce::Never, false) => self.announce.set(Announce::IfAlone),
            _ => {}
        }
    }

    /// Sets the goal, unless HTTP has been told already that the connection leaves.
    fn want_to(&self, goal: Goal) {
        if self.stage.get() != Stage::Left {
            self.goal.set(goal);
        }
    }

    /// Where the stream is. A panic elsewhere can't leave it half-changed.
    fn framing(&self) -> MutexGuard<'_, Boundary> {
        self.framing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Countable for Goal {
    const ALL: &'static [Self] = &[Self::Stay, Self::Move, Self::Park];

    fn number(self) -> u8 {
        self as u8
    }
}

impl Countable for Stage {
    const ALL: &'static [Self] = &[Self::Open, Self::Held, Self::Left, Self::Closing];

    fn number(self) -> u8 {
        self as u8
    }
}

impl Countable for Announce {
    const ALL: &'static [Self] = &[Self::Never, Self::IfAlone, Self::Always];

    fn number(self) -> u8 {
        self as u8
    }
}
