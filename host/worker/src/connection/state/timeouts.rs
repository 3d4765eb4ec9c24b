//! Connection time-outs, and what happens when one expires: while a worker serves, and while it drains.
//!
//! The driver's half of the state machine: only this half gets phases and the time.

use std::time::{Duration, Instant};

use app_host_core::refused::Refused;

use super::{Announce, ConnState, Detected, Ending, Goal, History, Limits, Phase, Protocol};

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
    /// It waits for the transport, and checks again at this moment.
    WaitUntil(Instant),
    /// It drives on, because the next read lets the connection leave. If it doesn't, the driver checks again at this
    /// moment.
    Leave(Instant),
    /// It has HTTP end gracefully, which ends an idle connection at once, and drives on.
    ShutDown,
    /// It drops the connection: nothing is lost.
    Drop,
    /// It drops the connection, and the client is refused for that reason: with an answer, if it
    /// [may have one](ConnState::may_be_answered).
    Refuse(Refused),
}

/// The time-outs of one connection. While its worker serves, it is looked at every [`Limits::look`], or when a time-out is
/// over that has begun: what is late ends after its time-out and at most one look more. This spares each request a timer
/// and a look at the clock.
#[derive(Debug)]
pub struct Timeouts {
    /// When the connection was accepted, by whichever worker.
    opened: Instant,
    /// Until when its first request may come.
    first: Instant,
    /// What the connection waited for at the last look.
    last: Option<Awaited>,
    /// When it was first seen to wait for that.
    since: Instant,
    /// When the next look is due.
    due: Instant,
    drain: Option<Drain>,
    /// The connection was told a phase here before, so it hasn't just come.
    settled: bool,
    /// After how many bytes it was asked to end, because it was idle or open for too long, and when.
    asked: Option<(u64, Instant)>,
    limits: &'static Limits,
}

/// What the connection waits for its client to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// To send the request after this many.
    Request { after: u64, in_head: bool },
    /// To send more of a body, or to take more of a response, after this many bytes had gone in and out.
    Transfer { bytes: u64 },
}

/// The drain of one connection.
#[derive(Debug)]
struct Drain {
    since: Instant,
    linger: Duration,
    ending: Ending,
    /// After how many requests and bytes sent the connection became idle, and when that was noticed.
    idle: Option<((u64, u64), Instant)>,
    /// The client of HTTP/2 has been told to go elsewhere. That waits for a moment without a stream, but for no longer than
    /// `linger`: python's h2 takes a connection for closed at the first GOAWAY, and fails what is in flight.
    told: bool,
    /// The connection has been asked to end.
    asked: bool,
    /// After how many bytes the client began to owe something, and when that was noticed.
    owed: Option<(u64, Instant)>,
    /// When a busy connection is looked at again, although nothing wakes it: so that a timer is set once in a while, and
    /// not for every byte.
    look_again: Instant,
}

impl Timeouts {
    /// Resumes the time-outs of a connection with this history, which was accepted at `opened`.
    pub fn resume(history: &History, opened: Instant, limits: &'static Limits, now: Instant) -> Self {
        let last = Awaited::Request { after: history.requests, in_head: history.in_head };
        let last = (!history.waited.is_zero()).then_some(last);
        // The first request has as long as a head may take.
        let most = if history.requests == 0 { limits.http.head_timeout } else { limits.look() };
        let due = now + history.next_look.min(most).min(limits.left(opened, now));
        let since = now.checked_sub(history.waited).unwrap_or(now);
        Self {
            opened,
            first: now + history.next_look.min(limits.http.head_timeout),
            last,
            since,
            due,
            drain: None,
            settled: false,
            asked: None,
            limits,
        }
    }

    /// When the connection was accepted, by whichever worker.
    pub const fn opened(&self) -> Instant {
        self.opened
    }

    /// Until when the first request may come.
    pub const fn first(&self) -> Instant {
        self.first
    }

    /// When the next look is due.
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

    /// The history of an HTTP/2 connection that moves.
    pub fn http2_history(&self, state: &ConnState, now: Instant) -> History {
        self.history(Detected::Http2, (state.begun.get(), false), now)
    }

