//! The machine: its states, the one line through which every event goes, and the gate.
//!
//! Each call goes the same way: the event first (so that what happened at a deadline counts as
//! before it), then the deadlines that have passed, then whatever has become possible.

use std::collections::{BTreeMap, BTreeSet};

use super::first::FirstStart;
use super::respawn::BackOff;
use super::roll::Roll;
use super::rollback::Rollback;
use super::scale::Scale;
use super::worker::WorkerView;
use super::workers::WorkerTable;
use super::{Action, By, Event, ExitReason, Failure, Phase, Refusal, Report, Settings, Verdict};
use crate::ids::{Generation, RequestId, Slot, Time};

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
    pub(super) workers: WorkerTable,
    /// Former generations whose last workers still drain, because another restart didn't wait for them.
    pub(super) outgoing: BTreeSet<Generation>,
    /// Crash histories of the active generation's slots.
    pub(super) back_offs: BTreeMap<Slot, BackOff>,
    pub(super) last_generation: Generation,
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
    Returning(Rollback),
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

/// One call of the machine: what time it is, and what is to be done so far.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) now: Time,
    out: Vec<Action>,
}

impl Step {
    pub(super) fn act(&mut self, action: Action) {
        self.out.push(action);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.out.push(Action::Report(report));
    }
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
            workers: WorkerTable::new(),
            outgoing: BTreeSet::new(),
            back_offs: BTreeMap::new(),
            last_generation: Generation(1),
        }
    }

    /// Takes note of an event at time `now`; returns what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut step = Step { now, out: Vec::new() };
        if self.state != State::Exited {
            self.apply(event, &mut step);
            self.kill_overdue(&mut step);
            self.end_late_bequests(&mut step);
            // What ends one phase may make something possible in the next.
            loop {
                let phase = self.phase();
                self.advance(&mut step);
                if self.phase() == phase {
                    break;
                }
            }
        }
        step.out
    }

    /// When [`Event::Tick`] must be handled next, if nothing else happens before.
    pub fn deadline(&self) -> Option<Time> {
        let workers = self.workers.all().flat_map(|it| it.deadline().into_iter().chain(it.kept.deadline()));
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
        self.workers.views()
    }

    /// The generation that respawns use.
    pub const fn active(&self) -> Generation {
        self.active
    }

    /// How many workers are ready and not draining.
    pub fn serving(&self) -> usize {
        self.workers.serving()
    }

    /// How many workers there shall be.
    pub const fn workers_wanted(&self) -> u16 {
        self.settings.workers
    }

    /// Whether an earlier restart failed and nothing is restarted or respawned any more.
    pub const fn is_locked(&self) -> bool {
        matches!(self.state, State::Locked { .. })
    }

    fn apply(&mut self, event: Event, step: &mut Step) {
        match event {
            Event::Begin => self.begin(step),
            Event::Request { request, by } => self.gate(request, by, step),
            Event::PreflightPassed { request, settings, unchanged } => {
                if let Some(by) = self.awaits_preflight(request) {
                    // An operator may want new workers of the same; the watcher never does.
                    if unchanged && by == By::Watcher {
                        self.refuse_preflight(request, Refusal::Unchanged, step);
                    } else {
                        self.preflight_passed(request, (settings, unchanged), step);
                    }
                }
            }
            Event::PreflightRefused { request, refusal } => {
                if self.awaits_preflight(request).is_some() {
                    self.refuse_preflight(request, refusal, step);
                }
            }
            Event::Spawned { worker } => {
                if let Some(view) = self.starting(worker) {
                    step.report(Report::WorkerSpawned(view));
                }
            }
            Event::SpawnFailed { worker, error } => self.spawn_failed(worker, error, step),
            Event::Ready { worker, keeps_state } => self.ready(worker, keeps_state, step),
            Event::HandedOn { worker, heir } => self.handed_on(worker, heir),
            Event::CannotListen { worker, error } => {
                self.said_unfit(worker, step, |slot| Failure::CannotListen { slot, error });
            }
            Event::StartFailed { worker, error } => {
                self.said_unfit(worker, step, |slot| Failure::AppFailedToStart { slot, error });
            }
            Event::Terminated { worker } => self.terminated(worker, step),
            Event::Exited { worker, how } => self.exited(worker, how, step),
            Event::Looked { found } => self.looked(&found, step),
            Event::WrittenDown { generation } => self.written_down(generation),
            Event::Scale(wish) => self.scale(wish, step),
            Event::Stop => self.stop(step),
            Event::Tick => {}
        }
    }

    /// Does whatever has become possible.
    fn advance(&mut self, step: &mut Step) {
        self.discard_outgoing(step);
        match &self.state {
            State::Starting(_) => self.advance_first_start(step),
            State::Serving | State::Preflight { .. } => {
                self.fulfil_wish(step);
                self.respawn_due(step);
                self.drain_spare(step);
            }
            State::Rolling(roll) => self.advance_roll(*roll, step),
            State::Returning(_) => self.advance_return(step),
            State::StopDelayed { .. } => self.advance_delay(step),
            State::Locked { .. } | State::Stopping { .. } => {
                self.discard_candidate(step);
                self.exit_when_empty(step);
            }
            State::Fresh | State::Exited => {}
        }
    }

    fn gate(&mut self, request: RequestId, by: By, step: &mut Step) {
        let overtakes = self.may_overtake(by);
        if overtakes {
            self.overtake(step);
        }
        let refusal = match self.state {
            // Nobody is left to be told anything; `handle` doesn't get here.
            State::StopDelayed { .. } | State::Stopping { .. } | State::Exited => Refusal::Stopping,
            State::Fresh | State::Starting(_) => Refusal::Starting,
            State::Locked { .. } => Refusal::AbortedRestart,
            State::Preflight { .. } | State::Rolling(_) | State::Returning(_) => Refusal::RestartInFlight,
            State::Serving if !self.outgoing.is_empty() && !overtakes => Refusal::RestartInFlight,
            State::Serving if !self.settings.suffice(self.configured) => Refusal::NoWorkers,
            State::Serving if !self.settings.databank_shared => {
                Refusal::BadDriver("the active databank can't be shared between processes".to_owned())
            }
            State::Serving => {
                self.state = State::Preflight { request, by };
                step.act(Action::Preflight { request });
                return;
            }
        };
        let verdict = Verdict::Refused(refusal);
        step.act(Action::Verdict { request, verdict });
    }

    /// Who asked for the preflight of this request, if it is under way.
    fn awaits_preflight(&self, request: RequestId) -> Option<By> {
        match self.state {
            State::Preflight { request: awaited, by } if awaited == request => Some(by),
            _ => None,
        }
    }

    fn preflight_passed(&mut self, request: RequestId, (settings, unchanged): (Settings, bool), step: &mut Step) {
        if !settings.suffice(settings.workers) {
            self.refuse_preflight(request, Refusal::NoWorkers, step);
        } else if !settings.databank_shared {
            let text = "the configured databank can't be shared between processes".to_owned();
            self.refuse_preflight(request, Refusal::BadDriver(text), step);
        } else {
            self.start_roll(request, (settings, unchanged), step);
        }
    }

    fn refuse_preflight(&mut self, request: RequestId, refusal: Refusal, step: &mut Step) {
        self.state = State::Serving;
        let verdict = Verdict::Refused(refusal);
        step.act(Action::Verdict { request, verdict });
    }
}
