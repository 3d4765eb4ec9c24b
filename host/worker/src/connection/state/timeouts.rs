//! Connection time-outs, and what happens when one expires: while a worker serves, and while it drains.
//!
//! The driver's half of the state machine: only this half gets phases and the time.

use std::time::{Duration, Instant};

use super::HEAD_TIMEOUT;
use super::{Announce, ConnState, Detected, Ending, Goal, History, Phase, Protocol};

/// After how many ticks of [`HEAD_TIMEOUT`] an idle connection is closed: 90 to 120 s, longer than
/// the 60 s for which proxies commonly keep theirs, so that it is they who close.
pub const IDLE_TICKS: u32 = 4;

/// After how many ticks without a byte a connection is dropped whose app waits for more of a request:
/// 60 to 90 s. An app that has its whole request may be silent for as long as it likes.
const BODY_TICKS: u32 = 3;

/// What the driver does for a new phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It drives on.
    DriveOn,
    /// It drives on. The connection may be [invited](ConnState::on_invited) to leave.
    MayInvite,
    /// It has HTTP end gracefully, and drives on.
    ShutDown,
    /// It drops the connection.
    Cut,
}

/// What the driver does with a connection that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for the transport.
    Wait,
    /// It waits for the transport, and checks again at this moment.
    WaitUntil(Instant),
    /// It drives on, because the next read lets the connection leave. If it doesn't, the driver checks again at this
    /// moment.
    Leave(Instant),
    /// It has HTTP end gracefully, which ends an idle connection at once, and drives on.
    ShutDown,
    /// It drops the connection: nothing is lost.
    Drop,
}

/// The time-outs of one connection. While its worker serves, they are checked once a [`HEAD_TIMEOUT`], a tick, so what is
/// late is closed after one to two of them; this spares each request a look at the clock.
#[derive(Debug)]
pub struct Timeouts {
    /// What the connection waited for at the last tick.
    last: Option<Awaited>,
    /// For how many ticks in a row.
    ticks: u32,
    /// When the next tick is due.
    due: Instant,
    drain: Option<Drain>,
    /// The connection was told a phase here before, so it hasn't just come.
    settled: bool,
}

/// What the connection waits for its client to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The request after this many.
    Request { after: u64, in_head: bool },
    /// More of a request's body, after this many bytes had gone in and out.
    Body { bytes: u64 },
}

/// The drain of one connection.
#[derive(Debug)]
struct Drain {
    since: Instant,
    linger: Duration,
    ending: Ending,
    /// After how many requests and bytes sent the connection became idle, and when that was noticed.
    idle: Option<((u64, u64), Instant)>,
    /// The connection has been asked to end.
    asked: bool,
}

impl Timeouts {
    /// Resumes the time-outs of a connection with this history.
    pub fn resume(history: &History, now: Instant) -> Self {
        let last = Awaited::Request { after: history.requests, in_head: history.in_head };
        let last = (history.ticks > 0).then_some(last);
        let due = now + history.next_tick.min(HEAD_TIMEOUT);
        Self { last, ticks: history.ticks, due, drain: None, settled: false }
    }

    /// When the next tick is due.
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// The history of a connection whose protocol is not known yet.
    pub fn first_history(&self, now: Instant) -> History {
        self.history(Detected::Nothing, (0, false), now)
    }

    /// The history of an HTTP/1 connection that is suspended.
    pub fn http1_history(&self, state: &ConnState, now: Instant) -> History {
        self.history(Detected::Http1, (state.begun.get(), state.framing().in_head()), now)
    }

    fn history(&self, detected: Detected, (requests, in_head): (u64, bool), now: Instant) -> History {
        let goes_on = self.last == Some(Awaited::Request { after: requests, in_head });
        let ticks = if goes_on { self.ticks } else { 0 };
        History { detected, requests, in_head, ticks, next_tick: self.due.saturating_duration_since(now) }
    }

