//! What is decided in each phase, for each situation that a connection may be in.

use app_host_core::refused::Refused as Reason;

use super::bench::*;
use super::*;

#[test]
fn before_its_protocol_is_known_a_connection_leaves_or_is_closed_by_the_phase_and_the_time() {
    let start = Instant::now();
    let late = start + 30 * SECOND;
    let drain = |after: u32, ending| Phase::Draining { since: start + after * SECOND, linger: LINGER, ending };
    // The phase, what comes of it at once, until when is waited after 1 s, and what the end of that is.
    for (phase, at_once, until, end) in [
        (Phase::Serving, None, 30, Early::Late),
        (drain(0, Ending::HandOver), Some(Early::Leaves), 30, Early::Late),
        (drain(0, Ending::Close), None, 5, Early::Dismissed),
        (drain(28, Ending::Close), None, 30, Early::Late),
        (Phase::Cut, Some(Early::Dismissed), 30, Early::Late),
    ] {
        let mut first = FirstBytes::new(late);
        assert_eq!(first.on_phase(phase), at_once, "{phase:?}");
        let until = start + until * SECOND;
        assert_eq!(first.on_timer(start + SECOND), Ok(until), "{phase:?}");
        assert_eq!(first.on_timer(until), Err(end), "{phase:?}");
    }
}

#[test]
fn a_connection_that_serves_reads_on_and_announces_nothing_wherever_it_is() {
    for situation in ALL {
        let mut bench = bench(situation);
        let may_leave = matches!(situation, Idle | HalfHead | LongHead | Refused | Lost);
        assert_eq!(bench.phase(Phase::Serving), Order::DriveOn, "one that has just come stays");
        let order = if may_leave { Order::MayInvite } else { Order::DriveOn };
        // One that has a response for HTTP to write is idle for the moment; it leaves behind it.
        let order = if situation == Unwritten { Order::MayInvite } else { order };
        assert_eq!(bench.phase(Phase::Serving), order, "{situation:?}");
        assert_eq!(bench.state.on_read_wanted(), Read::On, "{situation:?}");
        assert!(!bench.state.on_response(), "{situation:?}");
    }
}

#[test]
fn a_connection_that_serves_is_parked_closed_and_dropped_by_what_it_waits_for() {
    // What comes of the first looks: `w`ait, `m`easure, `p`ark, `s`hut down, `d`rop, refuse for the `h`ead or the `b`ody.
    let rows = [
        (New, "d"),
        (FirstHead, "h"),
        (Idle, "wpps"),
        (HalfHead, "wh"),
        (LongHead, "wh"),
        (InFlight, "wwwwwwww"),
        (Pipelined, "wwwwwwww"),
        (Upload, "mb"),
        // Nothing of a further request, but it can't leave either.
        (Refused, "wwws"),
        (Unflushed, "wwwwwwww"),
        (Unwritten, "wpps"),
        (Lost, "wwws"),
        (Carried, "wwwwwwww"),
        (Http2, "sd"),
        (Streams, "wwwwwwww"),
    ];
    for (situation, mut bench, expected) in each(rows) {
        assert!(bench.timeouts.must_be_checked(&bench.state, true), "{situation:?}");
        assert!(!bench.timeouts.must_be_checked(&bench.state, false), "{situation:?}");
        let found: String = (0..expected.len())
            .map(|_| match bench.check(HEAD_TIMEOUT) {
                Next::WaitUntil(at) if at == bench.now + HEAD_TIMEOUT => 'w',
                Next::WaitUntil(at) if at == bench.now + Limits::TEST.http.min_rate_grace => 'm',
                Next::Leave(at) if at == bench.now + HEAD_TIMEOUT => 'p',
                Next::ShutDown => 's',
                Next::Drop => 'd',
                Next::Refuse(Reason::HeadTimedOut) => 'h',
                Next::Refuse(Reason::BodyTimedOut) => 'b',
                other => panic!("{situation:?}: {other:?}"),
            })
            .collect();
        assert_eq!(found, expected, "{situation:?}");
        let parks = expected.contains('p');
        assert_eq!(bench.state.goal.get() == Goal::Park, parks, "{situation:?}");
        assert!(!bench.state.is_dismissed(), "{situation:?}: it is no drain that ends it");
    }
}

