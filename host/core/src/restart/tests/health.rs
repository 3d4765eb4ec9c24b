//! Claims about what looks at the workers lead to, one a test.

use super::super::health::ABORT_GRACE;
use super::super::{Failure, Phase, RecycleReason, Report, Scale, look_interval};
use super::bench::Bench;
use super::*;

const LOOK: Duration = Duration::from_secs(1);

/// Looks once: worker by worker, how often it has moved so far.
fn look(bench: &mut Bench, beats: &[(u64, u64)]) -> Vec<Action> {
    let signs = |beat| Signs { beat: Some(ms(beat)), requests: 0, memory: None };
    bench.on(Event::Looked { found: beats.iter().map(|(worker, beat)| (WorkerId(*worker), signs(*beat))).collect() })
}

/// Looks every second for so long, with workers that don't move; gives what the last look leads to.
fn look_for(bench: &mut Bench, time: Duration, workers: &[u64]) -> Vec<Action> {
    let beats: Vec<_> = workers.iter().map(|worker| (*worker, 7)).collect();
    let mut looked = Duration::ZERO;
    while looked < time {
        assert_eq!(look(bench, &beats), [], "after {looked:?}");
        let pause = LOOK.min(time.saturating_sub(looked));
        bench.now += pause;
        looked += pause;
    }
    look(bench, &beats)
}

const fn abort(worker: u64) -> Action {
    Action::Abort { worker: WorkerId(worker) }
}

#[test]
fn a_worker_that_hangs_is_aborted_and_its_slot_gets_another_at_once() {
    // FAULTS 9
    let mut bench = Bench::serving(2);
    assert_eq!(bench.machine.check_interval(), Some(LOOK));
    for beat in 0..90 {
        assert_eq!(look(&mut bench, &[(1, beat), (2, beat)]), [], "they move");
        bench.now += LOOK;
    }
    for beat in 0..60 {
        assert_eq!(look(&mut bench, &[(1, 100 + beat), (2, 100)]), []);
        bench.now += LOOK;
    }
    assert_eq!(look(&mut bench, &[(1, 200), (2, 100)]), [abort(2), spawn(3, 1, 1)]);
    assert_eq!(bench.state_of(2), Some(WorkerState::Aborting));
    assert_eq!(bench.machine.serving(), 1);
    let reports = bench.reports_on(exited(2, 1));
    assert!(matches!(reports[..], [Report::WorkerExited { expected: true, .. }]), "{reports:?}");
    assert_eq!(bench.on(ready(3)), []);
    assert_eq!(bench.machine.serving(), 2);
}

#[test]
fn a_worker_that_survives_sigabrt_is_killed() {
    let mut bench = Bench::serving(2);
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT, &[1]), [abort(1), spawn(3, 0, 1)]);
    bench.on(ready(3));
    assert_eq!(bench.until_deadline(), Some(ABORT_GRACE));
    assert_eq!(bench.after(ABORT_GRACE), [kill(1, KillReason::SurvivedAbort)]);
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn a_master_that_was_stopped_together_with_its_workers_blames_nobody() {
    let mut bench = Bench::serving(2);
    for _ in 0..30 {
        look(&mut bench, &[(1, 7), (2, 7)]);
        bench.now += LOOK;
    }
    // The machine was suspended, or all were stopped: the next look is the first for an hour.
    for _ in 0..10 {
        bench.now += Duration::from_hours(1);
        assert_eq!(look(&mut bench, &[(1, 7), (2, 7)]), []);
    }
    bench.now += LOOK;
    assert_eq!(look(&mut bench, &[(1, 8), (2, 8)]), []);
    // And it begins from the beginning.
    bench.now += LOOK;
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT.saturating_sub(LOOK), &[1, 2]), []);
    bench.now += LOOK;
    assert_eq!(look(&mut bench, &[(1, 7), (2, 7)])[..2], [abort(1), abort(2)]);
}

#[test]
fn looks_that_come_in_a_burst_count_for_the_time_between_them() {
    let mut bench = Bench::serving(2);
    for _ in 0..1000 {
        assert_eq!(look(&mut bench, &[(1, 7), (2, 7)]), []);
    }
}

