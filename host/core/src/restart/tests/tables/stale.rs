//! Messages and timers that come late, early or from nobody.

use super::*;

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
