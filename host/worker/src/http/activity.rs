//! What goes on in one connection: shared by its transport, its requests and its driver.
//!
//! All three run in one task (HTTP/2 streams: on one thread), so accesses are relaxed, counters need
//! no locked instruction and the lock is never waited for. Only request bodies may be read on a thread
//! of the app's.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::boundary::{Behind, Boundary};
use crate::access::{End, Entry, Visitor};
use app_host_platform::sys::stats::Lane;

/// Which of the HTTP/1 responses to come say that the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announce {
    /// The first that has no further request behind the one that it answers.
    IfAlone,
    /// The next.
    Always,
}

/// How that is stored. At first none does.
const NEVER: u8 = 0;
const IF_ALONE: u8 = 1;
const ALWAYS: u8 = 2;

pub(super) struct Activity {
    lane: &'static Lane,
    visitor: Option<Arc<Visitor>>,
    /// The connection was cut.
    cut: AtomicBool,
    begun: AtomicU64,
    ended: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// The last read found nothing.
    thirsty: AtomicBool,
    /// Request bodies of which the app waits for more.
    awaited: AtomicU32,
    unflushed: AtomicBool,
    closing: AtomicBool,
    announce: AtomicU8,
    /// It is to leave this worker as soon as it can.
    leaving: AtomicBool,
    /// It is this side that has ended it, because the worker drains.
    dismissed: AtomicBool,
    boundary: Mutex<Boundary>,
}

impl Activity {
    /// The activity of a connection that has had so many requests by now.
    pub(super) fn new(lane: &'static Lane, visitor: Option<Arc<Visitor>>, requests: u64) -> Self {
        Self {
            lane,
            visitor,
            cut: AtomicBool::new(false),
            begun: AtomicU64::new(requests),
            ended: AtomicU64::new(requests),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            thirsty: AtomicBool::new(false),
            awaited: AtomicU32::new(0),
            unflushed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            announce: AtomicU8::new(NEVER),
            leaving: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            boundary: Mutex::new(Boundary::new()),
        }
    }

    /// Where the stream is. A panic elsewhere can't leave it half-changed.
    pub(super) fn boundary(&self) -> MutexGuard<'_, Boundary> {
        self.boundary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read has brought so many bytes; `None` if they are still to come.
    pub(super) fn read(&self, bytes: Option<usize>) {
        self.thirsty.store(bytes.is_none(), Relaxed);
        if let Some(bytes) = bytes {
            add(&self.received, bytes);
        }
    }

    /// The transport has taken so many bytes.
    pub(super) fn sent(&self, bytes: usize) {
        add(&self.sent, bytes);
    }

    /// Bytes that the transport has taken so far.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Bytes that went either way so far.
    pub(super) fn bytes(&self) -> u64 {
        self.received.load(Relaxed).wrapping_add(self.bytes_sent())
    }

    /// The app waits for more of a request's body, or no longer does. On any thread.
    pub(super) fn awaits_body(&self, awaits: bool) {
        if awaits {
            self.awaited.fetch_add(1, Relaxed);
        } else {
            self.awaited.fetch_sub(1, Relaxed);
        }
    }

    /// Whether it is the client for whose bytes a request in flight waits.
    pub(super) fn is_starved(&self) -> bool {
        self.awaited.load(Relaxed) > 0 && self.thirsty.load(Relaxed)
    }

    /// Bytes are on their way out.
    pub(super) fn writes(&self) {
        self.unflushed.store(true, Relaxed);
    }

    /// All bytes have gone out.
    pub(super) fn flushed(&self) {
        self.unflushed.store(false, Relaxed);
    }

    /// The connection has come to its proper close.
    pub(super) fn closes(&self) {
        self.closing.store(true, Relaxed);
    }

    /// Whether the connection is at its proper close, which is bounded by itself.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Decides what responses say from now on.
    pub(super) fn announce(&self, announce: Announce) {
        let number = match announce {
            Announce::IfAlone => IF_ALONE,
            Announce::Always => ALWAYS,
        };
        self.announce.store(number, Relaxed);
    }

