//! Scenarios of the outbox, and a property over all of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// Sends all that can be sent; returns where to.
fn send(outbox: &mut Outbox<u64>, now: Time) -> Vec<(u64, u64)> {
    let mut sent = Vec::new();
    while let Some((link, count)) = outbox.next(now) {
        assert!((1..=BATCH).contains(&count));
        sent.extend(outbox.waiting().take(count).map(|connection| (link, *connection)));
        outbox.mark_sent(link, count, now);
    }
    sent
}

#[test]
fn connections_are_spread_by_what_the_workers_have() {
    let mut outbox = Outbox::new();
    let (full, empty) = (outbox.add_link(None, ms(0)), outbox.add_link(None, ms(0)));
    outbox.acknowledge(full, &[], 10, ms(0));
    outbox.acknowledge(empty, &[], 0, ms(0));
    (0..20).for_each(|connection| outbox.push(connection, ms(0)));
    let sent = send(&mut outbox, ms(0));
    assert_eq!(sent.iter().filter(|(link, _)| *link == full).count(), 5);
    assert_eq!(sent.iter().filter(|(link, _)| *link == empty).count(), 15);
}

#[test]
fn no_link_has_more_than_its_window_and_answers_make_room() {
    let mut outbox = Outbox::new();
    let link = outbox.add_link(None, ms(0));
    let window = WINDOW as u64;
    (0..2 * window).for_each(|connection| outbox.push(connection, ms(0)));
    assert_eq!(send(&mut outbox, ms(0)).len(), WINDOW);
    for connection in (0..window).step_by(2) {
        outbox.acknowledge(link, &[Reply::Accepted; 2], connection, ms(1));
        assert_eq!(send(&mut outbox, ms(1)), [(link, window + connection), (link, window + connection + 1)]);
        assert_eq!(outbox.take_outcomes(), [Outcome::Accepted(connection), Outcome::Accepted(connection + 1)]);
    }
}

#[test]
fn each_gets_its_share_and_none_more_than_a_packet_at_once() {
    let mut outbox = Outbox::new();
    let links: Vec<_> = (0..3).map(|_| outbox.add_link(None, ms(0))).collect();
    (0..10).for_each(|connection| outbox.push(connection, ms(0)));
    outbox.acknowledge(links[0], &[], 3, ms(0));
    let count = |sent: &[(u64, u64)], link| sent.iter().filter(|(to, _)| *to == link).count();
    let sent = send(&mut outbox, ms(0));
    assert_eq!(links.iter().map(|link| count(&sent, *link)).collect::<Vec<_>>(), [2, 4, 4]);
    (10..1000).for_each(|connection| outbox.push(connection, ms(0)));
    assert_eq!(outbox.next(ms(0)).map(|(_, count)| count), Some(BATCH));
}

#[test]
fn a_part_of_a_packet_that_finds_no_room_goes_elsewhere_and_keeps_its_order() {
    let mut outbox = Outbox::new();
    let (first, other) = (outbox.add_link(None, ms(0)), outbox.add_link(None, ms(0)));
    outbox.acknowledge(other, &[], 100, ms(0));
    (0..4).for_each(|connection| outbox.push(connection, ms(0)));
    assert_eq!(send(&mut outbox, ms(0)), [(first, 0), (first, 1), (first, 2), (first, 3)]);
    outbox.acknowledge(first, &[Reply::Accepted, Reply::NoRoom, Reply::Unknown, Reply::NoRoom], 1, ms(1));
    assert_eq!(outbox.take_outcomes(), [Outcome::Accepted(0), Outcome::Returned(2)]);
    assert_eq!(send(&mut outbox, ms(1)), [(other, 1), (other, 3)]);
}

#[test]
fn a_cut_waits_for_no_reply() {
    let mut outbox = Outbox::new();
    outbox.add_link(None, ms(0));
    outbox.push(0, ms(0));
    send(&mut outbox, ms(0));
    outbox.push(1, ms(0));
    outbox.cut();
    assert_eq!(outbox.take_outcomes(), [Outcome::Returned(1), Outcome::Accepted(0)]);
    assert_eq!(outbox.deadline(ms(0)), None);
}

#[test]
fn what_a_dead_worker_has_not_answered_goes_to_another_in_its_order() {
    let mut outbox = Outbox::new();
    outbox.expect_links(ms(0));
    let dying = outbox.add_link(None, ms(0));
    (0..3).for_each(|connection| outbox.push(connection, ms(0)));
    send(&mut outbox, ms(0));
    outbox.acknowledge(dying, &[Reply::Accepted], 1, ms(1));
    outbox.link_gone(dying, ms(2));
    let successor = outbox.add_link(None, ms(3));
    assert_eq!(send(&mut outbox, ms(3)), [(successor, 1), (successor, 2)]);
    assert_eq!(outbox.take_outcomes(), [Outcome::Accepted(0)]);
}

