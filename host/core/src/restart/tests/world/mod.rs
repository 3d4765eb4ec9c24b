//! A simulated world around the machine that keeps its own books.
//!
//! It knows the rules only from outside: which events it has delivered and which actions it got.
//! From these it works out who is alive, ready, draining, and which generation is what, and after
//! every step it compares that with the machine and checks each promise of the module.

mod checks;
mod drive;
mod obey;

pub(super) use drive::ready_with_or_without_state;

use std::collections::{BTreeMap, BTreeSet};

use super::super::health::{ABORT_GRACE, LOOKS};
use super::super::{ExitReason, Failure, Machine, Phase, RecycleReason, Report, Scale, WorkerView};
use super::*;
use crate::ids::Time;

/// A worker's life as the world sees it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Process {
    slot: Slot,
    generation: Generation,
    state: WorkerState,
    ready_since: Option<Time>,
    /// Somebody other than the machine has told it to end.
    told_to_end: bool,
    /// Whether its app keeps something in memory.
    keeps_state: bool,
    /// Whether it was left something.
    is_heir: bool,
    /// To whom it was told to leave what it has, and until when that may take.
    bequest: Option<(WorkerId, Time)>,
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

    /// How long an active worker may hang.
    pub(super) fn hang_timeout(&self) -> Option<Duration> {
        self.settings[&self.active].hang_timeout
    }

    /// Whether the worker was told to end because it hangs, or has gone since.
    pub(super) fn is_given_up(&self, worker: WorkerId) -> bool {
        self.alive.get(&worker).is_none_or(|it| matches!(it.state, WorkerState::Aborting | WorkerState::Killed))
    }

    /// The workers that serve.
    pub(super) fn servants(&self) -> Vec<WorkerId> {
        self.alive.iter().filter(|(_, it)| it.serves()).map(|(&worker, _)| worker).collect()
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

    /// Whether a message can be true, so that it may change something.
    fn fits(&self, worker: WorkerId, event: &Event) -> bool {
        use WorkerState::{Draining, Killed, Ready, Starting};
        let state = self.alive.get(&worker).map(|it| it.state);
        match event {
            Event::Ready { .. } | Event::CannotListen { .. } | Event::StartFailed { .. } => state == Some(Starting),
            Event::SpawnFailed { .. } => matches!(state, Some(Starting | Draining | Killed)),
            Event::Terminated { .. } => matches!(state, Some(Starting | Ready)),
            Event::HandedOn { heir, .. } => self.leaves_to(worker).is_some_and(|(to, _)| to == *heir),
            Event::Exited { .. } => state.is_some(),
            // A spawned process is worth a line in the log and no more.
            _ => false,
        }
    }

    /// To whom a worker leaves what it has, and until when a drain waits for that.
    fn leaves_to(&self, worker: WorkerId) -> Option<(WorkerId, Time)> {
        let process = self.alive.get(&worker).filter(|it| it.serves())?;
        process.bequest.filter(|(heir, until)| *until > self.now && self.alive.contains_key(heir))
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