    /// Whether a connection that is served is kept: if not, its next response says so. What is to be announced for
    /// another reason stays.
    pub(super) fn keeps_alive(&self, keeps: bool) {
        let (from, to) = if keeps { (IF_ALONE, NEVER) } else { (NEVER, IF_ALONE) };
        if self.announce.load(Relaxed) == from {
            self.announce.store(to, Relaxed);
        }
    }

    /// Whether the response that is about to go out says that the connection closes.
    pub(super) fn is_announced(&self) -> bool {
        match self.announce.load(Relaxed) {
            NEVER => false,
            IF_ALONE => self.boundary().behind() == Behind::Nothing,
            _ => true,
        }
    }

    /// The connection is to be handed over as soon as it is between two requests, or is no longer.
    pub(super) fn leaves(&self, leaves: bool) {
        self.leaving.store(leaves, Relaxed);
    }

    /// Whether it is to be handed over.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// How many bytes hyper has of a request that it can't have handed over yet; `None` while a request is
    /// in flight, or there may be bytes of anything else.
    pub(super) fn unfinished_head(&self) -> Option<usize> {
        if self.in_flight() > 0 { None } else { self.boundary().unfinished_head() }
    }

    /// It is this side that ends the connection, because the worker drains.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Relaxed);
    }

    /// Whether a drain has ended the connection.
    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Relaxed)
    }

    /// Whether the client may have sent something that has not been read.
    pub(super) fn may_be_unread(&self) -> bool {
        self.announce.load(Relaxed) != NEVER || !self.boundary().is_clean()
    }

    /// Requests whose response is complete or given up.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// Requests of this connection that were handed to an app so far.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// Requests whose response is not complete yet.
    pub(super) fn in_flight(&self) -> u64 {
        self.begun().saturating_sub(self.ended())
    }

    /// Whether no request is in flight and every response has gone out.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight() == 0 && !self.unflushed.load(Relaxed)
    }

    /// Who has connected, if requests are logged.
    pub(super) const fn visitor(&self) -> Option<&Arc<Visitor>> {
        self.visitor.as_ref()
    }

    /// Counts the requests that are given up.
    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.lane.cut(self.in_flight());
    }
}

/// A connection, open until this is dropped. No part of its [`Activity`], which a request's body may keep
/// on a thread of the app's, where nobody may write to the lane.
pub(super) struct Opened(&'static Lane);

impl Opened {
    pub(super) fn new(lane: &'static Lane) -> Self {
        lane.opened();
        Self(lane)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// Adds without a locked instruction, which is enough because one thread writes.
fn add(counter: &AtomicU64, number: usize) {
    counter.store(counter.load(Relaxed).wrapping_add(number as u64), Relaxed);
}

/// A request in flight: from its head until its response is complete or given up.
pub(super) struct InFlight {
    activity: Arc<Activity>,
    /// Its line in the access log, if there is one. Boxed, because it is long and mostly there is none.
    entry: Option<Box<Entry>>,
    /// When it began, if somebody wants to know how long it takes.
    since: Option<Instant>,
}

impl InFlight {
    pub(super) fn begin(activity: Arc<Activity>, entry: Option<Box<Entry>>) -> Self {
        add(&activity.begun, 1);
        activity.lane.began();
        let since = activity.lane.clock();
        Self { activity, entry, since }
    }

    /// It becomes something else than a request: how long that takes says nothing of requests.
    pub(super) fn stop_the_clock(&mut self) {
        self.since = None;
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(super) fn lane(&self) -> &'static Lane {
        self.activity.lane
    }

    pub(super) fn entry(&mut self) -> Option<&mut Entry> {
        self.entry.as_deref_mut()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        add(&self.activity.ended, 1);
        if let Some(since) = self.since {
            self.activity.lane.took(since.elapsed());
        }
        self.activity.lane.ended();
        if let Some(entry) = &self.entry {
            entry.write(if self.activity.cut.load(Relaxed) { End::Cut } else { End::Own });
        }
    }
}
