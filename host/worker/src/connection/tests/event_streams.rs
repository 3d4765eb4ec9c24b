//! Event streams that go on in another worker.

use app_host_core::not_resumed::{LongLived, NotResumed};
use proptest::prelude::*;

use super::transfer::Relay;
use super::*;

const ACCEPTS: &str = "Accept: text/event-stream\r\n";

impl Relay {
    /// Asks for events, with these lines in the head, and returns the head of the answer.
    async fn subscribe(&mut self, path: &str, lines: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n")).await;
        self.head().await
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.client.read_u8().await.expect("the connection ended in a response's head"));
        }
        String::from_utf8(head).unwrap()
    }

    /// The next chunk of the response; none is the end.
    async fn chunk(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.client.read_u8().await?);
        }
        let line = String::from_utf8(line).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16).expect("a chunk begins with its length");
        let mut chunk = vec![0; length + 2];
        self.client.read_exact(&mut chunk).await?;
        assert!(chunk.ends_with(b"\r\n"));
        chunk.truncate(length);
        Ok(String::from_utf8(chunk).unwrap())
    }

    /// Reads until so much has come, or the response has ended, and returns the ids of the events that are whole.
    async fn ids(&mut self, until: u64) -> Vec<u64> {
        let (mut text, mut ids) = (String::new(), Vec::new());
        while ids.last() != Some(&until) {
            let chunk = timeout(Duration::from_secs(20), self.chunk()).await.expect("a chunk comes").unwrap();
            if chunk.is_empty() {
                break;
            }
            text += &chunk;
            while let Some((event, rest)) = text.split_once("\n\n") {
                let id: u64 = event.lines().next().unwrap().strip_prefix("id: ").unwrap().parse().unwrap();
                assert!(event == format!("id: {id}\ndata: event {id}") || event.len() > 100_000, "{event}");
                ids.push(id);
                text = rest.to_owned();
            }
        }
        assert_eq!(text, "", "the rest");
        ids
    }

    fn streams(&self) -> (u64, Vec<NotResumed>) {
        self.gone_on(LongLived::EventStream)
    }
}

