//! The roll: slot by slot, new before old.

use super::*;

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
    assert_eq!(bench.on(ready(5)), [drain(1), drain(3)]);
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