#[test]
fn looks_are_as_frequent_as_the_shortest_time_out_needs() {
    assert_eq!(look_interval(None), LOOK);
    assert_eq!(look_interval(Some(HANG_TIMEOUT)), LOOK);
    assert_eq!(look_interval(Some(Duration::from_secs(1))), ms(250));
    let short = Settings { hang_timeout: Some(Duration::from_secs(2)), ..settings(2) };
    let bench = Bench::rolling(2, short);
    assert_eq!(bench.machine.check_interval(), Some(ms(500)));
    let mut never = Bench::with(Settings { hang_timeout: None, ..settings(2) });
    assert_eq!(never.machine.check_interval(), None);
    assert_eq!(look_for(&mut never, Duration::from_mins(10), &[1]), []);
}

#[test]
fn a_worker_that_starts_or_drains_is_not_listened_to() {
    let mut bench = Bench::past_probation(2, settings(2));
    // Candidate 3 is ready, 4 starts, 1 drains.
    assert_eq!(bench.state_of(1), Some(WorkerState::Draining));
    assert_eq!(bench.state_of(4), Some(WorkerState::Starting));
    assert_eq!(look_for(&mut bench, START_TIMEOUT.saturating_sub(ms(1)), &[1, 4]), []);
    // What was seen while it started doesn't count.
    bench.on(ready(4));
    bench.on(exited(1, 0));
    assert_eq!(look_for(&mut bench, SHUTDOWN_TIMEOUT.saturating_sub(ms(1)), &[2, 4]), []);
    bench.on(exited(2, 0));
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn a_candidate_that_hangs_in_its_roll_fails_it() {
    for (on_failure, phase) in [(OnFailure::Lock, Phase::Locked), (OnFailure::Rollback, Phase::Serving)] {
        let patient = Settings { probation: Duration::from_hours(1), ..settings(2) };
        let mut bench = Bench::serving_with(Settings { on_failure, ..settings(2) });
        bench.on(request(1));
        bench.on(passed(1, patient));
        bench.on(ready(3));
        let actions = look_for(&mut bench, HANG_TIMEOUT, &[3]);
        assert_eq!(actions[0], abort(3));
        let failure = Failure::WorkerHung { slot: Slot(0) };
        assert_eq!(
            (failure.reason(), failure.to_string().as_str()),
            ("worker died", "worker died: slot 0, it had hung")
        );
        let verdict = verdict(1, Verdict::Failed(failure));
        let rest = bench.on(exited(3, 1));
        assert!(actions.contains(&verdict) != rest.contains(&verdict), "{actions:?} {rest:?}");
        assert_eq!(bench.machine.phase(), phase);
        assert_eq!(bench.machine.serving(), 2);
    }
}

#[test]
fn an_active_worker_that_hangs_in_a_roll_is_aborted_and_its_slot_gets_the_candidate_in_turn() {
    let patient = Settings { probation: HANG_TIMEOUT + LOOK, ..settings(2) };
    let mut bench = Bench::rolling(2, patient);
    bench.on(ready(3));
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT, &[2]), [abort(2)]);
    bench.on(exited(2, 1));
    assert_eq!(bench.after(LOOK), [spawn(4, 1, 2)]);
    assert_eq!(bench.on(ready(4)), [drain(1)]);
    assert_eq!(bench.on(exited(1, 0)).last(), Some(&verdict(1, Verdict::Complete { unchanged: false, draining: 0 })));
}

#[test]
fn an_active_worker_that_hangs_while_slots_return_gets_a_successor() {
    let mut bench = Bench::serving_with(Settings { on_failure: OnFailure::Rollback, ..settings(2) });
    bench.on(request(1));
    bench.on(passed(1, settings(2)));
    bench.on(ready(3));
    bench.after(PROBATION);
    bench.on(exited(4, 1));
    bench.on(exited(1, 0));
    // Worker 5 is to take slot 0 back, and doesn't become ready while 2 hangs.
    assert_eq!(bench.machine.phase(), Phase::Returning);
    bench.on(ready(5));
    assert_eq!(bench.state_of(3), Some(WorkerState::Draining));
    look_for(&mut bench, SHUTDOWN_TIMEOUT.saturating_sub(LOOK), &[2]);
    assert_eq!(bench.after(LOOK), [kill(3, KillReason::DrainTimedOut)]);
    assert_eq!(bench.machine.phase(), Phase::Returning, "the candidate hasn't gone");
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT.saturating_sub(SHUTDOWN_TIMEOUT), &[2]), [abort(2), spawn(6, 1, 1)]);
}