fn numbers(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_behind_the_last_event_and_the_client_sees_nothing() {
    for (lines, from) in [("", 1), ("Last-Event-ID: 41\r\n", 42)] {
        let mut relay = Relay::new(4096);
        let head = relay.subscribe("/events?a=b", &format!("{ACCEPTS}{lines}")).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("resumable"), "{head}");
        for number in 0..5 {
            assert_eq!(relay.ids(from + 3 * number + 2).await, numbers(from + 3 * number, from + 3 * number + 2));
            relay.transfer();
        }
        relay.ids(from + 17).await;
        assert_eq!((relay.transfers(), relay.streams()), (5, (5, vec![])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_rests_leaves_at_once_and_half_an_event_is_waited_for() {
    let mut relay = Relay::new(4096);
    relay.subscribe("/events/rests", ACCEPTS).await;
    relay.ids(2).await;
    relay.transfer();
    relay.settle().await;
    assert_eq!(relay.transfers(), 1);
    assert_eq!(relay.ids(4).await, [3, 4]);

    let mut relay = Relay::new(4096);
    relay.subscribe("/events/half", ACCEPTS).await;
    relay.ids(1).await;
    assert_eq!(relay.chunk().await.unwrap(), "id: 2\ndat");
    relay.transfer();
    tokio::time::sleep(LINGER * 3).await;
    assert_eq!(relay.transfers(), 0);
    relay.begin(Phase::Cut);
    assert!(relay.chunk().await.is_err());
    assert_eq!(relay.streams(), (0, vec![NotResumed::Cut]));
    relay.served.await.unwrap();
}

/// Its request is asked once more, and those behind it are not.
#[tokio::test(start_paused = true)]
async fn requests_behind_a_stream_travel_and_are_answered_as_any_other() {
    let mut relay = Relay::new(4096);
    let head = relay.subscribe("/events/three", ACCEPTS).await;
    assert!(head.contains("x-asked: 1"), "{head}");
    relay.ids(1).await;
    relay.send(&get("/behind")).await;
    relay.settle().await;
    relay.transfer();
    assert_eq!(relay.ids(4).await, [2, 3], "and the end");
    assert_eq!(read_answer(&mut relay.client).await, kept("/behind"));
    assert_eq!(relay.transfers(), 1);
    // What comes before a response comes again.
    for _ in 0..2 {
        let head = relay.subscribe("/hint/", "").await;
        assert!(head.starts_with("HTTP/1.1 103 "), "{head}");
        assert!(relay.head().await.starts_with("HTTP/1.1 103 "));
        assert_eq!(read_answer(&mut relay.client).await, kept("hinted"));
    }
    let head = relay.subscribe("/events/three", ACCEPTS).await;
    assert!(head.contains("x-asked: 3"), "{head}");
    assert_eq!(relay.ids(4).await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_between_two_events_where_nobody_goes_on() {
    let long = format!("{ACCEPTS}x-a: {}\r\n", "a".repeat(40_000));
    // With the id it would have one line too many.
    let many = format!("{ACCEPTS}{}", "x-a: 1\r\n".repeat(usize::from(Limits::TEST.http.max_headers) - 2));
    let with_body = format!("{ACCEPTS}Transfer-Encoding: chunked\r\n\r\n0\r\n");
    let close = Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close };
    let hand_over = Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver };
    for (path, lines, phase, why) in [
        ("/events", ACCEPTS, close, NotResumed::NoSuccessor),
        ("/events", &long, hand_over, NotResumed::LongHead),
        ("/events/coded", ACCEPTS, hand_over, NotResumed::Extension),
        ("/events/once", ACCEPTS, hand_over, NotResumed::NotGranted),
        ("/events/page", ACCEPTS, hand_over, NotResumed::NotGranted),
        ("/events", &many, hand_over, NotResumed::LongHead),
        // A client that has not said that it takes events.
        ("/events", "", hand_over, NotResumed::NotRepeatable),
        ("/events", "Accept: text/html\r\n", hand_over, NotResumed::NotRepeatable),
        ("/events", &with_body, hand_over, NotResumed::NotRepeatable),
    ] {
        let mut relay = Relay::new(128 * 1024);
        let head = relay.subscribe(path, lines).await;
        assert!(!head.contains("resumable"), "{head}");
        let first = relay.ids(2).await;
        relay.begin(phase);
        // To its end.
        let rest = relay.ids(0).await;
        assert_eq!([first, rest.clone()].concat(), numbers(1, 2 + rest.len() as u64), "{path}");
        assert!(rest.len() <= 1);
        assert_eq!(relay.streams(), (0, vec![why]), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_no_header_can_say_ends_the_stream() {
    for path in ["/events/control", "/events/long", "/events/blank"] {
        let mut relay = Relay::new(128 * 1024);
        relay.subscribe(path, ACCEPTS).await;
        relay.settle().await;
        relay.transfer();
        while !timeout(LINGER, relay.chunk()).await.expect("it ends").unwrap().is_empty() {}
        assert_eq!(relay.streams(), (0, vec![NotResumed::LongHead]), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_may_not_go_on_stays_to_its_end() {
    let mut relay = Relay::new(4096);
    relay.subscribe("/events/without", ACCEPTS).await;
    relay.ids(2).await;
    relay.transfer();
    relay.ids(50).await;
    relay.begin(Phase::Cut);
    while relay.chunk().await.is_ok() {}
    assert_eq!((relay.transfers(), relay.streams()), (0, (0, vec![])));
    relay.served.await.unwrap();
}

/// The next worker drains before it has asked, or before its answer was swallowed.
#[tokio::test(start_paused = true)]
async fn a_stream_that_moves_on_before_it_was_resumed_loses_nothing() {
    let mut relay = Relay::new(4096);
    relay.subscribe("/events", ACCEPTS).await;
    relay.ids(1).await;
    relay.transfer();
    for _ in 0..40 {
        tokio::task::yield_now().await;
        relay.transfer();
    }
    assert_eq!(relay.ids(20).await, numbers(2, 20));
    assert!(relay.transfers() > 1);
    assert_eq!(relay.streams().1, []);
}

/// However it moves, and whether its handler leaves something or not.
#[tokio::test(start_paused = true)]
async fn a_handler_finds_what_was_left_last() {
    let mut relay = Relay::new(4096);
    relay.subscribe("/events/kept", ACCEPTS).await;
    for number in 1..=8 {
        for _ in 0..number {
            relay.transfer();
            tokio::task::yield_now().await;
        }
        assert_eq!(relay.ids(number).await, [number]);
    }
    assert!(relay.transfers() >= 8);
}

/// One that speaks HTTP/2 where it can, and one that has room for just one more line.
#[tokio::test(start_paused = true)]
async fn whatever_else_its_request_says_a_stream_goes_on() {
    let many = "x-a: 1\r\n".repeat(usize::from(Limits::TEST.http.max_headers) - 3);
    for lines in
        ["Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n", &many]
    {
        let mut relay = Relay::new(4096);
        relay.subscribe("/events", &format!("{ACCEPTS}{lines}")).await;
        for number in 1..4 {
            relay.ids(number).await;
            relay.transfer();
        }
        relay.ids(5).await;
        assert_eq!(relay.streams(), (3, vec![]), "{lines}");
    }
}

/// Nobody could tell whether it still reads.
#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_has_ended_its_side_ends() {
    let mut relay = Relay::new(4096);
    relay.subscribe("/events", ACCEPTS).await;
    relay.ids(1).await;
    relay.client.shutdown().await.unwrap();
    relay.settle().await;
    relay.transfer();
    let rest = relay.ids(0).await;
    assert_eq!(rest, numbers(2, 1 + rest.len() as u64));
    assert_eq!((relay.transfers(), relay.streams()), (0, (0, vec![])));
    relay.served.await.unwrap();
}

/// The worker that it has come to is cut before its app has answered.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_before_it_was_asked_again_is_counted() {
    let mut relay = Relay::new(4096);
    relay.subscribe("/events/slow", ACCEPTS).await;
    relay.ids(1).await;
    relay.transfer();
    relay.settle().await;
    assert_eq!(relay.transfers(), 1);
    relay.begin(Phase::Cut);
    assert!(relay.chunk().await.is_err());
    assert_eq!(relay.streams(), (0, vec![NotResumed::Cut]));
    relay.served.await.unwrap();
}

/// It is let go, and its last event never goes out.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_off_and_counted() {
    let mut relay = Relay::new(4096);
    relay.subscribe("/events/big", ACCEPTS).await;
    relay.settle().await;
    relay.transfer();
    tokio::time::sleep(Limits::TEST.stall * 3).await;
    assert_eq!((relay.transfers(), relay.streams()), (0, (0, vec![NotResumed::Cut])));
    relay.served.await.unwrap();
}

/// A client of HTTP/2 gets the end of the stream as soon as its worker drains, and comes back by itself.
#[tokio::test(start_paused = true)]
async fn a_stream_of_http2_ends_between_two_events() {
    let Rig { client, control, stats, served, .. } = Rig::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| {
        let request = Request::get(format!("http://test{path}")).header("accept", "text/event-stream");
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let rests = sender.send_request(request("/events/rests")).await.unwrap();
    let half = sender.send_request(request("/events/half")).await.unwrap();
    assert!(!rests.headers().contains_key("app-host-resumable"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver });
    let text = timeout(Duration::from_millis(50), rests.into_body().collect()).await.expect("it ends at once").unwrap();
    assert_eq!(text.to_bytes(), "id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n");
    control.begin(Phase::Cut);
    assert!(half.into_body().collect().await.is_err());
    served.await.unwrap();
    let ended = stats.snapshot().not_resumed[LongLived::EventStream as usize];
    assert_eq!((ended[NotResumed::Http2 as usize], ended[NotResumed::Cut as usize]), (1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often it moves, whenever, and however little its client takes at a time: each event comes once, in order.
    #[test]
    fn a_stream_that_moves_loses_and_doubles_no_event(
        moves in prop::collection::vec((0_u64..4000, 1_usize..3), 1..20),
        buffer in prop_oneof![Just(20_usize), Just(200), Just(64 * 1024)],
        last in prop_oneof![Just(0_u64), 1_u64..1000],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let mut relay = Relay::new(buffer);
            relay.subscribe("/events", &format!("{ACCEPTS}Last-Event-ID: {last}\r\n")).await;
            let control = Arc::clone(&relay.control);
            tokio::spawn(async move {
                for (pause, times) in moves {
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                    for _ in 0..times {
                        let since = Instant::now().into_std();
                        let phase = Phase::Draining { since, linger: LINGER, ending: Ending::HandOver };
                        control.lock().unwrap().begin(phase);
                        tokio::task::yield_now().await;
                    }
                }
            });
            assert_eq!(relay.ids(last + 60).await, numbers(last + 1, last + 60));
            assert_eq!(relay.streams().1, []);
        });
    }
}
