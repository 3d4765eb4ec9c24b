//! What the transport, the requests and the driver of one connection share: its state, its thread's statistics, and its
//! log.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use app_host_core::not_moved::NotMoved;
use app_host_core::not_resumed::{LongLived, NotResumed};
use app_host_core::refused::Refused;
use app_host_platform::sys::stats::ThreadStats;

use super::interim::Interim;
use super::keepsake::{Keepsake, Legacy};
use super::rules::Objection;
use super::state::{ConnState, Drains, Limits, Protocol};
use super::tunnel::lock;
use crate::access::{ConnectionLog, RequestEnd, RequestLog};

/// Shared by all that serve one connection.
pub(super) struct Shared {
    pub(super) state: ConnState,
    stats: &'static ThreadStats,
    log: Option<Arc<ConnectionLog>>,
    pub(super) limits: &'static Limits,
    /// What the app sends before its response, on a connection of HTTP/1.
    pub(super) interim: Option<Arc<Interim>>,
    /// What it came with from another worker, which has answered its first request.
    pub(super) resumed: Option<LongLived>,
    /// What another worker is to ask that goes on with the response which was let go.
    let_go: Mutex<Option<Bytes>>,
    /// What the handler of the last request that may be asked again leaves.
    keepsake: Mutex<Option<Arc<Keepsake>>>,
    /// Notified when the worker's phase is new; made by the first who waits.
    phases: OnceLock<Arc<Notify>>,
}

impl Shared {
    pub(super) fn new(
        state: ConnState,
        thread: &'static ThreadStats,
        log: Option<Arc<ConnectionLog>>,
        limits: &'static Limits,
        resumed: Option<(LongLived, Legacy)>,
    ) -> Self {
        let interim = (state.protocol() == Protocol::Http1).then(Arc::default);
        let (resumed, left) = resumed.unzip();
        let keepsake = Mutex::new(left.map(|left| Arc::new(Keepsake::new(left))));
        let (let_go, phases) = (Mutex::default(), OnceLock::new());
        Self { state, stats: thread, log, limits, interim, resumed, let_go, keepsake, phases }
    }

    /// Where the connection's requests are logged, if they are.
    pub(super) const fn log(&self) -> Option<&Arc<ConnectionLog>> {
        self.log.as_ref()
    }

    /// Counts a client that is refused, and writes its line of the access log.
    pub(super) fn refuse(&self, why: Refused, detail: &str) {
        refuse(self.stats, self.log.as_deref(), why, detail);
    }

    /// Counts what goes on here: not what no other worker has taken, and which has come back to end here.
    pub(super) fn count_resumed(&self, what: LongLived) {
        if self.state.drains() != Drains::Close {
            self.stats.went_on(what);
        }
    }

    /// Counts what could have gone on in another worker and did not.
    pub(super) fn count_not_resumed(&self, what: LongLived, why: NotResumed) {
        self.stats.not_resumed(what, why);
    }

    /// Counts a connection of HTTP/2 that a drain ends, although it might have moved.
    pub(super) fn count_drained(&self) {
        if let Some(why) = self.state.take_not_moved() {
            self.count_not_moved(why);
        }
    }

    /// Counts a connection of HTTP/2 that has not gone on.
    pub(super) fn count_not_moved(&self, why: NotMoved) {
        tracing::debug!(%why, "a connection of HTTP/2 does not move");
        self.stats.not_moved(why);
    }

    /// Notes that HTTP/2 goes on here: counted unless no other worker has taken it, and it has come back to end here.
    pub(super) fn on_arrived(&self) {
        self.state.on_arrived();
        if self.state.drains() != Drains::Close {
            self.stats.moved_http2();
        }
    }

    /// Notes that another worker goes on with the response that is being sent, and asks this.
    pub(super) fn let_go(&self, head: Bytes) {
        *lock(&self.let_go) = Some(head);
        self.state.on_let_go();
    }

    /// What the other worker asks.
    pub(super) fn take_let_go(&self) -> Option<Bytes> {
        lock(&self.let_go).take()
    }

    /// Where the handler of a request leaves something: one of its own, unless another worker has answered it before.
    pub(super) fn keepsake(&self, replayed: bool) -> Arc<Keepsake> {
        let mut keepsake = lock(&self.keepsake);
        let kept = keepsake.take().filter(|_| replayed);
        Arc::clone(keepsake.insert(kept.unwrap_or_else(|| Arc::new(Keepsake::new(None)))))
    }

    /// What the handler leaves of the request that goes on elsewhere.
    pub(super) fn left(&self) -> Legacy {
        lock(&self.keepsake).as_ref().and_then(|keepsake| keepsake.close())
    }

    /// Wakes those that wait for a new phase of the worker.
    pub(super) fn notify_phase(&self) {
        if let Some(phases) = self.phases.get() {
            phases.notify_waiters();
        }
    }

