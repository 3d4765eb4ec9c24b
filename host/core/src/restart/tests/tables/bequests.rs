//! What an app keeps in memory: who leaves it to whom, and who waits for that.

use super::*;

const STATE_TIMEOUT: Duration = Duration::from_secs(5);
/// Until when the machine waits, and when it doesn't any more.
const ALMOST: Duration = Duration::from_millis(5249);
const OVERDUE: Duration = Duration::from_millis(5250);

fn keeping(workers: u16) -> Settings {
    Settings { state_timeout: Some(STATE_TIMEOUT), ..settings(workers) }
}

/// Two workers serve, and the first candidate worker, 3, has passed its probation: worker 1 is told to leave it something.
fn leaving(of: Settings) -> Bench {
    let mut bench = Bench::serving_with(of);
    bench.on(request(1));
    bench.on(passed(1, of));
    bench.on(ready(3));
    assert_eq!(bench.after(PROBATION), [spawn(4, 1, 2), hand_on(1, 3)]);
    bench
}

#[test]
fn a_worker_drains_when_it_has_handed_on_what_it_has() {
    let mut bench = leaving(keeping(2));
    assert_eq!(bench.on(ready(4)), [hand_on(2, 4)], "each slot by itself");
    assert_eq!(bench.on(handed_on(2, 4)), [drain(2)]);
    assert_eq!(bench.on(handed_on(1, 3)), [drain(1)]);
    bench.on(exited(1, 0));
    assert_eq!(bench.on(exited(2, 0)), complete(1, 1, 2));
}

#[test]
fn one_that_is_late_drains_all_the_same_and_what_others_say_changes_nothing() {
    let mut bench = leaving(keeping(2));
    for stale in [handed_on(2, 3), handed_on(1, 4), handed_on(3, 1), handed_on(9, 3)] {
        assert_eq!(bench.on(stale), []);
    }
    assert_eq!(bench.after(ALMOST), []);
    assert_eq!(bench.after(ms(1)), [drain(1)]);
    assert_eq!(bench.on(handed_on(1, 3)), [], "too late");
}

#[test]
fn nobody_waits_where_there_is_nothing_to_leave_or_nobody_who_takes_it() {
    // The configuration that comes says that nothing is inherited.
    let mut none = Bench::serving_with(keeping(2));
    none.on(request(1));
    none.on(passed(1, settings(2)));
    none.on(ready(3));
    assert_eq!(none.after(PROBATION), [spawn(4, 1, 2), drain(1)]);
    // An app can't, the old one or the new one.
    let plain = |worker| Event::Ready { worker: WorkerId(worker), keeps_state: false };
    for (old, new) in [(plain(1), ready(3)), (ready(1), plain(3))] {
        let mut bench = Bench::with(keeping(2));
        bench.on(Event::Begin);
        bench.on(old);
        bench.on(ready(2));
        bench.on(request(1));
        bench.on(passed(1, keeping(2)));
        bench.on(new);
        assert_eq!(bench.after(PROBATION), [spawn(4, 1, 2), drain(1)]);
    }
}

#[test]
fn an_heir_that_dies_of_it_leaves_the_one_before_it_serving() {
    for on_failure in [OnFailure::Lock, OnFailure::Rollback] {
        let one = Settings { single: true, on_failure, ..keeping(1) };
        let mut bench = Bench::serving_with(one);
        bench.on(request(1));
        bench.on(passed(1, one));
        bench.on(ready(2));
        assert_eq!(bench.after(PROBATION), [hand_on(1, 2)]);
        let died = bench.on(exited(2, 1));
        assert!(!died.contains(&drain(1)), "{died:?}");
        assert_eq!(bench.on(handed_on(1, 2)), []);
        bench.after(OVERDUE);
        assert_eq!(bench.machine.serving(), 1);
        if on_failure == OnFailure::Rollback {
            // The next one is left it anew.
            bench.on(request(2));
            bench.on(passed(2, one));
            bench.on(ready(3));
            assert_eq!(bench.after(PROBATION), [hand_on(1, 3)]);
            assert_eq!(bench.on(handed_on(1, 3)), [drain(1)]);
        }
    }
}

