//! The state machine of one connection: decides whether it may leave, be parked, linger or close *now*.
//!
//! Pure: it knows no socket, no runtime, no hyper and no clock; the time is an argument. Facts go in by the methods that
//! begin with `on_`, and the caller does what they return:
//!
//! ```text
//! transport   on_read_wanted ─▶ Read      on_read, on_delivered, on_write, on_sent
//!             on_flushed ─▶ wake?         on_shutdown ─▶ Shutdown
//! request     on_request                  on_response ─▶ announce the close?         on_response_end
//! body        on_body_awaited (from any thread)
//! driver      Timeouts: on_phase ─▶ Order, on_timer ─▶ Next      on_end ─▶ Exit      on_invited
//! ```
//! Before the protocol is known there is only [`FirstBytes`], and while the connection is suspended only its [`History`].
//! In between it goes through these stages, and leaves the last of them once:
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
//! [`Goal`] says that a connection is to leave, [`Obstacle`] why it can't yet. Anything else that keeps a connection here,
//! such as the session of TLS or the streams of HTTP/2, is one more obstacle in [`ConnState::obstacle`].

mod cells;
mod decisions;
mod first;
mod history;
mod phase;
#[cfg(test)]
mod tests;
mod timeouts;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::framing::{Behind, Framing};
use cells::{Choice, Flag, Number};
use decisions::Stage;

pub use decisions::{Announce, Exit, Finish, Found, Goal, Obstacle, Read, Shutdown};
pub use first::{Early, FirstBytes, Protocol};
pub use history::{Detected, History};
pub use phase::{Ending, Phase};
pub use timeouts::{Next, Order, Timeouts};

/// How long the first bytes of a connection may take, and, roughly, the rest of a request's head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The most unread bytes that a connection is transferred with. A connection with a longer head waits until it has ended.
pub const MAX_UNREAD: usize = 64 * 1024;

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
    /// How many requests had ended when everything was flushed last. An empty buffer says nothing of responses that HTTP
    /// has not written yet.
    flushed: Number,
    received: Number,
    sent: Number,
    /// The last read found nothing.
    read_pending: Flag,
    /// The client has ended its side.
    client_ended: Flag,
    unflushed: Flag,
    /// The worker has ended the connection because it drains.
    dismissed: Flag,
    cut: Flag,
    /// The client's bytes are not HTTP any more.
    carried: Flag,
    /// Request bodies of which the app waits for more. The only value that other threads change.
    bodies_awaited: AtomicU32,
    framing: Mutex<Framing>,
}

impl ConnState {
    /// The state of a connection that has had this many requests before.
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
            framing: Mutex::new(Framing::new()),
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
            // A read now could find a request that another worker is to answer.
            Some(Obstacle::Unflushed) => {
                self.stage.set(Stage::Held);
                Read::Wait
            }
            Some(Obstacle::Protocol | Obstacle::InFlight | Obstacle::Position | Obstacle::LongHead) => Read::On,
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

    /// The transport has taken this many bytes.
    pub fn on_sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// All bytes have gone out. Returns whether the connection must be polled once more: HTTP found nothing to read while a
    /// request was in flight, and reads again only when the transport wakes it. A connection that leaves must not wait for
    /// its client.
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

    /// A response is about to go out. Returns whether its head announces the close.
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

    /// HTTP is done with the connection, or the driver has given up.
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

    /// HTTP has returned other bytes of a connection that leaves than it was given: it is closed instead.
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
            None => Some(Obstacle::Position),
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

    /// Whether a request in flight waits for bytes of the client.
    fn is_body_missing(&self) -> bool {
        self.bodies_awaited.load(Relaxed) > 0 && self.read_pending.get()
    }

    /// How many bytes went in and out so far.
    fn bytes(&self) -> u64 {
        self.received.get().wrapping_add(self.sent.get())
    }

    /// Whether the position in the stream is followed: only HTTP/1 needs it.
    fn is_followed(&self) -> bool {
        self.protocol == Protocol::Http1 && !self.carried.get()
    }

    /// A drain has begun, or changes how it ends connections.
    fn on_drain(&self, ending: Ending) {
        match ending {
            Ending::HandOver => self.want_to(Goal::Move),
            Ending::Close => {
                self.want_to(Goal::Stay);
                self.announce.set(Announce::IfAlone);
            }
        }
    }

    /// Sets whether a connection of a worker that serves is kept: if not, its next response announces the close. An
    /// announcement for another reason stays.
    fn keep_alive(&self, keeps: bool) {
        match (self.announce.get(), keeps) {
            (Announce::IfAlone, true) => self.announce.set(Announce::Never),
            (Announce::Never, false) => self.announce.set(Announce::IfAlone),
            _ => {}
        }
    }

    /// Sets the goal, unless HTTP has already been told that the connection leaves.
    fn want_to(&self, goal: Goal) {
        if self.stage.get() != Stage::Left {
            self.goal.set(goal);
        }
    }

    /// The position in the stream. A panic of another owner can't leave it half changed.
    fn framing(&self) -> MutexGuard<'_, Framing> {
        self.framing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