    /// Is ready when the worker's phase is new.
    pub(super) fn new_phase(&self) -> OwnedNotified {
        Arc::clone(self.phases.get_or_init(Arc::default)).notified_owned()
    }

    /// How many requests the thread has in flight.
    pub(super) fn in_flight(&self) -> u64 {
        self.stats.in_flight()
    }

    /// Counts the requests that the cut gives up.
    pub(super) fn count_cut(&self) {
        self.stats.cut(self.state.in_flight());
    }
}

/// Counts a client that is refused, and writes its line of the access log, if there is one.
pub(super) fn refuse(stats: &ThreadStats, log: Option<&ConnectionLog>, why: Refused, detail: &str) {
    stats.refused(why);
    if let Some(log) = log {
        log.refused(why, detail);
    }
}

/// How far the answer to a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    /// The response has begun.
    Streams,
    /// The request has become a tunnel.
    Tunnels,
}

/// A request in flight, from its head until its response is complete or given up.
pub(super) struct InFlight {
    shared: Arc<Shared>,
    /// Its line in the access log, if there is one. Boxed, because it is long and mostly absent.
    log: Option<Box<RequestLog>>,
    /// When it began, if its duration is to be counted.
    since: Option<Instant>,
    /// Whether the client must take something of the response before more is asked of the app.
    untaken: bool,
    answer: Answer,
    /// Whether the request is counted as one in flight.
    counted: bool,
    /// Where something can be sent before its response, and its number there.
    interim: Option<(Arc<Interim>, u64)>,
}

impl InFlight {
    /// Begins a request of which the connection's state knows.
    pub(super) fn begin(
        shared: Arc<Shared>,
        log: Option<Box<RequestLog>>,
        interim: Option<(Arc<Interim>, u64)>,
    ) -> Self {
        shared.stats.began();
        let since = shared.stats.clock();
        Self { shared, log, since, untaken: false, answer: Answer::Awaited, counted: true, interim }
    }

    /// A request that is refused, of which the connection's state knows: it isn't counted, and has no line of its own.
    pub(super) fn refused(shared: Arc<Shared>, objection: &Objection) -> Self {
        shared.refuse(objection.why, &objection.detail);
        Self { shared, log: None, since: None, untaken: false, answer: Answer::Awaited, counted: false, interim: None }
    }

    /// Counts the client as refused, and writes a line about that beside the request's own.
    pub(super) fn refuse(&self, why: Refused, detail: &str) {
        self.shared.refuse(why, detail);
    }

    /// Notes that the app has answered: nothing comes before its response any more.
    pub(super) fn answered(&mut self) {
        if let Some((interim, number)) = self.interim.take() {
            interim.close(number);
        }
    }

    /// Does not count the request's duration: it becomes a tunnel, which may last for ever.
    pub(super) fn stop_the_clock(&mut self) {
        self.since = None;
        self.answer = Answer::Tunnels;
    }

    /// Notes whether the client must take something of the response before more is asked of the app.
    pub(super) fn untaken(&mut self, untaken: bool) {
        if self.untaken != untaken {
            self.untaken = untaken;
            self.shared.state.on_untaken(untaken);
        }
    }

    /// Notes that the response has begun.
    pub(super) fn streams(&mut self) {
        if self.answer == Answer::Awaited {
            self.answer = Answer::Streams;
            self.shared.state.on_streaming(true);
        }
    }

    pub(super) fn state(&self) -> &ConnState {
        &self.shared.state
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Notes that the app has answered with what goes on for long: again, if the request was `replayed` for that.
    pub(super) fn goes_on(&self, replayed: bool, what: LongLived) {
        if replayed && self.shared.resumed == Some(what) {
            self.shared.state.on_granted_again();
            if what == LongLived::EventStream {
                self.shared.count_resumed(what);
            }
        }
    }

    pub(super) fn stats(&self) -> &'static ThreadStats {
        self.shared.stats
    }

    pub(super) fn log(&mut self) -> Option<&mut RequestLog> {
        self.log.as_deref_mut()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.answered();
        self.untaken(false);
        if self.answer == Answer::Streams {
            self.shared.state.on_streaming(false);
        }
        if self.answer != Answer::Awaited {
            self.shared.state.forgive_for_answer();
        }
        self.shared.state.on_response_end();
        if let Some(since) = self.since {
            self.shared.stats.took(since.elapsed());
        }
        if self.counted {
            self.shared.stats.ended();
        }
        let state = &self.shared.state;
        if let Some(log) = self.log.as_deref_mut().filter(|_| state.has_let_go() && !state.is_cut()) {
            // The rest of the response is another worker's, with a line of its own.
            log.ended();
        }
        if let Some(log) = &self.log {
            log.write(if self.shared.state.is_cut() { RequestEnd::Cut } else { RequestEnd::Normal });
        }
    }
}
