//! Crashes, and the back-off of their slots.

use super::*;

#[test]
fn a_crash_loop_backs_off_and_the_others_serve_on() {
    // FAULTS 17
    let mut bench = Bench::serving(2);
    let mut worker = 2;
    for pause in [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
        let at_once = bench.on(exited(worker, 1));
        worker += 1;
        let respawn = [spawn(worker, 1, 1)];
        if pause == 0 {
            assert_eq!(at_once, respawn);
        } else {
            assert_eq!(at_once, []);
            assert_eq!(bench.until_deadline(), Some(ms(pause)));
            assert_eq!(bench.after(ms(pause - 1)), []);
            assert_eq!(bench.after(ms(1)), respawn);
        }
        bench.on(ready(worker));
        assert_eq!(bench.machine.serving(), 2);
    }
}

#[test]
fn a_worker_that_was_ready_for_ten_seconds_ends_the_series_of_crashes() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    bench.on(ready(3));
    bench.after(ms(9_999));
    assert_eq!(bench.on(exited(3, 1)), [], "ready for too short a time");
    bench.after(ms(100));
    bench.on(ready(4));
    bench.after(ms(10_000));
    assert_eq!(bench.on(exited(4, 1)), [spawn(5, 1, 1)]);
}

#[test]
fn slots_back_off_each_for_itself() {
    let mut bench = Bench::serving(2);
    assert_eq!(bench.on(exited(2, 1)), [spawn(3, 1, 1)]);
    assert_eq!(bench.on(exited(3, 1)), []);
    assert_eq!(bench.on(exited(1, 1)), [spawn(4, 0, 1)]);
}

#[test]
fn a_respawn_that_is_not_ready_in_time_or_cannot_be_spawned_counts_as_a_crash() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    let expected = [kill(3, KillReason::NotReadyInTime)];
    assert_eq!(bench.after(START_TIMEOUT), expected);
    assert_eq!(bench.on(exited(3, 9)), []);
    assert_eq!(bench.after(ms(100)), [spawn(4, 1, 1)]);
    assert_eq!(bench.on(spawn_failed(4)), []);
    assert_eq!(bench.after(ms(200)), [spawn(5, 1, 1)]);
    assert_eq!(bench.on(cannot_listen(5)), []);
    assert_eq!(bench.on(exited(5, 1)), []);
    assert_eq!(bench.after(ms(400)), [spawn(6, 1, 1)]);
    assert_eq!(bench.machine.phase(), Phase::Serving);
}

#[test]
fn respawns_go_on_during_a_preflight() {
    let mut bench = Bench::serving(2);
    bench.on(exited(2, 1));
    bench.on(request(1));
    assert_eq!(bench.on(exited(3, 1)), []);
    assert_eq!(bench.after(ms(100)), [spawn(4, 1, 1)]);
    assert_eq!(bench.machine.phase(), Phase::Preflight);
}

#[test]
fn a_single_worker_is_respawned_as_well() {
    let mut bench = Bench::serving(1);
    assert_eq!(bench.on(exited(1, 1)), [spawn(2, 0, 1)]);
}
