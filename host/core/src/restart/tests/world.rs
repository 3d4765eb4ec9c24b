//! A simulated world around the machine that keeps its own books.
//!
//! It knows the rules only from outside: which events it has delivered and which actions it got.
//! From these it works out who is alive, ready, draining, and which generation is what, and after
//! every step it compares that with the machine and checks each promise of the module.

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

    /// Whether nothing but drains keeps a request from its preflight, and it doesn't wait for them.
    fn may_overtake(&self, by: By) -> bool {
        let goes = |it: &Process| !it.serves() && it.state != WorkerState::Starting;
        let newest = self.candidate.filter(|_| !self.returning).unwrap_or(self.active);
        let former: BTreeSet<_> = self.alive.values().map(|it| it.generation).filter(|it| *it != newest).collect();
        let others_go = self.alive.values().filter(|it| it.generation != newest).all(goes);
        let only_drains = match self.candidate {
            _ if self.end.is_some() || !self.has_served || self.preflight.is_some() => false,
            Some(_) if self.returning => self.unwritten.is_none() && self.is_manned() && others_go,
            Some(candidate) => {
                let ready = self.alive.values().filter(|it| it.generation == candidate && it.serves()).count();
                ready == usize::from(self.settings[&candidate].workers)
                    && others_go
                    && self.probation_has_passed(candidate)
            }
            None => !former.is_empty(),
        };
        let urgent = matches!(by, By::Rollback | By::Healing);
        let most = if urgent { 4 } else { 3 };
        only_drains && former.len() <= most && (urgent || self.settings[&self.active].while_draining)
    }

    /// Whether every slot has an active worker that serves and stays.
    fn is_manned(&self) -> bool {
        let is_ready = |it: &Process| it.generation == self.active && it.state == WorkerState::Ready;
        let slots = (0..self.settings[&self.active].workers).map(Slot);
        slots.into_iter().all(|slot| self.alive.values().any(|it| it.slot == slot && is_ready(it)))
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

    fn obey_scale(&mut self, from: u16, to: u16) {
        assert!(self.has_served && self.end.is_none() && self.candidate.is_none() && !self.returning);
        let (base, difference) = self.wish.take().expect("somebody wants another number");
        let settings = self.settings.get_mut(&self.active).expect("the active generation is known");
        assert_eq!(settings.workers, from);
        let wanted = (base.unwrap_or(i32::from(from)) + difference).clamp(1, 512);
        assert_eq!(i32::from(to), wanted);
        settings.workers = to;
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

    fn obey(&mut self, action: Action) {
        match action {
            Action::Preflight { request } => {
                assert!(self.waiting.contains(&request));
                assert_eq!(self.preflight.replace(request), None);
            }
            Action::CancelPreflight { request } => {
                assert_eq!(self.preflight.take(), Some(request));
            }
            Action::Spawn { worker, slot, generation } => self.obey_spawn(worker, slot, generation),
            Action::Drain { worker, successor, timeout } => self.obey_drain(worker, successor, timeout),
            Action::Abort { worker } => self.obey_abort(worker),
            Action::Kill { worker, why } => self.obey_kill(worker, why),
            Action::Adopt { generation, .. } => {
                let mut settings = self.to_adopt.take().expect("a preflight has passed");
                self.configured.insert(generation, settings.workers);
                if settings.workers == self.configured[&self.active] {
                    settings.workers = self.settings[&self.active].workers;
                }
                assert_eq!(self.candidate.replace(generation), None, "one candidate");
                assert!(generation > self.newest_generation);
                self.newest_generation = generation;
                self.candidates_spawned = 0;
                self.settings.insert(generation, settings);
            }
            Action::RolledOver { generation } => {
                assert!(!self.returning && self.end.is_none());
                assert_eq!(self.candidate, Some(generation));
                assert!(self.told_rolled_over.insert(generation), "once");
                let others = self.alive.values().filter(|it| it.generation != generation);
                assert!(others.into_iter().all(|it| !it.serves() && it.state != WorkerState::Starting));
            }
            Action::Activate { generation } if !self.has_served => assert_eq!(generation, self.active),
            Action::Activate { generation } => {
                assert!(!self.returning);
                assert_eq!(self.candidate.take(), Some(generation));
                self.active = generation;
            }
            Action::Quarantine { generation, failure } => {
                assert_eq!((self.candidate, self.end, self.returning), (Some(generation), None, false));
                assert_eq!(self.settings[&self.active].on_failure, OnFailure::Rollback);
                assert!(failure != Failure::Stopped && self.has_lost_a_candidate(), "failed without a cause");
                self.returning = true;
                self.unwritten = Some(generation);
            }
            Action::Discard { generation } => {
                assert_ne!(generation, self.active);
                assert!(self.alive.values().all(|it| it.generation != generation));
                assert!(self.settings.remove(&generation).is_some(), "discarded once");
                self.candidate.take_if(|it| *it == generation);
            }
            Action::AnnounceStop => {
                assert!(self.has_served && matches!(self.end, None | Some(End::Locked)));
                assert_eq!(self.stop_in_hand, StopInHand::First);
                self.stop_in_hand = StopInHand::None;
                self.end = Some(End::Delayed { until: self.now + self.settings[&self.active].shutdown_delay });
            }
            Action::CloseListeners => {
                match self.end {
                    Some(End::Delayed { until }) => {
                        let skipped = self.stop_in_hand == StopInHand::First;
                        assert!(until <= self.now || skipped || self.alive.is_empty(), "before its time");
                    }
                    end => {
                        assert!(matches!(end, None | Some(End::Locked)));
                        let delay = self.settings[&self.active].shutdown_delay;
                        assert!(!self.has_served || delay.is_zero(), "not announced");
                    }
                }
                self.end = Some(End::Stopping);
            }
            Action::Verdict { request, verdict } => self.obey_verdict(request, &verdict),
            Action::Report(Report::Serving { .. }) => self.has_served = true,
            Action::Report(Report::Scaled { from, to }) => self.obey_scale(from, to),
            Action::Report(Report::WorkerRecycled { worker, why }) => self.obey_recycling(&worker, why),
            Action::Report(Report::StoppingAtOnce) => self.end = Some(End::StoppingAtOnce),
            Action::Report(_) => {}
            Action::Exit(reason) => self.obey_exit(&reason),
        }
    }

    fn obey_spawn(&mut self, worker: WorkerId, slot: Slot, generation: Generation) {
        assert_eq!(self.end, None, "nothing is spawned any more");
        assert!(worker > self.newest_worker);
        let is_active = (self.candidate.is_none() || self.returning) && generation == self.active;
        assert!(is_active || (Some(generation) == self.candidate && !self.returning));
        let settings = self.settings[&generation];
        assert!(slot.0 < settings.workers);
        let starting =
            self.alive.values().filter(|it| it.generation == generation && it.state == WorkerState::Starting);
        assert!(is_active || starting.count() < usize::from(settings.parallel), "as many at a time as configured");
        assert!(is_active || slot == Slot(0) || self.probation_has_passed(generation));
        assert!(
            self.has_served || self.may_start_first(slot),
            "the first worker starts alone, and so does a second try"
        );
        let mut others = self.alive.values().filter(|it| it.stays());
        assert!(others.all(|it| (it.slot, it.generation) != (slot, generation)), "one that stays is enough");
        self.candidates_spawned += usize::from(!is_active);
        self.newest_worker = worker;
        *self.first_spawns.entry(slot).or_default() += 1;
        self.alive.insert(
            worker,
            Process {
                slot,
                generation,
                state: WorkerState::Starting,
                ready_since: None,
                told_to_end: false,
                deadline: self.now + settings.start_timeout,
                beats: 0,
                hangs: false,
                unmoved: None,
                requests: 0,
            },
        );
    }

    /// Whether this first worker may start now: in the first slot at first, in each other one when that one serves,
    /// and a second time when everybody else does.
    fn may_start_first(&self, slot: Slot) -> bool {
        let spawned = self.first_spawns.get(&slot).copied().unwrap_or_default();
        let serves = |it: &Process| it.state == WorkerState::Ready;
        match spawned {
            0 if slot == Slot(0) => self.alive.is_empty(),
            0 => self.alive.values().any(|it| it.slot == Slot(0) && serves(it)),
            1 => slot != Slot(0) && self.failed_starts.contains(&slot) && self.alive.values().all(serves),
            _ => false,
        }
    }

    fn obey_drain(&mut self, worker: WorkerId, successor: bool, timeout: Duration) {
        let process = &self.alive[&worker];
        let own_timeout = self.settings[&process.generation].shutdown_timeout;
        match process.state {
            WorkerState::Starting | WorkerState::Ready | WorkerState::Retiring => {
                assert_eq!(timeout, own_timeout);
            }
            WorkerState::Draining => {
                assert!(!successor, "drained twice");
                let left = process.deadline.saturating_sub(self.now);
                assert_eq!(timeout, left, "the deadline was moved");
            }
            state => panic!("a {state} worker was told to drain"),
        }
        if successor {
            self.allow_drain(worker, process);
        } else {
            assert_eq!(self.end, Some(End::Stopping));
        }
        let process = self.alive.get_mut(&worker).expect("it was there");
        if process.state != WorkerState::Draining {
            process.state = WorkerState::Draining;
            process.deadline = self.now + timeout;
        }
    }

    /// A drain of one while the others serve on.
    fn allow_drain(&self, worker: WorkerId, process: &Process) {
        let ends = matches!(self.end, Some(End::Locked | End::Delayed { .. }));
        if process.told_to_end && (process.state == WorkerState::Starting || ends) {
            // It doesn't serve yet, or nobody will ever come in its place.
            return;
        }
        assert_eq!(self.end, None);
        let others = self.serving() - usize::from(process.serves());
        let configured = if self.returning {
            self.allow_return(worker, process);
            if process.state == WorkerState::Starting {
                // It doesn't serve and isn't wanted.
                return;
            }
            usize::from(self.settings[&self.active].workers)
        } else if let Some(candidate) = self.candidate {
            assert_ne!(process.generation, candidate);
            assert!(self.probation_has_passed(candidate));
            assert!(self.is_replaced(process.slot, candidate));
            self.configured(candidate)
        } else {
            let workers = self.settings[&self.active].workers;
            if process.slot.0 < workers {
                assert_eq!(process.state, WorkerState::Retiring, "only a roll drains whom nobody told to end");
                assert!(self.is_succeeded(worker, process), "new before old");
            } else if process.state == WorkerState::Starting {
                // It doesn't serve and isn't wanted.
                return;
            }
            usize::from(workers)
        };
        assert!(others >= configured, "{others} of {configured} serve on");
    }

    /// A drain while slots return: of a candidate, or of an active one that somebody else has told to end.
    fn allow_return(&self, worker: WorkerId, process: &Process) {
        let mut manned = self.alive.values().filter(|it| it.generation == self.active);
        let is_manned = if process.generation == self.active {
            self.is_succeeded(worker, process)
        } else {
            manned.any(|it| it.slot == process.slot && it.state == WorkerState::Ready)
        };
        let is_wanted = process.slot.0 < self.settings[&self.active].workers;
        let is_candidate = Some(process.generation) == self.candidate;
        assert!(is_candidate || process.state == WorkerState::Retiring || !is_wanted);
        assert!(is_manned || !is_wanted || (is_candidate && process.state == WorkerState::Starting), "new before old");
    }

    /// Whether a younger worker of the same generation serves in the same slot, and one of them stays somewhere.
    fn is_succeeded(&self, worker: WorkerId, process: &Process) -> bool {
        let others = || self.alive.iter().filter(|(_, it)| it.generation == process.generation && it.serves());
        let stays = others().any(|(_, it)| it.state == WorkerState::Ready);
        stays && others().any(|(&other, it)| other > worker && it.slot == process.slot)
    }

    /// Whether every slot has an active worker that serves, and nobody else is left.
    fn is_back(&self) -> bool {
        let workers = self.settings[&self.active].workers;
        let serves = |slot| self.alive.values().any(|it| it.slot == slot && it.state == WorkerState::Ready);
        (0..workers).map(Slot).all(serves) && self.alive.values().all(|it| it.generation == self.active)
    }

    /// How many workers must serve: as many as before, until the candidate is there in full.
    fn configured(&self, candidate: Generation) -> usize {
        let ready =
            self.alive.values().filter(|it| it.generation == candidate && it.state == WorkerState::Ready).count();
        let new = usize::from(self.settings[&candidate].workers);
        let old = usize::from(self.settings[&self.active].workers);
        if ready == new { new } else { old }
    }

    /// Whether the slot's candidate serves; a slot that goes is replaced by all of them together.
    fn is_replaced(&self, slot: Slot, candidate: Generation) -> bool {
        let mut ready = self.alive.values().filter(|it| it.generation == candidate && it.state == WorkerState::Ready);
        let workers = self.settings[&candidate].workers;
        if slot.0 < workers { ready.any(|it| it.slot == slot) } else { ready.count() == usize::from(workers) }
    }

    fn probation_has_passed(&self, candidate: Generation) -> bool {
        let probation = self.settings[&candidate].probation;
        let mut workers = self.alive.values();
        let first = workers.find(|it| it.generation == candidate && it.slot == Slot(0));
        let ready_since = first.and_then(|it| it.ready_since);
        ready_since.is_some_and(|since| since + probation <= self.now)
    }

    /// Only who hangs is aborted, after enough looks, and nobody who is to follow one that doesn't die.
    fn obey_abort(&mut self, worker: WorkerId) {
        assert_eq!(self.end, None, "nobody is replaced any more");
        let process = &self.alive[&worker];
        assert!(process.hangs && process.serves(), "it moved, or had another deadline");
        let timeout = self.settings[&process.generation].hang_timeout.expect("hanging matters");
        let (since, looks) = process.unmoved.expect("it was seen");
        assert!(since + timeout <= self.now && looks >= LOOKS, "{looks} looks in {:?}", self.now.saturating_sub(since));
        let dying = |it: &Process| matches!(it.state, WorkerState::Aborting | WorkerState::Killed);
        assert!(!self.alive.values().any(|it| it.slot == process.slot && dying(it)), "to no avail before");
        let process = self.alive.get_mut(&worker).expect("it was there");
        process.state = WorkerState::Aborting;
        process.deadline = self.now + ABORT_GRACE;
    }

    /// One at a time, when nothing else goes on, and for a reason.
    fn obey_recycling(&mut self, worker: &WorkerView, why: RecycleReason) {
        assert!(self.has_served && self.end.is_none() && self.candidate.is_none() && self.preflight.is_none());
        let settings = self.settings[&self.active];
        assert_eq!(self.alive.len(), usize::from(settings.workers));
        assert!(self.alive.values().all(|it| it.state == WorkerState::Ready), "not while somebody comes or goes");
        let process = self.alive.get_mut(&worker.id).expect("it was there");
        assert!(process.ready_since.is_some_and(|since| since + settings.recycle.min_uptime <= self.now));
        let limit = settings.recycle.requests.expect("requests matter");
        assert!(process.requests >= limit);
        assert_eq!(why, RecycleReason::Requests { served: process.requests, limit });
        process.state = WorkerState::Retiring;
    }

    fn obey_kill(&mut self, worker: WorkerId, why: KillReason) {
        let process = self.alive.get_mut(&worker).expect("the living are killed");
        assert_ne!(process.state, WorkerState::Killed, "killed twice");
        if why == KillReason::FastStop {
            assert_eq!(self.stop_in_hand, StopInHand::Again);
        } else {
            assert!(process.deadline <= self.now, "killed before its time");
            let expected = match process.state {
                WorkerState::Starting => KillReason::NotReadyInTime,
                WorkerState::Leaving => KillReason::StayedUnfit,
                WorkerState::Draining => KillReason::DrainTimedOut,
                WorkerState::Aborting => KillReason::SurvivedAbort,
                state => panic!("a {state} worker was killed"),
            };
            assert_eq!(why, expected);
        }
        process.state = WorkerState::Killed;
    }

    fn obey_verdict(&mut self, request: RequestId, verdict: &Verdict) {
        assert!(self.waiting.remove(&request), "one verdict a request");
        match verdict {
            Verdict::Complete { unchanged, draining } => {
                assert_eq!(*unchanged, self.passed_unchanged, "what the preflight said is what the verdict says");
                assert_eq!(self.candidate, None, "the candidate is active");
                let settings = self.settings[&self.active];
                assert_eq!(self.serving(), usize::from(settings.workers));
                let others: Vec<_> = self.alive.values().filter(|it| it.generation != self.active).collect();
                assert!(others.iter().all(|it| !it.serves() && it.state != WorkerState::Starting));
                assert_eq!(others.len(), *draining);
                assert!(others.is_empty() || self.overtaking.is_some(), "somebody is left");
                assert!(others.is_empty() || self.told_rolled_over.contains(&self.active), "not written down");
            }
            Verdict::Refused(Refusal::RestartInFlight) => {
                assert_eq!(self.overtaking, None, "only drains are in its way");
            }
            Verdict::Refused(_) => {}
            Verdict::Failed(Failure::Stopped) => assert_eq!((self.end, self.returning), (None, false)),
            Verdict::Failed(_) if self.returning => {
                let is_written = self.unwritten.take().is_none();
                assert!(is_written || self.stop_in_hand == StopInHand::First, "not written down");
                assert_eq!(self.end, None);
                assert!(
                    self.overtaking.is_some()
                        || self.stop_in_hand == StopInHand::First
                        || (self.candidate.is_none() && self.is_back()),
                    "not back yet"
                );
                self.returning = false;
                if self.overtaking.is_some() {
                    // It drains on.
                    self.candidate = None;
                }
            }
            Verdict::Failed(_) => {
                assert_eq!(self.end, None);
                assert!(self.has_lost_a_candidate(), "failed without a cause");
                assert_eq!(self.settings[&self.active].on_failure, OnFailure::Lock);
                self.end = Some(End::Locked);
            }
        }
    }

    fn obey_exit(&mut self, reason: &ExitReason) {
        assert!(self.alive.is_empty(), "somebody is left");
        assert!(self.waiting.is_empty(), "somebody waits for a verdict");
        assert_eq!(self.preflight, None);
        assert_eq!(self.candidate, None, "each candidate is discarded");
        let locked = *reason == ExitReason::LockedAndEmpty;
        assert_eq!(locked, self.end == Some(End::Locked));
        assert!(self.end.is_some());
        self.end = Some(End::Exited);
    }

    fn has_lost_a_candidate(&self) -> bool {
        let good = self.alive.values().filter(|it| {
            let lives = matches!(it.state, WorkerState::Starting | WorkerState::Ready);
            Some(it.generation) == self.candidate && lives && !it.told_to_end
        });
        self.candidate.is_some() && good.count() < self.candidates_spawned
    }

    /// The machine's books are the world's.
    fn compare(&self) {
        let books = self.alive.iter().map(|(&id, process)| WorkerView {
            id,
            slot: process.slot,
            generation: process.generation,
            state: process.state,
        });
        assert!(self.machine.workers().eq(books), "{:?}", self.machine);
        let is_starting = self.end.is_none() && !self.has_served;
        let someone_comes_or_goes = self.alive.values().any(|it| it.state != WorkerState::Ready);
        assert!(!is_starting || someone_comes_or_goes, "somebody else may start");
        assert_eq!(self.machine.serving(), self.serving());
        assert_eq!(self.machine.active(), self.active);
        assert_eq!(self.machine.is_locked(), self.end == Some(End::Locked));
        let stopping = matches!(self.end, Some(End::Delayed { .. } | End::Stopping | End::StoppingAtOnce));
        assert_eq!(self.machine.phase() == Phase::Stopping, stopping);
        assert_eq!(self.machine.phase() == Phase::Exited, self.is_over());
        assert!(self.end.is_some() || self.returning || !self.has_lost_a_candidate());
        assert_eq!(self.machine.phase() == Phase::Returning, self.returning);
        let is_free = matches!(self.machine.phase(), Phase::Serving | Phase::Preflight);
        assert!(!is_free || self.wish.is_none(), "wanted and nothing in the way");
        assert!(self.settings.len() <= 6, "at most one candidate, and four that drain");
        // A slot has one that stays and one that retires, or as many serve as are wanted, and those above the number that is wanted now go
        // when enough others serve; how many drain is bounded by the back-off.
        let staying = self.alive.values().filter(|it| it.serves() || it.state == WorkerState::Starting).count();
        assert!(staying <= 2 * usize::from(self.most_wanted), "bounded memory");
        if let Some(deadline) = self.machine.deadline() {
            assert!(deadline > self.now, "the machine would be called for ever");
        }
        self.compare_links();
        for process in self.alive.values() {
            let waits = !process.serves() && process.state != WorkerState::Killed;
            assert!(!waits || process.deadline > self.now, "not killed in time");
        }
    }

    /// Whoever drains while others serve on has somebody to give its connections to, who stays.
    fn compare_links(&self) {
        let links = self.machine.links();
        let is_ready = |it: &Process| it.state == WorkerState::Ready;
        assert!(links.iter().all(|(_, to)| is_ready(&self.alive[to])), "{links:?}");
        let serves_on = !matches!(self.machine.phase(), Phase::Starting | Phase::Stopping | Phase::Exited);
        let is_taken = serves_on && self.alive.values().any(is_ready);
        for (from, process) in &self.alive {
            let takers = links.iter().filter(|(giver, _)| giver == from).count();
            let expected = is_taken && process.state == WorkerState::Draining;
            assert_eq!(takers > 0, expected, "{from:?}: {links:?}");
            assert!(takers <= 8, "{links:?}");
        }
    }
}
