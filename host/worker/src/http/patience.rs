//! How long a connection is waited for, and what comes then.
//!
//! Owns the time-outs of HTTP/1 while a worker serves, and those of every connection while it drains. Decides by what
//! has been going on and what time it is; what is decided is done by the driver.

use std::time::Duration;

use tokio::time::Instant;

use super::HEAD_TIMEOUT;
use super::activity::{Activity, Announce};
use super::drain::Ending;
use super::handover::{History, Spoken};

/// After how many ticks of [`HEAD_TIMEOUT`] an idle connection is closed: 90 to 120 s, longer than
/// the 60 s for which proxies commonly keep theirs, so that it is they who close.
pub(super) const IDLE_TICKS: u32 = 4;

/// After how many ticks without a byte a connection is dropped whose app waits for more of a request:
/// 60 to 90 s. An app that has its whole request may be silent for as long as it likes.
const STARVED_TICKS: u32 = 3;

/// What comes next for a connection that waits.
pub(super) enum Next {
    /// Nothing but its transport.
    Wait,
    /// It is looked at again then.
    WaitUntil(Instant),
    /// It need not be in anybody's hands any more. If it can't be let go of, it waits until then.
    Rest(Instant),
    /// A graceful shutdown, which ends an idle connection at once.
    Close,
    /// The end, because there is nothing that would be lost.
    Drop,
}

/// The patience of a connection that serves. Looked at once a [`HEAD_TIMEOUT`], so what is late is
/// closed after one to two of them; that spares each request a look at the clock.
pub(super) struct Patience {
    /// What was waited for at the last tick.
    last: Option<Awaited>,
    /// At how many ticks in a row.
    ticks: u32,
    /// When the next tick is due.
    pub(super) due: Instant,
    /// It is to rest.
    pub(super) rests: bool,
}

/// What a client is to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The request after so many.
    Request { after: u64, in_head: bool },
    /// More of a request's body, when so many bytes had gone either way.
    Body { bytes: u64 },
}

impl Patience {
    /// That of a connection which is new.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: None, ticks: 0, due: now + HEAD_TIMEOUT, rests: false }
    }

    /// That of a connection which another worker has had before: it goes on there.
    pub(super) fn resume(history: &History, now: Instant) -> Self {
        let last = Awaited::Request { after: history.requests, in_head: history.in_head };
        let last = (history.ticks > 0).then_some(last);
        Self { last, ticks: history.ticks, due: now + history.next_tick.min(HEAD_TIMEOUT), rests: false }
    }

    /// What another worker must know to go on.
    pub(super) fn history(&self, spoken: Spoken, requests: u64, in_head: bool) -> History {
        let goes_on = self.last == Some(Awaited::Request { after: requests, in_head });
        History {
            spoken,
            requests,
            in_head,
            ticks: if goes_on { self.ticks } else { 0 },
            next_tick: self.due.saturating_duration_since(Instant::now()),
        }
    }

    /// A tick is due: what comes of it.
    pub(super) fn tick(&mut self, activity: &Activity) -> Next {
        self.due = Instant::now() + HEAD_TIMEOUT;
        let again = Next::WaitUntil(self.due);
        let awaited = if activity.is_closing() {
            None
        } else if activity.is_idle() {
            Some(Awaited::Request { after: activity.begun(), in_head: activity.boundary().in_head() })
        } else {
            activity.is_starved().then(|| Awaited::Body { bytes: activity.bytes() })
        };
        let can_rest = activity.unfinished_head() == Some(0);
        self.ticks = if awaited == self.last { self.ticks + 1 } else { 1 };
        self.last = awaited;
        match awaited {
            Some(Awaited::Request { after: 0, .. }) => Next::Drop,
            Some(Awaited::Request { in_head: true, .. }) if self.ticks > 1 => Next::Drop,
            Some(Awaited::Request { .. }) if self.ticks >= IDLE_TICKS => {
                self.last = None;
                Next::Close
            }
            Some(Awaited::Body { .. }) if self.ticks >= STARVED_TICKS => Next::Drop,
            // One that has been so at the last look, too: those that are only between two requests are left alone.
            Some(Awaited::Request { in_head: false, .. }) if self.ticks > 1 && can_rest => {
                self.rests = true;
                Next::Rest(self.due)
            }
            Some(_) | None => again,
        }
    }
}

/// The drain of one connection.
pub(super) struct Drain {
    since: Instant,
    linger: Duration,
    pub(super) ending: Ending,
    /// After how many requests the connection became idle, and when that was noticed.
    idle: Option<((u64, u64), Instant)>,
    /// The connection has been asked to end.
    asked: bool,
}

impl Drain {
    /// One that has begun then.
    pub(super) fn new(since: Instant, linger: Duration, ending: Ending) -> Self {
        Self { since, linger, ending, idle: None, asked: false }
    }

    /// What comes next, when nothing is to be done at the moment.
    pub(super) fn look(&mut self, activity: &Activity, now: Instant) -> Next {
        let patience_ends = self.since + self.linger;
        let stays = self.ending == Ending::Close || activity.boundary().is_lost();
        if now >= patience_ends && stays {
            activity.announce(Announce::Always);
        }
        if !activity.is_idle() || activity.is_closing() {
            self.idle = None;
            return if now < patience_ends { Next::WaitUntil(patience_ends) } else { Next::Wait };
        }
        // HTTP/2 hands a response over as soon as its first byte fits the client's window, and says
        // nothing of the rest: only the bytes that go out tell that there is one.
        let progress = (activity.begun(), activity.bytes_sent());
        let since = match self.idle {
            Some((known, since)) if known == progress => since,
            _ => now,
        };
        self.idle = Some((progress, since));
        if now < since + self.linger {
            // An idle connection that began its wait before the drain's patience ends must be looked
            // at then, too.
            let deadline = since + self.linger;
            Next::WaitUntil(if now < patience_ends { deadline.min(patience_ends) } else { deadline })
        } else if self.asked {
            Next::Drop
        } else {
            self.asked = true;
            Next::Close
        }
    }
}
