//! A simulated world around the machine that keeps its own books.
//!
//! It knows the rules only from outside: which events it has delivered and which actions it got.
//! From these it works out who is alive, ready, draining, and which generation is what, and after
//! every step it compares that with the machine and checks each promise of the module.

mod checks;
mod obey;

use std::collections::{BTreeMap, BTreeSet};

use super::super::health::{ABORT_GRACE, LOOKS};
use super::super::{ExitReason, Failure, Machine, Phase, RecycleReason, Report, Scale, WorkerView};
use super::*;
use crate::ids::Time;

/// A worker's life as the world sees it.
struct Process {
    slot: Slot,
    generation: Generation,
    state: WorkerState,
    ready_since: Option<Time>,
    /// Somebody other than the machine has told it to end.
    told_to_end: bool,
    /// When it may be killed for what it hasn't done.
    deadline: Time,
    /// How often it has moved, until it hangs.
    beats: u64,
    hangs: bool,
    /// Since when, and in how many looks after that, it was seen not to move while it served.
    unmoved: Option<(Time, u32)>,
    requests: u64,
}

impl Process {
    fn stays(&self) -> bool {
        matches!(self.state, WorkerState::Starting | WorkerState::Ready)
    }

    fn serves(&self) -> bool {
        matches!(self.state, WorkerState::Ready | WorkerState::Retiring)
    }
}

/// What has ended the service's normal life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Locked,
    /// It will stop, and serves until then.
    Delayed {
        until: Time,
    },
    Stopping,
    StoppingAtOnce,
    Exited,
}

/// Whether the event in hand is an order to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopInHand {
    None,
    First,
    Again,
}

