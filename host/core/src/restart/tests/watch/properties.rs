//! The promise of the watcher's policy in random worlds.

use proptest::prelude::*;

use super::*;

// The promise, in worlds with the real machine.

/// From this version on a library can't be used.
const FIRST_BAD: u8 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A library lands; the watcher hasn't looked yet.
    Land(u8),
    /// A library lands and is gone before the watcher looks, but not before a preflight does.
    Flash(u8),
    /// The configuration file changes.
    Configure(u8),
    /// The watcher sees that something moves.
    Unsettled,
    /// The watcher says what lies there.
    Look,
    /// The store comes and goes.
    Reach(bool),
    Operator,
    Preflight,
    Worker,
    WorkerDies,
    Deadline,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..7).prop_map(Step::Land),
        1 => (0_u8..7).prop_map(Step::Flash),
        1 => (0_u8..3).prop_map(Step::Configure),
        2 => Just(Step::Unsettled),
        6 => Just(Step::Look),
        2 => any::<bool>().prop_map(Step::Reach),
        2 => Just(Step::Operator),
        8 => Just(Step::Preflight),
        16 => Just(Step::Worker),
        1 => Just(Step::WorkerDies),
        4 => Just(Step::Deadline),
    ]
}

/// The machine, the policy, and everything that they don't know.
struct World {
    machine: Machine,
    watch: Watch,
    watched: Watched,
    now: Time,
    /// What lies at the paths.
    disk: (u8, u8),
    /// What a preflight finds at the library's path instead, once.
    flash: Option<u8>,
    reachable: bool,
    preflight: Option<RequestId>,
    prepared: (u8, u8),
    active: (u8, u8),
    last_request: u64,
    judged: Option<(RequestId, Judged)>,
    /// What was refused for what it is, since it was seen.
    refused: Vec<Judged>,
}

impl World {
    fn new(watched: Watched) -> Self {
        let mut world = Self {
            machine: Machine::new(settings(2)),
            watch: Watch::new(watched, pair(0, 0)),
            watched,
            now: ms(1000),
            disk: (0, 0),
            flash: None,
            reachable: true,
            preflight: None,
            prepared: (0, 0),
            active: (0, 0),
            last_request: 0,
            judged: None,
            refused: Vec::new(),
        };
        world.handle(Event::Begin);
        world
    }

    fn ask(&mut self, by: By) -> Event {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        if by == By::Watcher {
            self.watch.asked(request);
        }
        Event::Request { request, by }
    }

    /// Hands the machine an event as the master's loop does.
    fn handle(&mut self, event: Event) {
        let mut next = Some(event);
        let mut asked = 0;
        while let Some(event) = next {
            for action in self.machine.handle(event, self.now) {
                match action {
                    Action::Preflight { request } => self.preflight = Some(request),
                    Action::CancelPreflight { .. } => self.preflight = None,
                    Action::Activate { .. } => self.active = self.prepared,
                    Action::Verdict { request, verdict } => {
                        let judged = self.judged.filter(|(of, _)| *of == request).map(|(_, judged)| judged);
                        self.watch.verdict(request, &verdict, judged, self.now);
                        if verdict == Verdict::Refused(Refusal::Unchanged) {
                            assert_eq!(self.prepared, self.active);
                        }
                        if matches!(verdict, Verdict::Refused(_)) {
                            self.refused.extend(judged);
                        }
                    }
                    _ => {}
                }
            }
            self.watch.set_active(pair(self.active.0, self.active.1));
            next = self.watch.asks(self.machine.phase(), self.now).then(|| self.ask(By::Watcher));
            asked += 1;
            assert!(asked < 5, "it asks for ever");
        }
    }

    fn answer_preflight(&mut self) {
        let Some(request) = self.preflight.take() else { return };
        let found = (self.flash.take().unwrap_or(self.disk.0), self.disk.1);
        // Configuration 2 isn't valid.
        let outcome = if found.1 == 2 {
            Err((Refusal::BadConfig("1:1".to_owned()), Some(Judged::Config(config(2)))))
        } else if found.0 >= FIRST_BAD {
            Err((bad_artifact(), Some(Judged::Version(version(found.0)))))
        } else if !self.reachable {
            Err((unreachable(), None))
        } else {
            Ok(settings(2))
        };
        let event = match outcome {
            Ok(settings) => {
                self.prepared = found;
                self.judged = Some((request, Judged::Config(config(found.1))));
                Event::PreflightPassed { request, settings, unchanged: found == self.active }
            }
            Err((refusal, judged)) => {
                self.judged = judged.map(|judged| (request, judged));
                Event::PreflightRefused { request, refusal }
            }
        };
        self.handle(event);
    }

