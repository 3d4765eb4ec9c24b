//! A failure of a restart that locks the master.

use super::*;

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