#[test]
fn a_drain_with_a_transfer_suspends_what_is_between_two_requests() {
    // What a read comes to, whether a flush wakes the connection for another, and what that comes to.
    let rows = [
        (New, (Read::End, None)),
        (FirstHead, (Read::End, None)),
        (Idle, (Read::End, None)),
        (HalfHead, (Read::End, None)),
        (LongHead, (Read::On, Some((false, Read::On)))),
        (InFlight, (Read::On, Some((false, Read::On)))),
        (Pipelined, (Read::On, Some((false, Read::On)))),
        (Upload, (Read::On, Some((false, Read::On)))),
        (Refused, (Read::On, Some((false, Read::On)))),
        (Unflushed, (Read::Wait, Some((true, Read::End)))),
        (Unwritten, (Read::Wait, Some((true, Read::End)))),
        (Lost, (Read::On, Some((false, Read::On)))),
        (Carried, (Read::On, Some((false, Read::On)))),
        (Http2, (Read::On, Some((false, Read::On)))),
        (Streams, (Read::On, Some((false, Read::On)))),
    ];
    for (situation, mut bench, (read, flushed)) in each(rows) {
        let order = if situation == Http2 { Order::ShutDown } else { Order::DriveOn };
        assert_eq!(bench.drain(Ending::HandOver), order, "{situation:?}");
        assert_eq!(bench.drain(Ending::HandOver), Order::DriveOn, "{situation:?}: a phase that is not new");
        assert_eq!(bench.state.on_read_wanted(), read, "{situation:?}");
        match flushed {
            // It is the one way out.
            None => {
                assert_eq!(bench.state.on_shutdown(), Shutdown::Leave, "{situation:?}");
                let head = bench.state.framing().unfinished_head().unwrap();
                for finish in [Finish::Done, Finish::Failed] {
                    assert_eq!(bench.state.on_end(finish), Exit::Leave { to: Goal::Move, head }, "{situation:?}");
                }
                assert_eq!(bench.state.on_end(Finish::GivenUp), Exit::Close);
            }
            Some((wakes, then)) => {
                assert_eq!(bench.flushes(), wakes, "{situation:?}");
                assert_eq!(bench.state.on_read_wanted(), then, "{situation:?}");
            }
        }
    }
}

/// HTTP that was told to wait registers no waker, so the flush alone wakes it, whatever has happened since the read.
#[test]
fn a_flush_wakes_a_connection_whose_read_was_held() {
    // Whether the response had gone out in full once and more was written behind it, whether HTTP has wanted to read,
    // how the drain changes after that, whether the flush wakes the connection, and what its next read comes to.
    let rows = [
        (false, true, None, true, Read::End),
        (false, true, Some(Ending::Close), true, Read::On),
        (true, true, None, true, Read::End),
        (true, true, Some(Ending::Close), true, Read::On),
        // Without a held read, only a response that has gone out makes a difference, to a connection that leaves.
        (false, false, None, true, Read::End),
        (false, false, Some(Ending::Close), false, Read::On),
        (true, false, None, false, Read::End),
        (true, false, Some(Ending::Close), false, Read::On),
    ];
    for (flushed_before, held, change, wakes, then) in rows {
        let row = format!("{flushed_before} {held} {change:?}");
        let mut bench = bench(Unflushed);
        if flushed_before {
            bench.flushes();
            bench.state.on_write();
        }
        bench.drain(Ending::HandOver);
        if held {
            assert_eq!(bench.state.on_read_wanted(), Read::Wait, "{row}");
        }
        if let Some(ending) = change {
            bench.drain(ending);
        }
        assert_eq!(bench.flushes(), wakes, "{row}");
        assert!(!bench.flushes(), "{row}: once");
        assert_eq!(bench.state.on_read_wanted(), then, "{row}");
    }
}

#[test]
fn a_busy_connection_leaves_behind_its_response_and_announces_no_close() {
    let mut bench = bench(InFlight);
    bench.drain(Ending::HandOver);
    assert_eq!(bench.check(LINGER * 3), Next::WaitUntil(bench.now + Limits::TEST.stall));
    assert!(!bench.state.on_response(), "another worker goes on with it");
    bench.state.on_response_end();
    bench.state.on_write();
    assert_eq!(bench.state.on_read_wanted(), Read::Wait);
    assert!(bench.flushes());
    assert_eq!(bench.state.on_read_wanted(), Read::End);
}

