//! A failure of a restart after which every slot returns.

use super::*;

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
        let mut bench = Bench::with(returning());
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
    let mut bench = Bench::with(returning());
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
