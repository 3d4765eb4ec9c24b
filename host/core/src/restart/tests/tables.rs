//! Claims about the machine, one a test. `FAULTS n` names the row of the list of known faults.

use std::time::Duration;

use super::super::{ExitReason, Failure, Machine, Phase, Report, Scale};
use super::*;
use crate::ids::Time;

/// A machine and its clock.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) now: Time,
}

impl Bench {
    fn new(workers: u16) -> Self {
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

fn failed(failure: Failure) -> Action {
    verdict(1, Verdict::Failed(failure))
}

const fn died(slot: u16, code: i32) -> Failure {
    Failure::WorkerDied { slot: Slot(slot), how: Ended::Code(code) }
}

const fn discard(generation: u64) -> Action {
    Action::Discard { generation: Generation(generation) }
}

/// The last actions of a complete restart.
fn complete(number: u64, old: u64, new: u64) -> Vec<Action> {
    let generation = Generation(new);
    vec![
        Action::Activate { generation },
        discard(old),
        verdict(number, Verdict::Complete { unchanged: false, draining: 0 }),
    ]
}

// Starting

#[test]
fn the_first_worker_starts_alone_and_all_others_together_when_it_is_ready() {
    let mut bench = Bench::new(4);
    assert_eq!(bench.on(Event::Begin), [spawn(1, 0, 1)]);
    assert_eq!(bench.machine.phase(), Phase::Starting);
    assert_eq!(bench.on(Event::Begin), [], "a second begin is ignored");
    assert_eq!(bench.on(spawned(1)), [], "a process isn't a start");
    assert_eq!(bench.after(START_TIMEOUT / 2), [], "nor is time");
    assert_eq!(bench.on(ready(1)), [spawn(2, 1, 1), spawn(3, 2, 1), spawn(4, 3, 1)]);
    assert_eq!(bench.until_deadline(), Some(START_TIMEOUT), "each has its own time");
    assert_eq!(bench.on(ready(1)), [], "once");
}

#[test]
fn a_first_worker_that_is_lost_while_it_is_alone_leaves_nobody_to_start() {
    let slot = Slot(0);
    let cases = [
        (exited(1, 1), died(0, 1), false),
        (start_failed(1), Failure::AppFailedToStart { slot, error: "no route".to_owned() }, true),
        (spawn_failed(1), Failure::CannotSpawn { slot, error: "EAGAIN".to_owned() }, false),
    ];
    for (event, failure, still_there) in cases {
        let mut bench = Bench::new(3);
        bench.on(Event::Begin);
        let exit = Action::Exit(ExitReason::StartFailed(failure));
        if still_there {
            assert_eq!(bench.on(event), [Action::CloseListeners]);
            assert_eq!(bench.on(exited(1, 1)), [exit]);
        } else {
            assert_eq!(bench.on(event), [Action::CloseListeners, exit]);
        }
    }
}

#[test]
fn stop_while_the_first_worker_starts_alone_spawns_no_other() {
    let mut bench = Bench::new(3);
    bench.on(Event::Begin);
    assert_eq!(bench.on(Event::Stop), [Action::CloseListeners, last_drain(1)]);
    assert_eq!(bench.on(ready(1)), [], "ready all the same, and too late");
    assert_eq!(bench.on(exited(1, 0)), [Action::Exit(ExitReason::Stopped)]);
}

#[test]
fn whose_app_fails_to_start_beside_others_is_tried_once_more_alone() {
    let mut bench = Bench::new(4);
    bench.on(Event::Begin);
    bench.on(ready(1));
    assert_eq!(bench.on(start_failed(4)), []);
    assert_eq!(bench.on(exited(4, 1)), [], "two others still start");
    assert_eq!(bench.on(start_failed(2)), []);
    assert_eq!(bench.on(ready(3)), [], "worker 2 is still there");
    assert_eq!(bench.on(exited(2, 1)), [spawn(5, 1, 1)], "the lowest slot first");
    assert_eq!(bench.on(ready(5)), [spawn(6, 3, 1)], "and alone");
    assert_eq!(bench.machine.phase(), Phase::Starting);
    assert_eq!(bench.on(ready(6)), [Action::Activate { generation: Generation(1) }]);
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn whose_app_fails_to_start_alone_too_ends_the_start() {
    let mut bench = Bench::new(2);
    bench.on(Event::Begin);
    bench.on(ready(1));
    bench.on(start_failed(2));
    assert_eq!(bench.on(exited(2, 1)), [spawn(3, 1, 1)]);
    assert_eq!(bench.on(start_failed(3)), [Action::CloseListeners, last_drain(1)]);
    bench.on(exited(3, 1));
    let failure = Failure::AppFailedToStart { slot: Slot(1), error: "no route".to_owned() };
    assert_eq!(bench.on(exited(1, 0)), [Action::Exit(ExitReason::StartFailed(failure))]);
}

#[test]
fn stop_while_a_slot_waits_for_its_second_try_spawns_nobody() {
    let mut bench = Bench::new(3);
    bench.on(Event::Begin);
    bench.on(ready(1));
    bench.on(start_failed(2));
    assert_eq!(bench.on(Event::Stop), [Action::CloseListeners, last_drain(1), last_drain(3)]);
    for worker in [1, 2] {
        assert_eq!(bench.on(exited(worker, 0)), []);
    }
    assert_eq!(bench.on(exited(3, 0)), [Action::Exit(ExitReason::Stopped)]);
}

#[test]
fn workers_that_die_together_after_the_start_are_respawned_together() {
    let mut bench = Bench::serving(3);
    assert_eq!(bench.on(exited(1, 1)), [spawn(4, 0, 1)]);
    assert_eq!(bench.on(exited(2, 1)), [spawn(5, 1, 1)]);
    assert_eq!(bench.on(exited(3, 1)), [spawn(6, 2, 1)]);
}

#[test]
fn the_service_serves_when_the_last_of_the_first_workers_is_ready() {
    let mut bench = Bench::new(3);
    bench.on(Event::Begin);
    bench.on(ready(1));
    bench.on(ready(3));
    assert_eq!(bench.machine.phase(), Phase::Starting);
    let serving = Report::Serving { generation: Generation(1), workers: 3 };
    assert!(bench.reports_on(ready(2)).contains(&serving));
    assert_eq!(bench.machine.phase(), Phase::Serving);
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn a_request_before_the_first_workers_are_ready_is_refused() {
    // FAULTS 2
    let mut bench = Bench::new(2);
    let expected = [verdict(1, Verdict::Refused(Refusal::Starting))];
    assert_eq!(bench.on(request(1)), expected);
    bench.on(Event::Begin);
    bench.on(ready(1));
    let expected = [verdict(2, Verdict::Refused(Refusal::Starting))];
    assert_eq!(bench.on(request(2)), expected);
    bench.on(ready(2));
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn a_first_worker_that_is_lost_ends_the_start() {
    let slot = Slot(1);
    let cases = [
        (exited(2, 0), died(1, 0), false),
        (cannot_listen(2), Failure::CannotListen { slot, error: "no descriptor".to_owned() }, true),
        (spawn_failed(2), Failure::CannotSpawn { slot, error: "EAGAIN".to_owned() }, false),
    ];
    for (event, failure, still_there) in cases {
        let mut bench = Bench::new(3);
        bench.on(Event::Begin);
        bench.on(ready(1));
        let expected = [Action::CloseListeners, last_drain(1), last_drain(3)];
        assert_eq!(bench.on(event), expected);
        assert_eq!(bench.machine.phase(), Phase::Stopping);
        if still_there {
            assert_eq!(bench.on(exited(2, 1)), []);
        }
        assert_eq!(bench.on(exited(1, 0)), []);
        let exit = Action::Exit(ExitReason::StartFailed(failure));
        assert_eq!(bench.on(exited(3, 0)), [exit]);
    }
}

#[test]
fn a_first_worker_that_is_not_ready_in_time_is_killed_and_ends_the_start() {
    // FAULTS 8
    let mut bench = Bench::new(2);
    bench.on(Event::Begin);
    bench.on(ready(1));
    assert_eq!(bench.until_deadline(), Some(START_TIMEOUT));
    assert_eq!(
        bench.after(START_TIMEOUT),
        [kill(2, KillReason::NotReadyInTime), Action::CloseListeners, last_drain(1)]
    );
    bench.on(exited(1, 0));
    let failure = Failure::NotReadyInTime { slot: Slot(1) };
    let exit = Action::Exit(ExitReason::StartFailed(failure));
    assert_eq!(bench.on(exited(2, 9)), [exit]);
}

#[test]
fn all_first_workers_late_at_once_are_each_killed_or_drained_once() {
    let mut bench = Bench::new(3);
    bench.on(Event::Begin);
    bench.on(ready(1));
    assert_eq!(
        bench.after(START_TIMEOUT),
        [kill(2, KillReason::NotReadyInTime), Action::CloseListeners, last_drain(1), last_drain(3)]
    );
    bench.on(exited(1, 0));
    let expected = [kill(3, KillReason::DrainTimedOut)];
    assert_eq!(bench.after(SHUTDOWN_TIMEOUT), expected);
}

// Gate and preflight

#[test]
fn what_is_active_already_is_unchanged_for_the_watcher_alone() {
    for (by, is_refused) in [(By::Watcher, true), (By::Signal, false)] {
        for unchanged in [true, false] {
            let mut bench = Bench::serving(2);
            let request = RequestId(1);
            assert_eq!(bench.on(Event::Request { request, by }), [Action::Preflight { request }]);
            let actions = bench.on(Event::PreflightPassed { request, settings: settings(2), unchanged });
            let refused = verdict(1, Verdict::Refused(Refusal::Unchanged));
            assert_eq!(actions == [refused], is_refused && unchanged, "{by}: {actions:?}");
            let phase = if is_refused && unchanged { Phase::Serving } else { Phase::Rolling };
            assert_eq!(bench.machine.phase(), phase, "{by}");
        }
    }
}

#[test]
fn a_restart_into_what_is_active_already_is_complete_and_says_that_nothing_has_changed() {
    for unchanged in [true, false] {
        let mut bench = Bench::serving(2);
        let request = RequestId(1);
        bench.on(Event::Request { request, by: By::Signal });
        bench.on(Event::PreflightPassed { request, settings: settings(2), unchanged });
        bench.on(ready(3));
        bench.after(settings(2).probation);
        bench.on(ready(4));
        bench.on(exited(1, 0));
        assert_eq!(bench.on(exited(2, 0)).last(), Some(&verdict(1, Verdict::Complete { unchanged, draining: 0 })));
    }
}

#[test]
fn a_second_request_is_refused_while_one_is_in_flight() {
    // FAULTS 1
    let in_flight = |number| [verdict(number, Verdict::Refused(Refusal::RestartInFlight))];
    let mut bench = Bench::serving(2);
    let preflight = Action::Preflight { request: RequestId(1) };
    assert_eq!(bench.on(request(1)), [preflight]);
    assert_eq!(bench.on(request(2)), in_flight(2));
    bench.on(passed(1, settings(2)));
    assert_eq!(bench.on(request(3)), in_flight(3));
    bench.on(ready(3));
    bench.after(PROBATION);
    bench.on(ready(4));
    bench.on(exited(1, 0));
    assert_eq!(bench.on(request(4)), in_flight(4));
    assert_eq!(bench.on(exited(2, 0)), complete(1, 1, 2));
}

#[test]
fn each_phase_refuses_with_its_own_reason() {
    let locked_with_one_worker = {
        let mut bench = Bench::locked();
        bench.on(exited(1, 1));
        bench
    };
    let cases = [
        (Bench::new(1), Refusal::Starting),
        (Bench::serving(1), Refusal::NoWorkers),
        (Bench::rolling(2, settings(2)), Refusal::RestartInFlight),
        (locked_with_one_worker, Refusal::AbortedRestart),
        (Bench::stopping(), Refusal::Stopping),
    ];
    for (mut bench, refusal) in cases {
        let before = bench.machine.clone();
        let expected = [verdict(7, Verdict::Refused(refusal))];
        assert_eq!(bench.on(request(7)), expected);
        assert_eq!(bench.machine, before, "a refusal changes nothing");
    }
}

#[test]
fn a_refused_preflight_touches_nothing_and_the_next_request_may_come() {
    let mut bench = Bench::serving(2);
    let before = bench.machine.clone();
    bench.on(request(1));
    let refusal = Refusal::BadConfig("app-host.json:3:5: unknown key".to_owned());
    let expected = [verdict(1, Verdict::Refused(refusal.clone()))];
    assert_eq!(bench.on(refused(1, refusal)), expected);
    assert_eq!(bench.machine, before);
    let preflight = Action::Preflight { request: RequestId(2) };
    assert_eq!(bench.on(request(2)), [preflight]);
}

#[test]
fn a_databank_that_cannot_be_shared_is_refused_active_or_configured() {
    let alone = Settings { databank_shared: false, ..settings(2) };
    let mut bench = Bench { machine: Machine::new(alone), now: ms(0) };
    bench.on(Event::Begin);
    bench.on(ready(1));
    bench.on(ready(2));
    let is_bad_driver = |actions: &[Action]| {
        let [Action::Verdict { verdict: Verdict::Refused(refusal), .. }] = actions else { return false };
        refusal.reason() == "bad driver"
    };
    assert!(is_bad_driver(&bench.on(request(1))));
    let mut bench = Bench::serving(2);
    bench.on(request(1));
    assert!(is_bad_driver(&bench.on(passed(1, alone))));
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn a_candidate_with_fewer_than_two_workers_is_refused() {
    for workers in [0, 1] {
        let mut bench = Bench::serving(2);
        bench.on(request(1));
        let expected = [verdict(1, Verdict::Refused(Refusal::NoWorkers))];
        assert_eq!(bench.on(passed(1, settings(workers))), expected);
        assert_eq!(bench.machine.phase(), Phase::Serving);
    }
}

#[test]
fn answers_of_another_preflight_are_ignored() {
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(passed(1, settings(2))), []);
    bench.on(request(2));
    assert_eq!(bench.on(passed(1, settings(2))), []);
    assert_eq!(bench.on(refused(1, Refusal::BadArtifact(String::new()))), []);
    assert_eq!(bench.machine.phase(), Phase::Preflight);
    bench.on(passed(2, settings(2)));
    let before = bench.machine.clone();
    assert_eq!(bench.on(passed(2, settings(2))), []);
    assert_eq!(bench.machine, before);
}

// Roll

#[test]
fn a_roll_replaces_slot_by_slot_new_before_old() {
    let mut bench = Bench::serving(2);
    bench.on(request(1));
    let adopt = Action::Adopt { request: RequestId(1), generation: Generation(2) };
    assert_eq!(bench.on(passed(1, settings(2))), [adopt, spawn(3, 0, 2)]);
    assert_eq!(bench.on(spawned(3)), []);
    assert_eq!(bench.on(ready(3)), []);
    assert_eq!(bench.after(PROBATION), [spawn(4, 1, 2), drain(1)]);
    assert_eq!(bench.on(ready(4)), [drain(2)]);
    assert_eq!(bench.machine.serving(), 2);
    assert_eq!(bench.on(exited(2, 0)), []);
    assert_eq!(bench.machine.active(), Generation(1));
    assert_eq!(bench.on(exited(1, 0)), complete(1, 1, 2));
    assert_eq!(bench.machine.phase(), Phase::Serving);
    assert_eq!(bench.machine.active(), Generation(2));
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn nothing_is_spawned_or_drained_before_the_probation_has_passed() {
    let mut bench = Bench::rolling(2, settings(2));
    bench.on(ready(3));
    assert_eq!(bench.until_deadline(), Some(PROBATION));
    assert_eq!(bench.after(ms(249)), []);
    assert_eq!(bench.machine.serving(), 3);
    assert_eq!(bench.after(ms(1)), [spawn(4, 1, 2), drain(1)]);
}

#[test]
fn a_probation_of_zero_is_over_at_once() {
    let mut candidate = settings(2);
    candidate.probation = Duration::ZERO;
    let mut bench = Bench::rolling(2, candidate);
    assert_eq!(bench.on(ready(3)), [spawn(4, 1, 2), drain(1)]);
}

#[test]
fn a_growing_roll_ends_with_more_workers() {
    let mut bench = Bench::past_probation(2, settings(4));
    assert_eq!(bench.on(ready(4)), [spawn(5, 2, 2), drain(2)]);
    assert_eq!(bench.on(exited(1, 0)), []);
    assert_eq!(bench.on(exited(2, 0)), []);
    assert_eq!(bench.on(ready(5)), [spawn(6, 3, 2)]);
    assert_eq!(bench.on(ready(6)), complete(1, 1, 2));
    assert_eq!(bench.machine.serving(), 4);
}

#[test]
fn a_shrinking_roll_drains_the_slots_that_go_once_all_candidates_are_ready() {
    let mut bench = Bench::rolling(4, settings(2));
    bench.on(ready(5));
    assert_eq!(bench.after(PROBATION), [spawn(6, 1, 2), drain(1)]);
    assert_eq!(bench.on(ready(6)), [drain(2), drain(3), drain(4)]);
    for worker in [1, 2, 3] {
        assert_eq!(bench.on(exited(worker, 0)), []);
    }
    assert_eq!(bench.on(exited(4, 0)), complete(1, 1, 2));
    assert_eq!(bench.machine.serving(), 2);
}

#[test]
fn a_worker_that_ignores_its_drain_is_killed_and_the_restart_goes_on() {
    // FAULTS 11
    let mut bench = Bench::past_probation(2, settings(2));
    bench.on(ready(4));
    bench.on(exited(2, 0));
    assert_eq!(bench.until_deadline(), Some(SHUTDOWN_TIMEOUT));
    let expected = [kill(1, KillReason::DrainTimedOut)];
    assert_eq!(bench.after(SHUTDOWN_TIMEOUT), expected);
    assert_eq!(bench.after(SHUTDOWN_TIMEOUT), [], "it is killed once");
    assert_eq!(bench.on(exited(1, 9)), complete(1, 1, 2));
}

#[test]
fn a_drain_is_bounded_by_the_timeout_of_the_workers_own_generation() {
    let mut candidate = settings(2);
    candidate.shutdown_timeout = ms(5);
    let mut bench = Bench::past_probation(2, candidate);
    bench.on(ready(4));
    assert_eq!(bench.until_deadline(), Some(SHUTDOWN_TIMEOUT));
    bench.on(exited(1, 0));
    bench.on(exited(2, 0));
    let drain = |worker| Action::Drain { worker: WorkerId(worker), successor: false, timeout: ms(5) };
    let expected = [Action::CloseListeners, drain(3), drain(4)];
    assert_eq!(bench.on(Event::Stop), expected);
}

#[test]
fn the_exit_of_a_draining_worker_is_expected_whatever_its_status() {
    let mut bench = Bench::past_probation(2, settings(2));
    let reports = bench.reports_on(exited(1, 3));
    let [Report::WorkerExited { how, expected, .. }] = &reports[..] else {
        panic!("{reports:?}");
    };
    assert_eq!((*how, *expected), (Ended::Code(3), true));
    assert_eq!(bench.machine.phase(), Phase::Rolling);
}

#[test]
fn restart_after_restart_counts_generations_and_uses_the_newest_settings() {
    let mut bench = Bench::serving(2);
    for (number, workers, newest) in [(1, 3, 3), (2, 2, 6), (3, 2, 8)] {
        bench.on(request(number));
        bench.on(passed(number, settings(workers)));
        for worker in 0..u64::from(workers) {
            bench.on(ready(newest + worker));
            bench.after(PROBATION);
        }
        let old: Vec<u64> = bench.machine.workers().map(|it| it.id.0).collect();
        let mut last = Vec::new();
        for worker in old.into_iter().filter(|it| *it < newest) {
            last = bench.on(exited(worker, 0));
        }
        assert_eq!(last, complete(number, number, number + 1));
    }
}

#[test]
fn an_active_worker_that_crashes_in_a_roll_gets_its_candidate_in_turn() {
    // FAULTS 16: the worker of the other slot dies, so the drain of slot 0 has to wait.
    let mut bench = Bench::rolling(2, settings(2));
    bench.on(ready(3));
    assert_eq!(bench.on(exited(2, 1)), [], "it is not respawned");
    assert_eq!(bench.after(PROBATION), [spawn(4, 1, 2)]);
    assert_eq!(bench.on(ready(4)), [drain(1)]);
    assert_eq!(bench.on(exited(1, 0)), complete(1, 1, 2));
}

#[test]
fn a_roll_completes_although_every_active_worker_has_crashed() {
    // FAULTS 16
    let mut bench = Bench::rolling(2, settings(2));
    bench.on(exited(1, 1));
    bench.on(exited(2, 1));
    bench.on(ready(3));
    assert_eq!(bench.after(PROBATION), [spawn(4, 1, 2)]);
    assert_eq!(bench.on(ready(4)), complete(1, 1, 2));
}

#[test]
fn a_terminated_worker_serves_until_its_successor_is_ready() {
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(terminated(1)), [spawn(3, 0, 1)]);
    assert_eq!(bench.machine.serving(), 2, "it serves on");
    assert_eq!(bench.on(terminated(1)), [], "it is known already");
    assert_eq!(bench.on(ready(3)), [drain(1)]);
    assert_eq!(bench.on(exited(1, 0)), [], "its slot is taken");
    assert_eq!(bench.machine.serving(), 2);
    assert_eq!(bench.on(exited(3, 1)), []);
    assert_eq!(bench.after(ms(100)), [spawn(4, 0, 1)], "the next crash backs off");
}

#[test]
fn a_terminated_worker_serves_on_while_too_few_others_do() {
    let mut bench = Bench::serving(2);
    bench.on(terminated(1));
    assert_eq!(bench.on(exited(2, 1)), [spawn(4, 1, 1)]);
    assert_eq!(bench.on(ready(3)), [], "one and its successor are all there is");
    assert_eq!(bench.on(ready(4)), [drain(1)]);
}

#[test]
fn a_slot_whose_workers_are_told_to_end_one_after_the_other_keeps_none_that_nobody_needs() {
    let mut bench = Bench::serving(2);
    bench.on(terminated(1));
    bench.on(exited(2, 1));
    assert_eq!(bench.on(ready(3)), [], "one and its successor are all there is");
    assert_eq!(bench.on(terminated(3)), []);
    assert_eq!(bench.after(ms(100)), [spawn(5, 0, 1)]);
    assert_eq!(bench.on(ready(4)), [drain(1)], "two serve without it, and one of them in its slot");
    assert_eq!(bench.on(ready(5)), [drain(3)]);

    // But who would take its connections?
    let mut bench = Bench::serving(2);
    bench.on(terminated(1));
    bench.on(exited(2, 1));
    bench.on(ready(3));
    bench.on(terminated(3));
    assert_eq!(bench.on(Event::Scale(Scale::To(1))), [drain(4)]);
    assert_eq!(bench.after(ms(100)), [spawn(5, 0, 1)]);
    assert_eq!(bench.on(ready(5)), [drain(3), drain(1)]);
}

#[test]
fn a_terminated_worker_serves_on_when_its_successor_fails() {
    let mut bench = Bench::serving(2);
    bench.on(terminated(1));
    bench.on(start_failed(3));
    assert_eq!(bench.on(exited(3, 1)), []);
    assert_eq!(bench.machine.serving(), 2);
    assert_eq!(bench.after(ms(100)), [spawn(4, 0, 1)]);
    assert_eq!(bench.on(ready(4)), [drain(1)]);
}

#[test]
fn a_terminated_worker_that_starts_is_drained_at_once_and_replaced() {
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(exited(1, 1)), [spawn(3, 0, 1)]);
    assert_eq!(bench.on(terminated(3)), [drain(3)]);
    assert_eq!(bench.after(ms(100)), [spawn(4, 0, 1)]);
}

#[test]
fn a_terminated_worker_is_killed_at_its_timeout_and_its_successor_stays() {
    let mut bench = Bench::serving(2);
    bench.on(terminated(1));
    bench.on(ready(3));
    assert_eq!(bench.after(SHUTDOWN_TIMEOUT), [kill(1, KillReason::DrainTimedOut)]);
    let killed = Event::Exited { worker: WorkerId(1), how: Ended::Signal(9) };
    assert_eq!(bench.on(killed), []);
    assert_eq!(bench.machine.serving(), 2);
}

#[test]
fn an_active_worker_terminated_in_a_roll_waits_for_its_candidate() {
    let mut bench = Bench::past_probation(2, settings(2));
    // Worker 1 is draining by now, 4 is the candidate of slot 1.
    assert_eq!(bench.on(terminated(2)), []);
    assert_eq!(bench.machine.serving(), 2);
    assert_eq!(bench.on(ready(4)), [drain(2)]);
    bench.on(exited(1, 0));
    assert_eq!(bench.on(exited(2, 0)), complete(1, 1, 2));
}

#[test]
fn a_restart_takes_over_who_was_terminated_before_it() {
    let mut bench = Bench::serving(2);
    bench.on(terminated(1));
    bench.on(request(1));
    assert_eq!(bench.on(passed(1, settings(2)))[1..], [spawn(4, 0, 2)]);
    bench.on(ready(4));
    // Worker 3, the successor that isn't needed any more, goes with its generation.
    assert_eq!(bench.after(PROBATION), [spawn(5, 1, 2), drain(1), drain(3)]);
    assert_eq!(bench.on(ready(5)), [drain(2)]);
}

#[test]
fn a_terminated_candidate_fails_the_restart() {
    let mut bench = Bench::rolling(2, settings(2));
    bench.on(ready(3));
    let failure = Failure::WorkerTerminated { slot: Slot(0) };
    assert_eq!(bench.on(terminated(3)), [failed(failure), drain(3)]);
    assert!(bench.machine.is_locked());
    assert_eq!(bench.machine.serving(), 2);
}

#[test]
fn a_terminated_worker_of_a_locked_master_drains_and_is_not_replaced() {
    let mut bench = Bench::locked();
    assert_eq!(bench.on(terminated(1)), [drain(1)]);
    assert_eq!(bench.on(exited(1, 0)), []);
}

#[test]
fn a_pending_respawn_is_dropped_when_a_roll_begins() {
    // FAULTS 16 and 17: slot 1 crash-loops while a restart comes.
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(exited(2, 1)), [spawn(3, 1, 1)]);
    assert_eq!(bench.on(exited(3, 1)), []);
    assert_eq!(bench.until_deadline(), Some(ms(100)));
    bench.on(request(1));
    assert_eq!(bench.on(passed(1, settings(2)))[1..], [spawn(4, 0, 2)]);
    assert_eq!(bench.after(ms(100)), []);
    bench.on(ready(4));
    assert_eq!(bench.after(PROBATION), [spawn(5, 1, 2)]);
    assert_eq!(bench.on(ready(5)), [drain(1)]);
    assert_eq!(bench.on(exited(1, 0)), complete(1, 1, 2));
    assert_eq!(bench.on(exited(5, 1)), [spawn(6, 1, 2)], "the new generation has a clean record");
}

#[test]
fn a_respawn_still_starting_when_a_roll_begins_is_drained_in_its_turn() {
    let mut bench = Bench::serving(2);
    bench.on(exited(1, 1));
    assert_eq!(bench.state_of(3), Some(WorkerState::Starting));
    bench.on(request(1));
    bench.on(passed(1, settings(2)));
    bench.on(ready(4));
    assert_eq!(bench.after(PROBATION), [spawn(5, 1, 2), drain(3)]);
    assert_eq!(bench.on(ready(3)), [], "ready comes too late");
    assert_eq!(bench.state_of(3), Some(WorkerState::Draining));
    assert_eq!(bench.on(ready(5)), [drain(2)]);
    bench.on(exited(2, 0));
    assert_eq!(bench.on(exited(3, 0)), complete(1, 1, 2));
}

#[test]
fn a_starting_worker_is_not_drained_before_its_slots_candidate_is_ready() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    bench.on(request(1));
    bench.on(passed(1, settings(2)));
    bench.on(ready(4));
    // Two others serve, but slot 1 isn't replaced yet; and slot 0 can't be spared without it.
    assert_eq!(bench.after(PROBATION), [spawn(5, 1, 2)]);
    assert_eq!(bench.on(ready(3)), [drain(1)]);
}

#[test]
fn an_active_worker_killed_for_not_being_ready_fails_no_roll() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    bench.after(ms(9_999));
    bench.on(request(1));
    bench.on(passed(1, settings(2)));
    let expected = [kill(3, KillReason::NotReadyInTime)];
    assert_eq!(bench.after(ms(1)), expected);
    assert_eq!(bench.on(exited(3, 9)), []);
    assert_eq!(bench.machine.phase(), Phase::Rolling);
}

// Failure and lock

#[test]
fn a_first_candidate_that_is_lost_fails_the_restart_and_nothing_was_drained() {
    // FAULTS 5, 6, 8, 25
    let slot = Slot(0);
    let no_listener = Failure::CannotListen { slot, error: "no descriptor".to_owned() };
    let no_start = Failure::AppFailedToStart { slot, error: "no route".to_owned() };
    let no_process = Failure::CannotSpawn { slot, error: "EAGAIN".to_owned() };
    let cases = [
        (vec![exited(3, 0)], died(0, 0), true),
        (vec![ready(3), exited(3, 1)], died(0, 1), true),
        (vec![cannot_listen(3)], no_listener, false),
        (vec![start_failed(3)], no_start, false),
        (vec![spawn_failed(3)], no_process, true),
    ];
    for (mut events, failure, gone) in cases {
        let mut bench = Bench::rolling(2, settings(2));
        let last = events.pop().expect("there is a last event");
        for event in events {
            assert_eq!(bench.on(event), []);
        }
        let mut expected = vec![failed(failure)];
        if gone {
            expected.push(discard(2));
        }
        assert_eq!(bench.on(last), expected);
        assert!(bench.machine.is_locked());
        assert_eq!(bench.machine.serving(), 2);
        assert_eq!(bench.machine.active(), Generation(1));
        if !gone {
            assert_eq!(bench.state_of(3), Some(WorkerState::Leaving));
            assert_eq!(bench.on(exited(3, 1)), [discard(2)]);
        }
    }
}

#[test]
fn a_candidate_that_is_not_ready_in_time_is_killed_and_fails_the_restart() {
    // FAULTS 7
    let mut candidate = settings(2);
    candidate.start_timeout = ms(700);
    let mut bench = Bench::rolling(2, candidate);
    assert_eq!(bench.until_deadline(), Some(ms(700)));
    assert_eq!(
        bench.after(ms(700)),
        [kill(3, KillReason::NotReadyInTime), failed(Failure::NotReadyInTime { slot: Slot(0) }),]
    );
    assert_eq!(bench.on(ready(3)), [], "a timeout is never taken back");
    assert_eq!(bench.machine.serving(), 2);
    assert_eq!(bench.on(exited(3, 9)), [discard(2)]);
}

#[test]
fn a_later_candidate_that_dies_leaves_all_others_serving() {
    // FAULTS 5
    let mut bench = Bench::past_probation(3, settings(3));
    assert_eq!(bench.on(exited(5, 1)), [failed(died(1, 1))]);
    // Worker 1 was draining already; its drain runs on.
    assert_eq!(bench.state_of(1), Some(WorkerState::Draining));
    assert_eq!(bench.machine.serving(), 3);
    assert_eq!(bench.on(exited(1, 0)), []);
    assert_eq!(bench.machine.serving(), 3);
}

#[test]
fn a_candidate_that_dies_while_the_last_drain_runs_fails_the_restart() {
    let mut bench = Bench::past_probation(2, settings(2));
    bench.on(ready(4));
    bench.on(exited(1, 0));
    assert_eq!(bench.on(exited(3, 1)), [failed(died(0, 1))]);
    assert_eq!(bench.machine.serving(), 1);
    assert_eq!(bench.on(exited(2, 0)), []);
    assert_eq!(bench.machine.phase(), Phase::Locked);
}

#[test]
fn no_worker_is_respawned_when_locked() {
    let mut bench = Bench::locked();
    assert_eq!(bench.on(exited(2, 1)), []);
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(bench.after(Duration::from_hours(1)), []);
    let expected = [verdict(2, Verdict::Refused(Refusal::AbortedRestart))];
    assert_eq!(bench.on(request(2)), expected);
}

#[test]
fn a_locked_master_exits_when_its_last_worker_has_gone() {
    let mut bench = Bench::locked();
    assert_eq!(bench.on(exited(1, 1)), []);
    let exit = Action::Exit(ExitReason::LockedAndEmpty);
    assert_eq!(bench.on(exited(2, 1)), [exit]);
    assert_eq!(bench.machine.phase(), Phase::Exited);
    assert_eq!(bench.on(request(2)), [], "nothing follows the exit");
}

#[test]
fn a_failure_that_leaves_no_worker_exits_after_its_verdict() {
    let mut bench = Bench::rolling(2, settings(2));
    bench.on(exited(1, 1));
    bench.on(exited(2, 1));
    let exit = Action::Exit(ExitReason::LockedAndEmpty);
    assert_eq!(bench.on(exited(3, 1)), [failed(died(0, 1)), discard(2), exit]);
}

#[test]
fn a_drain_ordered_before_the_lock_is_still_bounded() {
    let mut bench = Bench::past_probation(2, settings(2));
    bench.on(exited(4, 1));
    let expected = [kill(1, KillReason::DrainTimedOut)];
    assert_eq!(bench.after(SHUTDOWN_TIMEOUT), expected);
    assert_eq!(bench.on(exited(1, 9)), []);
    assert_eq!(bench.machine.serving(), 2);
}

#[test]
fn a_worker_still_starting_when_the_lock_comes_serves_or_is_killed() {
    let locked_with_a_starting_respawn = || {
        let mut bench = Bench::serving(2);
        bench.on(exited(2, 1));
        bench.on(request(1));
        bench.on(passed(1, settings(2)));
        bench.on(exited(4, 1));
        assert!(bench.machine.is_locked());
        bench
    };
    let mut bench = locked_with_a_starting_respawn();
    bench.on(ready(3));
    assert_eq!(bench.machine.serving(), 2);
    let mut bench = locked_with_a_starting_respawn();
    let expected = [kill(3, KillReason::NotReadyInTime)];
    assert_eq!(bench.after(START_TIMEOUT), expected);
    assert_eq!(bench.on(exited(3, 9)), []);
}

#[test]
fn a_worker_that_said_it_cannot_serve_and_stays_is_killed_once() {
    let mut bench = Bench::rolling(2, settings(2));
    bench.now += ms(400);
    bench.on(cannot_listen(3));
    assert_eq!(bench.until_deadline(), Some(ms(9_600)));
    let expected = [kill(3, KillReason::StayedUnfit)];
    assert_eq!(bench.after(ms(9_600)), expected);
    assert_eq!(bench.after(START_TIMEOUT), []);
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn candidates_that_serve_when_the_lock_comes_serve_on() {
    let mut bench = Bench::past_probation(2, settings(2));
    bench.on(exited(4, 1));
    bench.on(exited(1, 0));
    bench.on(exited(2, 1));
    assert_eq!(bench.state_of(3), Some(WorkerState::Ready));
    let exit = Action::Exit(ExitReason::LockedAndEmpty);
    assert_eq!(bench.on(exited(3, 1)), [discard(2), exit]);
}

// Failure and return

const fn returning() -> Settings {
    let mut settings = settings(3);
    settings.on_failure = OnFailure::Rollback;
    settings
}

impl Bench {
    /// Three workers, of which slot 0 has its candidate, 4, and worker 1 drains; 5 is starting in slot 1.
    fn rolling_to_return(candidate: Settings) -> Self {
        let mut bench = Self { machine: Machine::new(returning()), now: ms(1000) };
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
    fn returning() -> Self {
        let mut bench = Self::rolling_to_return(settings(3));
        assert_eq!(bench.on(exited(5, 1)), [quarantine(died(1, 1)), spawn(6, 0, 1)]);
        assert_eq!(bench.machine.phase(), Phase::Returning);
        bench
    }
}

fn quarantined(actions: &[Action]) -> Option<Generation> {
    actions.iter().find_map(|action| match action {
        Action::Quarantine { generation, .. } => Some(*generation),
        _ => None,
    })
}

const fn quarantine(failure: Failure) -> Action {
    Action::Quarantine { generation: Generation(2), failure }
}

#[test]
fn a_candidate_that_dies_in_a_later_slot_lets_every_slot_return_new_before_old() {
    // FAULTS 30
    let mut bench = Bench::returning();
    assert_eq!(bench.machine.serving(), 3, "the candidate of slot 0 serves on");
    assert_eq!(bench.on(ready(6)), [drain(4)]);
    assert_eq!(bench.machine.serving(), 3);
    assert_eq!(bench.on(exited(4, 0)), [discard(2), failed(died(1, 1))]);
    assert_eq!(bench.machine.phase(), Phase::Serving);
    assert_eq!(bench.machine.active(), Generation(1));
    assert_eq!(bench.on(exited(1, 0)), [], "the one that was ordered to drain before goes as ordered");
    // And a good one follows.
    bench.on(request(2));
    assert_eq!(bench.on(passed(2, returning()))[1..], [spawn(7, 0, 3)]);
    bench.on(ready(7));
    bench.after(PROBATION);
    bench.on(ready(8));
    bench.on(ready(9));
    for worker in [2, 3] {
        bench.on(exited(worker, 0));
    }
    assert_eq!(bench.on(exited(6, 0)), complete(2, 1, 3));
}

#[test]
fn a_first_candidate_that_fails_leaves_nothing_to_return() {
    for (event, failure) in [
        (exited(4, 0), died(0, 0)),
        (spawn_failed(4), Failure::CannotSpawn { slot: Slot(0), error: "EAGAIN".to_owned() }),
    ] {
        let mut bench = Bench { machine: Machine::new(returning()), now: ms(1000) };
        bench.on(Event::Begin);
        for worker in 1..=3 {
            bench.on(ready(worker));
        }
        bench.on(request(1));
        bench.on(passed(1, settings(3)));
        assert_eq!(bench.on(event), [quarantine(failure.clone()), discard(2), failed(failure)]);
        assert_eq!(bench.machine.phase(), Phase::Serving);
        assert_eq!(bench.machine.serving(), 3);
    }
}

#[test]
fn the_verdict_waits_until_the_quarantine_is_written_down() {
    let mut bench = Bench { machine: Machine::new(returning()), now: ms(1000) };
    bench.on(Event::Begin);
    for worker in 1..=3 {
        bench.on(ready(worker));
    }
    bench.on(request(1));
    bench.on(passed(1, settings(3)));
    let actions = bench.machine.handle(exited(4, 1), bench.now);
    assert!(quarantined(&actions).is_some());
    assert_eq!(bench.machine.phase(), Phase::Returning);
    let written = |number| Event::WrittenDown { generation: Generation(number) };
    assert_eq!(bench.on(written(1)), [], "another generation's");
    assert_eq!(bench.on(written(2)), [discard(2), failed(died(0, 1))]);
    assert_eq!(bench.on(written(2)), []);
    let mut crashed = bench;
    assert_eq!(crashed.on(exited(1, 1)), [spawn(5, 0, 1)], "its slot has a clean record");
}

#[test]
fn a_failed_candidate_is_no_crash_of_its_slot() {
    let mut bench = Bench::returning();
    bench.on(spawn_failed(6));
    assert_eq!(bench.on(spawn_failed(7)), []);
    let due = bench.until_deadline();
    bench.on(exited(4, 1));
    assert_eq!(bench.until_deadline(), due);
    bench.after(ms(100));
    bench.on(ready(8));
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn the_word_of_the_active_generation_decides_what_follows_a_failure() {
    let mut lock = Bench::rolling(2, returning());
    assert_eq!(lock.on(exited(3, 1)), [failed(died(0, 1)), discard(2)]);
    assert!(lock.machine.is_locked());
    let mut candidate = settings(3);
    candidate.on_failure = OnFailure::Lock;
    let mut back = Bench::rolling_to_return(candidate);
    back.on(exited(5, 1));
    assert_eq!(back.machine.phase(), Phase::Returning);
}

#[test]
fn every_failure_returns_and_is_told_when_all_is_back() {
    let slot = Slot(1);
    let no_listener = Failure::CannotListen { slot, error: "no descriptor".to_owned() };
    let no_start = Failure::AppFailedToStart { slot, error: "no route".to_owned() };
    for (event, failure) in [(cannot_listen(5), no_listener), (start_failed(5), no_start)] {
        let mut bench = Bench::rolling_to_return(settings(3));
        assert_eq!(bench.on(event), [quarantine(failure.clone()), spawn(6, 0, 1)]);
        assert_eq!(bench.on(ready(6)), [drain(4)]);
        assert_eq!(bench.on(exited(4, 0)), [], "the one that can't serve is still there");
        assert_eq!(bench.on(exited(5, 1)), [discard(2), failed(failure)]);
    }
    let mut late = Bench::rolling_to_return(settings(3));
    let failure = Failure::NotReadyInTime { slot };
    let expected = [kill(5, KillReason::NotReadyInTime), quarantine(failure.clone()), spawn(6, 0, 1)];
    assert_eq!(late.after(START_TIMEOUT), expected);
    assert_eq!(late.on(ready(6)), [drain(4)]);
    late.on(exited(4, 0));
    assert_eq!(late.on(exited(5, 9)), [discard(2), failed(failure)]);
}

#[test]
fn a_serving_candidate_that_dies_lets_the_starting_one_drain_at_once() {
    let mut bench = Bench::rolling_to_return(settings(3));
    let expected = [quarantine(died(0, 1)), spawn(6, 0, 1), drain(5)];
    assert_eq!(bench.on(exited(4, 1)), expected);
    assert_eq!(bench.on(ready(6)), []);
    assert_eq!(bench.on(exited(5, 0)), [discard(2), failed(died(0, 1))]);
}

#[test]
fn a_failure_at_the_last_drain_brings_every_slot_back() {
    let mut bench = Bench::rolling_to_return(settings(3));
    bench.on(ready(5));
    bench.on(ready(6));
    bench.on(exited(1, 0));
    bench.on(exited(2, 0));
    assert_eq!(bench.state_of(3), Some(WorkerState::Draining));
    let expected = [quarantine(died(2, 1)), spawn(7, 0, 1), spawn(8, 1, 1), spawn(9, 2, 1)];
    assert_eq!(bench.on(exited(6, 1)), expected);
    assert_eq!(bench.on(ready(7)), [], "two candidates and one are all there is");
    assert_eq!(bench.on(ready(8)), [drain(5)]);
    assert_eq!(bench.on(ready(9)), [drain(4)]);
    bench.on(exited(5, 0));
    assert_eq!(bench.on(exited(4, 0)), [discard(2), failed(died(2, 1))]);
}

#[test]
fn slots_that_only_the_candidate_has_go_when_the_active_ones_are_back() {
    let mut bench = Bench::rolling_to_return(settings(5));
    for worker in 5..=7 {
        bench.on(ready(worker));
    }
    for worker in 1..=3 {
        bench.on(exited(worker, 0));
    }
    // Four candidates serve; the fifth, in slot 4, dies. Slot 3 isn't wanted any more.
    let expected = [quarantine(died(4, 1)), spawn(9, 0, 1), spawn(10, 1, 1), spawn(11, 2, 1), drain(7)];
    assert_eq!(bench.on(exited(8, 1)), expected);
    assert_eq!(bench.machine.serving(), 3);
    bench.on(exited(7, 0));
    assert_eq!(bench.on(ready(9)), [drain(4)]);
    assert_eq!(bench.on(ready(10)), [drain(5)]);
    assert_eq!(bench.on(ready(11)), [drain(6)]);
    bench.on(exited(4, 0));
    bench.on(exited(5, 0));
    assert_eq!(bench.on(exited(6, 0)), [discard(2), failed(died(4, 1))]);
}

#[test]
fn what_goes_wrong_on_the_way_back_backs_off_and_candidates_serve_on() {
    let mut bench = Bench::returning();
    assert_eq!(bench.on(spawn_failed(6)), [spawn(7, 0, 1)], "the first time at once");
    assert_eq!(bench.after(START_TIMEOUT), [kill(7, KillReason::NotReadyInTime)]);
    assert_eq!(bench.on(exited(7, 9)), []);
    assert_eq!(bench.until_deadline(), Some(ms(100)));
    assert_eq!(bench.after(ms(100)), [spawn(8, 0, 1)]);
    assert_eq!(bench.machine.serving(), 3);
    assert_eq!(bench.machine.phase(), Phase::Returning, "the verdict waits");
    bench.on(exited(1, 0));
    assert_eq!(bench.on(ready(8)), [drain(4)]);
    assert_eq!(bench.on(exited(4, 0)), [discard(2), failed(died(1, 1))]);
}

#[test]
fn a_candidate_that_dies_on_the_way_back_is_not_missed() {
    let mut bench = Bench::returning();
    assert_eq!(bench.on(exited(4, 1)), []);
    assert_eq!(bench.machine.serving(), 2);
    assert_eq!(bench.on(ready(6)), [discard(2), failed(died(1, 1))]);
}

#[test]
fn an_active_worker_that_dies_on_the_way_back_keeps_the_candidate() {
    let mut bench = Bench::returning();
    assert_eq!(bench.on(exited(2, 1)), [spawn(7, 1, 1)]);
    assert_eq!(bench.on(ready(6)), [], "with the candidate three serve, and not one more");
    assert_eq!(bench.on(ready(7)), [drain(4)]);
    assert_eq!(bench.on(exited(4, 0)), [discard(2), failed(died(1, 1))]);
}

#[test]
fn a_worker_terminated_on_the_way_back_serves_until_its_successor_does() {
    let mut bench = Bench::returning();
    assert_eq!(bench.on(terminated(4)), [], "the candidate's successor is on its way");
    assert_eq!(bench.on(terminated(2)), [spawn(7, 1, 1)]);
    assert_eq!(bench.on(ready(6)), [drain(4)]);
    assert_eq!(bench.on(exited(4, 0)), [], "slot 1 is not manned");
    assert_eq!(bench.on(ready(7)), [drain(2), discard(2), failed(died(1, 1))]);
}

#[test]
fn a_request_on_the_way_back_is_refused_as_in_flight() {
    let mut bench = Bench::returning();
    assert_eq!(bench.on(request(2)), [verdict(2, Verdict::Refused(Refusal::RestartInFlight))]);
}

#[test]
fn stop_on_the_way_back_tells_why_the_restart_failed_and_drains_everyone() {
    let mut bench = Bench::returning();
    let expected = [
        failed(died(1, 1)),
        Action::CloseListeners,
        last_drain(1),
        last_drain(2),
        last_drain(3),
        last_drain(4),
        last_drain(6),
    ];
    assert_eq!(bench.on(Event::Stop), expected);
    for worker in [1, 2, 3] {
        assert_eq!(bench.on(exited(worker, 0)), []);
    }
    assert_eq!(bench.on(exited(4, 0)), [discard(2)]);
    assert_eq!(bench.on(exited(6, 0)), [Action::Exit(ExitReason::Stopped)]);
}

// More and fewer workers

const fn more() -> Event {
    Event::Scale(Scale::By(1))
}

const fn fewer() -> Event {
    Event::Scale(Scale::By(-1))
}

#[test]
fn one_more_is_spawned_at_once_and_the_highest_goes_first() {
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(more()), [spawn(3, 2, 1)]);
    assert_eq!(bench.on(more()), [spawn(4, 3, 1)]);
    bench.on(ready(3));
    bench.on(ready(4));
    assert_eq!(bench.machine.serving(), 4);
    assert_eq!(bench.on(fewer()), [drain(4)]);
    assert_eq!(bench.on(fewer()), [drain(3)]);
    assert_eq!(bench.on(exited(4, 0)), [], "its slot is not wanted any more");
    assert_eq!(bench.on(more()), [spawn(5, 2, 1)], "also while the last one there drains");
    assert_eq!(bench.on(exited(3, 0)), []);
}

#[test]
fn a_slot_that_goes_takes_nobody_with_it_whose_connections_would_have_nowhere_to_go() {
    let mut bench = Bench::serving(2);
    bench.on(Event::Scale(Scale::To(3)));
    // Slot 0 has two that were told to end, one after the other, and slot 1 the only one that stays.
    bench.on(terminated(1));
    bench.on(ready(4));
    bench.on(terminated(4));
    assert_eq!((bench.machine.serving(), bench.state_of(1)), (3, Some(WorkerState::Retiring)));
    assert_eq!(bench.on(Event::Scale(Scale::To(1))), [drain(3), drain(2)]);
    assert_eq!(bench.state_of(1), Some(WorkerState::Retiring), "nobody is there who stays");
}

#[test]
fn a_number_of_workers_keeps_its_bounds() {
    let mut bench = Bench::serving(2);
    for (wish, to) in [(Scale::By(-1), 1), (Scale::By(-1), 1), (Scale::To(512), 512), (Scale::By(1), 512)] {
        let reports = bench.reports_on(Event::Scale(wish));
        let Some(Report::Scaled { to: found, .. }) = reports.first() else { panic!("{reports:?}") };
        assert_eq!(*found, to);
    }
    for (wish, to) in
        [(Scale::To(0), 1), (Scale::To(u16::MAX), 512), (Scale::By(i32::MAX), 512), (Scale::By(i32::MIN), 1)]
    {
        bench.on(Event::Scale(wish));
        let slots = bench.machine.workers().filter(|it| it.slot.0 < to).count();
        assert!(slots >= usize::from(to), "{wish:?}");
    }
}

#[test]
fn fewer_drains_nobody_while_too_few_others_serve() {
    let mut bench = Bench::serving(3);
    assert_eq!(bench.on(exited(1, 1)), [spawn(4, 0, 1)]);
    assert_eq!(bench.on(fewer()), [], "two serve, and two are wanted");
    assert_eq!(bench.on(ready(4)), [drain(3)]);
    assert_eq!(bench.on(exited(3, 0)), []);
}

#[test]
fn fewer_ends_the_crash_loop_of_a_slot_that_goes_and_drains_one_that_starts_at_once() {
    let mut bench = Bench::serving(3);
    bench.on(exited(3, 1));
    assert_eq!(bench.on(exited(4, 1)), []);
    assert_eq!(bench.until_deadline(), Some(ms(100)));
    assert_eq!(bench.on(fewer()), []);
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(bench.on(more()), [spawn(5, 2, 1)], "with a clean record");
    assert_eq!(bench.on(fewer()), [drain(5)]);
}

#[test]
fn a_worker_told_to_end_in_a_slot_that_goes_gets_no_successor() {
    let mut bench = Bench::serving(3);
    bench.on(exited(1, 1));
    bench.on(fewer());
    assert_eq!(bench.on(terminated(3)), [], "too few others serve");
    assert_eq!(bench.on(ready(4)), [drain(3)]);
}

#[test]
fn a_wish_in_a_roll_is_fulfilled_after_it() {
    let mut bench = Bench::past_probation(2, settings(2));
    for _ in 0..3 {
        assert_eq!(bench.on(more()), []);
    }
    assert_eq!(bench.on(fewer()), []);
    assert_eq!(bench.on(ready(4)), [drain(2)]);
    bench.on(exited(1, 0));
    let mut expected = complete(1, 1, 2);
    expected.extend([spawn(5, 2, 2), spawn(6, 3, 2)]);
    assert_eq!(bench.on(exited(2, 0)), expected);
}

#[test]
fn a_wish_before_the_service_serves_is_fulfilled_when_it_does() {
    let mut bench = Bench::new(2);
    bench.on(Event::Begin);
    bench.on(ready(1));
    assert_eq!(bench.on(fewer()), []);
    let active = Action::Activate { generation: Generation(1) };
    assert_eq!(bench.on(ready(2)), [active, drain(2)]);
}

#[test]
fn a_wish_while_slots_return_is_fulfilled_when_they_have() {
    let mut bench = Bench::returning();
    assert_eq!(bench.on(fewer()), []);
    assert_eq!(bench.on(ready(6)), [drain(4)]);
    assert_eq!(bench.on(exited(4, 0)), [discard(2), failed(died(1, 1)), drain(3)]);
}

#[test]
fn a_wish_in_a_preflight_counts_for_its_roll() {
    let mut bench = Bench::serving(2);
    bench.on(request(1));
    assert_eq!(bench.on(more()), [spawn(3, 2, 1)]);
    bench.on(ready(3));
    bench.on(passed(1, settings(2)));
    bench.on(ready(4));
    assert_eq!(bench.after(PROBATION), [spawn(5, 1, 2), drain(1)]);
    assert_eq!(bench.on(ready(5)), [spawn(6, 2, 2), drain(2)]);
    assert_eq!(bench.on(ready(6)), [drain(3)]);
}

#[test]
fn a_number_holds_over_restarts_until_the_configurations_own_changes() {
    let mut bench = Bench::serving(2);
    bench.on(Event::Scale(Scale::To(1)));
    bench.on(exited(2, 0));
    // One worker is wanted, but two are configured, so a restart may be.
    bench.on(request(1));
    assert_eq!(bench.on(passed(1, settings(2)))[1..], [spawn(3, 0, 2)]);
    bench.on(ready(3));
    assert_eq!(bench.after(PROBATION), [drain(1)]);
    assert_eq!(bench.on(exited(1, 0)), complete(1, 1, 2));
    bench.on(request(2));
    bench.on(passed(2, settings(3)));
    bench.on(ready(4));
    assert_eq!(bench.after(PROBATION), [spawn(5, 1, 3), drain(3)]);
    assert_eq!(bench.on(ready(5)), [spawn(6, 2, 3)]);
    bench.on(exited(3, 0));
    assert_eq!(bench.on(ready(6)), complete(2, 2, 3));
}

#[test]
fn one_configured_worker_stays_one_for_the_gate() {
    let mut bench = Bench::serving(1);
    assert_eq!(bench.on(more()), [spawn(2, 1, 1)]);
    bench.on(ready(2));
    assert_eq!(bench.on(request(1)), [verdict(1, Verdict::Refused(Refusal::NoWorkers))]);
}

#[test]
fn a_locked_or_stopping_master_changes_no_number() {
    let mut after_a_wish = Bench::past_probation(2, settings(2));
    after_a_wish.on(more());
    after_a_wish.on(exited(4, 1));
    for (mut bench, refusal) in [
        (after_a_wish, Refusal::AbortedRestart),
        (Bench::locked(), Refusal::AbortedRestart),
        (Bench::stopping(), Refusal::Stopping),
    ] {
        assert_eq!(bench.machine.may_scale(), Err(refusal));
        let before = bench.machine.clone();
        for wish in [more(), fewer(), Event::Scale(Scale::To(7))] {
            assert_eq!(bench.on(wish), []);
        }
        assert_eq!(bench.machine, before);
    }
}

// Stop

#[test]
fn stop_closes_the_listeners_drains_everyone_and_exits_with_the_last() {
    let mut bench = Bench::serving(2);
    let expected = [Action::CloseListeners, last_drain(1), last_drain(2)];
    assert_eq!(bench.on(Event::Stop), expected);
    assert_eq!(bench.on(exited(2, 0)), []);
    let expected = [Action::Exit(ExitReason::Stopped)];
    assert_eq!(bench.on(exited(1, 0)), expected);
    assert_eq!(bench.on(Event::Stop), []);
}

#[test]
fn a_second_stop_kills_whoever_is_left() {
    // FAULTS 4
    let mut bench = Bench::stopping();
    bench.on(exited(1, 0));
    let expected = [kill(2, KillReason::FastStop)];
    assert_eq!(bench.on(Event::Stop), expected);
    assert_eq!(bench.on(Event::Stop), [], "it is killed once");
    let expected = [Action::Exit(ExitReason::Stopped)];
    assert_eq!(bench.on(exited(2, 9)), expected);
}

#[test]
fn a_worker_that_ignores_the_stop_is_killed_at_its_timeout() {
    let mut bench = Bench::stopping();
    bench.on(exited(1, 0));
    let expected = [kill(2, KillReason::DrainTimedOut)];
    assert_eq!(bench.after(SHUTDOWN_TIMEOUT), expected);
}

#[test]
fn stop_in_a_roll_fails_it_without_a_lock_and_drains_both_generations() {
    // FAULTS 3
    let mut bench = Bench::past_probation(2, settings(2));
    bench.now += ms(100);
    let remaining = Action::Drain { worker: WorkerId(1), successor: false, timeout: ms(29_900) };
    assert_eq!(
        bench.on(Event::Stop),
        [failed(Failure::Stopped), Action::CloseListeners, remaining, last_drain(2), last_drain(3), last_drain(4),]
    );
    assert!(!bench.machine.is_locked());
    assert_eq!(bench.until_deadline(), Some(ms(29_900)));
    bench.on(exited(1, 0));
    bench.on(exited(2, 0));
    assert_eq!(bench.on(exited(3, 0)), []);
    let exit = Action::Exit(ExitReason::Stopped);
    assert_eq!(bench.on(exited(4, 0)), [discard(2), exit]);
}

#[test]
fn stop_in_a_preflight_refuses_it_and_ignores_its_late_answer() {
    let mut bench = Bench::serving(2);
    bench.on(request(1));
    let cancel = Action::CancelPreflight { request: RequestId(1) };
    assert_eq!(
        bench.on(Event::Stop)[..3],
        [cancel, verdict(1, Verdict::Refused(Refusal::Stopping)), Action::CloseListeners]
    );
    let before = bench.machine.clone();
    assert_eq!(bench.on(passed(1, settings(2))), []);
    assert_eq!(bench.machine, before);
}

#[test]
fn stop_while_starting_drains_the_starting_workers_too() {
    let mut bench = Bench::new(2);
    bench.on(Event::Begin);
    bench.on(ready(1));
    let expected = [Action::CloseListeners, last_drain(1), last_drain(2)];
    assert_eq!(bench.on(Event::Stop), expected);
    assert_eq!(bench.on(ready(2)), []);
    bench.on(exited(2, 1));
    let expected = [Action::Exit(ExitReason::Stopped)];
    assert_eq!(bench.on(exited(1, 0)), expected);
}

#[test]
fn stop_while_locked_is_an_ordinary_stop() {
    let mut bench = Bench::locked();
    let expected = [Action::CloseListeners, last_drain(1), last_drain(2)];
    assert_eq!(bench.on(Event::Stop), expected);
    bench.on(exited(1, 0));
    let expected = [Action::Exit(ExitReason::Stopped)];
    assert_eq!(bench.on(exited(2, 0)), expected);
}

#[test]
fn stop_without_a_living_worker_exits_at_once() {
    let mut bench = Bench::serving(1);
    bench.on(exited(1, 1));
    bench.on(exited(2, 1));
    let expected = [Action::CloseListeners, Action::Exit(ExitReason::Stopped)];
    assert_eq!(bench.on(Event::Stop), expected);
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(Bench::new(2).on(Event::Stop), expected);
}

#[test]
fn a_spawn_that_fails_after_the_stop_counts_as_gone() {
    let mut bench = Bench::new(2);
    bench.on(Event::Begin);
    bench.on(ready(1));
    bench.on(Event::Stop);
    bench.on(exited(1, 0));
    bench.on(Event::Stop);
    let expected = [Action::Exit(ExitReason::Stopped)];
    assert_eq!(bench.on(spawn_failed(2)), expected);
}

// Respawn

#[test]
fn a_crash_loop_backs_off_and_the_others_serve_on() {
    // FAULTS 17
    let mut bench = Bench::serving(2);
    let mut worker = 2;
    for pause in [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
        let at_once = bench.on(exited(worker, 1));
        worker += 1;
        let respawn = [spawn(worker, 1, 1)];
        if pause == 0 {
            assert_eq!(at_once, respawn);
        } else {
            assert_eq!(at_once, []);
            assert_eq!(bench.until_deadline(), Some(ms(pause)));
            assert_eq!(bench.after(ms(pause - 1)), []);
            assert_eq!(bench.after(ms(1)), respawn);
        }
        bench.on(ready(worker));
        assert_eq!(bench.machine.serving(), 2);
    }
}

#[test]
fn a_worker_that_was_ready_for_ten_seconds_ends_the_series_of_crashes() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    bench.on(ready(3));
    bench.after(ms(9_999));
    assert_eq!(bench.on(exited(3, 1)), [], "ready for too short a time");
    bench.after(ms(100));
    bench.on(ready(4));
    bench.after(ms(10_000));
    assert_eq!(bench.on(exited(4, 1)), [spawn(5, 1, 1)]);
}

#[test]
fn slots_back_off_each_for_itself() {
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(exited(2, 1)), [spawn(3, 1, 1)]);
    assert_eq!(bench.on(exited(3, 1)), []);
    assert_eq!(bench.on(exited(1, 1)), [spawn(4, 0, 1)]);
}

#[test]
fn a_respawn_that_is_not_ready_in_time_or_cannot_be_spawned_counts_as_a_crash() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    let expected = [kill(3, KillReason::NotReadyInTime)];
    assert_eq!(bench.after(START_TIMEOUT), expected);
    assert_eq!(bench.on(exited(3, 9)), []);
    assert_eq!(bench.after(ms(100)), [spawn(4, 1, 1)]);
    assert_eq!(bench.on(spawn_failed(4)), []);
    assert_eq!(bench.after(ms(200)), [spawn(5, 1, 1)]);
    assert_eq!(bench.on(cannot_listen(5)), []);
    assert_eq!(bench.on(exited(5, 1)), []);
    assert_eq!(bench.after(ms(400)), [spawn(6, 1, 1)]);
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn respawns_go_on_during_a_preflight() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    bench.on(request(1));
    assert_eq!(bench.on(exited(3, 1)), []);
    assert_eq!(bench.after(ms(100)), [spawn(4, 1, 1)]);
    assert_eq!(bench.machine.phase(), Phase::Preflight);
}

