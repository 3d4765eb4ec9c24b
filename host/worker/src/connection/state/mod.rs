//! The state machine of one connection: decides whether it may leave, be parked, linger or close *now*.
//!
//! Pure: it knows no socket, no runtime, no hyper and no clock; the time is an argument. Facts go in by the methods that
//! begin with `on_`, and the caller does what they return:
//!
//! ```text
//! transport   on_read_wanted ─▶ Read      on_read, on_delivered, on_write, on_write_blocked, on_sent
//!             on_flushed ─▶ wake?         on_shutdown ─▶ Shutdown
//! request     on_request                  on_response ─▶ announce the close?         on_untaken, on_response_end
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
//! [`Phase::Cut`] and a time-out drop it wherever it is; a connection that the app upgrades is carried on as bytes, and one
//! whose [response is let go](ConnState::on_let_go) leaves as soon as that has gone out.
//!
//! # Leaving
//! [`Goal`] says that a connection is to leave, [`Obstacle`] why it can't yet. Anything else that keeps a connection here,
//! such as the session of TLS or the streams of HTTP/2, is one more obstacle in [`ConnState::obstacle`].

mod cells;
mod decisions;
mod first;
mod frames;
mod history;
mod leave;
mod limits;
mod moves;
mod owed;
mod phase;
mod position;
mod replay;
#[cfg(test)]
mod tests;
mod timeouts;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::framing::{Behind, Framing};
use cells::{Choice, Flag, Number};
use decisions::Stage;
use frames::Frames;
use moves::MoveState;
use replay::GoingOn;

pub use decisions::{Announce, Drains, Exit, Finish, Found, Goal, Obstacle, Read, Replay, Shutdown};
pub use first::{Early, FirstBytes, PREFACE, Protocol};
pub use frames::REST;
pub use history::{Detected, History};
pub use limits::Limits;
pub use phase::{Ending, Phase};
pub use timeouts::{Next, Order, Timeouts};

/// How long a head may take where tests say nothing else.
#[cfg(test)]
pub const HEAD_TIMEOUT: std::time::Duration = Limits::TEST.http.head_timeout;

/// The most unread bytes that a connection is transferred with. A connection with a longer head waits until it has ended.
pub const MAX_UNREAD: usize = 64 * 1024;

/// The state of one connection, for its transport, its requests and its driver, which run on one thread.
#[derive(Debug)]
pub struct ConnState {
    protocol: Protocol,
    /// How many requests the connection may have.
    most_requests: u64,
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
    /// The response to the last request has begun.
    responding: Flag,
    /// The last write, flush or shutdown found no room: the client doesn't read.
    write_blocked: Flag,
    /// Responses of which HTTP has not asked the app for more: the client must take what there is first.
    untaken: Number,
    /// Requests in flight whose response has begun.
    streaming: Number,
    /// Request bodies of which the app waits for more. The only value that other threads change.
    bodies_awaited: AtomicU32,
    framing: Mutex<Framing>,
    /// Frames of HTTP/2 that carried nothing of a request and were not forgiven.
    empty_frames: Number,
    /// Requests that the client has given up, less those whose answer had begun.
    resets: Number,
    /// How many that may be.
    most_resets: u64,
    frames: Mutex<Frames>,
    /// How many such frames HTTP may still get in this poll.
    frames_left: Number,
    /// Bytes of HTTP/2 frames that carry something of a request.
    carrying: Number,
    /// At most so many bytes went out as answers to frames that carry nothing.
    replies: Number,
    going_on: GoingOn,
    moving: MoveState,
}

impl ConnState {
    /// The state of a connection that has had this many requests before.
    pub fn new(protocol: Protocol, requests: u64) -> Self {
        Self {
            protocol,
            most_requests: u64::MAX,
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
            responding: Flag::default(),
            write_blocked: Flag::default(),
            untaken: Number::default(),
            streaming: Number::default(),
            bodies_awaited: AtomicU32::new(0),
            framing: Mutex::new(Framing::new()),
            empty_frames: Number::default(),
            resets: Number::default(),
            most_resets: u64::MAX,
            frames: Mutex::new(Frames::new()),
            frames_left: Number::new(frames::OF_A_POLL),
            carrying: Number::default(),
            replies: Number::default(),
            going_on: GoingOn::default(),
            moving: MoveState::default(),
        }
    }