#[test]
fn a_failed_candidate_gives_back_what_it_has_to_who_comes_in_its_place() {
    let mut bench = leaving(Settings { on_failure: OnFailure::Rollback, ..keeping(2) });
    bench.on(handed_on(1, 3));
    bench.on(exited(4, 1));
    assert_eq!(bench.on(ready(5)), [hand_on(3, 5)]);
    assert_eq!(bench.on(handed_on(3, 5)), [drain(3)]);
    // Where the one before it has never gone, that one has it still.
    let mut early = leaving(Settings { on_failure: OnFailure::Rollback, ..keeping(2) });
    assert_eq!(early.on(exited(4, 1)), [quarantine(died(1, 1)), drain(3)]);
}

#[test]
fn a_stop_waits_for_nobody_and_a_crash_leaves_nothing() {
    let mut bench = leaving(keeping(2));
    let stopped = bench.on(Event::Stop);
    assert!(stopped.contains(&last_drain(1)) && stopped.contains(&last_drain(3)), "{stopped:?}");
    assert_eq!(bench.on(handed_on(1, 3)), []);

    let mut crash = Bench::serving_with(keeping(2));
    crash.on(exited(1, 1));
    assert_eq!(crash.on(ready(3)), []);
}

#[test]
fn of_two_before_it_an_heir_takes_what_the_older_has() {
    // Worker 1 was told to end, and worker 3 has come for it, when a roll begins.
    let mut bench = Bench::serving_with(keeping(2));
    bench.on(request(1));
    bench.on(terminated(1));
    bench.on(passed(1, keeping(2)));
    bench.on(ready(3));
    bench.on(handed_on(1, 3));
    bench.on(ready(4));
    let told: Vec<_> = bench.after(PROBATION).into_iter().filter(|it| matches!(it, Action::HandOn { .. })).collect();
    assert_eq!(told, [hand_on(1, 4)]);

    // Where a roll fails while worker 1, which was told to end, still leaves to the candidate.
    let mut back = leaving(Settings { on_failure: OnFailure::Rollback, ..keeping(2) });
    back.on(terminated(1));
    back.on(exited(4, 1));
    let told: Vec<_> = [ready(5), ready(6)].into_iter().flat_map(|event| back.on(event)).collect();
    assert_eq!(told.iter().find(|it| matches!(it, Action::HandOn { .. })), Some(&hand_on(1, 5)), "{told:?}");
}

#[test]
fn a_worker_that_is_to_go_and_whose_heir_died_of_it_leaves_nothing_to_the_next() {
    let mut bench = Bench::serving_with(keeping(2));
    bench.on(terminated(1));
    assert_eq!(bench.on(ready(3)), [hand_on(1, 3)]);
    bench.on(exited(3, 1));
    bench.after(ms(60_000));
    assert_eq!(bench.on(ready(4)), [drain(1)]);
}

#[test]
fn a_recycled_worker_leaves_what_it_has_unless_that_is_why() {
    let limits = Recycle { requests: Some(10), memory: Some(1000), min_uptime: Duration::ZERO };
    for (signs, expected) in [
        (Signs { beat: None, requests: 10, memory: Some(1) }, vec![hand_on(1, 3)]),
        (Signs { beat: None, requests: 1, memory: Some(1001) }, vec![drain(1)]),
    ] {
        let mut bench = Bench::serving_with(Settings { recycle: limits, ..keeping(2) });
        assert_eq!(bench.on(Event::Looked { found: vec![(WorkerId(1), signs)] }), [spawn(3, 0, 1)]);
        assert_eq!(bench.on(ready(3)), expected);
    }
}
