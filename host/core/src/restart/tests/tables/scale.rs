//! More and fewer workers.

use super::*;

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
