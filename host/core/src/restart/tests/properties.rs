//! What holds in every world, however its events are interleaved. The checks that are made after
//! every step are the world's; see there.

use proptest::prelude::*;

use super::super::{Phase, Scale};
use super::world::{World, ready_with_or_without_state};
use super::*;

/// More steps than any world of these tests needs to come to rest.
const PLENTY: usize = 500;

/// As many looks as the longest time-out of these tests needs.
const HUNG_FOR: u32 = 62;

#[derive(Clone, Debug)]
enum Step {
    Request(By),
    Pass(Settings, bool),
    Refuse,
    StalePreflight,
    Stop,
    Scale(Scale),
    /// A worker hangs.
    Hang(usize),
    /// All workers handle so many requests.
    Serve(u64),
    Look,
    /// Time goes on as it should, and somebody looks as often as is wanted.
    Watch(u32),
    Sleep(Duration),
    Tick,
    NextDeadline,
    /// Somebody who is due does what a good worker does.
    Cooperate,
    /// Something is said about the chosen one of the living.
    SayLiving(usize, Message),
    /// Something is said about anyone who ever lived, or never did.
    SayAny(usize, Message),
}

#[derive(Clone, Copy, Debug)]
enum Message {
    Spawned,
    SpawnFailed,
    Ready,
    CannotListen,
    StartFailed,
    Terminated,
    Exited,
    /// To an older one, too.
    HandedOn(u64),
}

impl Message {
    fn about(self, worker: WorkerId) -> Event {
        match self {
            Self::Spawned => spawned(worker.0),
            Self::SpawnFailed => spawn_failed(worker.0),
            Self::Ready => ready_with_or_without_state(worker),
            Self::CannotListen => cannot_listen(worker.0),
            Self::StartFailed => start_failed(worker.0),
            Self::Terminated => terminated(worker.0),
            Self::Exited => exited(worker.0, 1),
            Self::HandedOn(after) => handed_on(worker.0, worker.0 + after),
        }
    }
}

fn any_settings(workers: impl Strategy<Value = u16>) -> impl Strategy<Value = Settings> {
    let probation = prop_oneof![Just(Duration::ZERO), Just(PROBATION)];
    // The timeouts are close to each other, so that either may come first.
    let timeout = || (1_u64..4).prop_map(|it| ms(it * 200));
    let on_failure = prop_oneof![Just(OnFailure::Lock), Just(OnFailure::Rollback)];
    let hang_timeout = prop_oneof![1 => Just(None), 3 => (1_u64..4).prop_map(|it| Some(ms(it * 200)))];
    let recycle = (prop_oneof![Just(None), Just(Some(10))], 0_u64..3).prop_map(|(requests, uptime)| Recycle {
        requests,
        min_uptime: ms(uptime * 200),
        ..Recycle::NEVER
    });
    let at_a_time = (any::<bool>(), 1_u16..4, any::<bool>());
    let delay = prop_oneof![3 => Just(Duration::ZERO), 1 => (1_u64..4).prop_map(|it| ms(it * 200))];
    let state_timeout = prop_oneof![1 => Just(None), 2 => (1_u64..4).prop_map(|it| Some(ms(it * 200)))];
    let timeouts = (timeout(), timeout(), delay, state_timeout);
    (workers, probation, timeouts, on_failure, hang_timeout, recycle, at_a_time).prop_map(
        |(workers, probation, timeouts, on_failure, hang_timeout, recycle, (while_draining, parallel, single))| {
            Settings {
                workers,
                databank_shared: true,
                start_timeout: timeouts.0,
                probation,
                shutdown_timeout: timeouts.1,
                on_failure,
                hang_timeout,
                recycle,
                while_draining,
                parallel,
                single,
                shutdown_delay: timeouts.2,
                state_timeout: timeouts.3,
            }
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        1 => Just(Message::Spawned),
        1 => Just(Message::SpawnFailed),
        4 => Just(Message::Ready),
        1 => Just(Message::CannotListen),
        1 => Just(Message::StartFailed),
        2 => Just(Message::Terminated),
        2 => Just(Message::Exited),
        2 => (0_u64..5).prop_map(Message::HandedOn),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Request(By::Signal)),
        3 => Just(Step::Request(By::Watcher)),
        5 => Just(Step::Request(By::Rollback)),
        1 => Just(Step::Request(By::Healing)),
        6 => (any_settings(1_u16..5), any::<bool>()).prop_map(|(settings, unchanged)| Step::Pass(settings, unchanged)),
        1 => Just(Step::Refuse),
        1 => Just(Step::StalePreflight),
        1 => Just(Step::Stop),
        3 => (-1_i32..=1).prop_map(|more| Step::Scale(Scale::By(more))),
        1 => (0_u16..6).prop_map(|number| Step::Scale(Scale::To(number))),
        3 => any::<usize>().prop_map(Step::Hang),
        3 => (0_u64..20).prop_map(Step::Serve),
        4 => Just(Step::Look),
        4 => (1_u32..8).prop_map(Step::Watch),
        4 => (0_u64..400).prop_map(|it| Step::Sleep(ms(it))),
        1 => Just(Step::Sleep(Duration::from_secs(11))),
        2 => Just(Step::Tick),
        6 => Just(Step::NextDeadline),
        24 => Just(Step::Cooperate),
        3 => (any::<usize>(), any_message()).prop_map(|(who, what)| Step::SayLiving(who, what)),
        4 => (any::<usize>(), any_message()).prop_map(|(who, what)| Step::SayAny(who, what)),
    ]
}

