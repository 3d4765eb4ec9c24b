//! What is on its way out: which connection goes where, and what becomes of those that nobody takes. Pure:
//! knows no socket and no clock.
//!
//! ```text
//! push ──▶ waiting ── next, sent ──▶ unanswered ── Taken ──▶ taken
//!            ▲  │                       │    └──── nobody's answer in time ──▶ taken, as far as is known
//!            │  └─ nobody takes it      └─ NoRoom, or the link ends ─┐
//!            │       └──▶ back                                       │
//!            └───────────────────────────────────────────────────────┘
//! ```
//! What is kept at every step: each connection that was pushed is waiting, unanswered, taken or back, and never
//! two of them; no link has more than [`WINDOW`] unanswered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Moments, as durations since some beginning.
pub(super) type Time = Duration;

/// How many connections are sent at once at most.
pub(super) const BATCH: usize = 64;

/// How many connections of one link are unanswered at most: as many as the other worker takes in, and as many
/// again meanwhile. They are descriptors in flight, of which the kernel allows a user about as many as a process
/// may have open (`ETOOMANYREFS`, `unix(7)`).
pub(super) const WINDOW: usize = 2 * BATCH;

/// How long nothing may go forward before those that wait are given back.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How long a link rests whose worker had no room.
const REST: Duration = Duration::from_millis(20);

/// How long an answer may take. What was sent stays with whom it was sent to, who will take it unless it dies:
/// from now on nobody helps it then.
const ANSWER: Duration = Duration::from_secs(5);

/// What a worker says to a connection that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It serves it.
    Taken,
    /// It can't, now.
    NoRoom,
    /// It hasn't got the listener that the connection came by.
    Unknown,
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Given<P> {
    /// Another worker has it.
    Taken(P),
    /// Nobody takes it.
    Back(P),
}

#[derive(Debug)]
pub(super) struct Outbox<P> {
    links: BTreeMap<u64, Link<P>>,
    last_link: u64,
    waiting: VecDeque<P>,
    /// Nothing is sent before.
    paused_until: Time,
    /// When something has last gone forward, or begun to wait.
    moved: Time,
    /// Nobody takes anything, until there is a new link.
    given_up: bool,
    /// More links may be on their way.
    expects: bool,
    done: Vec<Given<P>>,
}

#[derive(Debug)]
struct Link<P> {
    /// How many connections its worker has, as far as is known.
    held: u64,
    /// In the order in which they were sent, which is that of the answers; those that nobody waits for any
    /// more keep their place.
    unanswered: VecDeque<(Option<P>, Time)>,
    /// Its socket is full.
    blocked: bool,
    rests_until: Time,
    /// After this it is used no more.
    ends: Option<Time>,
}