#[test]
fn what_no_worker_accepts_is_returned_in_time_and_what_follows_at_once() {
    let mut outbox = Outbox::new();
    outbox.expect_links(ms(0));
    outbox.push(0, ms(10));
    assert_eq!(outbox.deadline(ms(10)), Some(ms(10) + STALL_TIMEOUT));
    outbox.tick(ms(9) + STALL_TIMEOUT);
    assert_eq!(outbox.take_outcomes(), []);
    outbox.tick(ms(10) + STALL_TIMEOUT);
    assert_eq!(outbox.take_outcomes(), [Outcome::Returned(0)]);
    outbox.push(1, ms(2000));
    assert_eq!(outbox.take_outcomes(), [Outcome::Returned(1)]);
    let link = outbox.add_link(None, ms(2001));
    outbox.push(2, ms(2001));
    assert_eq!(send(&mut outbox, ms(2001)), [(link, 2)]);
}

#[test]
fn a_worker_without_room_is_asked_again_after_a_delay_and_not_for_ever() {
    let mut outbox = Outbox::new();
    let (full, other) = (outbox.add_link(None, ms(0)), outbox.add_link(None, ms(0)));
    outbox.push(0, ms(0));
    assert_eq!(send(&mut outbox, ms(0)), [(full, 0)]);
    outbox.acknowledge(full, &[Reply::NoRoom], 0, ms(1));
    assert_eq!(send(&mut outbox, ms(1)), [(other, 0)]);
    outbox.acknowledge(other, &[Reply::NoRoom], 0, ms(2));
    let mut now = ms(2);
    while outbox.take_outcomes().is_empty() {
        now = outbox.deadline(now).unwrap();
        for (link, _) in send(&mut outbox, now) {
            outbox.acknowledge(link, &[Reply::NoRoom], 0, now);
        }
        outbox.tick(now);
    }
    assert_eq!(now, STALL_TIMEOUT);
}

#[test]
fn a_connection_of_an_unknown_listener_does_not_wait() {
    let mut outbox = Outbox::new();
    let link = outbox.add_link(None, ms(0));
    outbox.push(0, ms(0));
    send(&mut outbox, ms(0));
    outbox.acknowledge(link, &[Reply::Unknown], 0, ms(1));
    assert_eq!(outbox.take_outcomes(), [Outcome::Returned(0)]);
}

#[test]
fn a_worker_that_does_not_reply_holds_up_no_connection() {
    let mut outbox = Outbox::new();
    let link = outbox.add_link(None, ms(0));
    outbox.push(0, ms(0));
    send(&mut outbox, ms(0));
    assert_eq!(outbox.deadline(ms(0)), Some(REPLY_TIMEOUT));
    outbox.tick(REPLY_TIMEOUT);
    assert_eq!(outbox.take_outcomes(), [Outcome::Accepted(0)]);
    // Its reply, late, counts for this connection and for no other.
    outbox.push(1, REPLY_TIMEOUT);
    send(&mut outbox, REPLY_TIMEOUT);
    outbox.acknowledge(link, &[Reply::NoRoom], 0, REPLY_TIMEOUT + ms(1));
    outbox.acknowledge(link, &[Reply::Accepted], 1, REPLY_TIMEOUT + ms(1));
    assert_eq!(outbox.take_outcomes(), [Outcome::Accepted(1)]);
}

#[test]
fn a_link_with_an_end_is_used_until_then_and_ends_when_it_owes_nothing() {
    let mut outbox = Outbox::new();
    let link = outbox.add_link(Some(ms(100)), ms(0));
    outbox.push(0, ms(0));
    send(&mut outbox, ms(0));
    outbox.tick(ms(100));
    outbox.push(1, ms(100));
    assert_eq!((send(&mut outbox, ms(100)), outbox.take_outcomes()), (vec![], vec![Outcome::Returned(1)]));
    assert!(outbox.take_ended(ms(100)).is_empty());
    outbox.acknowledge(link, &[Reply::Accepted], 0, ms(101));
    assert_eq!(outbox.take_ended(ms(101)), [link]);
    assert_eq!(outbox.deadline(ms(101)), None);
}

