//! Messages between workers, and the notice that a worker drains: what is heard, what is lost, and that
//! nobody else pays for it.

use std::time::{Duration, Instant};

use app_host_tests::{App, Connection, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn talkative() -> Host {
    Host::new(&App::build().app("talkative"))
}

/// Opens a stream of what a worker hears, which it does from now on.
fn listen(host: &Host, worker: u32, path: &str) -> Connection {
    let mut stream = host.connect_to(worker);
    assert_eq!(stream.open(path).unwrap(), 200);
    assert_eq!(line(&mut stream).unwrap(), "listening");
    stream
}

/// The next line of such a stream; `None` at its end.
fn line(stream: &mut Connection) -> Option<String> {
    let chunk = stream.chunk().expect("the stream goes on, or ends properly")?;
    Some(String::from_utf8(chunk).unwrap().trim_end().to_owned())
}

fn publish(host: &Host, worker: u32, topic: &str, text: &str) {
    let mut connection = host.connect_to(worker);
    assert_eq!(connection.post(&format!("/publish/{topic}"), text.as_bytes()).unwrap(), 200, "{}", connection.text());
}

fn ask(connection: &mut Connection, path: &str) -> Value {
    assert_eq!(connection.get(path).unwrap(), 200, "{path}: {}", connection.text());
    serde_json::from_slice(connection.body()).unwrap_or_default()
}

/// Waits until a worker has heard, or was told of the loss of, so many messages; gives how many were lost.
fn accounted(host: &Host, connection: &mut Connection, topic: &str, all: u64) -> u64 {
    host.wait(&format!("an account of {all} messages"), || {
        let counted = ask(connection, &format!("/counted/{topic}"));
        let (received, lost) = (counted["received"].as_u64().unwrap(), counted["lost"].as_u64().unwrap());
        assert!(received + lost <= all, "{counted}");
        (received + lost == all).then_some(lost)
    })
}

/// The candidate worker of a restart that is in its probation.
fn candidate(host: &Host) -> u32 {
    host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2)).worker_pid()
}

#[test]
fn message_is_heard_by_every_worker_its_publisher_included_and_tells_where_it_is_from() {
    let host = talkative().with("/workers", 3).start();
    let workers = host.serving();
    let mut streams: Vec<_> = workers.iter().map(|worker| listen(&host, *worker, "/listen/news")).collect();
    let mut other = listen(&host, workers[0], "/listen/other");
    for (slot, worker) in workers.iter().enumerate() {
        publish(&host, *worker, "news", &format!("from {slot}"));
        for stream in &mut streams {
            assert_eq!(line(stream).unwrap(), format!("{slot} 1 from {slot}"));
        }
    }
    publish(&host, workers[1], "other", "only this");
    assert_eq!(line(&mut other).unwrap(), "1 1 only this");
}

#[test]
fn both_generations_hear_each_other_during_a_restart() {
    let mut host = talkative().start();
    let before = host.serving();
    host.set("/restart/probation", "3s");
    host.signal(Signal::SIGUSR2);
    let candidate = candidate(&host);
    let mut streams = [before[0], before[1], candidate].map(|worker| listen(&host, worker, "/live/news"));
    // One after the other: what two workers publish comes in no order.
    for (publisher, text, heard) in [(before[1], "old", "1 1 old"), (candidate, "new", "0 2 new")] {
        publish(&host, publisher, "news", text);
        for stream in &mut streams {
            assert_eq!(line(stream).unwrap(), heard);
        }
    }
    assert_eq!(host.verdict(1).verdict, "complete");
    // Those of the old generation have ended with their drain; the candidate's goes on.
    let [old, other, new] = &mut streams;
    assert_eq!((line(old), line(other)), (None, None));
    publish(&host, host.serving()[1], "news", "later");
    assert_eq!(line(new).unwrap(), "1 2 later");
}

