//! What holds in every order of facts. The checks that are made after every step are the world's; see there.

use proptest::prelude::*;

use super::world::{Sent, SentBody, World};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// The client sends this many bytes more.
    Send(usize),
    ClientEnds,
    Drain(Ending),
    /// Connections are invited to leave a worker that serves.
    Invite,
    Cut,
    Answer {
        whole: bool,
        reads: bool,
    },
    /// The transport takes this many bytes from now on.
    Window(usize),
    Pass(Duration),
}

fn sent() -> impl Strategy<Value = Sent> {
    // Bodies that look like requests, and like the end of chunks.
    let body = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(b"POST /1 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        1 => Just(b"0\r\n\r\nPOST /2 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..40),
    ];
    (0_usize..3, body, any::<bool>()).prop_map(|(blank, body, chunked)| Sent {
        blank,
        body: if chunked { SentBody::Chunked(body) } else { SentBody::Sized(body) },
    })
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        2 => Just(Duration::ZERO),
        2 => (0_u64..10).prop_map(Duration::from_secs),
        1 => (0_u64..100).prop_map(Duration::from_secs),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let window = prop_oneof![2 => Just(usize::MAX), 1 => 0_usize..150];
    prop_oneof![
        12 => (1_usize..50).prop_map(Step::Send),
        1 => Just(Step::ClientEnds),
        6 => Just(Step::Drain(Ending::HandOver)),
        1 => Just(Step::Drain(Ending::Close)),
        2 => Just(Step::Invite),
        1 => Just(Step::Cut),
        12 => (prop::bool::weighted(0.8), prop::bool::weighted(0.9)).prop_map(|(whole, reads)| Step::Answer { whole, reads }),
        4 => window.prop_map(Step::Window),
        6 => time().prop_map(Step::Pass),
    ]
}

fn play(world: &mut World, step: &Step) {
    match *step {
        Step::Send(bytes) => world.client_sends(bytes),
        Step::ClientEnds => world.client_ends(),
        Step::Drain(ending) => world.drain(ending),
        Step::Invite => world.phase(Phase::Serving),
        Step::Cut => world.phase(Phase::Cut),
        Step::Answer { whole, reads } => world.app_answers(whole, reads),
        Step::Window(bytes) => world.window(bytes),
        Step::Pass(time) => world.pass(time),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No byte of a request is lost, none is answered twice, none leaves unanswered; an idle connection outlives
    /// neither its time-outs nor the linger, and nothing the cut; each leaves, is parked or is closed.
    #[test]
    fn every_order_of_facts_keeps_what_the_machine_promises(
        requests in prop::collection::vec(sent(), 1..6),
        piece in 1_usize..100,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(&requests, piece);
        for step in &steps {
            play(&mut world, step);
        }
        // Whatever has been before: a cut is the end.
        world.phase(Phase::Cut);
        world.pass(HEAD_TIMEOUT * 5);
        prop_assert!(world.is_gone());
    }

    /// A client that sends all its requests, and an app that answers them, come to an end together, however often the
    /// connection moves and is parked on the way.
    #[test]
    fn all_requests_are_answered_once_wherever_the_connection_moves(
        requests in prop::collection::vec(sent(), 1..6),
        piece in 1_usize..100,
        steps in prop::collection::vec((1_usize..50, 0_u8..4, any::<bool>()), 1..60),
    ) {
        let mut world = World::new(&requests, piece);
        for (bytes, kind, window) in steps {
            world.client_sends(bytes);
            match kind {
                0 => world.drain(Ending::HandOver),
                1 => world.phase(Phase::Serving),
                2 => world.app_answers(true, true),
                _ => world.app_answers(false, true),
            }
            if window {
                world.window(RESPONSES);
            }
        }
        world.window(usize::MAX);
        world.client_sends(usize::MAX / 2);
        for _ in &requests {
            world.app_answers(true, true);
        }
        prop_assert_eq!(world.answered(), requests.len());
        prop_assert!(!world.is_gone());
    }
}

/// Room for a response and a half.
const RESPONSES: usize = 150;

/// The world itself: a connection does move, is parked, wakes and ends in it.
#[test]
fn the_world_moves_parks_and_ends_connections() {
    let get = || Sent { blank: 0, body: SentBody::Sized(Vec::new()) };
    let mut world = World::new(&[get(), get(), get()], 1000);
    world.client_sends(29);
    world.app_answers(true, true);
    assert_eq!(world.answered(), 1);
    world.drain(Ending::HandOver);
    assert_eq!((world.moves, world.parks), (1, 0));
    world.pass(HEAD_TIMEOUT * 3);
    assert_eq!((world.moves, world.parks), (1, 1));
    world.client_sends(29);
    world.app_answers(true, true);
    assert_eq!(world.answered(), 2);
    world.pass(HEAD_TIMEOUT * 3);
    assert_eq!((world.moves, world.parks, world.is_gone()), (1, 2, false));
    world.pass(HEAD_TIMEOUT * 2);
    assert!(world.is_gone());
}

/// A connection that moves at the very moment of a look doesn't begin to wait anew (once in 60,000 runs of the property).
#[test]
fn half_a_head_that_moves_when_it_is_looked_at_has_been_waited_for() {
    let get = || Sent { blank: 0, body: SentBody::Sized(Vec::new()) };
    let mut world = World::new(&[get(), get()], 1);
    world.client_sends(30);
    world.app_answers(true, false);
    world.pass(HEAD_TIMEOUT);
    world.phase(Phase::Serving);
    assert_eq!(world.moves, 1);
    world.pass(HEAD_TIMEOUT + Duration::from_secs(1));
    assert!(world.is_gone());
}
