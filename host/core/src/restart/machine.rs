//! The machine: its states, the one line through which every event goes, and the gate.
//!
//! Each call goes the same way: the event first (so that what happened at a deadline counts as
//! before it), then the deadlines that have passed, then whatever has become possible.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Generation, RequestId, Slot, Time, WorkerId};

use super::first::FirstStart;
use super::respawn::BackOff;
use super::retreat::Retreat;
use super::roll::Roll;
use super::scale::Scale;
use super::worker::{Worker, WorkerView};
use super::{Action, By, Event, ExitReason, Failure, Phase, Refusal, Report, Settings, Verdict};

/// The restart logic of one master. See the module for its states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub(super) state: State,
    pub(super) active: Generation,
    /// The active generation's, but for the number of workers, which is the one that is wanted.
    pub(super) settings: Settings,
    /// The active configuration's own number of workers.
    pub(super) configured: u16,
    /// Another number of workers that somebody wants as soon as it may be.
    pub(super) wish: Option<Scale>,
    /// Everyone whose exit hasn't been seen yet.
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// Former generations whose last workers still drain, because another restart didn't wait for them.
    pub(super) outgoing: BTreeSet<Generation>,
    /// Crash histories of the active generation's slots.
    pub(super) back_offs: BTreeMap<Slot, BackOff>,
    pub(super) last_generation: Generation,
    pub(super) last_worker: WorkerId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Before [`Event::Begin`].
    Fresh,
    Starting(FirstStart),
    Serving,
    Preflight {
        request: RequestId,
        by: By,
    },
    Rolling(Roll),
    Returning(Retreat),
    Locked {
        /// The failed generation, for as long as it has workers.
        candidate: Option<Generation>,
    },
    /// The service will stop, and serves until then.
    StopDelayed {
        until: Time,
        /// As in `Stopping`.
        candidate: Option<Generation>,
    },
    Stopping {
        exit: ExitReason,
        /// The generation whose roll was given up, for as long as it has workers.
        candidate: Option<Generation>,
    },
    Exited,
}

impl Machine {
    /// A machine that waits for [`Event::Begin`]; its first generation is number 1.
    pub const fn new(settings: Settings) -> Self {
        Self {
            state: State::Fresh,
            active: Generation(1),
            settings,
            configured: settings.workers,
            wish: None,
            workers: BTreeMap::new(),
            outgoing: BTreeSet::new(),
            back_offs: BTreeMap::new(),
            last_generation: Generation(1),
            last_worker: WorkerId(0),
        }
    }

