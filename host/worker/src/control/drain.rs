//! The end of a worker: drains its connections, stops the app and exits, each step with a deadline.

use std::convert::Infallible;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::time::{Instant, timeout_at};

use app_host_core::error::chain;
use app_host_core::message::{Connections, Origin};
use app_host_core::not_resumed::LongLived;
use app_host_core::status::millis;
use app_host_platform::sys::stats::ThreadStats;

use super::inputs::{DrainOrder, Input};
use super::schedule::Schedule;
use super::{BLOCKED, Control};
use crate::accept::{self, Intake, LAST_CALL, UnservedConnection};
use crate::connection::{Ending, Phase};
use crate::exit;
use crate::serving::ThreadEvent;
use crate::transfer::Mode;

impl Control<'_> {
    /// Drains the worker and exits.
    pub(super) async fn drain(&mut self, order: DrainOrder) -> Infallible {
        let began = Instant::now();
        let mut schedule = Schedule::new(began, order.timeout);
        let DrainOrder { successor, timeout, connections } = order;
        self.inputs.app_state.end();
        self.begin_drain(connections, &schedule);
        self.dispatch.refuse_locks();
        let handover = connections == Connections::HandedOver;
        tracing::info!(successor, handover, timeout_ms = millis(timeout), "draining");
        let mut threads = Threads { open: self.stats.len(), busy: self.stats.len() };
        if successor {
            self.intake.send_replace(Intake::Closed);
        } else {
            self.intake.send_replace(Intake::LastCall);
            self.wait_for_threads(&mut threads, &mut schedule, |threads, _| {
                (threads.open > 0).then_some(began + LAST_CALL)
            })
            .await;
            self.last_call(threads.open);
            self.shut_listeners_down();
            self.intake.send_replace(Intake::Closed);
        }
        self.wait_for_threads(&mut threads, &mut schedule, |threads, schedule| {
            (threads.busy > 0).then_some(schedule.cut)
        })
        .await;
        if threads.busy > 0 {
            self.transfer.set_mode(Mode::Cut);
            self.drain.begin(Phase::Cut);
            let unfinished = |threads: &Threads, schedule: &Schedule| (threads.busy > 0).then_some(schedule.end);
            self.wait_for_threads(&mut threads, &mut schedule, unfinished).await;
        }
        let totals = Totals::of(self.stats);
        if threads.busy > 0 {
            tracing::error!(
                threads = threads.busy,
                in_flight = totals.in_flight,
                route = totals.route,
                "the app blocks serving threads; the worker exits without them"
            );
            self.exit(BLOCKED)
        }
        let Totals { requests, cut, handed_over, received, closed, http2_moved, http2_not_moved, .. } = totals;
        let [websockets_resumed, event_streams_resumed] = totals.resumed;
        let [websockets_ended, event_streams_ended] = totals.ended;
        if cut > 0 {
            tracing::warn!(cut, "requests were cut at the end of the drain");
        }
        // Neither is at work beside its stop, unless it blocks.
        self.inputs.app_state.rests(schedule.end).await;
        self.stop.send_replace(true);
        let stopped = async {
            while let Some(event) = self.inputs.events.recv().await {
                if matches!(event, ThreadEvent::Stopped) {
                    break;
                }
            }
        };
        let has_stopped = timeout_at(schedule.end, stopped).await.is_ok();
        if !has_stopped {
            tracing::warn!("the app's stop did not end in time");
        }
        tracing::info!(
            requests,
            cut,
            handed_over,
            received,
            closed,
            websockets_resumed,
            websockets_ended,
            event_streams_resumed,
            event_streams_ended,
            http2_moved,
            http2_not_moved,
            "drained"
        );
        self.flush();
        if has_stopped {
            exit::run_exit_handlers(schedule.end).await;
            tracing::warn!("the app's exit handlers did not end in time");
        }
        self.exit(0)
    }

    /// Tells all connections to end here, by a transfer to another worker or by a close.
    fn begin_drain(&self, connections: Connections, schedule: &Schedule) {
        // The transfer thread first, before connections come to it.
        let ending = match connections {
            Connections::HandedOver => {
                self.transfer.set_mode(Mode::Transfer);
                Ending::HandOver
            }
            Connections::Closed => {
                self.transfer.set_mode(Mode::Close);
                Ending::Close
            }
        };
        let since = Instant::now();
        let linger = schedule.linger(since, self.idle_linger);
        self.drain.begin(Phase::Draining { since: since.into_std(), linger, ending });
    }

    /// Handles inputs until `deadline` returns `None` because nothing is left to wait for, or a time that has come.
    async fn wait_for_threads(
        &mut self,
        threads: &mut Threads,
        schedule: &mut Schedule,
        deadline: impl Fn(&Threads, &Schedule) -> Option<Instant>,
    ) {
        while let Some(deadline) = deadline(threads, schedule) {
            match timeout_at(deadline, self.inputs.recv()).await {
                Err(_) => return,
                Ok(Input::Drain(again)) => {
                    schedule.shorten(Schedule::new(Instant::now(), again.timeout));
                    // The whole service ends after all: new clients must be refused at once, and no other worker
                    // takes connections.
                    if !again.successor {
                        self.shut_listeners_down();
                        self.begin_drain(Connections::Closed, schedule);
                    }
                }
                Ok(Input::Thread(ThreadEvent::Closed)) => {
                    threads.open -= 1;
                    if threads.open == 0 && *self.intake.borrow() == Intake::Closed {
                        self.listeners = None;
                        self.app_listeners.close();
                    }
                }
                Ok(Input::Thread(ThreadEvent::Drained)) => threads.busy -= 1,
                Ok(Input::Thread(event)) => self.exit_for_a_bug(&event),
            }
        }
    }

    /// Takes the connections that still wait: those that `unanswered` threads, blocked by the app, have not taken, and
    /// those that came since the others did. The first free thread serves them, now or later.
    pub(super) fn last_call(&self, unanswered: usize) {
        let mut taken = 0;
        let listeners = self.listeners.iter().flat_map(|listeners| listeners.iter()).enumerate();
        for (index, listener) in listeners.filter(|(_, listener)| listener.origin == Origin::Bound) {
            accept::last_call(&SockRef::from(&listener.socket), |socket, peer| {
                self.unserved.put(UnservedConnection { listener: index, socket, peer });
                taken += 1;
            });
        }
        if unanswered > 0 {
            tracing::warn!(threads = unanswered, taken, "serving threads do not answer the last call");
        }
    }

    /// Refuses new clients at once, although other processes may still hold the sockets open: `shutdown(2)` acts on the
    /// socket, not on the descriptor. The app's own listeners are shut down, too. A socket that was passed to the master
    /// is only closed: its service manager goes on listening.
    pub(super) fn shut_listeners_down(&mut self) {
        let listeners = self.listeners.take();
        let listeners = listeners.iter().flat_map(|listeners| listeners.iter());
        for listener in listeners.filter(|listener| listener.origin == Origin::Bound) {
            // Another worker may have been faster.
            if let Err(error) = SockRef::from(&listener.socket).shutdown(Shutdown::Both)
                && error.kind() != std::io::ErrorKind::NotConnected
            {
                let (listener, error) = (listener.rules.name, chain(&error));
                tracing::warn!(listener, error, "listener can't be shut down");
            }
        }
        for (listener, error) in self.app_listeners.shut_down() {
            let error = chain(&error);
            tracing::warn!(listener, error, "listener can't be shut down");
        }
    }
}

