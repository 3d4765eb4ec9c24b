//! Connection time-outs, and what happens when one expires: while a worker serves, and while it drains.
//!
//! The driver's half of the machine: it alone is told phases and the time.

use std::time::{Duration, Instant};

use super::HEAD_TIMEOUT;
use super::{Announce, ConnState, Ending, Goal, History, Phase, Protocol, Spoken};

/// After how many ticks of [`HEAD_TIMEOUT`] an idle connection is closed: 90 to 120 s, longer than
/// the 60 s for which proxies commonly keep theirs, so that it is they who close.
pub const IDLE_TICKS: u32 = 4;

/// After how many ticks without a byte a connection is dropped whose app waits for more of a request:
/// 60 to 90 s. An app that has its whole request may be silent for as long as it likes.
const STARVED_TICKS: u32 = 3;

/// What the driver does for a new phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It drives on.
    DriveOn,
    /// It drives on; the connection is one of those that may be [invited](ConnState::on_invited) to leave.
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
    /// It waits for the transport, and looks again then.
    WaitUntil(Instant),
    /// It drives on, because the next read lets the connection leave. If that can't be, it looks again then.
    Leave(Instant),
    /// It has HTTP end gracefully, which ends an idle connection at once, and drives on.
    ShutDown,
    /// It drops the connection, because nothing would be lost.
    Drop,
}

/// The time-outs of one connection. While its worker serves, they are looked at once a [`HEAD_TIMEOUT`], so what is
/// late is closed after one to two of them; that spares each request a look at the clock.
#[derive(Debug)]
pub struct Timeouts {
    /// What was waited for at the last tick.
    last: Option<Awaited>,
    /// At how many ticks in a row.
    ticks: u32,
    /// When the next tick is due.
    due: Instant,
    drain: Option<Drain>,
    /// The connection has been told a phase here, so it hasn't just come.
    settled: bool,
}

/// What a client is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The request after so many.
    Request { after: u64, in_head: bool },
    /// More of a request's body, when so many bytes had gone either way.
    Body { bytes: u64 },
}

/// The drain of one connection.
#[derive(Debug)]
struct Drain {
    since: Instant,
    linger: Duration,
    ending: Ending,
    /// After how many requests the connection became idle, and when that was noticed.
    idle: Option<((u64, u64), Instant)>,
    /// The connection has been asked to end.
    asked: bool,
}

impl Timeouts {
    /// Those of a connection with this history, which they go on with.
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
        self.history(Spoken::Nothing, (0, false), now)
    }

    /// What whoever goes on with the connection must know.
    pub fn http1_history(&self, state: &ConnState, now: Instant) -> History {
        self.history(Spoken::Http1, (state.begun.get(), state.framing().in_head()), now)
    }

    fn history(&self, spoken: Spoken, (requests, in_head): (u64, bool), now: Instant) -> History {
        let goes_on = self.last == Some(Awaited::Request { after: requests, in_head });
        let ticks = if goes_on { self.ticks } else { 0 };
        History { spoken, requests, in_head, ticks, next_tick: self.due.saturating_duration_since(now) }
    }

    /// The worker's phase is news; `announces` says whether a worker that serves has its connections close.
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
                // One that has just come here stays for a while.
                if settled && state.begun.get() > 0 && state.is_idle() { Order::MayInvite } else { Order::DriveOn }
            }
            // One that comes when this is said already has nowhere else to go.
            (Phase::Serving, Protocol::Http2) if settled && announces => Order::ShutDown,
            (Phase::Serving, Protocol::Http2) => Order::DriveOn,
        }
    }

    /// Whether the connection, when nothing is to be done at the moment, is to be [looked at](Self::on_timer);
    /// `elapsed` says whether its timer has. Without a drain HTTP/2 asks its idle clients by itself whether they are
    /// there.
    pub fn are_to_be_looked_at(&self, state: &ConnState, elapsed: bool) -> bool {
        self.drain.is_some() || (elapsed && state.protocol == Protocol::Http1)
    }

    /// What comes next at `now`, when nothing is to be done at the moment.
    pub fn on_timer(&mut self, state: &ConnState, now: Instant) -> Next {
        match &mut self.drain {
            Some(drain) => drain.look(state, now),
            None => self.tick(state, now),
        }
    }

    /// A tick is due: what comes of it.
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
            Some(Awaited::Body { .. }) if self.ticks >= STARVED_TICKS => Next::Drop,
            // One that has been so at the last look, too: those that are only between two requests are left alone.
            Some(Awaited::Request { .. }) if self.ticks > 1 && state.may_park() => {
                state.want_to(Goal::Park);
                Next::Leave(self.due)
            }
            Some(_) | None => Next::WaitUntil(self.due),
        }
    }
}

impl Drain {
    fn look(&mut self, state: &ConnState, now: Instant) -> Next {
        let patience_ends = self.since + self.linger;
        let stays = self.ending == Ending::Close || state.framing().is_lost();
        if now >= patience_ends && stays {
            state.announce.set(Announce::Always);
        }
        if !state.is_idle() || state.is_closing() {
            self.idle = None;
            return if now < patience_ends { Next::WaitUntil(patience_ends) } else { Next::Wait };
        }
        // HTTP/2 hands a response over as soon as its first byte fits the client's window, and says
        // nothing of the rest: only the bytes that go out tell that there is one.
        let progress = (state.begun.get(), state.sent.get());
        let since = match self.idle {
            Some((known, since)) if known == progress => since,
            _ => now,
        };
        self.idle = Some((progress, since));
        if now < since + self.linger {
            // An idle connection that began its wait before the drain's patience ends must be looked
            // at then, too.
            let deadline = since + self.linger;
            return Next::WaitUntil(if now < patience_ends { deadline.min(patience_ends) } else { deadline });
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
