//! The queue of connections that leave for other workers: which goes on which link, and what becomes of each. Pure:
//! knows no socket and no clock.
//!
//! ```text
//! push ──▶ waiting ── next, mark_sent ──▶ unanswered ── Accepted ──▶ accepted
//!            ▲  │                            │    └──── no reply in time ──▶ accepted, as far as is known
//!            │  └─ no worker accepts it      └─ NoRoom, or the link ends ─┐
//!            │       └──▶ returned                                        │
//!            └────────────────────────────────────────────────────────────┘
//! ```
//! Invariants: each connection that was pushed is waiting, unanswered, accepted or returned, and never two of them; no
//! link has more than [`WINDOW`] unanswered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A moment, as the duration since some beginning.
pub(super) type Time = Duration;

/// The most connections in one packet.
pub(super) const BATCH: usize = 64;

/// The most connections of one link that are unanswered: one packet that the other worker handles, and one on its way.
/// They are descriptors in flight, of which the kernel allows a user about as many as a process may have open
/// (`ETOOMANYREFS`, `unix(7)`).
pub(super) const WINDOW: usize = 2 * BATCH;

/// After how long without progress the waiting connections are returned.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a link isn't used after its worker had no room.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// How long a reply may take. After it the connection counts as accepted: the worker that it was sent to will accept it
/// unless that worker dies, and then the connection is lost.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker replies to a connection that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It serves the connection.
    Accepted,
    /// It can't now.
    NoRoom,
    /// It can't read the record, or doesn't have the listener that the connection came by.
    Unknown,
}

/// What became of a connection that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<C> {
    /// Another worker has it.
    Accepted(C),
    /// No worker accepts it.
    Returned(C),
}

/// The connections on their way out, and the links that they can go on.
#[derive(Debug)]
pub(super) struct Outbox<C> {
    links: BTreeMap<u64, Link<C>>,
    last_link: u64,
    waiting: VecDeque<C>,
    /// Nothing is sent before this moment.
    paused_until: Time,
    /// When a connection was last accepted or rejected for good, or began to wait.
    progress: Time,
    /// Every connection is returned at once, until there is a new link.
    closed: bool,
    /// More links may be on their way.
    expects_links: bool,
    outcomes: Vec<Outcome<C>>,
}

#[derive(Debug)]
struct Link<C> {
    /// How many connections its worker has, as it said last.
    connections: u64,
    /// In the order in which they were sent, which is that of the replies. One whose reply is late is `None`, and keeps
    /// its place.
    unanswered: VecDeque<(Option<C>, Time)>,
    /// The socket is full.
    blocked: bool,
    retry_at: Time,
    /// The link isn't used from this moment on.
    ends: Option<Time>,
}

