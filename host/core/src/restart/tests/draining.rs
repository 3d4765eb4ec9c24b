//! Claims about restarts that begin while former workers drain, one a test.

use super::super::{ExitReason, Failure, Phase, Report};
use super::bench::Bench;
use super::*;

const fn rollback(number: u64) -> Event {
    Event::Request { request: RequestId(number), by: By::Rollback }
}

const fn preflight(number: u64) -> Action {
    Action::Preflight { request: RequestId(number) }
}

const fn activate(generation: u64) -> Action {
    Action::Activate { generation: Generation(generation) }
}

const fn discard(generation: u64) -> Action {
    Action::Discard { generation: Generation(generation) }
}

const fn complete(number: u64, draining: usize) -> Action {
    verdict(number, Verdict::Complete { unchanged: false, draining })
}

fn in_flight(number: u64) -> Vec<Action> {
    vec![verdict(number, Verdict::Refused(Refusal::RestartInFlight))]
}

/// Two candidates of request 1, 3 and 4, serve; 1 and 2, of generation 1, still drain.
fn rolled_over(first: Settings) -> Bench {
    let mut bench = Bench::serving_with(first);
    bench.on(request(1));
    bench.on(passed(1, first));
    roll(&mut bench, 3);
    assert_eq!(bench.machine.phase(), Phase::Rolling);
    bench
}

/// Has the candidates from `first` on become ready, of which there are two.
fn roll(bench: &mut Bench, first: u64) {
    bench.on(ready(first));
    bench.after(PROBATION);
    bench.on(ready(first + 1));
}