    /// The same for a connection that may have so many requests.
    #[must_use]
    pub fn with_most_requests(self, most: Option<u64>) -> Self {
        Self { most_requests: most.unwrap_or(u64::MAX), ..self }
    }

    /// The same for a connection whose client may give up so many requests.
    #[must_use]
    pub fn with_most_resets(self, most: u32) -> Self {
        Self { most_resets: most.into(), ..self }
    }

    /// Whether the client takes nothing of what there is for it.
    pub fn is_write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    /// HTTP wants to read.
    pub fn on_read_wanted(&self) -> Read {
        if self.is_flooding() {
            // The driver ends it, unless something is forgiven before: so the next poll must come.
            return Read::Later;
        }
        if self.is_out_of_turn() {
            return if self.is_out_of_patience() { Read::Rest } else { Read::Later };
        }
        // One whose client has ended its side ends here, as soon as HTTP sees that.
        if self.goal.get() == Goal::Stay || self.client_ended.get() {
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

    /// Bytes are on their way out.
    pub fn on_write(&self) {
        self.unflushed.set(true);
    }

    /// What is spoken.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether HTTP has flushed all that it has written.
    pub fn is_flushed(&self) -> bool {
        !self.unflushed.get()
    }

    /// The transport has taken this many bytes.
    pub fn on_sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
        if self.has_frames() {
            self.forgive_for_response(bytes);
        }
    }

    /// All bytes have gone out. Returns whether the connection must be polled once more: HTTP found nothing to read while a
    /// request was in flight, and reads again only when the transport wakes it. A connection that leaves, or whose client
    /// has ended its side, must not wait for its client.
    pub fn on_flushed(&self) -> bool {
        self.unflushed.set(false);
        let ended = self.ended.get();
        let is_answered = self.flushed.replace(ended) != ended;
        let is_held = self.stage.get() == Stage::Held;
        if is_held {
            self.stage.set(Stage::Open);
        }
        is_held || (is_answered && (self.goal.get() != Goal::Stay || self.client_ended.get()))
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

    /// A response is about to go out. Returns whether its head announces the close.
    pub fn on_response(&self) -> bool {
        self.responding.set(true);
        let closes = self.protocol == Protocol::Http1
            && match self.announce.get() {
                Announce::Never => false,
                Announce::IfAlone => self.framing().behind() == Behind::Nothing,
                Announce::Always | Announce::Last => true,
            };
        if closes && self.announce.get() != Announce::Last {
            self.dismissed.set(true);
        }
        closes
    }

    /// The response that is about to go out is the last: the client is refused.
    pub fn on_last_response(&self) {
        self.announce.set(Announce::Last);
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

    /// Whether the connection has had all the requests that it may have.
    pub fn is_spent(&self) -> bool {
        self.begun.get() >= self.most_requests
    }

    /// Whether a drain has ended the connection.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.get()
    }

    /// Whether the connection was cut.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Whether a client that is refused can have an answer: on HTTP/1, behind a whole response or before one.
    pub fn may_be_answered(&self) -> bool {
        let before_a_response = self.in_flight() == 0 || !self.responding.get();
        self.is_followed() && !self.is_closing() && before_a_response && !self.unflushed.get()
    }

    /// How many requests the connection has had.
    pub fn requests(&self) -> u64 {
        self.begun.get()
    }

    /// Requests whose response is not complete yet.
    pub fn in_flight(&self) -> u64 {
        self.begun.get().saturating_sub(self.ended.get())
    }

    /// Whether no request is in flight and every response has gone out.
    fn is_idle(&self) -> bool {
        self.in_flight() == 0 && !self.unflushed.get()
    }

    fn is_closing(&self) -> bool {
        self.stage.get() == Stage::Closing
    }

    /// How many bytes the client has sent so far.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// How many bytes went in and out so far.
    fn bytes(&self) -> u64 {
        self.received().wrapping_add(self.sent.get())
    }

    /// The frames of HTTP/2. A panic of another owner can't leave them half changed.
    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