#[test]
fn what_http_has_been_told_is_not_taken_back_by_a_drain_that_closes() {
    let mut bench = bench(Idle);
    bench.drain(Ending::HandOver);
    assert_eq!(bench.state.on_read_wanted(), Read::End);
    bench.drain(Ending::Close);
    assert_eq!(bench.state.on_shutdown(), Shutdown::Leave);
    assert_eq!(bench.state.on_end(Finish::Done), Exit::Leave { to: Goal::Move, head: 0 });
}

#[test]
fn a_drain_that_closes_announces_it_where_no_further_request_is_known_and_then_everywhere() {
    // Whether a response says so, at once and after the linger; HTTP/2 says so otherwise.
    let rows = [
        (New, (true, true)),
        (FirstHead, (false, true)),
        (Idle, (true, true)),
        (HalfHead, (false, true)),
        (LongHead, (false, true)),
        (InFlight, (true, true)),
        (Pipelined, (false, true)),
        (Upload, (true, true)),
        (Refused, (true, true)),
        (Unflushed, (true, true)),
        (Unwritten, (true, true)),
        (Lost, (false, true)),
        (Carried, (true, true)),
        (Http2, (false, false)),
        (Streams, (false, false)),
    ];
    for (situation, mut bench, (at_once, later)) in each(rows) {
        // With a stream open, it is held back.
        let order = if situation == Http2 { Order::ShutDown } else { Order::DriveOn };
        assert_eq!(bench.drain(Ending::Close), order, "{situation:?}");
        assert_eq!(bench.state.on_read_wanted(), Read::On, "{situation:?}");
        assert_eq!(bench.state.on_response(), at_once, "{situation:?}");
        assert_eq!(bench.state.is_dismissed(), at_once || order == Order::ShutDown, "{situation:?}");
        bench.check(LINGER);
        assert_eq!(bench.state.on_response(), later, "{situation:?}");
    }
}

#[test]
fn a_drain_ends_an_idle_connection_after_its_linger_and_never_a_busy_one() {
    for ending in [Ending::Close, Ending::HandOver] {
        for situation in ALL {
            let mut bench = bench(situation);
            bench.drain(ending);
            let ends = bench.now + LINGER;
            assert_eq!(bench.check(Duration::ZERO), Next::WaitUntil(ends), "{situation:?}");
            let busy = matches!(situation, InFlight | Pipelined | Upload | Unflushed | Carried | Streams);
            let found = [bench.check(LINGER), bench.check(Duration::ZERO)];
            let again = Next::WaitUntil(bench.now + Limits::TEST.stall);
            let expected = match situation {
                // The app waits for more of its body.
                Upload => [Next::Refuse(Reason::Stalled); 2],
                Streams => [Next::ShutDown, again],
                _ if busy => [again; 2],
                _ => [Next::ShutDown, Next::Drop],
            };
            assert_eq!(found, expected, "{situation:?}");
        }
    }
}

/// What a client that is refused would take for a part of a response is not sent.
#[test]
fn a_client_is_answered_that_waits_for_a_response_of_which_nothing_was_sent() {
    for situation in ALL {
        let bench = bench(situation);
        let may = !matches!(situation, Unflushed | Unwritten | Carried | Http2 | Streams);
        if situation != Unwritten {
            assert_eq!(bench.state.may_be_answered(), may, "{situation:?}");
        }
        if bench.state.in_flight() > 0 && situation != Carried {
            bench.state.on_response();
            assert!(!bench.state.may_be_answered(), "{situation:?}: its response has begun");
        }
    }
    let closing = bench(HalfHead);
    closing.state.on_shutdown();
    assert!(!closing.state.may_be_answered());
}

#[test]
fn a_connection_that_becomes_idle_late_in_a_drain_has_its_linger_still() {
    let mut bench = bench(InFlight);
    bench.drain(Ending::Close);
    assert_eq!(bench.check(LINGER * 2), Next::WaitUntil(bench.now + Limits::TEST.stall));
    bench.answers();
    bench.flushes();
    assert_eq!(bench.check(SECOND), Next::WaitUntil(bench.now + LINGER));
    assert_eq!(bench.check(4 * SECOND), Next::WaitUntil(bench.now + SECOND));
    assert_eq!(bench.check(SECOND), Next::ShutDown);
}

