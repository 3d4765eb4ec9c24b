//! What the transport, the requests and the driver of one connection share: its state, and where it is counted and
//! logged.

use std::sync::Arc;
use std::time::Instant;

use super::state::ConnState;
use crate::access::{End, Entry, Visitor};
use app_host_platform::sys::stats::Lane;

pub(super) struct Activity {
    pub(super) state: ConnState,
    lane: &'static Lane,
    visitor: Option<Arc<Visitor>>,
}

impl Activity {
    pub(super) const fn new(state: ConnState, lane: &'static Lane, visitor: Option<Arc<Visitor>>) -> Self {
        Self { state, lane, visitor }
    }

    /// Who has connected, if requests are logged.
    pub(super) const fn visitor(&self) -> Option<&Arc<Visitor>> {
        self.visitor.as_ref()
    }

    /// Counts the requests that are given up by a cut.
    pub(super) fn count_cut(&self) {
        self.lane.cut(self.state.in_flight());
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

/// A request in flight: from its head until its response is complete or given up.
pub(super) struct InFlight {
    activity: Arc<Activity>,
    /// Its line in the access log, if there is one. Boxed, because it is long and mostly there is none.
    entry: Option<Box<Entry>>,
    /// When it began, if somebody wants to know how long it takes.
    since: Option<Instant>,
}

impl InFlight {
    /// One whose body has this length; `None` if its own bytes tell its end.
    pub(super) fn begin(activity: Arc<Activity>, entry: Option<Box<Entry>>, body: Option<u64>) -> Self {
        activity.state.on_request(body);
        activity.lane.began();
        let since = activity.lane.clock();
        Self { activity, entry, since }
    }

    /// It becomes something else than a request: how long that takes says nothing of requests.
    pub(super) fn stop_the_clock(&mut self) {
        self.since = None;
    }

    pub(super) fn state(&self) -> &ConnState {
        &self.activity.state
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
        self.activity.state.on_response_end();
        if let Some(since) = self.since {
            self.activity.lane.took(since.elapsed());
        }
        self.activity.lane.ended();
        if let Some(entry) = &self.entry {
            entry.write(if self.activity.state.is_cut() { End::Cut } else { End::Own });
        }
    }
}