impl<P> Outbox<P> {
    pub(super) fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            last_link: 0,
            waiting: VecDeque::new(),
            paused_until: Time::ZERO,
            moved: Time::ZERO,
            given_up: true,
            expects: false,
            done: Vec::new(),
        }
    }

    /// Connections may come before anybody is there to take them: links are on their way.
    pub(super) fn expect_links(&mut self, now: Time) {
        self.expects = true;
        self.goes_on(now);
    }

    fn goes_on(&mut self, now: Time) {
        self.given_up = false;
        self.moved = now;
    }

    /// Takes in a connection.
    pub(super) fn push(&mut self, parcel: P, now: Time) {
        if self.waiting.is_empty() {
            self.moved = now;
        }
        self.waiting.push_back(parcel);
        self.tick(now);
    }

    /// There is another worker to send to, until `ends`; its number is returned.
    pub(super) fn add_link(&mut self, ends: Option<Time>, now: Time) -> u64 {
        self.last_link += 1;
        let link = Link { held: 0, unanswered: VecDeque::new(), blocked: false, rests_until: Time::ZERO, ends };
        self.links.insert(self.last_link, link);
        self.goes_on(now);
        self.last_link
    }

    /// Uses those links no more that have an end.
    pub(super) fn end_early(&mut self, now: Time) {
        for link in self.links.values_mut().filter(|link| link.ends.is_some()) {
            link.ends = Some(now);
        }
    }

    /// The link that what waits first is to be sent on, and how many of it at most, so that the workers come to
    /// have the same; they leave with [`sent`](Self::sent).
    pub(super) fn next(&self, now: Time) -> Option<(u64, usize)> {
        if self.waiting.is_empty() || now < self.paused_until {
            return None;
        }
        let open = || self.links.iter().filter(|(_, link)| link.is_open(now) && link.rests_until <= now);
        let (&number, link) = open().min_by_key(|(_, link)| link.load())?;
        let others = open().filter(|(other, _)| **other != number);
        let share = others.map(|(_, other)| other.load()).min().map_or(self.waiting.len(), |next| {
            // What makes it equal to the next, and its part of the rest.
            let gap = usize::try_from(next - link.load()).unwrap_or(usize::MAX);
            gap.saturating_add(self.waiting.len().saturating_sub(gap).div_ceil(open().count()))
        });
        Some((number, share.min(self.waiting.len()).min(WINDOW - link.unanswered.len()).min(BATCH)))
    }

    /// What waits, the first first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &P> {
        self.waiting.iter()
    }

    /// So many of what waited first were sent on this link.
    pub(super) fn sent(&mut self, link: u64, count: usize, now: Time) {
        if let Some(link) = self.links.get_mut(&link) {
            let sent = self.waiting.drain(..count.min(self.waiting.len()));
            link.unanswered.extend(sent.map(|parcel| (Some(parcel), now)));
        }
    }

    /// What waits first can't be sent to anybody.
    pub(super) fn refuse_first(&mut self) {
        self.done.extend(self.waiting.pop_front().map(Given::Back));
    }

    /// The link's socket is full, or no longer.
    pub(super) fn block(&mut self, link: u64, blocked: bool) {
        if let Some(link) = self.links.get_mut(&link) {
            link.blocked = blocked;
        }
    }

    /// Nothing can be sent on any link for a little.
    pub(super) fn pause(&mut self, until: Time) {
        self.paused_until = until;
    }

    /// The worker at the other end of a link has said how many connections it has, and has answered for those of
    /// a packet.
    pub(super) fn answered(&mut self, number: u64, answers: &[Answer], held: u64, now: Time) {
        let Some(link) = self.links.get_mut(&number) else { return };
        link.held = held;
        let mut again = Vec::new();
        for answer in answers {
            let Some((parcel, _)) = link.unanswered.pop_front() else { break };
            match (answer, parcel) {
                (Answer::Taken, parcel) => {
                    self.moved = now;
                    self.done.extend(parcel.map(Given::Taken));
                }
                (Answer::Unknown, Some(parcel)) => {
                    self.moved = now;
                    self.done.push(Given::Back(parcel));
                }
                (Answer::NoRoom, Some(parcel)) => {
                    link.rests_until = now + REST;
                    // Nobody has to leave for the sake of balance, and who is asked to is not to wait.
                    link.ends = link.ends.map(|_| now);
                    again.push(parcel);
                }
                (Answer::NoRoom | Answer::Unknown, None) => {}
            }
        }
        self.wait_first(again);
        self.tick(now);
    }

    /// What has waited before comes first again.
    fn wait_first(&mut self, parcels: Vec<P>) {
        for parcel in parcels.into_iter().rev() {
            self.waiting.push_front(parcel);
        }
    }

    /// The link has ended. Its worker has taken nothing that it has not answered for.
    pub(super) fn gone(&mut self, link: u64, now: Time) {
        let Some(link) = self.links.remove(&link) else { return };
        if self.waiting.is_empty() {
            self.moved = now;
        }
        self.wait_first(link.unanswered.into_iter().filter_map(|(parcel, _)| parcel).collect());
        self.tick(now);
    }

    /// Nothing more is sent; what waits is given back.
    pub(super) fn close(&mut self) {
        self.expects = false;
        self.given_up = true;
        self.give_back();
    }

    /// As [`close`](Self::close), and no answer is waited for either: what was sent is with whom it was sent to.
    pub(super) fn cut(&mut self) {
        self.close();
        for link in self.links.values_mut() {
            let unanswered = link.unanswered.iter_mut().filter_map(|(parcel, _)| parcel.take());
            self.done.extend(unanswered.map(Given::Taken));
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Time) {
        for link in self.links.values_mut() {
            // Those in front were sent earlier.
            for (parcel, _) in link.unanswered.iter_mut().take_while(|(_, since)| *since + ANSWER <= now) {
                self.done.extend(parcel.take().map(Given::Taken));
            }
        }
        let is_stalled = !self.waiting.is_empty() && self.moved + PATIENCE <= now;
        let ended = |link: &Link<P>| link.ends.is_some_and(|ends| ends <= now);
        let all_ended = !self.expects && self.links.values().all(ended);
        if is_stalled || all_ended || self.given_up {
            self.given_up = true;
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        self.done.extend(self.waiting.drain(..).map(Given::Back));
    }

    /// What has been decided since this was asked last.
    pub(super) fn take_done(&mut self) -> Vec<Given<P>> {
        std::mem::take(&mut self.done)
    }

    /// Links that are used no more and owe no answer.
    pub(super) fn take_ended(&mut self, now: Time) -> Vec<u64> {
        let ended = |link: &Link<P>| link.unanswered.is_empty() && link.ends.is_some_and(|ends| ends <= now);
        let numbers: Vec<u64> = self.links.iter().filter(|(_, link)| ended(link)).map(|(&number, _)| number).collect();
        for number in &numbers {
            self.links.remove(number);
        }
        numbers
    }

    /// When [`tick`](Self::tick) is to be called next, or [`next`](Self::next) asked again.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let links = self.links.values();
        let answers = links.clone().filter_map(|link| {
            // Those in front were sent earlier.
            let (_, since) = link.unanswered.iter().find(|(parcel, _)| parcel.is_some())?;
            Some(*since + ANSWER)
        });
        let ends = links.clone().filter_map(|link| link.ends.filter(|ends| *ends > now));
        let waits = (!self.waiting.is_empty()).then(|| {
            let rests = links.map(|link| link.rests_until);
            let again = rests.chain([self.paused_until]).filter(|until| *until > now);
            again.chain([self.moved + PATIENCE]).min()
        });
        answers.chain(ends).chain(waits.flatten()).min()
    }
}