#[test]
fn a_cut_drops_a_connection_wherever_it_is() {
    for situation in ALL {
        let mut bench = bench(situation);
        assert_eq!(bench.phase(Phase::Cut), Order::Cut, "{situation:?}");
        assert!(bench.state.is_cut() && bench.state.is_dismissed(), "{situation:?}");
        assert_eq!(bench.state.on_end(Finish::GivenUp), Exit::Close, "{situation:?}");
    }
}

#[test]
fn a_close_lingers_where_the_client_may_have_sent_what_was_not_read() {
    let rows = [
        (New, Shutdown::Close),
        (FirstHead, Shutdown::Linger),
        (Idle, Shutdown::Close),
        (HalfHead, Shutdown::Linger),
        (LongHead, Shutdown::Linger),
        (InFlight, Shutdown::Close),
        (Pipelined, Shutdown::Linger),
        (Upload, Shutdown::Linger),
        (Refused, Shutdown::Linger),
        (Unflushed, Shutdown::Close),
        (Unwritten, Shutdown::Close),
        (Lost, Shutdown::Linger),
        (Carried, Shutdown::Linger),
        (Http2, Shutdown::Linger),
        (Streams, Shutdown::Linger),
    ];
    for (situation, bench, expected) in each(rows) {
        assert_eq!(bench.state.on_shutdown(), expected, "{situation:?}");
        assert_eq!(bench.state.on_end(Finish::Done), Exit::Close, "{situation:?}");
    }
    for situation in ALL {
        let mut bench = bench(situation);
        bench.drain(Ending::Close);
        assert_eq!(bench.state.on_shutdown(), Shutdown::Linger, "{situation:?}: it has been announced");
        bench.state.on_read(Found::End);
        assert_eq!(bench.state.on_shutdown(), Shutdown::Close, "{situation:?}: nothing more can come");
    }
}

#[test]
fn http_that_ends_by_itself_was_asked_for_an_upgrade() {
    let bench = bench(InFlight);
    assert_eq!(bench.state.on_end(Finish::Done), Exit::Carry);
    assert_eq!(bench.state.on_end(Finish::Failed), Exit::Close);
    bench.state.on_carried();
    assert_eq!(bench.state.on_shutdown(), Shutdown::Linger);
}

#[test]
fn a_parked_connection_wakes_for_a_byte_and_ends_when_its_time_is_over() {
    let idle = bench(Idle);
    let mut history = idle.timeouts.http1_history(&idle.state, idle.now);
    for (unread, detected, requests, in_head, may) in [
        (&b""[..], Detected::Http1, 1, false, true),
        (b"G", Detected::Http1, 1, false, false),
        (b"\r\n", Detected::Http1, 1, false, false),
        (b"", Detected::Http1, 1, true, false),
        (b"", Detected::Http1, 0, false, false),
        (b"", Detected::Nothing, 0, false, false),
    ] {
        let history = History { detected, requests, in_head, ..history };
        assert_eq!(history.may_park(unread), may, "{unread:?} {history:?}");
    }
    let mut waits = Vec::new();
    history.park(HEAD_TIMEOUT);
    while history.waits_on(HEAD_TIMEOUT, HEAD_TIMEOUT * 3 + SECOND) {
        waits.push((history.waited, history.next_look));
    }
    let expected = [(1, HEAD_TIMEOUT), (2, HEAD_TIMEOUT), (3, SECOND)];
    assert_eq!(waits, expected.map(|(looks, next)| (HEAD_TIMEOUT * looks, next)));
    assert_eq!(history.next_look, Duration::ZERO, "the worker that goes on ends it at once");
    let now = Instant::now();
    let (state, mut timeouts) =
        (ConnState::new(Protocol::Http1, history.requests), Timeouts::resume(&history, now, &Limits::TEST, now));
    assert_eq!(timeouts.due(), now);
    assert_eq!(timeouts.on_timer(&state, now), Next::ShutDown);
}