#[test]
fn a_single_worker_is_respawned_as_well() {
    let mut bench = Bench::serving(1);
    assert_eq!(bench.on(exited(1, 1)), [spawn(2, 0, 1)]);
}

// Stale messages and timers

#[test]
fn messages_that_do_not_fit_the_worker_change_nothing() {
    // FAULTS 10: worker 3 is a ready candidate, 1 draining, 4 starting; 99 was never spawned.
    let bench = Bench::past_probation(2, settings(2));
    let mut events = vec![
        exited(99, 0),
        spawn_failed(99),
        spawn_failed(3),
        passed(1, settings(2)),
        refused(1, Refusal::Stopping),
        Event::Begin,
    ];
    for worker in [1, 2, 3, 99] {
        let messages = [spawned(worker), ready(worker), cannot_listen(worker)];
        events.extend(messages);
        events.push(start_failed(worker));
    }
    for event in events {
        let mut bench = bench.clone();
        let before = bench.machine.clone();
        let actions = bench.machine.handle(event.clone(), bench.now);
        assert_eq!(actions, [], "{event:?}");
        assert_eq!(bench.machine, before, "{event:?}");
    }
}

#[test]
fn a_worker_that_has_gone_is_heard_no_more() {
    // FAULTS 10
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    let before = bench.machine.clone();
    for event in [ready(2), exited(2, 0), cannot_listen(2), spawn_failed(2)] {
        assert_eq!(bench.on(event), []);
    }
    assert_eq!(bench.machine, before);
}