    fn look(&mut self) {
        self.watch.library_seen(Some(version(self.disk.0)));
        self.watch.config_seen(Some(config(self.disk.1)));
        self.handle(Event::Tick);
    }

    /// One worker that is due does what a good worker does; says whether one was.
    fn cooperate(&mut self) -> bool {
        let due = self.machine.workers().find(|it| !matches!(it.state, WorkerState::Ready));
        let Some(worker) = due else { return false };
        self.handle(match worker.state {
            WorkerState::Starting => ready(worker.id.0),
            _ => exited(worker.id.0, 0),
        });
        true
    }

    fn sleep_until_deadline(&mut self) -> bool {
        let deadlines = self.machine.deadline().into_iter().chain(self.watch.deadline(self.machine.phase()));
        let Some(deadline) = deadlines.min() else { return false };
        self.now = self.now.max(deadline);
        self.handle(Event::Tick);
        true
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Land(library) => self.disk.0 = library,
            Step::Flash(library) => self.flash = Some(library),
            Step::Configure(config) => self.disk.1 = config,
            Step::Unsettled => {
                self.watch.library_seen(None);
                self.handle(Event::Tick);
            }
            Step::Look => self.look(),
            Step::Reach(reachable) => self.reachable = reachable,
            Step::Operator => {
                let event = self.ask(By::Signal);
                self.handle(event);
            }
            Step::Preflight => self.answer_preflight(),
            Step::Worker => drop(self.cooperate()),
            Step::WorkerDies => {
                if let Some(worker) = self.machine.workers().last() {
                    self.handle(exited(worker.id.0, 1));
                }
            }
            Step::Deadline => drop(self.sleep_until_deadline()),
        }
    }

    /// Lets the reasons go and everybody do their part, until nothing is left to do.
    fn settle(&mut self) {
        self.reachable = true;
        self.flash = None;
        self.look();
        for _ in 0..500 {
            let busy = self.preflight.is_some();
            self.answer_preflight();
            if !busy && !self.cooperate() && !self.sleep_until_deadline() {
                return;
            }
        }
        panic!("no rest: {:?}, {:?}", self.watch, self.machine);
    }

    fn assert_the_last_is_active_or_refused(&self) {
        if matches!(self.machine.phase(), Phase::Locked | Phase::Exited | Phase::Stopping) {
            return;
        }
        assert_eq!(self.machine.phase(), Phase::Serving);
        let library_is_active = self.active.0 == self.disk.0 || !self.watched.library;
        let config_is_active = self.active.1 == self.disk.1 || !self.watched.config;
        let library_is_refused =
            self.disk.0 >= FIRST_BAD && self.refused.contains(&Judged::Version(version(self.disk.0)));
        let config_is_refused = self.disk.1 == 2 && self.refused.contains(&Judged::Config(config(2)));
        assert!(
            (library_is_active && config_is_active) || library_is_refused || config_is_refused,
            "{:?} lies there, {:?} is active: {:?}",
            self.disk,
            self.active,
            self.watch
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_last_build_ends_up_active_or_refused_for_what_it_is_or_the_master_is_over(
        watched in prop_oneof![Just(LIBRARY), Just(BOTH), Just(CONFIG)],
        steps in prop::collection::vec(any_step(), 0..100),
    ) {
        let mut world = World::new(watched);
        for step in steps {
            world.take(step);
        }
        world.settle();
        world.assert_the_last_is_active_or_refused();
    }

    #[test]
    fn once_at_rest_nothing_asks_until_something_changes(
        watched in prop_oneof![Just(LIBRARY), Just(BOTH), Just(CONFIG)],
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let mut world = World::new(watched);
        for step in steps {
            world.take(step);
        }
        world.settle();
        let before = world.last_request;
        for _ in 0..20 {
            world.now += LONGEST_PAUSE;
            world.take(Step::Unsettled);
            world.look();
        }
        prop_assert_eq!(world.last_request, before);
    }
}
