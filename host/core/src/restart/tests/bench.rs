//! A machine with its clock, the situations that it may be in, and what they are made of.

use std::time::Duration;

use super::super::{Failure, Machine, Phase, Report};
use super::*;
use crate::ids::Time;

/// A machine and its clock.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) now: Time,
}

impl Bench {
    pub(super) fn new(workers: u16) -> Self {
        Self::with(settings(workers))
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self { machine: Machine::new(settings), now: ms(1000) }
    }

    /// All first workers, 1 to `workers`, are ready.
    pub(super) fn serving(workers: u16) -> Self {
        Self::serving_with(settings(workers))
    }

    pub(super) fn serving_with(settings: Settings) -> Self {
        let mut bench = Self::with(settings);
        bench.on(Event::Begin);
        for worker in 1..=u64::from(settings.workers) {
            bench.on(ready(worker));
        }
        assert_eq!(bench.machine.phase(), Phase::Serving);
        bench
    }

    /// Request 1 has passed preflight; the first candidate worker, `workers + 1`, is starting.
    pub(super) fn rolling(workers: u16, candidate: Settings) -> Self {
        let mut bench = Self::serving(workers);
        bench.on(request(1));
        bench.on(passed(1, candidate));
        assert_eq!(bench.machine.phase(), Phase::Rolling);
        bench
    }

    /// As `rolling`; the first candidate worker has passed its probation.
    pub(super) fn past_probation(workers: u16, candidate: Settings) -> Self {
        let mut bench = Self::rolling(workers, candidate);
        bench.on(ready(u64::from(workers) + 1));
        bench.after(candidate.probation);
        bench
    }

    /// Two workers of generation 1 serve on; the first candidate worker has died.
    pub(super) fn locked() -> Self {
        let mut bench = Self::rolling(2, settings(2));
        bench.on(exited(3, 1));
        assert!(bench.machine.is_locked());
        bench
    }

    pub(super) fn stopping() -> Self {
        let mut bench = Self::serving(2);
        bench.on(Event::Stop);
        bench
    }

    /// Handles an event; returns the actions without the reports, and without [`Action::RolledOver`].
    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.machine.handle(event, self.now);
        // Most tests are about something else than a slow disk.
        if let Some(generation) = quarantined(&actions) {
            actions.extend(self.machine.handle(Event::WrittenDown { generation }, self.now));
        }
        // Nor about what is written down while workers drain.
        actions.retain(|action| !matches!(action, Action::Report(_) | Action::RolledOver { .. }));
        actions
    }

    /// Handles an event; returns the reports.
    pub(super) fn reports_on(&mut self, event: Event) -> Vec<Report> {
        let actions = self.machine.handle(event, self.now);
        let reports = actions.into_iter().filter_map(|action| match action {
            Action::Report(report) => Some(report),
            _ => None,
        });
        reports.collect()
    }

    pub(super) fn after(&mut self, pause: Duration) -> Vec<Action> {
        self.now += pause;
        self.on(Event::Tick)
    }

    pub(super) fn state_of(&self, worker: u64) -> Option<WorkerState> {
        let mut workers = self.machine.workers();
        Some(workers.find(|it| it.id == WorkerId(worker))?.state)
    }

    pub(super) fn until_deadline(&self) -> Option<Duration> {
        Some(self.machine.deadline()?.saturating_sub(self.now))
    }
}

pub(super) fn failed(failure: Failure) -> Action {
    verdict(1, Verdict::Failed(failure))
}

pub(super) const fn died(slot: u16, code: i32) -> Failure {
    Failure::WorkerDied { slot: Slot(slot), how: Ended::Code(code) }
}

pub(super) const fn discard(generation: u64) -> Action {
    Action::Discard { generation: Generation(generation) }
}

/// The last actions of a complete restart.
pub(super) fn complete(number: u64, old: u64, new: u64) -> Vec<Action> {
    let generation = Generation(new);
    vec![
        Action::Activate { generation },
        discard(old),
        verdict(number, Verdict::Complete { unchanged: false, draining: 0 }),
    ]
}

pub(super) const fn returning() -> Settings {
    let mut settings = settings(3);
    settings.on_failure = OnFailure::Rollback;
    settings
}

impl Bench {
    /// Three workers, of which slot 0 has its candidate, 4, and worker 1 drains; 5 is starting in slot 1.
    pub(super) fn rolling_to_return(candidate: Settings) -> Self {
        let mut bench = Self::with(returning());
        bench.on(Event::Begin);
        for worker in 1..=3 {
            bench.on(ready(worker));
        }
        bench.on(request(1));
        bench.on(passed(1, candidate));
        bench.on(ready(4));
        bench.after(candidate.probation);
        assert_eq!(bench.state_of(1), Some(WorkerState::Draining));
        bench
    }

    /// As `rolling_to_return`; 5 has died, and 6 is to take slot 0 back.
    pub(super) fn returning() -> Self {
        let mut bench = Self::rolling_to_return(settings(3));
        assert_eq!(bench.on(exited(5, 1)), [quarantine(died(1, 1)), spawn(6, 0, 1)]);
        assert_eq!(bench.machine.phase(), Phase::Returning);
        bench
    }
}

pub(super) fn quarantined(actions: &[Action]) -> Option<Generation> {
    actions.iter().find_map(|action| match action {
        Action::Quarantine { generation, .. } => Some(*generation),
        _ => None,
    })
}

pub(super) const fn quarantine(failure: Failure) -> Action {
    Action::Quarantine { generation: Generation(2), failure }
}