/// How many threads still accept, and how many still have connections.
struct Threads {
    open: usize,
    busy: usize,
}

/// The sums over all serving threads.
#[derive(Default)]
struct Totals {
    requests: u64,
    in_flight: u64,
    cut: u64,
    handed_over: u64,
    received: u64,
    closed: u64,
    /// WebSockets and event streams.
    resumed: [u64; 2],
    ended: [u64; 2],
    http2_moved: u64,
    http2_not_moved: u64,
    /// A route whose request blocks a thread.
    route: Option<String>,
}

impl Totals {
    fn of(stats: &[ThreadStats]) -> Self {
        let mut totals = Self::default();
        for thread in stats.iter().map(ThreadStats::snapshot) {
            let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
            add(&mut totals.requests, thread.requests);
            add(&mut totals.in_flight, thread.in_flight);
            add(&mut totals.cut, thread.cut);
            add(&mut totals.handed_over, thread.handed_over);
            add(&mut totals.received, thread.taken_over);
            add(&mut totals.closed, thread.dismissed);
            for (place, what) in [LongLived::WebSocket, LongLived::EventStream].into_iter().enumerate() {
                add(&mut totals.resumed[place], thread.resumed(what));
                add(&mut totals.ended[place], thread.ended(what));
            }
            add(&mut totals.http2_moved, thread.moved_http2);
            add(&mut totals.http2_not_moved, thread.http2_not_moved());
            totals.route = totals.route.or(thread.route);
        }
        totals
    }
}