#[test]
fn drain_notice_ends_streams_properly_and_holds_no_drain_up() {
    let host = talkative().with("/restart/shutdown_timeout", "30s").start();
    let before = host.serving();
    let mut streams: Vec<_> = (0..20).map(|number| listen(&host, before[number % 2], "/live/news")).collect();
    let mut waiting = before.iter().map(|worker| host.connect_to(*worker)).collect::<Vec<_>>();
    for connection in &mut waiting {
        connection.ask("/draining").unwrap();
    }
    // One whose client goes leaves nothing behind that would matter.
    drop(streams.pop());
    let began = Instant::now();
    host.restart_completes();
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    for stream in &mut streams {
        assert_eq!(line(stream), None);
    }
    for connection in &mut waiting {
        assert_eq!(connection.receive().unwrap(), 200);
        assert_eq!(connection.text(), "false true");
    }
    for exited in host.lines_with(said::WORKER_EXITED) {
        assert_eq!((exited.str("status"), exited.number("cut")), ("exit 0", Some(0)), "{}", exited.text());
    }
}

#[test]
fn last_message_of_an_app_that_stops_is_heard() {
    let mut host = talkative().with("/app/config", json!({ "farewell": "goodbye" })).start();
    host.set("/restart/probation", "4s");
    host.signal(Signal::SIGUSR2);
    let mut stream = listen(&host, candidate(&host), "/listen/farewell");
    let mut heard = [line(&mut stream).unwrap(), line(&mut stream).unwrap()];
    heard.sort();
    assert_eq!(heard, ["0 1 goodbye", "1 1 goodbye"]);
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn topics_and_messages_beyond_their_bounds_are_refused_and_the_longest_arrive_whole() {
    let host = talkative().start();
    let workers = host.serving();
    let topic = "t".repeat(255);
    let mut stream = listen(&host, workers[0], &format!("/listen/{topic}"));
    for (topic, length, text) in [
        ("", 1, "a topic has from 1 to 255 bytes, this one has 0"),
        (&"t".repeat(256), 1, "a topic has from 1 to 255 bytes, this one has 256"),
        (&topic, 65_537, "a message has at most 65536 bytes, this one has 65537"),
    ] {
        let mut connection = host.connect_to(workers[1]);
        assert_eq!(connection.post(&format!("/publish/{topic}"), &vec![b'x'; length]).unwrap(), 400);
        assert_eq!(connection.text(), text);
    }
    let longest = "x".repeat(65_536);
    publish(&host, workers[1], &topic, &longest);
    publish(&host, workers[1], &topic, "");
    assert_eq!(line(&mut stream).unwrap(), format!("1 1 {longest}"));
    assert_eq!(line(&mut stream).unwrap(), "1 1");
}

#[test]
fn flood_from_all_workers_is_heard_or_counted_to_the_last_message() {
    let host = talkative().start();
    let workers = host.serving();
    let mut counters: Vec<_> = workers.iter().map(|worker| host.connect_to(*worker)).collect();
    for counter in &mut counters {
        assert_eq!(counter.get("/count/flood").unwrap(), 200);
    }
    let mut floods: Vec<_> = workers.iter().map(|worker| host.connect_to(*worker)).collect();
    for flood in &mut floods {
        flood.ask("/flood/flood/100000").unwrap();
    }
    // The serving threads are free meanwhile.
    for counter in &mut counters {
        ask(counter, "/whoami");
    }
    for flood in &mut floods {
        assert_eq!(flood.receive().unwrap(), 200);
    }
    for counter in &mut counters {
        let lost = accounted(&host, counter, "flood", 200_000);
        assert!(lost < 200_000, "something is heard");
    }
}

#[test]
fn flood_delays_no_restart() {
    let host = talkative().with("/restart/shutdown_timeout", "60s").start();
    let before = host.serving();
    for worker in &before {
        assert_eq!(host.connect_to(*worker).get("/count/flood").unwrap(), 200);
    }
    let mut floods: Vec<_> = before.iter().map(|worker| host.connect_to(*worker)).collect();
    for flood in &mut floods {
        flood.ask("/flood/flood/100000").unwrap();
    }
    host.signal(Signal::SIGUSR2);
    // Ready and drain go through in the middle of it: the floods hold the drains up themselves, as
    // requests in flight do.
    host.wait_for(said::WORKER_DRAINS, |line| line.number("slot") == Some(1));
    for flood in &mut floods {
        assert!(!flood.is_closed().unwrap());
        assert_eq!(flood.receive().unwrap(), 200);
        assert!(flood.text().contains("100000"), "{}", flood.text());
    }
    assert_eq!(host.verdict(1).verdict, "complete");
    for exited in host.lines_with(said::WORKER_EXITED) {
        assert_eq!((exited.str("status"), exited.number("cut")), ("exit 0", Some(0)), "{}", exited.text());
    }
    host.assert_all_serve(&host.serving());
}

#[test]
fn stopped_worker_costs_only_itself_and_learns_what_it_lost() {
    let host = talkative().start();
    let [stopped, other] = host.serving()[..] else { panic!("two workers") };
    let mut counters = [stopped, other].map(|worker| host.connect_to(worker));
    for counter in &mut counters {
        assert_eq!(counter.get("/count/flood").unwrap(), 200);
    }
    let [of_stopped, of_other] = &mut counters;
    let mut flood = host.connect_to(other);
    process::signal(stopped, Signal::SIGSTOP);
    assert_eq!(flood.get("/flood/flood/20000").unwrap(), 200, "{}", flood.text());
    accounted(&host, of_other, "flood", 20_000);
    process::signal(stopped, Signal::SIGCONT);
    let lost = accounted(&host, of_stopped, "flood", 20_000);
    assert!((1..20_000).contains(&lost), "{lost}");
}

#[test]
fn subscriber_that_is_slow_is_told_of_each_gap_in_its_place() {
    let host = talkative().start();
    let [first, second] = host.serving()[..] else { panic!("two workers") };
    // Nobody reads the stream: once the sockets are full, its body is polled no more.
    let mut slow = listen(&host, first, "/listen/flood");
    let mut counter = host.connect_to(first);
    assert_eq!(counter.get("/count/flood").unwrap(), 200);
    assert_eq!(host.connect_to(second).get("/flood/flood/150000").unwrap(), 200);
    accounted(&host, &mut counter, "flood", 150_000);
    let (mut next, mut lost) = (0, 0);
    while next < 150_000 {
        let line = line(&mut slow).expect("it goes on");
        if let Some(count) = line.strip_prefix("lost ") {
            next += count.parse::<u64>().unwrap();
            lost += 1;
        } else {
            assert_eq!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap(), next);
            next += 1;
        }
    }
    assert!(lost > 0, "it was too fast for this test");
}

