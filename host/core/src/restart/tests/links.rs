//! Who hands its connections over to whom, and who has too many.

use super::super::{Machine, Shift, evened_out};
use super::*;

const fn pair(from: u64, to: u64) -> (WorkerId, WorkerId) {
    (WorkerId(from), WorkerId(to))
}

const fn at_once(workers: u16, on_failure: OnFailure) -> Settings {
    Settings { probation: Duration::ZERO, on_failure, ..settings(workers) }
}

/// A machine whose first workers are ready, after these events.
fn after(settings: Settings, events: &[Event]) -> Machine {
    let mut machine = Machine::new(settings);
    machine.handle(Event::Begin, ms(0));
    let first = (1..=u64::from(settings.workers)).flat_map(|worker| [spawned(worker), ready(worker)]);
    for event in first.chain(events.iter().cloned()) {
        machine.handle(event, ms(1));
    }
    machine
}

fn rolling(workers: u16, on_failure: OnFailure, events: &[Event]) -> Machine {
    let settings = at_once(workers, on_failure);
    after(settings, &[&[request(1), passed(1, settings)], events].concat())
}

#[test]
fn old_workers_give_to_candidates_alone_and_to_each_as_it_becomes_ready() {
    let mut machine = rolling(2, OnFailure::Lock, &[spawned(3)]);
    assert_eq!(machine.links(), []);
    machine.handle(ready(3), ms(100));
    assert_eq!(machine.links(), [pair(1, 3)]);
    machine.handle(spawned(4), ms(101));
    machine.handle(ready(4), ms(102));
    assert_eq!(machine.links(), [pair(1, 3), pair(1, 4), pair(2, 4), pair(2, 3)]);
    machine.handle(exited(1, 0), ms(103));
    assert_eq!(machine.links(), [pair(2, 4), pair(2, 3)]);
    machine.handle(exited(2, 0), ms(104));
    assert_eq!(machine.links(), []);
}

#[test]
fn what_a_failed_candidate_had_goes_back_to_the_active_generation() {
    let events = [spawned(3), ready(3), spawned(4), exited(4, 1)];
    let mut machine = rolling(2, OnFailure::Rollback, &events);
    // Worker 1 drains already, and its candidate is ready for as long as no other is.
    assert_eq!(machine.links(), [pair(1, 2)]);
    machine.handle(spawned(5), ms(200));
    machine.handle(ready(5), ms(201));
    assert_eq!(machine.links(), [pair(1, 5), pair(1, 2), pair(3, 5), pair(3, 2)]);
}

#[test]
fn in_a_locked_master_whoever_serves_takes() {
    let mut machine = rolling(3, OnFailure::Lock, &[spawned(4), ready(4), exited(4, 1)]);
    assert!(machine.is_locked());
    assert_eq!(machine.links(), [pair(1, 2), pair(1, 3)]);
    machine.handle(terminated(2), ms(100));
    assert_eq!(machine.links(), [pair(1, 3), pair(2, 3)]);
}

#[test]
fn nobody_takes_when_the_service_stops() {
    let mut machine = rolling(2, OnFailure::Lock, &[spawned(3), ready(3)]);
    assert!(!machine.links().is_empty());
    machine.handle(Event::Stop, ms(100));
    assert_eq!(machine.links(), []);
}

#[test]
fn many_workers_need_few_links_each_and_spread_them() {
    let mut machine = after(at_once(40, OnFailure::Lock), &[terminated(39)]);
    machine.handle(Event::Tick, ms(5000));
    machine.handle(ready(41), ms(5001));
    let expected: Vec<_> = [41, 40, 1, 2, 3, 4, 5, 6].map(|to| pair(39, to)).into();
    assert_eq!(machine.links(), expected);
}

#[test]
fn workers_are_peers_while_none_comes_or_goes() {
    let mut machine = after(at_once(2, OnFailure::Lock), &[]);
    assert_eq!(machine.peers().collect::<Vec<_>>(), [WorkerId(1), WorkerId(2)]);
    machine.handle(exited(2, 1), ms(100));
    machine.handle(Event::Tick, ms(5000));
    assert_eq!(machine.peers().count(), 0, "the successor isn't ready");
    let machine = rolling(2, OnFailure::Lock, &[]);
    assert_eq!(machine.peers().count(), 0);
}

#[test]
fn a_large_difference_is_halved_and_a_small_one_stays() {
    let held = |counts: &[u64]| -> Vec<_> { (0..).map(WorkerId).zip(counts.iter().copied()).collect() };
    let shift = |from, to, connections| Some(Shift { from: WorkerId(from), to: WorkerId(to), connections });
    for (counts, expected) in [
        (&[][..], None),
        (&[5], None),
        (&[31, 0], None),
        (&[32, 0], shift(0, 1, 16)),
        (&[100, 350, 110], shift(1, 0, 125)),
        (&[1000, 760], None),
        (&[1000, 750], shift(0, 1, 125)),
        (&[0, 100_000], shift(1, 0, 1024)),
    ] {
        assert_eq!(evened_out(&held(counts)), expected, "{counts:?}");
    }
    // It comes to rest.
    let mut counts = vec![3, 17, 900, 5000, 0];
    let mut steps = 0;
    while let Some(Shift { from, to, connections }) = evened_out(&held(&counts)) {
        counts[usize::try_from(from.0).unwrap()] -= connections;
        counts[usize::try_from(to.0).unwrap()] += connections;
        steps += 1;
    }
    assert!(steps < 50 && counts.iter().sum::<u64>() == 5920, "{steps} {counts:?}");
}