#[test]
fn a_worker_without_room_ends_the_balance() {
    let mut outbox = Outbox::new();
    let link = outbox.add_link(Some(ms(1000)), ms(0));
    (0..3).for_each(|connection| outbox.push(connection, ms(0)));
    send(&mut outbox, ms(0));
    outbox.push(3, ms(1));
    outbox.acknowledge(link, &[Reply::Accepted, Reply::NoRoom, Reply::NoRoom], 1, ms(1));
    assert_eq!(
        outbox.take_outcomes(),
        [Outcome::Accepted(0), Outcome::Returned(1), Outcome::Returned(2), Outcome::Returned(3)]
    );
    assert_eq!(outbox.take_ended(ms(1)), [link]);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Link(bool),
    Reply(usize, u8),
    Gone(usize),
    Block(usize, bool),
    Pause,
    Pass(u64),
    Send,
    Refuse,
    Close,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1..3 * BATCH as u64).prop_map(Step::Push),
        2 => any::<bool>().prop_map(Step::Link),
        20 => (0..4_usize, 0..4_u8).prop_map(|(link, reply)| Step::Reply(link, reply)),
        2 => (0..4_usize).prop_map(Step::Gone),
        3 => (0..4_usize, any::<bool>()).prop_map(|(link, blocked)| Step::Block(link, blocked)),
        1 => Just(Step::Pause),
        5 => (0..800_u64).prop_map(Step::Pass),
        20 => Just(Step::Send),
        1 => Just(Step::Refuse),
        1 => Just(Step::Close),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    /// Whatever links come, reply and go: each connection is accepted or returned, once, and none waits
    /// for ever.
    #[test]
    fn no_connection_is_lost_or_reported_twice(steps in prop::collection::vec(step(), 0..400)) {
        let mut outbox = Outbox::new();
        let (mut now, mut pushed) = (ms(0), 0_u64);
        let mut links: Vec<u64> = Vec::new();
        let mut done = BTreeSet::new();
        let mut unanswered: BTreeMap<u64, VecDeque<u64>> = BTreeMap::new();
        let settle = |outbox: &mut Outbox<u64>, done: &mut BTreeSet<u64>| {
            for it in outbox.take_outcomes() {
                let (Outcome::Accepted(connection) | Outcome::Returned(connection)) = it;
                assert!(done.insert(connection), "{connection} twice");
            }
        };
        for step in steps {
            match step {
                Step::Push(count) => {
                    for _ in 0..count {
                        outbox.push(pushed, now);
                        pushed += 1;
                    }
                }
                Step::Link(ends) if links.len() < 4 => links.push(outbox.add_link(ends.then_some(now + ms(300)), now)),
                Step::Reply(index, reply) if index < links.len() => {
                    let link = links[index];
                    let reply = [Reply::Accepted, Reply::Accepted, Reply::NoRoom, Reply::Unknown][usize::from(reply)];
                    let first = unanswered.entry(link).or_default().pop_front();
                    outbox.acknowledge(link, &[reply], 0, now);
                    settle(&mut outbox, &mut done);
                    if let (Reply::Accepted, Some(connection)) = (reply, first) {
                        prop_assert!(done.contains(&connection));
                    }
                }
                Step::Gone(index) if index < links.len() => {
                    let link = links.remove(index);
                    unanswered.remove(&link);
                    outbox.link_gone(link, now);
                }
                Step::Block(index, blocked) if index < links.len() => outbox.set_blocked(links[index], blocked),
                Step::Pause => outbox.pause_until(now + ms(5)),
                Step::Pass(millis) => {
                    now += ms(millis);
                    outbox.tick(now);
                }
                Step::Send => {
                    for (link, connection) in send(&mut outbox, now) {
                        prop_assert!(!done.contains(&connection), "{connection} was sent after its end");
                        unanswered.entry(link).or_default().push_back(connection);
                    }
                }
                Step::Refuse => outbox.return_first(),
                Step::Close => outbox.close(),
                Step::Cut => {
                    outbox.cut();
                    prop_assert!(outbox.waiting.is_empty());
                }
                _ => {}
            }
            settle(&mut outbox, &mut done);
            for link in outbox.take_ended(now) {
                links.retain(|it| *it != link);
            }
            prop_assert!(outbox.links.values().all(|link| link.unanswered.len() <= WINDOW));
            prop_assert!(outbox.waiting.is_empty() || outbox.deadline(now).is_some());
        }
        // No worker replies any more.
        for _ in 0..3 {
            now += REPLY_TIMEOUT;
            outbox.tick(now);
            settle(&mut outbox, &mut done);
        }
        prop_assert_eq!(done.len() as u64, pushed);
    }
}