impl<C> Outbox<C> {
    pub(super) fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            last_link: 0,
            waiting: VecDeque::new(),
            paused_until: Time::ZERO,
            progress: Time::ZERO,
            closed: true,
            expects_links: false,
            outcomes: Vec::new(),
        }
    }

    /// Keeps connections waiting although there is no link yet: links are on their way.
    pub(super) fn expect_links(&mut self, now: Time) {
        self.expects_links = true;
        self.start_waiting(now);
    }

    fn start_waiting(&mut self, now: Time) {
        self.closed = false;
        self.progress = now;
    }

    /// Adds a connection.
    pub(super) fn push(&mut self, connection: C, now: Time) {
        if self.waiting.is_empty() {
            self.progress = now;
        }
        self.waiting.push_back(connection);
        self.tick(now);
    }

    /// Adds a link to another worker, used until `ends`. Returns its number.
    pub(super) fn add_link(&mut self, ends: Option<Time>, now: Time) -> u64 {
        self.last_link += 1;
        let link = Link { connections: 0, unanswered: VecDeque::new(), blocked: false, retry_at: Time::ZERO, ends };
        self.links.insert(self.last_link, link);
        self.start_waiting(now);
        self.last_link
    }

    /// Stops using the links that have an end.
    pub(super) fn end_early(&mut self, now: Time) {
        for link in self.links.values_mut().filter(|link| link.ends.is_some()) {
            link.ends = Some(now);
        }
    }

    /// The link on which the first waiting connections are to be sent, and up to how many of them, so that all workers
    /// come to have equally many. They leave with [`mark_sent`](Self::mark_sent).
    pub(super) fn next(&self, now: Time) -> Option<(u64, usize)> {
        if self.waiting.is_empty() || now < self.paused_until {
            return None;
        }
        let open = || self.links.iter().filter(|(_, link)| link.is_open(now) && link.retry_at <= now);
        let (&number, link) = open().min_by_key(|(_, link)| link.load())?;
        let others = open().filter(|(other, _)| **other != number);
        let share = others.map(|(_, other)| other.load()).min().map_or(self.waiting.len(), |next| {
            // As many as make it equal to the next, and its share of the rest.
            let gap = usize::try_from(next - link.load()).unwrap_or(usize::MAX);
            gap.saturating_add(self.waiting.len().saturating_sub(gap).div_ceil(open().count()))
        });
        Some((number, share.min(self.waiting.len()).min(WINDOW - link.unanswered.len()).min(BATCH)))
    }

    /// The waiting connections, the first first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &C> {
        self.waiting.iter()
    }

    /// Marks the first `count` waiting connections as sent on this link.
    pub(super) fn mark_sent(&mut self, link: u64, count: usize, now: Time) {
        if let Some(link) = self.links.get_mut(&link) {
            let sent = self.waiting.drain(..count.min(self.waiting.len()));
            link.unanswered.extend(sent.map(|connection| (Some(connection), now)));
        }
    }

    /// Returns the first waiting connection, which can't be sent to any worker.
    pub(super) fn return_first(&mut self) {
        self.outcomes.extend(self.waiting.pop_front().map(Outcome::Returned));
    }

    /// Notes whether the link's socket is full.
    pub(super) fn set_blocked(&mut self, link: u64, blocked: bool) {
        if let Some(link) = self.links.get_mut(&link) {
            link.blocked = blocked;
        }
    }

    /// Sends nothing on any link until `until`.
    pub(super) fn pause_until(&mut self, until: Time) {
        self.paused_until = until;
    }

    /// Handles an acknowledgement: how many connections the worker at the other end of the link has, and its replies for
    /// those of a packet.
    pub(super) fn acknowledge(&mut self, number: u64, replies: &[Reply], connections: u64, now: Time) {
        let Some(link) = self.links.get_mut(&number) else { return };
        link.connections = connections;
        let mut again = Vec::new();
        for reply in replies {
            let Some((connection, _)) = link.unanswered.pop_front() else { break };
            match (reply, connection) {
                (Reply::Accepted, connection) => {
                    self.progress = now;
                    self.outcomes.extend(connection.map(Outcome::Accepted));
                }
                (Reply::Unknown, Some(connection)) => {
                    self.progress = now;
                    self.outcomes.push(Outcome::Returned(connection));
                }
                (Reply::NoRoom, Some(connection)) => {
                    link.retry_at = now + RETRY_DELAY;
                    // A link with an end is for balance only, for which no connection has to wait.
                    link.ends = link.ends.map(|_| now);
                    again.push(connection);
                }
                (Reply::NoRoom | Reply::Unknown, None) => {}
            }
        }
        self.requeue(again);
        self.tick(now);
    }

    /// Puts connections back to the front of the queue.
    fn requeue(&mut self, connections: Vec<C>) {
        for connection in connections.into_iter().rev() {
            self.waiting.push_front(connection);
        }
    }

    /// Removes a link that has ended. Its worker has accepted nothing that it has not replied to.
    pub(super) fn link_gone(&mut self, link: u64, now: Time) {
        let Some(link) = self.links.remove(&link) else { return };
        if self.waiting.is_empty() {
            self.progress = now;
        }
        self.requeue(link.unanswered.into_iter().filter_map(|(connection, _)| connection).collect());
        self.tick(now);
    }

    /// Sends nothing more, and returns what waits.
    pub(super) fn close(&mut self) {
        self.expects_links = false;
        self.closed = true;
        self.return_all();
    }

    /// Closes, and waits for no reply either: what was sent counts as accepted.
    pub(super) fn cut(&mut self) {
        self.close();
        for link in self.links.values_mut() {
            let unanswered = link.unanswered.iter_mut().filter_map(|(connection, _)| connection.take());
            self.outcomes.extend(unanswered.map(Outcome::Accepted));
        }
    }

    /// Applies the time-outs that have expired by `now`.
    pub(super) fn tick(&mut self, now: Time) {
        for link in self.links.values_mut() {
            // Those in front were sent first.
            for (connection, _) in link.unanswered.iter_mut().take_while(|(_, since)| *since + REPLY_TIMEOUT <= now) {
                self.outcomes.extend(connection.take().map(Outcome::Accepted));
            }
        }
        let is_stalled = !self.waiting.is_empty() && self.progress + STALL_TIMEOUT <= now;
        let ended = |link: &Link<C>| link.ends.is_some_and(|ends| ends <= now);
        let all_ended = !self.expects_links && self.links.values().all(ended);
        if is_stalled || all_ended || self.closed {
            self.closed = true;
            self.return_all();
        }
    }

    fn return_all(&mut self) {
        self.outcomes.extend(self.waiting.drain(..).map(Outcome::Returned));
    }

    /// Takes what has been decided since the last call.
    pub(super) fn take_outcomes(&mut self) -> Vec<Outcome<C>> {
        std::mem::take(&mut self.outcomes)
    }

    /// Removes the links that aren't used any more and owe no reply, and returns their numbers.
    pub(super) fn take_ended(&mut self, now: Time) -> Vec<u64> {
        let ended = |link: &Link<C>| link.unanswered.is_empty() && link.ends.is_some_and(|ends| ends <= now);
        let numbers: Vec<u64> = self.links.iter().filter(|(_, link)| ended(link)).map(|(&number, _)| number).collect();
        for number in &numbers {
            self.links.remove(number);
        }
        numbers
    }

    /// When [`tick`](Self::tick) is to be called next, or [`next`](Self::next) asked again.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let links = self.links.values();
        let replies = links.clone().filter_map(|link| {
            // Those in front were sent first.
            let (_, since) = link.unanswered.iter().find(|(connection, _)| connection.is_some())?;
            Some(*since + REPLY_TIMEOUT)
        });
        let ends = links.clone().filter_map(|link| link.ends.filter(|ends| *ends > now));
        let waits = (!self.waiting.is_empty()).then(|| {
            let retries = links.map(|link| link.retry_at);
            let again = retries.chain([self.paused_until]).filter(|until| *until > now);
            again.chain([self.progress + STALL_TIMEOUT]).min()
        });
        replies.chain(ends).chain(waits.flatten()).min()
    }
}

impl<C> Link<C> {
    /// How many connections its worker has, or will have if it accepts what it was sent.
    fn load(&self) -> u64 {
        self.connections + self.unanswered.len() as u64
    }

    fn is_open(&self, now: Time) -> bool {
        !self.blocked && self.unanswered.len() < WINDOW && self.ends.is_none_or(|ends| ends > now)
    }
}

#[cfg(test)]
mod tests;