pub(super) struct World {
    pub(super) machine: Machine,
    now: Time,
    alive: BTreeMap<WorkerId, Process>,
    newest_worker: WorkerId,
    /// With the number of workers that is wanted of each.
    settings: BTreeMap<Generation, Settings>,
    /// The most that were wanted at any time.
    most_wanted: u16,
    /// The numbers of workers that the configurations say.
    configured: BTreeMap<Generation, u16>,
    /// A number that somebody has wished for, and what has come to it since.
    wish: Option<(Option<i32>, i32)>,
    active: Generation,
    candidate: Option<Generation>,
    /// How many of the candidate's workers were ordered.
    candidates_spawned: usize,
    newest_generation: Generation,
    /// Set between a request's passed preflight and the actions that follow from it.
    to_adopt: Option<Settings>,
    preflight: Option<RequestId>,
    last_request: u64,
    waiting: BTreeSet<RequestId>,
    asked_by: BTreeMap<RequestId, By>,
    end: Option<End>,
    /// Whether the candidate has failed and every slot returns to the active generation.
    returning: bool,
    stop_in_hand: StopInHand,
    told_rolled_over: BTreeSet<Generation>,
    /// The request in hand, where it doesn't wait for the drains of the restart before.
    overtaking: Option<RequestId>,
    /// The quarantined generation, until that is written down.
    unwritten: Option<Generation>,
    /// Whether the last preflight that passed has found nothing new.
    passed_unchanged: bool,
    /// Whether the first workers were all ready once.
    has_served: bool,
    /// How many workers each slot has got.
    first_spawns: BTreeMap<Slot, u32>,
    /// Slots whose app has failed to start.
    failed_starts: BTreeSet<Slot>,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        let first = Generation(1);
        let mut world = Self {
            machine: Machine::new(settings),
            now: Duration::ZERO,
            alive: BTreeMap::new(),
            newest_worker: WorkerId(0),
            settings: BTreeMap::from([(first, settings)]),
            most_wanted: 0,
            configured: BTreeMap::from([(first, settings.workers)]),
            wish: None,
            active: first,
            candidate: None,
            candidates_spawned: 0,
            newest_generation: first,
            to_adopt: None,
            preflight: None,
            last_request: 0,
            waiting: BTreeSet::new(),
            asked_by: BTreeMap::new(),
            end: None,
            returning: false,
            stop_in_hand: StopInHand::None,
            told_rolled_over: BTreeSet::new(),
            overtaking: None,
            unwritten: None,
            passed_unchanged: false,
            has_served: false,
            first_spawns: BTreeMap::new(),
            failed_starts: BTreeSet::new(),
        };
        world.deliver(Event::Begin);
        world
    }

    pub(super) fn is_over(&self) -> bool {
        self.end == Some(End::Exited)
    }

    pub(super) fn nobody_waits(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.machine.phase() == Phase::Serving && self.serving() == usize::from(self.settings[&self.active].workers)
    }

    pub(super) fn last_verdict_was_complete(&self) -> bool {
        self.candidate.is_none() && self.active == self.newest_generation
    }

    /// Somebody asks for a restart.
    pub(super) fn ask(&mut self, by: By) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        if !self.is_over() {
            self.waiting.insert(request);
        }
        self.asked_by.insert(request, by);
        if self.may_overtake(by) && self.machine.phase_for(by) != Phase::Serving {
            // A probation is over and nobody has looked at the clock since.
            self.tick();
        }
        let overtakes = self.may_overtake(by);
        self.overtaking = overtakes.then_some(request);
        assert_eq!(self.machine.phase_for(by) == Phase::Serving, overtakes || self.machine.phase() == Phase::Serving);
        let starts = self.preflight.is_none();
        self.deliver(Event::Request { request, by });
        self.overtaking = None;
        let settings = self.settings[&self.active];
        let possible = self.configured[&self.active] > 1 && settings.databank_shared;
        assert!(!(overtakes && possible && starts) || self.preflight == Some(request), "only drains are in its way");
    }

    /// Somebody wants another number of workers.
    pub(super) fn scale(&mut self, wish: Scale) {
        assert_eq!(self.machine.may_scale().is_ok(), self.end.is_none());
        if self.end.is_none() {
            let (base, difference) = self.wish.unwrap_or_default();
            self.wish = Some(match wish {
                Scale::To(number) => (Some(i32::from(number).clamp(1, 512)), 0),
                Scale::By(more) => match base {
                    Some(number) => (Some((number + more).clamp(1, 512)), 0),
                    None => (None, difference + more),
                },
            });
        }
        self.deliver(Event::Scale(wish));
    }

    /// A preflight under way finds nothing wrong; only an operator gets more of what is active.
    pub(super) fn pass_preflight(&mut self, settings: Settings, unchanged: bool) {
        if let Some(request) = self.preflight.take() {
            let refused = unchanged && self.asked_by[&request] == By::Watcher;
            self.to_adopt = (!refused).then_some(settings);
            self.passed_unchanged = unchanged;
            self.deliver(Event::PreflightPassed { request, settings, unchanged });
            self.to_adopt = None;
            assert!(!refused || !self.waiting.contains(&request));
        }
    }

    pub(super) fn refuse_preflight(&mut self) {
        if let Some(request) = self.preflight.take() {
            let refusal = Refusal::BadArtifact("no manifest".to_owned());
            self.deliver(Event::PreflightRefused { request, refusal });
        }
    }

    /// An answer that belongs to no preflight under way.
    pub(super) fn stale_preflight(&mut self, settings: Settings) {
        let request = RequestId(self.last_request + 1);
        self.tick();
        self.deliver_stale(&Event::PreflightPassed { request, settings, unchanged: false });
        let refusal = Refusal::Stopping;
        self.deliver_stale(&Event::PreflightRefused { request, refusal });
    }

    pub(super) fn stop(&mut self) {
        let again = matches!(self.end, Some(End::Stopping | End::StoppingAtOnce));
        self.stop_in_hand = if again { StopInHand::Again } else { StopInHand::First };
        self.deliver(Event::Stop);
        self.stop_in_hand = StopInHand::None;
    }

    /// A worker moves no more.
    pub(super) fn hang(&mut self, worker: WorkerId) {
        if let Some(process) = self.alive.get_mut(&worker) {
            process.hangs = true;
        }
    }

    /// Every worker handles so many requests more.
    pub(super) fn serve(&mut self, requests: u64) {
        for process in self.alive.values_mut().filter(|it| it.serves()) {
            process.requests += requests;
        }
    }

    /// The driver looks at all workers.
    pub(super) fn look(&mut self) {
        let now = self.now;
        let found = self.alive.iter_mut().map(|(&worker, process)| {
            process.beats += u64::from(!process.hangs);
            process.unmoved = match process.unmoved {
                Some((since, looks)) if process.hangs && process.serves() => Some((since, looks + 1)),
                // This look may be the first that sees it as it stays.
                _ => process.serves().then_some((now, 0)),
            };
            let beat = Some(Duration::from_millis(process.beats));
            (worker, Signs { beat, requests: process.requests, memory: None })
        });
        let found = found.collect();
        self.deliver(Event::Looked { found });
    }

    /// Everybody moves again.
    pub(super) fn recover(&mut self) {
        for process in self.alive.values_mut() {
            process.hangs = false;
        }
    }

    /// How long an active worker may hang.
    pub(super) fn hang_timeout(&self) -> Option<Duration> {
        self.settings[&self.active].hang_timeout
    }

    /// Sleeps for so long, and wakes at each deadline on the way.
    pub(super) fn sleep_watchfully(&mut self, pause: Duration) {
        let until = self.now + pause;
        while let Some(deadline) = self.machine.deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.tick();
        }
        self.now = until;
        self.tick();
    }

    /// Whether the worker was told to end because it hangs, or has gone since.
    pub(super) fn is_given_up(&self, worker: WorkerId) -> bool {
        self.alive.get(&worker).is_none_or(|it| matches!(it.state, WorkerState::Aborting | WorkerState::Killed))
    }

    /// The workers that serve.
    pub(super) fn servants(&self) -> Vec<WorkerId> {
        self.alive.iter().filter(|(_, it)| it.serves()).map(|(&worker, _)| worker).collect()
    }

    pub(super) fn sleep(&mut self, pause: Duration) {
        self.now += pause;
    }

    pub(super) fn tick(&mut self) {
        self.deliver(Event::Tick);
    }

    /// Sleeps until the machine wants to be called; says whether it does.
    pub(super) fn sleep_until_deadline(&mut self) -> bool {
        let deadline = self.machine.deadline();
        if let Some(deadline) = deadline {
            self.now = self.now.max(deadline);
            self.tick();
        }
        deadline.is_some()
    }

    /// Any worker ever spawned, or one that never was.
    pub(super) fn any_worker(&self, choice: usize) -> WorkerId {
        let known = usize::try_from(self.newest_worker.0).expect("few workers");
        WorkerId(u64::try_from(choice % (known + 2)).expect("few workers"))
    }

    /// The chosen one among the living, if there are any.
    pub(super) fn living_worker(&self, choice: usize) -> Option<WorkerId> {
        let count = self.alive.len().max(1);
        self.alive.keys().nth(choice % count).copied()
    }

    /// A worker says something, or something is said about it, whether it makes sense or not.
    pub(super) fn say(&mut self, worker: WorkerId, event: Event) {
        if !self.fits(worker, &event) {
            // Let everything happen that the passing of time causes, so that nothing is left but
            // what this message itself would change.
            self.tick();
        }
        if !self.fits(worker, &event) {
            return self.deliver_stale(&event);
        }
        match event {
            Event::Ready { .. } => self.set(worker, WorkerState::Ready),
            Event::CannotListen { .. } => self.set(worker, WorkerState::Leaving),
            Event::StartFailed { .. } => {
                self.failed_starts.insert(self.alive[&worker].slot);
                self.set(worker, WorkerState::Leaving);
            }
            Event::Terminated { .. } => self.tell_to_end(worker),
            _ => drop(self.alive.remove(&worker)),
        }
        self.deliver(event);
    }

    /// Whether a message can be true, so that it may change something.
    fn fits(&self, worker: WorkerId, event: &Event) -> bool {
        use WorkerState::{Draining, Killed, Ready, Starting};
        let state = self.alive.get(&worker).map(|it| it.state);
        match event {
            Event::Ready { .. } | Event::CannotListen { .. } | Event::StartFailed { .. } => state == Some(Starting),
            Event::SpawnFailed { .. } => matches!(state, Some(Starting | Draining | Killed)),
            Event::Terminated { .. } => matches!(state, Some(Starting | Ready)),
            Event::Exited { .. } => state.is_some(),
            // A spawned process is worth a line in the log and no more.
            _ => false,
        }
    }

    /// One living worker that is due does what a good worker does; says whether one was.
    pub(super) fn cooperate(&mut self) -> bool {
        if let Some(generation) = self.unwritten.take() {
            self.deliver(Event::WrittenDown { generation });
            return true;
        }
        let due = self.alive.iter().find(|(_, it)| !it.serves());
        let Some((&worker, process)) = due else {
            return false;
        };
        let event = match process.state {
            WorkerState::Starting => Event::Ready { worker },
            _ => Event::Exited { worker, how: Ended::Code(0) },
        };
        self.say(worker, event);
        true
    }

    /// One killed worker goes, as even the worst must; says whether there was one.
    pub(super) fn bury(&mut self) -> bool {
        let killed = self.alive.iter().find(|(_, it)| it.state == WorkerState::Killed);
        let Some((&worker, _)) = killed else {
            return false;
        };
        let how = Ended::Signal(9);
        self.say(worker, Event::Exited { worker, how });
        true
    }

    /// A preflight under way is answered well; says whether there was one.
    pub(super) fn answer(&mut self, settings: Settings) -> bool {
        let under_way = self.preflight.is_some();
        self.pass_preflight(settings, false);
        under_way
    }

    fn tell_to_end(&mut self, worker: WorkerId) {
        let replaceable = self.end.is_none() && self.has_served;
        // A candidate that was told to end fails its roll, and serves until an active one does.
        let returns = self.settings[&self.active].on_failure == OnFailure::Rollback;
        if let Some(process) = self.alive.get_mut(&worker) {
            process.told_to_end = true;
            if process.state == WorkerState::Ready
                && replaceable
                && (Some(process.generation) != self.candidate || returns)
            {
                process.state = WorkerState::Retiring;
            }
        }
    }

    fn set(&mut self, worker: WorkerId, state: WorkerState) {
        if let Some(process) = self.alive.get_mut(&worker) {
            process.state = state;
            process.ready_since = (state == WorkerState::Ready).then_some(self.now);
            process.unmoved = None;
        }
    }

    fn serving(&self) -> usize {
        let ready = self.alive.values();
        ready.filter(|it| it.serves()).count()
    }

    /// An event that must change nothing and cause nothing but a line in the log.
    fn deliver_stale(&mut self, event: &Event) {
        let before = self.machine.clone();
        let mut actions = self.machine.handle(event.clone(), self.now);
        actions.retain(|it| !matches!(it, Action::Report(Report::WorkerSpawned(_))));
        assert_eq!(actions, [], "{event:?} is stale");
        assert_eq!(self.machine, before, "{event:?} is stale");
    }

    fn deliver(&mut self, event: Event) {
        let was_over = self.is_over();
        let actions = self.machine.handle(event, self.now);
        assert!(!was_over || actions.is_empty(), "{actions:?} after exit");
        for action in actions {
            assert!(!self.is_over(), "{action:?} after exit");
            self.obey(action);
        }
        let wanted = self.settings.values().map(|it| it.workers).sum();
        self.most_wanted = self.most_wanted.max(wanted);
        self.compare();
    }
}