#[test]
fn an_early_tick_does_nothing_and_a_late_one_does_no_harm() {
    let bench = Bench::past_probation(2, settings(2));
    let mut early = bench.clone();
    assert_eq!(early.on(Event::Tick), []);
    assert_eq!(early.machine, bench.machine);
    let mut late = bench;
    // The second candidate's start timeout and the first drain's end have both passed.
    assert_eq!(
        late.after(SHUTDOWN_TIMEOUT * 10),
        [
            kill(1, KillReason::DrainTimedOut),
            kill(4, KillReason::NotReadyInTime),
            failed(Failure::NotReadyInTime { slot: Slot(1) }),
        ]
    );
}

#[test]
fn what_happens_at_a_deadline_counts_as_before_it() {
    let mut bench = Bench::rolling(2, settings(2));
    bench.now += START_TIMEOUT;
    assert_eq!(bench.on(ready(3)), []);
    assert_eq!(bench.state_of(3), Some(WorkerState::Ready));
}

#[test]
fn timeouts_without_end_do_not_overflow() {
    let mut endless = settings(2);
    endless.start_timeout = Duration::MAX;
    endless.probation = Duration::MAX;
    endless.shutdown_timeout = Duration::MAX;
    let mut bench = Bench::rolling(2, endless);
    bench.on(ready(3));
    assert_eq!(bench.after(Duration::from_secs(1 << 40)), []);
}