    /// Takes note of an event at time `now`; returns what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        if self.state != State::Exited {
            self.take(event, now, &mut out);
            self.kill_overdue(now, &mut out);
            // What ends one phase may make something possible in the next.
            loop {
                let phase = self.phase();
                self.advance(now, &mut out);
                if self.phase() == phase {
                    break;
                }
            }
        }
        out
    }

    /// When [`Event::Tick`] must be handled next, if nothing else happens before.
    pub fn deadline(&self) -> Option<Time> {
        let workers = self.workers.values().filter_map(Worker::deadline);
        let respawns = self.back_offs.values().filter_map(BackOff::due);
        let own = match &self.state {
            State::Rolling(roll) => roll.probation_ends(),
            State::StopDelayed { until, .. } => Some(*until),
            _ => None,
        };
        workers.chain(respawns).chain(own).min()
    }

    /// Where the machine stands.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Fresh | State::Starting(_) => Phase::Starting,
            // What was overtaken isn't over before its drains are.
            State::Serving if !self.outgoing.is_empty() => Phase::Rolling,
            State::Serving => Phase::Serving,
            State::Preflight { .. } => Phase::Preflight,
            State::Rolling(_) => Phase::Rolling,
            State::Returning(_) => Phase::Returning,
            State::Locked { .. } => Phase::Locked,
            State::StopDelayed { .. } | State::Stopping { .. } => Phase::Stopping,
            State::Exited => Phase::Exited,
        }
    }

    /// Where the machine stands for who would ask for a restart: it serves where nothing but drains goes on that such a
    /// request doesn't have to wait for.
    pub fn phase_for(&self, by: By) -> Phase {
        if self.may_overtake(by) { Phase::Serving } else { self.phase() }
    }

    /// Every worker whose exit hasn't been seen yet, oldest first.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> {
        self.workers.iter().map(|(&id, worker)| worker.view(id))
    }

    /// The generation that respawns use.
    pub const fn active(&self) -> Generation {
        self.active
    }

    /// How many workers are ready and not draining.
    pub fn serving(&self) -> usize {
        self.workers.values().filter(|it| it.is_ready()).count()
    }

    /// How many workers there shall be.
    pub const fn workers_wanted(&self) -> u16 {
        self.settings.workers
    }

    /// Whether an earlier restart failed and nothing is restarted or respawned any more.
    pub const fn is_locked(&self) -> bool {
        matches!(self.state, State::Locked { .. })
    }

    fn take(&mut self, event: Event, now: Time, out: &mut Vec<Action>) {
        match event {
            Event::Begin => self.begin(now, out),
            Event::Request { request, by } => self.gate(request, by, out),
            Event::PreflightPassed { request, settings, unchanged } => {
                if let Some(by) = self.awaits_preflight(request) {
                    // An operator may want new workers of the same; the watcher never does.
                    if unchanged && by == By::Watcher {
                        self.refuse_preflight(request, Refusal::Unchanged, out);
                    } else {
                        self.preflight_passed(request, (settings, unchanged), now, out);
                    }
                }
            }
            Event::PreflightRefused { request, refusal } => {
                if self.awaits_preflight(request).is_some() {
                    self.refuse_preflight(request, refusal, out);
                }
            }
            Event::Spawned { worker } => {
                if let Some(view) = self.starting(worker) {
                    out.push(Action::Report(Report::WorkerSpawned(view)));
                }
            }
            Event::SpawnFailed { worker, error } => self.spawn_failed(worker, error, now, out),
            Event::Ready { worker } => self.ready(worker, now, out),
            Event::CannotListen { worker, error } => {
                self.said_unfit(worker, now, out, |slot| Failure::CannotListen { slot, error });
            }
            Event::StartFailed { worker, error } => {
                self.said_unfit(worker, now, out, |slot| Failure::AppFailedToStart { slot, error });
            }
            Event::Terminated { worker } => self.terminated(worker, now, out),
            Event::Exited { worker, how } => self.exited(worker, how, now, out),
            Event::Looked { found } => self.looked(&found, now, out),
            Event::WrittenDown { generation } => self.written_down(generation),
            Event::Scale(wish) => self.scale(wish, out),
            Event::Stop => self.stop(now, out),
            Event::Tick => {}
        }
    }

    /// Does whatever has become possible.
    fn advance(&mut self, now: Time, out: &mut Vec<Action>) {
        self.discard_outgoing(out);
        match &self.state {
            State::Starting(_) => self.advance_first_start(now, out),
            State::Serving | State::Preflight { .. } => {
                self.fulfil_wish(now, out);
                self.respawn_due(now, out);
                self.drain_spare(now, out);
            }
            State::Rolling(roll) => self.advance_roll(*roll, now, out),
            State::Returning(_) => self.advance_return(now, out),
            State::StopDelayed { .. } => self.advance_delay(now, out),
            State::Locked { .. } | State::Stopping { .. } => {
                self.discard_candidate(out);
                self.exit_when_empty(out);
            }
            State::Fresh | State::Exited => {}
        }
    }

    fn gate(&mut self, request: RequestId, by: By, out: &mut Vec<Action>) {
        let overtakes = self.may_overtake(by);
        if overtakes {
            self.overtake(out);
        }
        let refusal = match self.state {
            // Nobody is left to be told anything; `handle` doesn't get here.
            State::StopDelayed { .. } | State::Stopping { .. } | State::Exited => Refusal::Stopping,
            State::Fresh | State::Starting(_) => Refusal::Starting,
            State::Locked { .. } => Refusal::AbortedRestart,
            State::Preflight { .. } | State::Rolling(_) | State::Returning(_) => Refusal::RestartInFlight,
            State::Serving if !self.outgoing.is_empty() && !overtakes => Refusal::RestartInFlight,
            State::Serving if self.configured < 2 => Refusal::NoWorkers,
            State::Serving if !self.settings.databank_shared => {
                Refusal::BadDriver("the active databank can't be shared between processes".to_owned())
            }
            State::Serving => {
                self.state = State::Preflight { request, by };
                out.push(Action::Preflight { request });
                return;
            }
        };
        let verdict = Verdict::Refused(refusal);
        out.push(Action::Verdict { request, verdict });
    }

    /// Who asked for the preflight of this request, if it is under way.
    fn awaits_preflight(&self, request: RequestId) -> Option<By> {
        match self.state {
            State::Preflight { request: awaited, by } if awaited == request => Some(by),
            _ => None,
        }
    }

    fn preflight_passed(
        &mut self,
        request: RequestId,
        (settings, unchanged): (Settings, bool),
        now: Time,
        out: &mut Vec<Action>,
    ) {
        if settings.workers < 2 {
            self.refuse_preflight(request, Refusal::NoWorkers, out);
        } else if !settings.databank_shared {
            let text = "the configured databank can't be shared between processes".to_owned();
            self.refuse_preflight(request, Refusal::BadDriver(text), out);
        } else {
            self.start_roll(request, (settings, unchanged), now, out);
        }
    }

    fn refuse_preflight(&mut self, request: RequestId, refusal: Refusal, out: &mut Vec<Action>) {
        self.state = State::Serving;
        let verdict = Verdict::Refused(refusal);
        out.push(Action::Verdict { request, verdict });
    }
}
