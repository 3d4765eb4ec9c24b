//! Clients that owe something in a drain, and those that don't.

use app_host_core::refused::Refused as Reason;

use super::bench::*;
use super::*;

/// What happens in a situation.
type Does = fn(&Bench);

/// Only a client that owes something is stalled: it doesn't read, or the app waits for its body, or HTTP/2 has no room for
/// any of its responses.
#[test]
fn a_client_that_owes_something_and_moves_nothing_is_cut_off_in_a_drain_and_no_other_is() {
    let blocks = |bench: &Bench| bench.state.on_write_blocked(true);
    let untaken = |bench: &Bench| bench.state.on_untaken(true);
    let takes = |bench: &Bench| {
        bench.state.on_untaken(true);
        bench.state.on_untaken(false);
    };
    let second_stream = |bench: &Bench| {
        bench.state.on_untaken(true);
        bench.state.on_request(Some(0));
    };
    let nothing = |_: &Bench| {};
    let rows: [(Situation, Does, bool); 10] = [
        (InFlight, nothing, false),
        (InFlight, blocks, true),
        (InFlight, untaken, true),
        (InFlight, takes, false),
        (Upload, nothing, true),
        (Unflushed, blocks, true),
        (Streams, nothing, false),
        (Streams, untaken, true),
        // The app computes the other's response.
        (Streams, second_stream, false),
        // The silence of a tunnel says nothing.
        (Carried, blocks, false),
    ];
    for (number, (situation, does, stalls)) in rows.into_iter().enumerate() {
        for ending in [Ending::Close, Ending::HandOver] {
            let mut bench = bench(situation);
            does(&bench);
            bench.drain(ending);
            let mut waits = bench.now;
            let found = loop {
                let after = waits - bench.now;
                match bench.check(after) {
                    Next::WaitUntil(at) if at <= bench.now + Limits::TEST.stall && waits < at => waits = at,
                    // Its client is told to go elsewhere, at the linger's end.
                    Next::ShutDown if situation == Streams => {}
                    Next::Refuse(Reason::Stalled) => break Some(after),
                    other => panic!("row {number}: {other:?}"),
                }
                if bench.timeouts.due() < bench.now {
                    break None;
                }
            };
            assert_eq!(found.is_some(), stalls, "row {number}");
            assert_eq!(bench.state.is_cut() && bench.state.is_dismissed(), stalls, "row {number}");
        }
    }
}

/// Each byte gives it the whole time again, and no byte sets a timer.
#[test]
fn a_client_that_goes_on_slowly_is_waited_for_in_a_drain() {
    let mut bench = bench(Upload);
    bench.drain(Ending::Close);
    let (mut timer, stall) = (bench.now, Limits::TEST.stall);
    for step in 0..200 {
        match bench.check(SECOND / 10) {
            Next::WaitUntil(at) if bench.now < timer => assert!(at == timer || step < 50, "{step}: a timer for a byte"),
            Next::WaitUntil(at) => timer = at,
            other => panic!("{step}: {other:?}"),
        }
        bench.state.on_read(Found::Bytes(0));
        bench.gets(b"x");
        bench.waits();
    }
    let mut next = bench.check(Duration::ZERO);
    let began = bench.now;
    while let Next::WaitUntil(at) = next {
        next = bench.check(at - bench.now);
    }
    assert_eq!((next, bench.now - began), (Next::Refuse(Reason::Stalled), stall));
}