    /// The worker's phase is new. `announces` says whether responses of a worker that serves announce the close.
    pub fn on_phase(&mut self, state: &ConnState, phase: Phase, announces: bool) -> Order {
        let settled = std::mem::replace(&mut self.settled, true);
        match (phase, state.protocol) {
            (Phase::Cut, _) => {
                state.on_cut();
                state.dismissed.set(true);
                Order::Cut
            }
            (Phase::Draining { since, linger, ending }, protocol) => {
                let known = self.drain.as_ref().map(|drain| drain.ending);
                match &mut self.drain {
                    Some(drain) => drain.ending = ending,
                    none => *none = Some(Drain { since, linger, ending, idle: None, asked: false }),
                }
                match (protocol, known) {
                    (Protocol::Http1, known) if known != Some(ending) => {
                        state.on_drain(ending);
                        Order::DriveOn
                    }
                    (Protocol::Http2, None) => {
                        state.dismissed.set(true);
                        Order::ShutDown
                    }
                    _ => Order::DriveOn,
                }
            }
            (Phase::Serving, Protocol::Http1) => {
                state.keep_alive(!announces);
                // A connection that has just come here stays for a while.
                if settled && state.begun.get() > 0 && state.is_idle() { Order::MayInvite } else { Order::DriveOn }
            }
            // A connection that comes while closes are announced has nowhere else to go.
            (Phase::Serving, Protocol::Http2) if settled && announces => Order::ShutDown,
            (Phase::Serving, Protocol::Http2) => Order::DriveOn,
        }
    }

    /// Whether a connection that waits must be [checked](Self::on_timer); `elapsed` says whether its timer has fired.
    /// Without a drain HTTP/2 checks by PINGs of its own whether idle clients are there.
    pub fn must_be_checked(&self, state: &ConnState, elapsed: bool) -> bool {
        self.drain.is_some() || (elapsed && state.protocol == Protocol::Http1)
    }

    /// Checks a connection that waits, at `now`.
    pub fn on_timer(&mut self, state: &ConnState, now: Instant) -> Next {
        match &mut self.drain {
            Some(drain) => drain.check(state, now),
            None => self.tick(state, now),
        }
    }

    /// Handles a tick.
    fn tick(&mut self, state: &ConnState, now: Instant) -> Next {
        self.due = now + HEAD_TIMEOUT;
        let awaited = if state.is_closing() {
            None
        } else if state.is_idle() {
            Some(Awaited::Request { after: state.begun.get(), in_head: state.framing().in_head() })
        } else {
            state.is_body_missing().then(|| Awaited::Body { bytes: state.bytes() })
        };
        self.ticks = if awaited == self.last { self.ticks + 1 } else { 1 };
        self.last = awaited;
        match awaited {
            Some(Awaited::Request { after: 0, .. }) => Next::Drop,
            Some(Awaited::Request { in_head: true, .. }) if self.ticks > 1 => Next::Drop,
            Some(Awaited::Request { .. }) if self.ticks >= IDLE_TICKS => {
                self.last = None;
                state.announce.set(Announce::Always);
                Next::ShutDown
            }
            Some(Awaited::Body { .. }) if self.ticks >= BODY_TICKS => Next::Drop,
            // Only one that was idle at the last tick, too: most are just between two requests.
            Some(Awaited::Request { .. }) if self.ticks > 1 && state.may_park() => {
                state.want_to(Goal::Park);
                Next::Leave(self.due)
            }
            Some(_) | None => Next::WaitUntil(self.due),
        }
    }
}

impl Drain {
    fn check(&mut self, state: &ConnState, now: Instant) -> Next {
        let linger_ends = self.since + self.linger;
        let stays = self.ending == Ending::Close || state.framing().is_lost();
        if now >= linger_ends && stays {
            state.announce.set(Announce::Always);
        }
        if !state.is_idle() || state.is_closing() {
            self.idle = None;
            return if now < linger_ends { Next::WaitUntil(linger_ends) } else { Next::Wait };
        }
        // hyper's HTTP/2 reports a response as complete as soon as its first byte fits the client's window: only the bytes
        // that go out show that there is more of it.
        let progress = (state.begun.get(), state.sent.get());
        let since = match self.idle {
            Some((known, since)) if known == progress => since,
            _ => now,
        };
        self.idle = Some((progress, since));
        if now < since + self.linger {
            // A connection that became idle before the drain's linger ends must be checked at its end, too.
            let deadline = since + self.linger;
            return Next::WaitUntil(if now < linger_ends { deadline.min(linger_ends) } else { deadline });
        }
        state.dismissed.set(true);
        if self.asked {
            return Next::Drop;
        }
        self.asked = true;
        state.announce.set(Announce::Always);
        Next::ShutDown
    }
}