impl<P> Link<P> {
    /// How many connections its worker has, or will have if it takes what it was sent.
    fn load(&self) -> u64 {
        self.held + self.unanswered.len() as u64
    }

    fn is_open(&self, now: Time) -> bool {
        !self.blocked && self.unanswered.len() < WINDOW && self.ends.is_none_or(|ends| ends > now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Sends all that can be sent; says where to.
    fn send(outbox: &mut Outbox<u64>, now: Time) -> Vec<(u64, u64)> {
        let mut sent = Vec::new();
        while let Some((link, count)) = outbox.next(now) {
            assert!((1..=BATCH).contains(&count));
            sent.extend(outbox.waiting().take(count).map(|parcel| (link, *parcel)));
            outbox.sent(link, count, now);
        }
        sent
    }

    #[test]
    fn connections_are_spread_by_what_the_workers_have() {
        let mut outbox = Outbox::new();
        let (full, empty) = (outbox.add_link(None, ms(0)), outbox.add_link(None, ms(0)));
        outbox.answered(full, &[], 10, ms(0));
        outbox.answered(empty, &[], 0, ms(0));
        (0..20).for_each(|parcel| outbox.push(parcel, ms(0)));
        let sent = send(&mut outbox, ms(0));
        assert_eq!(sent.iter().filter(|(link, _)| *link == full).count(), 5);
        assert_eq!(sent.iter().filter(|(link, _)| *link == empty).count(), 15);
    }

    #[test]
    fn no_link_has_more_than_its_window_and_answers_make_room() {
        let mut outbox = Outbox::new();
        let link = outbox.add_link(None, ms(0));
        let window = WINDOW as u64;
        (0..2 * window).for_each(|parcel| outbox.push(parcel, ms(0)));
        assert_eq!(send(&mut outbox, ms(0)).len(), WINDOW);
        for parcel in (0..window).step_by(2) {
            outbox.answered(link, &[Answer::Taken; 2], parcel, ms(1));
            assert_eq!(send(&mut outbox, ms(1)), [(link, window + parcel), (link, window + parcel + 1)]);
            assert_eq!(outbox.take_done(), [Given::Taken(parcel), Given::Taken(parcel + 1)]);
        }
    }

    #[test]
    fn each_gets_its_share_and_none_more_than_a_packet_at_once() {
        let mut outbox = Outbox::new();
        let links: Vec<_> = (0..3).map(|_| outbox.add_link(None, ms(0))).collect();
        (0..10).for_each(|parcel| outbox.push(parcel, ms(0)));
        outbox.answered(links[0], &[], 3, ms(0));
        let count = |sent: &[(u64, u64)], link| sent.iter().filter(|(to, _)| *to == link).count();
        let sent = send(&mut outbox, ms(0));
        assert_eq!(links.iter().map(|link| count(&sent, *link)).collect::<Vec<_>>(), [2, 4, 4]);
        (10..1000).for_each(|parcel| outbox.push(parcel, ms(0)));
        assert_eq!(outbox.next(ms(0)).map(|(_, count)| count), Some(BATCH));
    }

    #[test]
    fn a_part_of_a_packet_that_finds_no_room_goes_elsewhere_and_keeps_its_order() {
        let mut outbox = Outbox::new();
        let (first, other) = (outbox.add_link(None, ms(0)), outbox.add_link(None, ms(0)));
        outbox.answered(other, &[], 100, ms(0));
        (0..4).for_each(|parcel| outbox.push(parcel, ms(0)));
        assert_eq!(send(&mut outbox, ms(0)), [(first, 0), (first, 1), (first, 2), (first, 3)]);
        outbox.answered(first, &[Answer::Taken, Answer::NoRoom, Answer::Unknown, Answer::NoRoom], 1, ms(1));
        assert_eq!(outbox.take_done(), [Given::Taken(0), Given::Back(2)]);
        assert_eq!(send(&mut outbox, ms(1)), [(other, 1), (other, 3)]);
    }

    #[test]
    fn at_the_cut_nothing_is_waited_for() {
        let mut outbox = Outbox::new();
        outbox.add_link(None, ms(0));
        outbox.push(0, ms(0));
        send(&mut outbox, ms(0));
        outbox.push(1, ms(0));
        outbox.cut();
        assert_eq!(outbox.take_done(), [Given::Back(1), Given::Taken(0)]);
        assert_eq!(outbox.deadline(ms(0)), None);
    }

    #[test]
    fn what_a_dead_worker_has_not_answered_goes_to_another_in_its_order() {
        let mut outbox = Outbox::new();
        outbox.expect_links(ms(0));
        let dying = outbox.add_link(None, ms(0));
        (0..3).for_each(|parcel| outbox.push(parcel, ms(0)));
        send(&mut outbox, ms(0));
        outbox.answered(dying, &[Answer::Taken], 1, ms(1));
        outbox.gone(dying, ms(2));
        let heir = outbox.add_link(None, ms(3));
        assert_eq!(send(&mut outbox, ms(3)), [(heir, 1), (heir, 2)]);
        assert_eq!(outbox.take_done(), [Given::Taken(0)]);
    }

    #[test]
    fn what_nobody_takes_comes_back_in_time_and_the_rest_at_once() {
        let mut outbox = Outbox::new();
        outbox.expect_links(ms(0));
        outbox.push(0, ms(10));
        assert_eq!(outbox.deadline(ms(10)), Some(ms(10) + PATIENCE));
        outbox.tick(ms(9) + PATIENCE);
        assert_eq!(outbox.take_done(), []);
        outbox.tick(ms(10) + PATIENCE);
        assert_eq!(outbox.take_done(), [Given::Back(0)]);
        outbox.push(1, ms(2000));
        assert_eq!(outbox.take_done(), [Given::Back(1)]);
        let link = outbox.add_link(None, ms(2001));
        outbox.push(2, ms(2001));
        assert_eq!(send(&mut outbox, ms(2001)), [(link, 2)]);
    }

    #[test]
    fn a_worker_without_room_is_asked_again_after_a_rest_and_not_for_ever() {
        let mut outbox = Outbox::new();
        let (full, other) = (outbox.add_link(None, ms(0)), outbox.add_link(None, ms(0)));
        outbox.push(0, ms(0));
        assert_eq!(send(&mut outbox, ms(0)), [(full, 0)]);
        outbox.answered(full, &[Answer::NoRoom], 0, ms(1));
        assert_eq!(send(&mut outbox, ms(1)), [(other, 0)]);
        outbox.answered(other, &[Answer::NoRoom], 0, ms(2));
        let mut now = ms(2);
        while outbox.take_done().is_empty() {
            now = outbox.deadline(now).unwrap();
            for (link, _) in send(&mut outbox, now) {
                outbox.answered(link, &[Answer::NoRoom], 0, now);
            }
            outbox.tick(now);
        }
        assert_eq!(now, PATIENCE);
    }

    #[test]
    fn a_listener_that_is_gone_is_no_reason_to_wait() {
        let mut outbox = Outbox::new();
        let link = outbox.add_link(None, ms(0));
        outbox.push(0, ms(0));
        send(&mut outbox, ms(0));
        outbox.answered(link, &[Answer::Unknown], 0, ms(1));
        assert_eq!(outbox.take_done(), [Given::Back(0)]);
    }

    #[test]
    fn a_worker_that_does_not_answer_holds_nobody_up() {
        let mut outbox = Outbox::new();
        let link = outbox.add_link(None, ms(0));
        outbox.push(0, ms(0));
        send(&mut outbox, ms(0));
        assert_eq!(outbox.deadline(ms(0)), Some(ANSWER));
        outbox.tick(ANSWER);
        assert_eq!(outbox.take_done(), [Given::Taken(0)]);
        // Its answer, late, is that of this one and of no other.
        outbox.push(1, ANSWER);
        send(&mut outbox, ANSWER);
        outbox.answered(link, &[Answer::NoRoom], 0, ANSWER + ms(1));
        outbox.answered(link, &[Answer::Taken], 1, ANSWER + ms(1));
        assert_eq!(outbox.take_done(), [Given::Taken(1)]);
    }

    #[test]
    fn a_link_with_an_end_is_used_until_then_and_ends_when_it_owes_nothing() {
        let mut outbox = Outbox::new();
        let link = outbox.add_link(Some(ms(100)), ms(0));
        outbox.push(0, ms(0));
        send(&mut outbox, ms(0));
        outbox.tick(ms(100));
        outbox.push(1, ms(100));
        assert_eq!((send(&mut outbox, ms(100)), outbox.take_done()), (vec![], vec![Given::Back(1)]));
        assert!(outbox.take_ended(ms(100)).is_empty());
        outbox.answered(link, &[Answer::Taken], 0, ms(101));
        assert_eq!(outbox.take_ended(ms(101)), [link]);
        assert_eq!(outbox.deadline(ms(101)), None);
    }

    #[test]
    fn a_worker_without_room_ends_the_balance() {
        let mut outbox = Outbox::new();
        let link = outbox.add_link(Some(ms(1000)), ms(0));
        (0..3).for_each(|parcel| outbox.push(parcel, ms(0)));
        send(&mut outbox, ms(0));
        outbox.push(3, ms(1));
        outbox.answered(link, &[Answer::Taken, Answer::NoRoom, Answer::NoRoom], 1, ms(1));
        assert_eq!(outbox.take_done(), [Given::Taken(0), Given::Back(1), Given::Back(2), Given::Back(3)]);
        assert_eq!(outbox.take_ended(ms(1)), [link]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64),
        Link(bool),
        Answer(usize, u8),
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
            20 => (0..4_usize, 0..4_u8).prop_map(|(link, answer)| Step::Answer(link, answer)),
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
        /// Whatever links come, answer and go: each connection is taken or comes back, once, and waits for
        /// nothing that doesn't come.
        #[test]
        fn no_connection_is_lost_or_told_of_twice(steps in prop::collection::vec(step(), 0..400)) {
            let mut outbox = Outbox::new();
            let (mut now, mut pushed) = (ms(0), 0_u64);
            let mut links: Vec<u64> = Vec::new();
            let mut done = BTreeSet::new();
            let mut unanswered: BTreeMap<u64, VecDeque<u64>> = BTreeMap::new();
            let tell = |outbox: &mut Outbox<u64>, done: &mut BTreeSet<u64>| {
                for it in outbox.take_done() {
                    let (Given::Taken(parcel) | Given::Back(parcel)) = it;
                    assert!(done.insert(parcel), "{parcel} twice");
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
                    Step::Answer(index, answer) if index < links.len() => {
                        let link = links[index];
                        let answer = [Answer::Taken, Answer::Taken, Answer::NoRoom, Answer::Unknown][usize::from(answer)];
                        let first = unanswered.entry(link).or_default().pop_front();
                        outbox.answered(link, &[answer], 0, now);
                        tell(&mut outbox, &mut done);
                        if let (Answer::Taken, Some(parcel)) = (answer, first) {
                            prop_assert!(done.contains(&parcel));
                        }
                    }
                    Step::Gone(index) if index < links.len() => {
                        let link = links.remove(index);
                        unanswered.remove(&link);
                        outbox.gone(link, now);
                    }
                    Step::Block(index, blocked) if index < links.len() => outbox.block(links[index], blocked),
                    Step::Pause => outbox.pause(now + ms(5)),
                    Step::Pass(millis) => {
                        now += ms(millis);
                        outbox.tick(now);
                    }
                    Step::Send => {
                        for (link, parcel) in send(&mut outbox, now) {
                            prop_assert!(!done.contains(&parcel), "{parcel} was sent after its end");
                            unanswered.entry(link).or_default().push_back(parcel);
                        }
                    }
                    Step::Refuse => outbox.refuse_first(),
                    Step::Close => outbox.close(),
                    Step::Cut => {
                        outbox.cut();
                        prop_assert!(outbox.waiting.is_empty());
                    }
                    _ => {}
                }
                tell(&mut outbox, &mut done);
                for link in outbox.take_ended(now) {
                    links.retain(|it| *it != link);
                }
                prop_assert!(outbox.links.values().all(|link| link.unanswered.len() <= WINDOW));
                prop_assert!(outbox.waiting.is_empty() || outbox.deadline(now).is_some());
            }
            // Nobody answers any more.
            for _ in 0..3 {
                now += ANSWER;
                outbox.tick(now);
                tell(&mut outbox, &mut done);
            }
            prop_assert_eq!(done.len() as u64, pushed);
        }
    }
}