#[test]
fn a_locked_master_aborts_and_recycles_nobody() {
    let mut bench = Bench::locked();
    assert_eq!(bench.machine.check_interval(), None);
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT * 2, &[1, 2]), []);
}

#[test]
fn a_stopping_master_leaves_hanging_workers_to_their_deadline() {
    let mut bench = Bench::stopping();
    assert_eq!(bench.machine.check_interval(), None);
    assert_eq!(look_for(&mut bench, SHUTDOWN_TIMEOUT.saturating_sub(LOOK), &[1, 2]), []);
}

#[test]
fn a_first_worker_that_hangs_before_the_others_are_ready_ends_the_start() {
    let mut bench = Bench::with(Settings { start_timeout: Duration::from_hours(1), ..settings(2) });
    bench.on(Event::Begin);
    bench.on(ready(1));
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT, &[1]), [abort(1), Action::CloseListeners, last_drain(2)]);
}

#[test]
fn a_worker_is_not_aborted_while_its_predecessor_does_not_die() {
    // The kernel waits for a disk: each aborted worker would leave one more process behind.
    let mut bench = Bench::serving(2);
    look_for(&mut bench, HANG_TIMEOUT, &[1]);
    bench.on(ready(3));
    bench.after(ABORT_GRACE);
    assert_eq!(bench.state_of(1), Some(WorkerState::Killed));
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT * 3, &[3]), []);
    bench.on(exited(1, 9));
    assert_eq!(look(&mut bench, &[(3, 7)]), [abort(3), spawn(4, 0, 1)]);
}

#[test]
fn a_worker_that_hangs_while_it_retires_is_aborted_and_its_successor_stays_the_only_one() {
    let mut bench = Bench::serving_with(Settings { start_timeout: Duration::from_hours(1), ..settings(2) });
    assert_eq!(bench.on(terminated(1)), [spawn(3, 0, 1)]);
    assert_eq!(look_for(&mut bench, HANG_TIMEOUT, &[1]), [abort(1)]);
    assert_eq!(bench.on(exited(1, 1)), []);
}

// Recycling

const LIMITS: Recycle = Recycle { requests: Some(100), memory: Some(1000), min_uptime: Duration::from_secs(30) };

fn recycling(workers: u16) -> Bench {
    Bench::serving_with(Settings { recycle: LIMITS, ..settings(workers) })
}

/// Looks once at workers that move: who has done what.
fn weigh(bench: &mut Bench, workers: &[(u64, u64, Option<u64>)]) -> (Vec<Action>, Vec<RecycleReason>) {
    let beat = Some(bench.now);
    let signs = |requests, memory| Signs { beat, requests, memory };
    let found = workers.iter().map(|&(worker, requests, memory)| (WorkerId(worker), signs(requests, memory)));
    let event = Event::Looked { found: found.collect() };
    let reasons = bench.clone().reports_on(event.clone()).into_iter().filter_map(|report| match report {
        Report::WorkerRecycled { why, .. } => Some(why),
        _ => None,
    });
    (bench.on(event), reasons.collect())
}

#[test]
fn a_worker_that_has_done_enough_retires_behind_its_successor() {
    let cases = [
        ((1, 100, None), RecycleReason::Requests { served: 100, limit: 100 }),
        ((1, 99, Some(1001)), RecycleReason::Memory { resident: 1001, limit: 1000 }),
    ];
    for (signs, reason) in cases {
        let mut bench = recycling(2);
        assert_eq!(bench.machine.check_interval(), Some(LOOK));
        bench.now += LIMITS.min_uptime;
        assert_eq!(weigh(&mut bench, &[(1, 99, Some(1000)), (2, 99, None)]), (vec![], vec![]));
        assert_eq!(weigh(&mut bench, &[(2, 0, None), signs]), (vec![spawn(3, 0, 1)], vec![reason]));
        assert_eq!(bench.state_of(1), Some(WorkerState::Retiring));
        assert_eq!(bench.machine.serving(), 2);
        assert_eq!(bench.on(ready(3)), [drain(1)]);
        assert_eq!(bench.on(exited(1, 0)), []);
        assert_eq!(bench.machine.serving(), 2);
    }
}