// Words

#[test]
fn reasons_are_stable_and_lead_what_is_printed() {
    let slot = Slot(1);
    let text = || "why".to_owned();
    let refusals = [
        (Refusal::Starting, "starting"),
        (Refusal::Stopping, "stopping"),
        (Refusal::NoWorkers, "no workers"),
        (Refusal::BadDriver(text()), "bad driver: why"),
        (Refusal::AbortedRestart, "aborted restart"),
        (Refusal::RestartInFlight, "restart in flight"),
        (Refusal::BadConfig(text()), "bad config: why"),
        (Refusal::BadArtifact(text()), "bad artifact: why"),
        (Refusal::Incompatibility(text()), "incompatibility: why"),
        (Refusal::CannotBind(text()), "cannot bind: why"),
        (Refusal::DatabankUnreachable(text()), "databank unreachable: why"),
    ];
    for (refusal, printed) in refusals {
        assert_eq!(refusal.to_string(), printed);
        assert_eq!(refusal.reason(), printed.trim_end_matches(": why"));
        let verdict = Verdict::Refused(refusal);
        assert_eq!(verdict.to_string(), format!("refused: {printed}"));
    }
    let error = text();
    let killed = Failure::WorkerDied { slot, how: Ended::Signal(6) };
    let no_listener = Failure::CannotListen { slot, error };
    let error = text();
    let no_start = Failure::AppFailedToStart { slot, error };
    let error = text();
    let no_process = Failure::CannotSpawn { slot, error };
    let failures = [
        (killed, "worker died", "worker died: slot 1, signal 6"),
        (Failure::NotReadyInTime { slot }, "not ready in time", "not ready in time: slot 1"),
        (no_listener, "cannot listen", "cannot listen: slot 1, why"),
        (no_start, "app failed to start", "app failed to start: slot 1, why"),
        (no_process, "cannot spawn", "cannot spawn: slot 1, why"),
        (Failure::Stopped, "stopped", "stopped"),
    ];
    for (failure, reason, printed) in failures {
        assert_eq!(failure.reason(), reason);
        let verdict = Verdict::Failed(failure);
        assert_eq!(verdict.to_string(), format!("failed: {printed}"));
    }
    for unchanged in [false, true] {
        // Scripts compare it.
        assert_eq!(Verdict::Complete { unchanged, draining: 0 }.to_string(), "complete");
    }
}
