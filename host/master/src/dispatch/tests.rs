use app_host_core::dispatch::MAX_WAITING;

use super::*;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// A worker's end of its socket, with which a test plays the worker.
struct Worker(Socket);

impl Worker {
    fn join(dispatch: &Dispatch, number: u16) -> Self {
        let (ours, theirs) = packet::pair().unwrap();
        dispatch.join(WorkerId(number.into()), Slot(number), Generation(u64::from(number) + 10), ours);
        Self(Socket::new(theirs).unwrap())
    }

    async fn say_when_there_is_room(&self, packet: &Bytes) {
        // One that isn't heard any more can't be told.
        let _ = tokio::time::timeout(LIMIT, self.0.send(packet, &[])).await.expect("it is read");
    }

    fn publish(&self, topic: &str, bytes: &[u8]) -> bool {
        packet::send(self.0.as_fd(), &wire::message(topic, bytes), &[]).is_ok()
    }

    /// The slot that a message is from and its bytes, or how many of a topic were lost.
    async fn hear(&self) -> Result<(u16, Vec<u8>), (String, u64)> {
        let mut buffer = vec![0; wire::MAX_PACKET];
        let received = tokio::time::timeout(LIMIT, self.0.receive_plain(&mut buffer)).await;
        let length = received.expect("it comes soon").unwrap();
        match wire::read(&buffer[..length]).unwrap() {
            Packet::Message { origin, bytes, .. } => {
                assert_eq!(origin.generation, u64::from(origin.slot) + 10);
                Ok((origin.slot, bytes.to_owned()))
            }
            Packet::Lost { topic, count } => Err((topic.to_owned(), count)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn every_worker_hears_what_one_publishes_in_its_order_and_so_does_itself() {
    let dispatch = Dispatch::open().unwrap();
    let workers: Vec<_> = (0..3).map(|number| Worker::join(&dispatch, number)).collect();
    for text in [&b"1"[..], b"2", b"3"] {
        assert!(workers[1].publish("t", text));
    }
    for worker in &workers {
        for text in [&b"1"[..], b"2", b"3"] {
            assert_eq!(worker.hear().await, Ok((1, text.to_owned())));
        }
    }
}

#[tokio::test]
async fn last_messages_of_a_worker_that_has_exited_arrive() {
    let dispatch = Dispatch::open().unwrap();
    let witness = Worker::join(&dispatch, 0);
    for number in 1..50 {
        let dying = Worker::join(&dispatch, number);
        assert!(dying.publish("t", b"last word"));
        drop(dying);
        dispatch.leave(WorkerId(number.into()));
        assert_eq!(witness.hear().await, Ok((number, b"last word".to_vec())));
    }
}

#[tokio::test]
async fn who_sends_garbage_is_not_heard_any_more_and_hears_on() {
    let dispatch = Dispatch::open().unwrap();
    let witness = Worker::join(&dispatch, 9);
    let garbage = [b"garbage".to_vec(), vec![1; wire::MAX_PACKET + 1], wire::lost("t", 1).to_vec()];
    for (number, garbage) in (0..).zip(garbage) {
        let worker = Worker::join(&dispatch, number);
        packet::send(worker.0.as_fd(), &garbage, &[]).unwrap();
        // It may take a few before it is seen.
        let flood = async {
            while worker.publish("t", b"no sense") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, flood).await.expect("it can't send for ever");
        assert!(witness.publish("t", b"sense"));
        assert_eq!(worker.hear().await, Ok((9, b"sense".to_vec())));
        assert_eq!(witness.hear().await, Ok((9, b"sense".to_vec())));
    }
}

#[tokio::test]
async fn what_lay_behind_garbage_is_not_handed_on_at_the_end_either() {
    let dispatch = Dispatch::open().unwrap();
    let witness = Worker::join(&dispatch, 1);
    for number in 10..60 {
        let worker = Worker::join(&dispatch, number);
        packet::send(worker.0.as_fd(), b"garbage", &[]).unwrap();
        // Some of it is in the socket when the garbage is read.
        while worker.publish("t", b"no sense") {}
        dispatch.leave(WorkerId(number.into()));
        assert!(witness.publish("t", b"sense"));
        assert_eq!(witness.hear().await, Ok((1, b"sense".to_vec())));
    }
}

impl Worker {
    fn say(&self, packet: &Bytes) {
        packet::send(self.0.as_fd(), packet, &[]).unwrap();
    }

    /// The next packet is word that this claim holds its lock.
    async fn is_granted(&self, lock: &str, number: u64) {
        let mut buffer = vec![0; wire::MAX_PACKET];
        let received = tokio::time::timeout(LIMIT, self.0.receive_plain(&mut buffer)).await;
        let length = received.expect("it comes soon").unwrap();
        assert_eq!(wire::read(&buffer[..length]), Ok(Packet::Granted { lock, number }));
    }
}

#[tokio::test]
async fn a_lock_goes_to_one_claim_after_the_other_and_is_freed_by_the_end_of_its_worker() {
    let dispatch = Dispatch::open().unwrap();
    let workers: [_; 3] = std::array::from_fn(|number| Worker::join(&dispatch, u16::try_from(number).unwrap()));
    workers[0].say(&wire::claim("l", 7));
    workers[0].is_granted("l", 7).await;
    workers[1].say(&wire::claim("l", 1));
    workers[1].say(&wire::claim("m", 2));
    workers[1].is_granted("m", 2).await;
    workers[0].say(&wire::release("l", 7));
    workers[1].is_granted("l", 1).await;
    workers[2].say(&wire::claim("l", 4));
    let [first, second, third] = workers;
    // It has closed its end, and may work all the same.
    drop(second);
    let witness = Worker::join(&dispatch, 5);
    witness.say(&wire::claim("m", 1));
    assert!(witness.publish("t", b"nothing was granted before"));
    assert_eq!(witness.hear().await, Ok((5, b"nothing was granted before".to_vec())));
    dispatch.leave(WorkerId(1));
    witness.is_granted("m", 1).await;
    drop(first);
    // Its message comes before.
    assert_eq!(third.hear().await, Ok((5, b"nothing was granted before".to_vec())));
    third.is_granted("l", 4).await;
}

#[tokio::test]
async fn while_orphans_may_hold_locks_nothing_is_granted_and_then_everything_once() {
    let dispatch = Dispatch::open().unwrap();
    let granter = dispatch.grant_locks_later();
    let worker = Worker::join(&dispatch, 0);
    worker.say(&wire::claim("l", 1));
    worker.say(&wire::claim("given up", 2));
    worker.say(&wire::release("given up", 2));
    assert!(worker.publish("t", b"before"));
    assert_eq!(worker.hear().await, Ok((0, b"before".to_vec())));
    granter.grant();
    worker.is_granted("l", 1).await;
    worker.say(&wire::claim("m", 3));
    worker.is_granted("m", 3).await;
}

#[tokio::test]
async fn a_worker_that_claims_too_much_is_not_heard_any_more_and_one_that_does_not_read_costs_little() {
    let dispatch = Dispatch::open().unwrap();
    let (greedy, witness) = (Worker::join(&dispatch, 0), Worker::join(&dispatch, 1));
    for _ in 0..20_000 {
        greedy.say_when_there_is_room(&wire::claim("l", 1)).await;
        greedy.say_when_there_is_room(&wire::release("l", 1)).await;
    }
    witness.say(&wire::claim("l", 1));
    witness.is_granted("l", 1).await;
    for number in 0..=u64::try_from(app_host_core::dispatch::queues::MAX_CLAIMS).unwrap() {
        greedy.say_when_there_is_room(&wire::claim("m", number)).await;
    }
    let flood = async {
        while greedy.publish("t", b"no sense") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, flood).await.expect("it can't send for ever");
    dispatch.leave(WorkerId(0));
    witness.say(&wire::claim("m", 2));
    witness.is_granted("m", 2).await;
}

#[test]
fn what_was_granted_and_given_back_before_it_was_said_is_not_kept() {
    let mut outgoing = Outgoing::default();
    for number in 0..1000 {
        outgoing.granted.push_back(wire::granted("l", number));
        outgoing.take_back(&wire::granted("l", number));
    }
    assert_eq!(outgoing.next(), None);
}

#[tokio::test]
async fn no_packet_with_a_descriptor_is_handed_on() {
    let dispatch = Dispatch::open().unwrap();
    let (worker, witness) = (Worker::join(&dispatch, 0), Worker::join(&dispatch, 1));
    assert!(witness.publish("t", b"both are there"));
    assert_eq!(worker.hear().await, witness.hear().await);
    let with_descriptor = wire::message("t", b"with a descriptor");
    let _ = packet::send(worker.0.as_fd(), &with_descriptor, &[worker.0.as_fd()]);
    assert!(witness.publish("t", b"sense"));
    assert_eq!(witness.hear().await, Ok((1, b"sense".to_vec())));
}

#[tokio::test]
async fn worker_that_does_not_read_loses_the_oldest_and_costs_nobody_else_a_message() {
    let dispatch = Dispatch::open().unwrap();
    let (publisher, deaf) = (Worker::join(&dispatch, 0), Worker::join(&dispatch, 1));
    let all = 5 * MAX_WAITING;
    for number in 0..all {
        let topic = if number % 2 == 0 { "even" } else { "odd" };
        let bytes = number.to_string();
        assert!(publisher.publish(topic, bytes.as_bytes()));
        assert_eq!(publisher.hear().await, Ok((0, bytes.into_bytes())));
    }
    let (mut heard, mut lost, mut newest) = (0, HashMap::new(), None);
    while newest != Some(all - 1) {
        match deaf.hear().await {
            Ok((_, bytes)) => {
                let number = String::from_utf8(bytes).unwrap().parse().unwrap();
                assert!(newest < Some(number), "in their order");
                newest = Some(number);
                heard += 1;
            }
            Err((topic, count)) => *lost.entry(topic).or_insert(0) += count,
        }
    }
    assert!(heard > MAX_WAITING, "what waited is kept: {heard}");
    assert_eq!(heard as u64 + lost.values().sum::<u64>(), all as u64, "{lost:?}");
    assert!(lost["even"].abs_diff(lost["odd"]) <= 1, "{lost:?}");
}

#[test]
fn losses_of_many_topics_are_counted_together_beyond_the_bound() {
    let mut losses = Losses::default();
    for number in 0..2 * MAX_LOST_TOPICS {
        losses.add(&wire::message(&number.to_string(), b""));
    }
    let mut told = HashMap::new();
    while let Some(packet) = losses.next() {
        let Ok(Packet::Lost { topic, count }) = wire::read(&packet) else { panic!("word of a loss") };
        told.insert(topic.to_owned(), count);
    }
    assert_eq!(told.len(), MAX_LOST_TOPICS + 1);
    assert_eq!(told[""], MAX_LOST_TOPICS as u64);
}