#[test]
fn workers_are_recycled_one_at_a_time_the_oldest_first() {
    let mut bench = recycling(3);
    bench.now += LIMITS.min_uptime;
    let enough = |workers: &[u64]| workers.iter().map(|worker| (*worker, 500, Some(5000))).collect::<Vec<_>>();
    assert_eq!(weigh(&mut bench, &enough(&[3, 2, 1])).0, [spawn(4, 0, 1)]);
    assert_eq!(weigh(&mut bench, &enough(&[1, 2, 3])).0, [], "the successor isn't ready");
    assert_eq!(bench.on(ready(4)), [drain(1)]);
    bench.now += LOOK;
    assert_eq!(weigh(&mut bench, &enough(&[1, 2, 3, 4])).0, [], "the predecessor hasn't gone");
    bench.on(exited(1, 0));
    assert_eq!(weigh(&mut bench, &enough(&[2, 3, 4])).0, [spawn(5, 1, 1)]);
}

#[test]
fn a_worker_that_has_enough_at_once_is_not_recycled_before_its_time() {
    let mut bench = recycling(2);
    let leaky = [(1, 0, Some(9999)), (2, 0, Some(9999))];
    bench.now += LIMITS.min_uptime.saturating_sub(ms(1));
    assert_eq!(weigh(&mut bench, &leaky).0, []);
    bench.now += ms(1);
    assert_eq!(weigh(&mut bench, &leaky).0, [spawn(3, 0, 1)]);
}

#[test]
fn a_worker_whose_slot_is_not_wanted_any_more_is_not_recycled() {
    let mut bench = recycling(2);
    bench.now += LIMITS.min_uptime;
    // Slot 0 waits for its next worker, and slot 1 is kept until then.
    bench.on(exited(1, 1));
    bench.on(exited(3, 1));
    bench.on(Event::Scale(Scale::To(1)));
    assert_eq!(bench.state_of(2), Some(WorkerState::Ready));
    assert_eq!(weigh(&mut bench, &[(2, 500, None)]).0, []);
    assert_eq!(bench.after(ms(100)), [spawn(4, 0, 1)]);
    assert_eq!(bench.on(ready(4)), [drain(2)]);
}

#[test]
fn a_successor_that_crashes_is_tried_again_while_the_old_one_serves() {
    let mut bench = recycling(2);
    bench.now += LIMITS.min_uptime;
    weigh(&mut bench, &[(1, 100, None)]);
    assert_eq!(bench.on(exited(3, 1)), [spawn(4, 0, 1)]);
    assert_eq!(bench.on(exited(4, 1)), []);
    assert_eq!(bench.after(ms(100)), [spawn(5, 0, 1)]);
    assert_eq!(bench.state_of(1), Some(WorkerState::Retiring));
    assert_eq!(bench.on(ready(5)), [drain(1)]);
}

#[test]
fn nobody_is_recycled_while_a_restart_is_in_flight_or_where_workers_can_not_share_the_databank() {
    let enough = [(1, 500, None), (2, 500, None)];
    let mut bench = recycling(2);
    bench.now += LIMITS.min_uptime;
    bench.on(request(1));
    assert_eq!(weigh(&mut bench, &enough).0, []);
    bench.on(passed(1, Settings { recycle: LIMITS, ..settings(2) }));
    assert_eq!(weigh(&mut bench, &enough).0, []);
    let mut alone = Bench::serving_with(Settings { recycle: LIMITS, databank_shared: false, ..settings(2) });
    alone.now += LIMITS.min_uptime;
    assert_eq!(weigh(&mut alone, &enough).0, []);
}

#[test]
fn a_restart_that_comes_while_a_worker_retires_replaces_it_too() {
    let mut bench = recycling(2);
    bench.now += LIMITS.min_uptime;
    weigh(&mut bench, &[(1, 100, None)]);
    bench.on(request(1));
    let candidate = Settings { probation: Duration::ZERO, ..settings(2) };
    bench.on(passed(1, candidate));
    bench.on(ready(3));
    assert_eq!(bench.on(ready(4)), [spawn(5, 1, 2), drain(1), drain(3)]);
    assert_eq!(bench.on(ready(5)), [drain(2)]);
    for worker in [1, 2] {
        bench.on(exited(worker, 0));
    }
    assert_eq!(bench.on(exited(3, 0)).last(), Some(&verdict(1, Verdict::Complete { unchanged: false, draining: 0 })));
    assert_eq!(bench.machine.check_interval(), Some(LOOK));
}