#[test]
fn a_rollback_begins_as_soon_as_nothing_is_left_of_a_restart_but_drains() {
    let mut bench = Bench::rolling(2, settings(2));
    assert_eq!(bench.on(rollback(2)), in_flight(2), "it rolls");
    bench.on(ready(3));
    assert_eq!(bench.on(rollback(3)), in_flight(3), "it is on probation");
    bench.after(PROBATION);
    assert_eq!(bench.on(rollback(4)), in_flight(4), "one is still to come");
    bench.on(ready(4));
    assert_eq!(bench.on(request(5)), in_flight(5), "an ordinary restart waits for the drains");
    assert_eq!(bench.on(rollback(6)), [activate(2), complete(1, 2), preflight(6)]);
    assert_eq!(bench.on(passed(6, settings(2)))[1..], [spawn(5, 0, 3)]);
    roll(&mut bench, 5);
    assert_eq!((bench.state_of(3), bench.state_of(4)), (Some(WorkerState::Draining), Some(WorkerState::Draining)));
    assert_eq!(bench.on(exited(1, 0)), []);
    assert_eq!(bench.on(exited(2, 0)), [discard(1)]);
    assert_eq!(bench.on(exited(3, 0)), []);
    assert_eq!(bench.on(exited(4, 0)), [activate(3), discard(2), complete(6, 0)]);
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn that_only_drains_are_left_is_said_once_and_not_where_none_is() {
    let mut bench = Bench::rolling(2, settings(2));
    bench.on(ready(3));
    bench.after(PROBATION);
    let said = |actions: &[Action]| actions.contains(&Action::RolledOver { generation: Generation(2) });
    assert!(said(&bench.machine.handle(ready(4), bench.now)));
    assert!(!said(&bench.machine.handle(exited(1, 0), bench.now)));
    assert!(!said(&bench.machine.handle(exited(2, 0), bench.now)));
    // With the last candidate nobody else is there any more.
    let mut bench = Bench::rolling(2, settings(2));
    bench.on(ready(3));
    bench.after(PROBATION);
    for worker in 1..=2 {
        assert!(!said(&bench.machine.handle(exited(worker, 1), bench.now)));
    }
    let last = bench.machine.handle(ready(4), bench.now);
    assert!(!said(&last) && last.contains(&activate(2)), "{last:?}");
}

#[test]
fn so_does_the_healing_of_a_listener_and_the_watcher_waits() {
    let mut bench = rolled_over(settings(2));
    assert_eq!(bench.machine.phase_for(By::Watcher), Phase::Rolling);
    assert_eq!(bench.machine.phase_for(By::Healing), Phase::Serving);
    let healing = Event::Request { request: RequestId(2), by: By::Healing };
    assert_eq!(bench.on(healing), [activate(2), complete(1, 2), preflight(2)]);
}

#[test]
fn any_restart_may_where_the_active_configuration_says_so() {
    let mut bench = rolled_over(Settings { while_draining: true, ..settings(2) });
    assert_eq!(bench.machine.phase_for(By::Watcher), Phase::Serving);
    assert_eq!(bench.on(request(2)), [activate(2), complete(1, 2), preflight(2)]);
}

#[test]
fn when_the_rollback_is_refused_the_drains_still_keep_an_ordinary_restart_waiting() {
    let mut bench = rolled_over(settings(2));
    bench.on(rollback(2));
    let refusal = Refusal::BadArtifact("no earlier generation".to_owned());
    bench.on(refused(2, refusal));
    assert_eq!(bench.machine.phase(), Phase::Rolling, "the watcher is to wait");
    assert_eq!(bench.on(request(3)), in_flight(3));
    assert_eq!(bench.on(rollback(4)), [preflight(4)], "the verdict was given");
    bench.on(refused(4, Refusal::Unchanged));
    bench.on(exited(1, 0));
    assert_eq!(bench.on(exited(2, 0)), [discard(1)]);
    assert_eq!(bench.machine.phase(), Phase::Serving);
    assert_eq!(bench.on(request(5)), [preflight(5)]);
}

#[test]
fn what_dies_after_a_restart_was_overtaken_is_a_crash_and_fails_nothing() {
    let mut bench = rolled_over(settings(2));
    bench.on(rollback(2));
    assert_eq!(bench.on(exited(3, 1)), [spawn(5, 0, 2)], "the generation that serves");
    assert_eq!(bench.machine.phase(), Phase::Preflight);
}

#[test]
fn a_drain_that_was_overtaken_keeps_its_deadline() {
    let mut bench = rolled_over(settings(2));
    bench.now += ms(1000);
    bench.on(rollback(2));
    bench.on(refused(2, Refusal::Unchanged));
    assert!(bench.until_deadline() < Some(SHUTDOWN_TIMEOUT.saturating_sub(ms(900))));
    let killed = bench.after(SHUTDOWN_TIMEOUT);
    assert_eq!(killed, [kill(1, KillReason::DrainTimedOut), kill(2, KillReason::DrainTimedOut)]);
}

#[test]
fn the_return_after_a_failure_can_be_overtaken_as_well() {
    let mut bench = Bench::serving_with(Settings { on_failure: OnFailure::Rollback, ..settings(2) });
    bench.on(request(1));
    bench.on(passed(1, settings(2)));
    bench.on(ready(3));
    bench.after(PROBATION);
    // The second candidate fails; slot 0's active worker drains already, and gets a successor.
    bench.on(exited(4, 1));
    assert_eq!(bench.on(rollback(2)), in_flight(2), "a slot is still to return");
    bench.on(ready(5));
    assert_eq!(bench.state_of(3), Some(WorkerState::Draining));
    let failure = Failure::WorkerDied { slot: Slot(1), how: Ended::Code(1) };
    assert_eq!(bench.on(request(3)), in_flight(3));
    assert_eq!(bench.on(rollback(4)), [verdict(1, Verdict::Failed(failure)), preflight(4)]);
    bench.on(refused(4, Refusal::Unchanged));
    assert_eq!(bench.on(exited(3, 0)), [discard(2)], "the failed generation has drained");
}

#[test]
fn a_rollback_that_fails_waits_for_the_drains_that_it_has_not_waited_for_either() {
    let mut bench = rolled_over(Settings { on_failure: OnFailure::Rollback, ..settings(2) });
    bench.on(rollback(2));
    bench.on(passed(2, settings(2)));
    assert_eq!(bench.on(exited(5, 1))[1..], [], "generation 1 drains, and generation 2 serves as it did");
    assert_eq!(bench.machine.phase(), Phase::Returning);
    assert_eq!(bench.on(exited(1, 0)), []);
    let failure = Failure::WorkerDied { slot: Slot(0), how: Ended::Code(1) };
    assert_eq!(bench.on(exited(2, 0)), [discard(1), discard(3), verdict(2, Verdict::Failed(failure))]);
}

#[test]
fn how_many_generations_drain_is_bounded_and_the_last_place_is_a_rollbacks() {
    let any = Settings { while_draining: true, ..settings(2) };
    let mut bench = rolled_over(any);
    let mut next = 5;
    for number in 2..=3 {
        assert_eq!(bench.on(request(number))[1..].last(), Some(&preflight(number)));
        bench.on(passed(number, any));
        roll(&mut bench, next);
        next += 2;
    }
    // Three drain, and the fourth would if this one were active.
    let generations = |bench: &Bench| {
        let mut all: Vec<_> = bench.machine.workers().map(|it| it.generation.0).collect();
        all.dedup();
        all
    };
    assert_eq!(generations(&bench), [1, 2, 3, 4]);
    assert_eq!(bench.on(request(4)).last(), Some(&preflight(4)));
    bench.on(passed(4, any));
    roll(&mut bench, next);
    assert_eq!(generations(&bench), [1, 2, 3, 4, 5]);
    assert_eq!(bench.on(request(5)), in_flight(5), "four drain");
    assert_eq!(bench.on(rollback(6)).last(), Some(&preflight(6)));
    bench.on(passed(6, any));
    roll(&mut bench, next + 2);
    assert_eq!(bench.on(rollback(7)), in_flight(7), "five drain");
    bench.on(exited(1, 0));
    bench.on(exited(2, 0));
    assert_eq!(bench.on(rollback(8)).last(), Some(&preflight(8)), "one has gone");
}

#[test]
fn a_candidate_on_probation_overtakes_nothing_even_where_nobody_else_is_left() {
    let mut bench = Bench::serving_with(Settings { while_draining: true, ..settings(2) });
    bench.on(Event::Scale(super::super::Scale::To(1)));
    bench.on(request(1));
    bench.on(passed(1, settings(2)));
    bench.on(ready(3));
    for worker in 1..=2 {
        bench.on(exited(worker, 1));
    }
    assert_eq!(bench.on(rollback(2)), in_flight(2));
    bench.after(PROBATION);
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn a_stop_ends_all_that_drain() {
    let mut bench = rolled_over(settings(2));
    bench.on(rollback(2));
    bench.on(Event::Stop);
    for worker in 1..=3 {
        bench.on(exited(worker, 0));
    }
    assert_eq!(bench.on(exited(4, 0)), [Action::Exit(ExitReason::Stopped)]);
}

// Side by side

#[test]
fn candidates_after_the_first_start_as_many_at_a_time_as_configured() {
    let three = Settings { parallel: 3, ..settings(6) };
    let mut bench = Bench::serving_with(three);
    bench.on(request(1));
    assert_eq!(bench.on(passed(1, three))[1..], [spawn(7, 0, 2)], "the first alone");
    assert_eq!(bench.on(ready(7)), [], "and through its probation");
    assert_eq!(bench.after(PROBATION), [spawn(8, 1, 2), spawn(9, 2, 2), spawn(10, 3, 2), drain(1)]);
    assert_eq!(bench.on(ready(9)), [spawn(11, 4, 2), drain(3)], "one more, and its own predecessor goes");
    assert_eq!(bench.on(ready(11)), [spawn(12, 5, 2), drain(5)]);
    assert_eq!(bench.on(ready(8)), [drain(2)]);
    assert_eq!(bench.machine.serving(), 6);
}

#[test]
fn one_of_those_that_start_side_by_side_fails_the_restart_like_any() {
    let two = Settings { parallel: 2, ..settings(3) };
    let mut bench = Bench::serving_with(two);
    bench.on(request(1));
    bench.on(passed(1, two));
    bench.on(ready(4));
    bench.after(PROBATION);
    let failure = Failure::WorkerDied { slot: Slot(2), how: Ended::Code(1) };
    assert_eq!(bench.on(exited(6, 1)), [verdict(1, Verdict::Failed(failure))]);
    assert!(bench.machine.is_locked());
}

// The delay before a stop

const DELAY: Duration = Duration::from_secs(8);

fn delayed() -> Settings {
    Settings { shutdown_delay: DELAY, ..settings(2) }
}

fn stops() -> Vec<Action> {
    vec![Action::CloseListeners, last_drain(1), last_drain(2)]
}

#[test]
fn a_stop_is_announced_and_then_the_service_serves_for_a_while() {
    let mut bench = Bench::serving_with(delayed());
    let reports = bench.clone().reports_on(Event::Stop);
    assert_eq!(reports, [Report::StopDelayed { delay: DELAY }]);
    assert_eq!(bench.on(Event::Stop), [Action::AnnounceStop]);
    assert_eq!((bench.machine.phase(), bench.machine.serving()), (Phase::Stopping, 2));
    assert_eq!(bench.on(request(1)), [verdict(1, Verdict::Refused(Refusal::Stopping))]);
    assert_eq!(bench.until_deadline(), Some(DELAY));
    assert_eq!(bench.after(DELAY.saturating_sub(ms(1))), []);
    assert_eq!(bench.after(ms(1)), stops());
}

#[test]
fn a_second_signal_skips_the_delay_and_a_third_is_what_the_second_was() {
    let mut bench = Bench::serving_with(delayed());
    bench.on(Event::Stop);
    assert_eq!(bench.on(Event::Stop), stops());
    assert_eq!(bench.on(Event::Stop), [kill(1, KillReason::FastStop), kill(2, KillReason::FastStop)]);
}

#[test]
fn a_crash_in_the_delay_is_not_made_up_for_and_the_last_one_ends_it() {
    let mut bench = Bench::serving_with(delayed());
    bench.on(Event::Stop);
    assert_eq!(bench.on(exited(1, 1)), []);
    assert_eq!(bench.on(exited(2, 1)), [Action::CloseListeners, Action::Exit(ExitReason::Stopped)]);
}

#[test]
fn before_anything_was_served_nobody_has_to_be_told() {
    let mut bench = Bench::with(delayed());
    bench.on(Event::Begin);
    assert_eq!(bench.on(Event::Stop), [Action::CloseListeners, last_drain(1)]);
}

#[test]
fn a_restart_in_flight_ends_with_the_announcement() {
    let mut bench = Bench::serving_with(delayed());
    bench.on(request(1));
    bench.on(passed(1, settings(2)));
    assert_eq!(bench.on(Event::Stop), [verdict(1, Verdict::Failed(Failure::Stopped)), Action::AnnounceStop]);
    assert_eq!(bench.on(ready(3)), [], "it serves as well, and nobody is drained for it");
    let expected = [Action::CloseListeners, last_drain(1), last_drain(2), last_drain(3)];
    assert_eq!(bench.after(DELAY), expected);
    bench.on(exited(1, 0));
    bench.on(exited(2, 0));
    assert_eq!(bench.on(exited(3, 0)), [discard(2), Action::Exit(ExitReason::Stopped)]);
}
