//! Requests, the gate and the preflight.

use super::*;

#[test]
fn what_is_active_already_is_unchanged_for_the_watcher_alone() {
    for (by, is_refused) in [(By::Watcher, true), (By::Signal, false)] {
        for unchanged in [true, false] {
            let mut bench = Bench::serving(2);
            let request = RequestId(1);
            assert_eq!(bench.on(Event::Request { request, by }), [Action::Preflight { request }]);
            let actions = bench.on(Event::PreflightPassed { request, settings: settings(2), unchanged });
            let refused = verdict(1, Verdict::Refused(Refusal::Unchanged));
            assert_eq!(actions == [refused], is_refused && unchanged, "{by}: {actions:?}");
            let phase = if is_refused && unchanged { Phase::Serving } else { Phase::Rolling };
            assert_eq!(bench.machine.phase(), phase, "{by}");
        }
    }
}

#[test]
fn a_restart_into_what_is_active_already_is_complete_and_says_that_nothing_has_changed() {
    for unchanged in [true, false] {
        let mut bench = Bench::serving(2);
        let request = RequestId(1);
        bench.on(Event::Request { request, by: By::Signal });
        bench.on(Event::PreflightPassed { request, settings: settings(2), unchanged });
        bench.on(ready(3));
        bench.after(settings(2).probation);
        bench.on(ready(4));
        bench.on(exited(1, 0));
        assert_eq!(bench.on(exited(2, 0)).last(), Some(&verdict(1, Verdict::Complete { unchanged, draining: 0 })));
    }
}

#[test]
fn a_second_request_is_refused_while_one_is_in_flight() {
    // FAULTS 1
    let in_flight = |number| [verdict(number, Verdict::Refused(Refusal::RestartInFlight))];
    let mut bench = Bench::serving(2);
    let preflight = Action::Preflight { request: RequestId(1) };
    assert_eq!(bench.on(request(1)), [preflight]);
    assert_eq!(bench.on(request(2)), in_flight(2));
    bench.on(passed(1, settings(2)));
    assert_eq!(bench.on(request(3)), in_flight(3));
    bench.on(ready(3));
    bench.after(PROBATION);
    bench.on(ready(4));
    bench.on(exited(1, 0));
    assert_eq!(bench.on(request(4)), in_flight(4));
    assert_eq!(bench.on(exited(2, 0)), complete(1, 1, 2));
}

#[test]
fn each_phase_refuses_with_its_own_reason() {
    let locked_with_one_worker = {
        let mut bench = Bench::locked();
        bench.on(exited(1, 1));
        bench
    };
    let cases = [
        (Bench::new(1), Refusal::Starting),
        (Bench::serving(1), Refusal::NoWorkers),
        (Bench::rolling(2, settings(2)), Refusal::RestartInFlight),
        (locked_with_one_worker, Refusal::AbortedRestart),
        (Bench::stopping(), Refusal::Stopping),
    ];
    for (mut bench, refusal) in cases {
        let before = bench.machine.clone();
        let expected = [verdict(7, Verdict::Refused(refusal))];
        assert_eq!(bench.on(request(7)), expected);
        assert_eq!(bench.machine, before, "a refusal changes nothing");
    }
}

#[test]
fn a_refused_preflight_touches_nothing_and_the_next_request_may_come() {
    let mut bench = Bench::serving(2);
    let before = bench.machine.clone();
    bench.on(request(1));
    let refusal = Refusal::BadConfig("app-host.json:3:5: unknown key".to_owned());
    let expected = [verdict(1, Verdict::Refused(refusal.clone()))];
    assert_eq!(bench.on(refused(1, refusal)), expected);
    assert_eq!(bench.machine, before);
    let preflight = Action::Preflight { request: RequestId(2) };
    assert_eq!(bench.on(request(2)), [preflight]);
}

#[test]
fn a_databank_that_cannot_be_shared_is_refused_active_or_configured() {
    let alone = Settings { databank_shared: false, ..settings(2) };
    let mut bench = Bench::with(alone);
    bench.on(Event::Begin);
    bench.on(ready(1));
    bench.on(ready(2));
    let is_bad_driver = |actions: &[Action]| {
        let [Action::Verdict { verdict: Verdict::Refused(refusal), .. }] = actions else { return false };
        refusal.reason() == "bad driver"
    };
    assert!(is_bad_driver(&bench.on(request(1))));
    let mut bench = Bench::serving(2);
    bench.on(request(1));
    assert!(is_bad_driver(&bench.on(passed(1, alone))));
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn one_worker_is_enough_where_it_hands_on_what_it_has() {
    let single = |workers| Settings { single: true, ..settings(workers) };
    let mut bench = Bench::serving_with(single(1));
    assert_eq!(bench.on(request(1)), [Action::Preflight { request: RequestId(1) }]);
    // The configuration that comes decides, too.
    assert_eq!(bench.on(passed(1, settings(1))), [verdict(1, Verdict::Refused(Refusal::NoWorkers))]);
    bench.on(request(2));
    bench.on(passed(2, single(1)));
    bench.on(ready(2));
    assert_eq!(bench.after(PROBATION), [drain(1)]);

    let mut none = Bench::serving(2);
    none.on(request(1));
    assert_eq!(none.on(passed(1, single(0))), [verdict(1, Verdict::Refused(Refusal::NoWorkers))]);
}

#[test]
fn a_candidate_with_fewer_than_two_workers_is_refused() {
    for workers in [0, 1] {
        let mut bench = Bench::serving(2);
        bench.on(request(1));
        let expected = [verdict(1, Verdict::Refused(Refusal::NoWorkers))];
        assert_eq!(bench.on(passed(1, settings(workers))), expected);
        assert_eq!(bench.machine.phase(), Phase::Serving);
    }
}

#[test]
fn answers_of_another_preflight_are_ignored() {
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(passed(1, settings(2))), []);
    bench.on(request(2));
    assert_eq!(bench.on(passed(1, settings(2))), []);
    assert_eq!(bench.on(refused(1, Refusal::BadArtifact(String::new()))), []);
    assert_eq!(bench.machine.phase(), Phase::Preflight);
    bench.on(passed(2, settings(2)));
    let before = bench.machine.clone();
    assert_eq!(bench.on(passed(2, settings(2))), []);
    assert_eq!(bench.machine, before);
}