    fn history(&self, detected: Detected, (requests, in_head): (u64, bool), now: Instant) -> History {
        let goes_on = self.last == Some(Awaited::Request { after: requests, in_head });
        // Not zero, which says that nobody has looked yet.
        let waited = |since| now.saturating_duration_since(since).max(Duration::from_nanos(1));
        let waited = if goes_on { waited(self.since) } else { Duration::ZERO };
        History { detected, requests, in_head, waited, next_look: self.due.saturating_duration_since(now) }
    }

    /// The worker's phase is new. `announces` says whether responses of a worker that serves announce the close.
    pub fn on_phase(&mut self, state: &ConnState, phase: Phase, announces: bool) -> Order {
        let settled = std::mem::replace(&mut self.settled, true);
        state.on_going_on(phase);
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
                    none => *none = Some(Drain::new(since, linger, ending)),
                }
                match (protocol, known) {
                    (Protocol::Http1, known) if known != Some(ending) => {
                        state.on_drain(ending);
                        Order::DriveOn
                    }
                    (Protocol::Http2, known) => {
                        if known != Some(ending) {
                            state.on_http2_drain(ending);
                        }
                        if known.is_some() || state.in_flight() > 0 || state.is_leaving() {
                            return Order::DriveOn;
                        }
                        self.drain.iter_mut().for_each(|drain| drain.told = true);
                        state.dismissed.set(true);
                        Order::ShutDown
                    }
                    (Protocol::Http1, _) => Order::DriveOn,
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
    pub fn must_be_checked(&self, state: &ConnState, elapsed: bool) -> bool {
        let ends = state.protocol == Protocol::Http2 && state.is_spent() && self.asked.is_none();
        self.drain.is_some() || elapsed || ends || state.is_flooding()
    }

    /// Checks a connection that waits, at `now`.
    pub fn on_timer(&mut self, state: &ConnState, now: Instant) -> Next {
        if state.is_flooding() {
            return Next::Refuse(Refused::Flood);
        }
        match &mut self.drain {
            Some(drain) => drain.check(state, self.limits, now),
            None => self.look(state, now),
        }
    }

    /// Looks at a connection of a worker that serves.
    fn look(&mut self, state: &ConnState, now: Instant) -> Next {
        let left = self.limits.left(self.opened, now);
        let is_old = left.is_zero();
        self.due = now + if is_old { self.limits.look() } else { self.limits.look().min(left) };
        state.forgive_for_time();
        if is_old {
            state.announce.set(Announce::Always);
        }
        // HTTP/1 announces it with a response.
        if state.protocol == Protocol::Http2 && (is_old || state.is_spent()) && self.asked.is_none() {
            self.asked = Some((state.bytes(), now));
            return Next::ShutDown;
        }
        if let Some(rate) = self.limits.http.min_rate
            && state.client_owes()
        {
            return self.measure(state, rate, now);
        }
        if state.is_half_closed() {
            return self.answer_or_drop(state, now);
        }
        if state.is_closing() || !state.is_idle() {
            self.last = None;
            return Next::WaitUntil(self.due);
        }
        let (after, in_head) = (state.begun.get(), state.framing().in_head());
        let awaited = Some(Awaited::Request { after, in_head });
        if self.last != awaited {
            (self.last, self.since) = (awaited, now);
        }
        if after == 0 && now < self.first {
            // It has as long for its first request, however long it may be open.
            self.due = self.first;
            return Next::WaitUntil(self.due);
        }
        let waited = now.saturating_duration_since(self.since);
        let http = &self.limits.http;
        if in_head {
            if after == 0 || waited >= http.head_timeout {
                return Next::Refuse(Refused::HeadTimedOut);
            }
            self.due = self.due.min(self.since + http.head_timeout);
            return Next::WaitUntil(self.due);
        }
        if after == 0 && state.protocol == Protocol::Http1 {
            // It has asked for nothing.
            return Next::Drop;
        }
        if after == 0 || is_old || waited >= http.idle_timeout {
            return self.end(state, now);
        }
        let seen_before = waited >= self.limits.look();
        self.due = self.due.min(self.since + http.idle_timeout);
        // Only one that was idle at the last look, too: most are just between two requests.
        if seen_before && state.may_park() {
            state.want_to(Goal::Park);
            return Next::Leave(self.due);
        }
        Next::WaitUntil(self.due)
    }

    /// Waits for the answer that a client waits for which has ended its side, or which has gone.
    fn answer_or_drop(&mut self, state: &ConnState, now: Instant) -> Next {
        let awaited = Some(Awaited::Transfer { bytes: state.bytes() });
        if self.last != awaited {
            (self.last, self.since) = (awaited, now);
        }
        let over = self.since + self.limits.http.half_closed_timeout;
        if now >= over {
            return Next::Drop;
        }
        self.due = self.due.min(over);
        Next::WaitUntil(self.due)
    }

    /// Ends a connection that has been idle for too long: HTTP/2's client is told, and has until the next look.
    fn end(&mut self, state: &ConnState, now: Instant) -> Next {
        /// More than PINGs and window updates come to: something of a response still goes out, which HTTP/2 has reported
        /// as complete.
        const GOES_ON: u64 = 1024;
        let bytes = state.bytes();
        match self.asked {
            // It has just been asked, and drives on.
            Some((_, since)) if now < since + self.limits.look() => return Next::WaitUntil(since + self.limits.look()),
            Some((then, _)) if bytes.saturating_sub(then) < GOES_ON => return Next::Drop,
            Some(_) => {
                self.asked = Some((bytes, now));
                return Next::WaitUntil(self.due);
            }
            None => {}
        }
        self.last = None;
        self.asked = (state.protocol == Protocol::Http2).then_some((bytes, now));
        state.announce.set(Announce::Always);
        Next::ShutDown
    }

    /// Measures how fast the client moves what it owes.
    fn measure(&mut self, state: &ConnState, rate: u64, now: Instant) -> Next {
        let (bytes, grace) = (state.moved(), self.limits.http.min_rate_grace);
        let known = if let Some(Awaited::Transfer { bytes: known }) = self.last {
            known
        } else {
            (self.last, self.since) = (Some(Awaited::Transfer { bytes }), now);
            bytes
        };
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= grace {
            let moved = u128::from(bytes.wrapping_sub(known)) * 1000;
            if moved < u128::from(rate).saturating_mul(elapsed.as_millis()) {
                return Next::Refuse(state.owed());
            }
            (self.last, self.since) = (Some(Awaited::Transfer { bytes }), now);
        }
        self.due = self.since + grace;
        Next::WaitUntil(self.due)
    }
}

impl Drain {
    const fn new(since: Instant, linger: Duration, ending: Ending) -> Self {
        Self { since, linger, ending, idle: None, told: false, asked: false, owed: None, look_again: since }
    }

