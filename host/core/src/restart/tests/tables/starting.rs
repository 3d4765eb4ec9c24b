//! The first workers, until the service serves.

use super::*;

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
