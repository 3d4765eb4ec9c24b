//! WebSockets that go on in another worker.

use app_host_core::not_resumed::NotResumed;
use proptest::prelude::*;

use super::transfer::Relay;
use super::*;

/// A frame of a client's, with this first byte (RFC 6455, section 5.2).
fn frame(first: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if let Ok(short @ 0..=125) = u8::try_from(content.len()) {
        frame.push(0x80 | short);
    } else {
        frame.push(0x80 | 0x7e);
        frame.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    }
    frame.extend([1, 2, 3, 4]);
    frame.extend(content);
    frame
}

impl Relay {
    async fn ask(&mut self, path: &str) {
        self.ask_with(path, "").await;
    }

    /// With these lines in the head.
    async fn ask_with(&mut self, path: &str, lines: &str) {
        let head = format!(
            "GET {path}?a=b HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        self.client.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") || head.starts_with(b"HTTP/1.1 103 ") {
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
            }
            head.push(self.client.read_u8().await.expect("the connection ended in a response's head"));
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("resumable"), "{head}");
    }

    async fn echo(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
        let mut echoed = vec![0; bytes.len()];
        timeout(Duration::from_secs(1), self.client.read_exact(&mut echoed)).await.expect("it comes back").unwrap();
        assert_eq!(echoed, bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_rests_moves_at_once_and_the_client_sees_nothing() {
    let mut relay = Relay::new(4096);
    // What comes before the answer comes once as well.
    relay.ask("/resumable/hint").await;
    for number in 1..=5 {
        relay.echo(&frame(0x81, b"hello")).await;
        relay.transfer();
        relay.settle().await;
        assert_eq!(relay.transfers(), number);
    }
    relay.echo(&frame(0x82, &[7; 1000])).await;
    assert!(!relay.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn half_a_message_is_waited_for_and_what_lies_behind_it_travels() {
    let mut relay = Relay::new(64 * 1024);
    relay.ask("/resumable").await;
    // In two frames, with a PING between them.
    let message = [frame(0x01, b"first"), frame(0x89, b"there?"), frame(0x80, b"last")].concat();
    let next = frame(0x81, &[b'n'; 3000]);
    let (begin, rest) = message.split_at(9);
    relay.client.write_all(begin).await.unwrap();
    relay.settle().await;
    relay.transfer();
    relay.settle().await;
    assert_eq!(relay.transfers(), 0);
    relay.client.write_all(&[rest, &next].concat()).await.unwrap();
    let mut echoed = vec![0; message.len() + next.len()];
    relay.client.read_exact(&mut echoed).await.unwrap();
    assert_eq!(echoed, [message, next].concat());
    assert_eq!(relay.transfers(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_go_on_stays_to_its_end() {
    for (path, first) in [
        // One that is closing.
        ("/resumable", frame(0x88, &[3, 0xe8])),
        // No frame of the RFC's.
        ("/resumable", frame(0xf1, b"")),
    ] {
        let mut relay = Relay::new(4096);
        relay.ask(path).await;
        relay.echo(&first).await;
        relay.transfer();
        tokio::time::sleep(LINGER * 3).await;
        assert_eq!(relay.transfers(), 0, "{path}");
        relay.echo(&frame(0x81, b"still here")).await;
        relay.begin(Phase::Cut);
        assert!(matches!(relay.client.read_u8().await, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof));
        assert_eq!(relay.resumed(), (0, vec![]));
        relay.served.await.unwrap();
    }
}

/// What no other worker could go on with ends between two messages, and its client hears why.
#[tokio::test(start_paused = true)]
async fn a_client_that_only_this_worker_knows_is_told_to_come_again() {
    let long = format!("x-a: {}\r\n", "a".repeat(4000)).repeat(9);
    let cases = [("/resumable/deflate", "", NotResumed::Extension), ("/resumable", &long, NotResumed::LongHead)];
    for (path, lines, why) in cases {
        let mut relay = Relay::new(4096);
        relay.ask_with(path, lines).await;
        // With the bit of an extension, and with none.
        let first = if why == NotResumed::Extension { 0xc1 } else { 0x81 };
        relay.echo(&frame(first, b"packed")).await;
        let message = frame(first, &[7; 300]);
        let (half, rest) = message.split_at(100);
        relay.client.write_all(half).await.unwrap();
        relay.settle().await;
        relay.transfer();
        relay.settle().await;
        relay.client.write_all(rest).await.unwrap();
        let mut all = Vec::new();
        relay.client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [&message[..], &[0x88, 2, 3, 0xe9]].concat(), "{why}: the message, and 1001");
        assert_eq!((relay.transfers(), relay.resumed()), (0, (0, vec![why])));
        relay.client.shutdown().await.unwrap();
        relay.served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_end_in_time_is_cut_and_counted() {
    let mut relay = Relay::new(4096);
    relay.ask("/resumable").await;
    relay.client.write_all(&frame(0x01, b"the first half")).await.unwrap();
    relay.settle().await;
    relay.transfer();
    tokio::time::sleep(LINGER * 3).await;
    relay.begin(Phase::Cut);
    let mut rest = Vec::new();
    relay.client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(relay.resumed(), (0, vec![NotResumed::Cut]));
    relay.served.await.unwrap();
}

/// Its client's last messages, and its goodbye, are still the app's.
#[tokio::test(start_paused = true)]
async fn a_socket_that_the_app_is_closing_stays_to_its_end() {
    let mut relay = Relay::new(4096);
    relay.ask("/resumable/closes").await;
    assert_eq!(relay.client.read_u16().await.unwrap(), 0x8800);
    relay.transfer();
    relay.settle().await;
    relay.echo(&frame(0x81, b"one more")).await;
    relay.echo(&frame(0x88, &[3, 0xe8])).await;
    assert_eq!(relay.transfers(), 0);
    relay.client.shutdown().await.unwrap();
    relay.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_service_ends_is_told_so() {
    let mut relay = Relay::new(4096);
    relay.ask("/resumable").await;
    relay.echo(&frame(0x81, b"hello")).await;
    let linger = LINGER;
    relay.begin(Phase::Draining { since: Instant::now().into_std(), linger, ending: Ending::Close });
    let mut rest = Vec::new();
    relay.client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x88, 2, 3, 0xe9], "a closing frame: 1001");
    assert_eq!(relay.resumed(), (0, vec![NotResumed::NoSuccessor]));
    relay.client.shutdown().await.unwrap();
    relay.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_body_is_not_asked_again() {
    let mut relay = Relay::new(4096);
    relay
        .send("GET /resumable HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nab")
        .await;
    relay.settle().await;
    relay.transfer();
    tokio::time::sleep(LINGER).await;
    assert_eq!(relay.transfers(), 0);
    relay.begin(Phase::Cut);
    relay.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_request_is_not_granted_again_is_told_so() {
    let mut relay = Relay::new(4096);
    relay.ask("/resumable/once").await;
    relay.echo(&frame(0x81, b"hello")).await;
    relay.transfer();
    let mut rest = Vec::new();
    relay.client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x88, 2, 3, 0xf4], "a closing frame: 1012");
    assert_eq!(relay.resumed(), (0, vec![NotResumed::NotGranted]));
    // What it still sends is read for a little: or it could lose these words.
    assert!(!relay.served.is_finished());
    relay.client.shutdown().await.unwrap();
    relay.served.await.unwrap();
}

/// The other worker drains as well before it has asked: its own answer must not be sent either.
#[tokio::test(start_paused = true)]
async fn a_socket_that_moves_on_before_it_was_resumed_is_resumed_once() {
    let mut relay = Relay::new(4096);
    relay.ask("/resumable").await;
    relay.transfer();
    for _ in 0..20 {
        tokio::task::yield_now().await;
        relay.transfer();
    }
    relay.echo(&frame(0x81, b"hello")).await;
    assert!(relay.transfers() >= 1);
    assert_eq!(relay.resumed().1, []);
}

#[derive(Clone, Debug)]
enum Sent {
    Message(Vec<Vec<u8>>),
    Ping,
}

fn sent() -> impl Strategy<Value = Sent> {
    let content =
        || prop_oneof![prop::collection::vec(any::<u8>(), 0..60), Just(frame(0x81, b"nested")), Just(vec![9; 3000])];
    prop_oneof![4 => prop::collection::vec(content(), 1..4).prop_map(Sent::Message), 1 => Just(Sent::Ping)]
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let Self::Message(parts) = self else { return frame(0x89, b"?") };
        let last = parts.len() - 1;
        let part = |(number, content): (usize, &Vec<u8>)| {
            let opcode = if number == 0 { 2 } else { 0 };
            frame(opcode | if number == last { 0x80 } else { 0 }, content)
        };
        parts.iter().enumerate().flat_map(part).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often it moves, nothing is lost, doubled or out of order, and no answer is seen.
    #[test]
    fn a_socket_that_moves_gives_back_the_same_bytes(
        messages in prop::collection::vec(sent(), 1..12),
        pieces in prop::collection::vec((1_usize..900, any::<bool>(), 0_u64..900), 1..60),
        buffer in prop_oneof![Just(200_usize), Just(64 * 1024)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let mut relay = Relay::new(buffer);
            relay.ask("/resumable").await;
            let all: Vec<u8> = messages.iter().flat_map(Sent::bytes).collect();
            let Relay { client, control, transfers, .. } = relay;
            let (mut reader, mut writer) = tokio::io::split(client);
            let sent = all.clone();
            let writes = tokio::spawn(async move {
                let mut rest = &sent[..];
                for (length, moves, pause) in pieces.iter().cycle() {
                    let (now, later) = rest.split_at((*length).min(rest.len()));
                    writer.write_all(now).await.unwrap();
                    rest = later;
                    if *moves {
                        let since = Instant::now().into_std();
                        let phase = Phase::Draining { since, linger: LINGER, ending: Ending::HandOver };
                        control.lock().unwrap().begin(phase);
                    }
                    tokio::time::sleep(Duration::from_micros(*pause)).await;
                    if rest.is_empty() {
                        break;
                    }
                }
                writer
            });
            let mut echoed = vec![0; all.len()];
            let read = timeout(Duration::from_mins(1), reader.read_exact(&mut echoed)).await;
            assert!(read.is_ok_and(|read| read.is_ok()), "after {} moves", transfers.load(Relaxed));
            assert!(echoed == all);
            drop(writes.await.unwrap());
        });
    }
}