fn take(world: &mut World, step: &Step) {
    match *step {
        Step::Request(by) => world.ask(by),
        Step::Pass(settings, unchanged) => world.pass_preflight(settings, unchanged),
        Step::Refuse => world.refuse_preflight(),
        Step::StalePreflight => world.stale_preflight(settings(2)),
        Step::Stop => world.stop(),
        Step::Scale(wish) => world.scale(wish),
        Step::Hang(who) => {
            if let Some(worker) = world.living_worker(who) {
                world.hang(worker);
            }
        }
        Step::Serve(requests) => world.serve(requests),
        Step::Look => world.look(),
        Step::Watch(looks) => watch(world, looks),
        Step::Sleep(pause) => world.sleep(pause),
        Step::Tick => world.tick(),
        Step::NextDeadline => drop(world.sleep_until_deadline()),
        Step::Cooperate => drop(world.cooperate()),
        Step::SayLiving(who, what) => {
            if let Some(worker) = world.living_worker(who) {
                world.say(worker, what.about(worker));
            }
        }
        Step::SayAny(who, what) => {
            let worker = world.any_worker(who);
            world.say(worker, what.about(worker));
        }
    }
}

/// Looks as often as the machine wants it, and so many times; every deadline on the way is kept.
fn watch(world: &mut World, looks: u32) {
    for _ in 0..looks {
        let Some(every) = world.machine.check_interval() else { return };
        world.sleep_watchfully(every);
        world.look();
    }
}

fn world_after(first: Settings, steps: &[Step]) -> World {
    let mut world = World::new(first);
    for step in steps {
        take(&mut world, step);
    }
    world
}

/// Lets the world go on, each worker doing what a good one does, until nothing is left to do.
fn settle(world: &mut World) {
    for _ in 0..PLENTY {
        if !world.answer(settings(2)) && !world.cooperate() && !world.sleep_until_deadline() {
            return;
        }
    }
    panic!("no rest: {:?}", world.machine);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_after_every_step(
        first in any_settings(0_u16..5),
        steps in prop::collection::vec(any_step(), 0..120),
    ) {
        world_after(first, &steps);
    }

    #[test]
    fn a_world_of_good_workers_comes_to_rest_with_every_verdict_given(
        first in any_settings(1_u16..5),
        steps in prop::collection::vec(any_step(), 0..80),
    ) {
        let mut world = world_after(first, &steps);
        settle(&mut world);
        prop_assert!(world.nobody_waits());
        if world.is_at_rest() && first.workers > u16::from(!first.single) {
            world.ask(By::Signal);
            settle(&mut world);
            prop_assert!(world.nobody_waits());
            prop_assert!(world.last_verdict_was_complete());
        }
        prop_assert!(
            world.is_over() || world.machine.is_locked() || world.is_at_rest(),
            "{:?}",
            world.machine
        );
        world.stop();
        settle(&mut world);
        prop_assert!(world.is_over());
    }

    #[test]
    fn whoever_hangs_is_given_up_in_time(
        first in any_settings(1_u16..5),
        steps in prop::collection::vec(any_step(), 0..60),
        who in any::<usize>(),
    ) {
        let mut world = world_after(first, &steps);
        settle(&mut world);
        let servants = world.servants();
        if world.hang_timeout().is_some() && world.is_at_rest() {
            // From here on each does what a good one does, but for the chosen one.
            world.recover();
            let hung = servants[who % servants.len()];
            world.hang(hung);
            for _ in 0..HUNG_FOR {
                watch(&mut world, 1);
                while world.cooperate() {}
            }
            prop_assert!(world.is_given_up(hung));
            settle(&mut world);
            prop_assert!(world.is_at_rest());
        }
    }

    #[test]
    fn a_world_of_workers_that_do_nothing_gives_every_verdict_too(
        first in any_settings(1_u16..5),
        steps in prop::collection::vec(any_step(), 0..80),
    ) {
        let mut world = world_after(first, &steps);
        world.answer(settings(3));
        for _ in 0..PLENTY {
            // Where nobody ever gets ready again no slot returns; whoever serves goes on, and may stop it.
            if world.machine.phase() == Phase::Returning {
                world.stop();
            }
            if world.nobody_waits() {
                break;
            }
            // SIGKILL is the one thing that nobody can ignore.
            prop_assert!(world.bury() || world.sleep_until_deadline(), "{:?}", world.machine);
        }
        prop_assert!(world.nobody_waits());
        // Without its delay, and at once.
        for _ in 0..3 {
            world.stop();
        }
        while world.bury() {}
        prop_assert!(world.is_over());
    }
}