#[test]
fn worker_that_dies_in_the_middle_of_a_flood_harms_nobody() {
    let host = talkative().start();
    let [dying, witness] = host.serving()[..] else { panic!("two workers") };
    let mut counter = host.connect_to(witness);
    assert_eq!(counter.get("/count/flood").unwrap(), 200);
    let mut stream = listen(&host, witness, "/live/news");
    let mut flood = host.connect_to(dying);
    flood.ask("/flood/flood/1000000").unwrap();
    host.wait("the flood", || (ask(&mut counter, "/counted/flood")["received"].as_u64() > Some(1000)).then_some(()));
    let mark = host.mark();
    process::signal(dying, Signal::SIGKILL);
    let successor = host.wait_after(mark, said::WORKER_READY, |_| true).worker_pid();
    publish(&host, successor, "news", "risen");
    assert_eq!(line(&mut stream).unwrap(), "0 1 risen");
    assert!(host.lines_with("a worker's packet for others is ignored").is_empty());
    host.restart_completes();
}

#[test]
fn worker_that_sends_garbage_is_not_heard_any_more_and_that_is_said_once() {
    const SAID: &str = "unreadable packet from a worker for others; nothing more of it is received";
    let host = talkative().start();
    let [worker, witness] = host.serving()[..] else { panic!("two workers") };
    let mut streams = [worker, witness].map(|worker| listen(&host, worker, "/live/news"));
    for _ in 0..3 {
        assert_eq!(host.connect_to(worker).get("/garbage").unwrap(), 200);
    }
    host.wait_for(SAID, |line| line.number("slot") == Some(0) && line.number("generation") == Some(1));
    publish(&host, witness, "news", "sense");
    for stream in &mut streams {
        assert_eq!(line(stream).unwrap(), "1 1 sense", "it hears on");
    }
    host.restart_completes();
    assert_eq!(host.lines_with(SAID).len(), 1);
}

#[test]
fn subscriptions_end_when_the_master_is_killed() {
    let host = talkative().start();
    let workers = host.serving();
    let mut streams: Vec<_> = workers.iter().map(|worker| listen(&host, *worker, "/listen/news")).collect();
    host.signal(Signal::SIGKILL);
    host.wait_exit();
    for stream in &mut streams {
        assert_eq!(line(stream), None);
    }
    host.wait("the workers' exit", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
}