    fn check(&mut self, state: &ConnState, limits: &Limits, now: Instant) -> Next {
        let linger_ends = self.since + self.linger;
        let stays = self.ending == Ending::Close || state.framing().is_lost();
        if now >= linger_ends && stays {
            state.announce.set(Announce::Always);
        }
        let may_be_told = now >= linger_ends || (state.in_flight() == 0 && !state.is_leaving());
        if state.protocol == Protocol::Http2 && !self.told && may_be_told {
            self.told = true;
            state.want_to(Goal::Stay);
            state.dismissed.set(true);
            return Next::ShutDown;
        }
        if !state.is_idle() || state.is_closing() {
            self.idle = None;
            if self.is_stalled(state, limits.stall, now) {
                state.on_cut();
                state.dismissed.set(true);
                return Next::Refuse(Refused::Stalled);
            }
            if now >= self.look_again {
                state.forgive_for_time();
                self.look_again = self.owed.map_or(now, |(_, since)| since) + limits.stall;
            }
            let soonest = if now < linger_ends { self.look_again.min(linger_ends) } else { self.look_again };
            return Next::WaitUntil(soonest);
        }
        // A response of HTTP/2 is complete as soon as h2 has all of it: only the bytes that go out show that there is more.
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

    /// Whether the client has owed something for so long, and moved no byte.
    fn is_stalled(&mut self, state: &ConnState, limit: Duration, now: Instant) -> bool {
        let bytes = state.moved();
        match self.owed {
            _ if !state.client_owes() && !state.is_half_closed() => self.owed = None,
            Some((known, since)) if known == bytes => return now >= since + limit,
            _ => self.owed = Some((bytes, now)),
        }
        false
    }
}
