//! The stop of the service, from every phase.

use super::*;

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
