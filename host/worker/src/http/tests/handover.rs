//! Connections that are given back for another worker to go on with, and what never is.

use proptest::prelude::*;

use super::*;

/// Where a connection is served by one worker after the other.
struct Relay {
    client: DuplexStream,
    control: Arc<Mutex<DrainControl>>,
    handovers: Arc<AtomicUsize>,
    app: Double,
    served: JoinHandle<()>,
}

impl Relay {
    fn new(buffer: usize) -> Self {
        let (client, transport) = tokio::io::duplex(buffer);
        let app = Double { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
        let (first, mut signal) = drain_signal();
        let control = Arc::new(Mutex::new(first));
        let handovers = Arc::<AtomicUsize>::default();
        let (shared, count, double) = (Arc::clone(&control), Arc::clone(&handovers), app.clone());
        let served = tokio::spawn(async move {
            let mut connection = Handover::accepted(transport);
            loop {
                // Each worker has a page of its own.
                let lane = Box::leak(Box::default());
                let Some(next) = serve(connection, double.clone(), lane, signal, Arc::default()).await else { return };
                let (control, again) = drain_signal();
                *shared.lock().unwrap() = control;
                signal = again;
                count.fetch_add(1, Relaxed);
                connection = next;
            }
        });
        Self { client, control, handovers, app, served }
    }

    fn hand_over(&self) {
        let linger = LINGER;
        self.begin(Phase::Draining { since: Instant::now().into_std(), linger, ending: Ending::HandOver });
    }

    fn begin(&self, phase: Phase) {
        self.control.lock().unwrap().begin(phase);
    }

    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Answered {
        read_answer(&mut self.client).await
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn handovers(&self) -> usize {
        self.handovers.load(Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_given_back_at_once_with_the_bytes_of_half_a_head() {
    let request = get("/first") + &post("/echo", "body");
    let first = get("/first").len();
    for sent in [0, 1, 5, first, first + 1, first + 20] {
        let mut relay = Relay::new(4096);
        relay.send(&request[..sent]).await;
        relay.settle().await;
        for number in 1..=3 {
            relay.hand_over();
            relay.settle().await;
            assert_eq!(relay.handovers(), number, "{:?}", &request[..sent]);
        }
        relay.send(&request[sent..]).await;
        assert_eq!(relay.answer().await, kept("/first"));
        assert_eq!(relay.answer().await, kept("body"));
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_preface_goes_along_and_still_begins_http2() {
    let mut relay = Relay::new(4096);
    relay.send("PRI * HTTP/2.0\r\n").await;
    relay.settle().await;
    relay.hand_over();
    relay.settle().await;
    assert_eq!(relay.handovers(), 1);
    relay.send("\r\nSM\r\n\r\n").await;
    // Settings, an empty frame of this kind: 9 bytes and what they announce.
    let mut head = [0; 9];
    relay.client.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "{head:?}");
}

#[tokio::test(start_paused = true)]
async fn a_preface_behind_a_request_is_no_http2_here_nor_elsewhere() {
    for handed_over in [false, true] {
        let mut relay = Relay::new(4096);
        relay.send(&get("/first")).await;
        assert_eq!(relay.answer().await, kept("/first"));
        if handed_over {
            relay.hand_over();
            relay.settle().await;
        }
        relay.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let mut rest = Vec::new();
        relay.client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
        assert_eq!(relay.handovers(), usize::from(handed_over));
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_follows_its_response_and_announces_no_close() {
    for pause in [Duration::ZERO, LINGER * 3] {
        let mut relay = Relay::new(4096);
        relay.send(&(get("/hold") + &get("/behind"))).await;
        relay.settle().await;
        relay.hand_over();
        tokio::time::sleep(pause).await;
        assert_eq!(relay.handovers(), 0);
        relay.app.gate.add_permits(1);
        assert_eq!(relay.answer().await, kept("held"));
        assert_eq!(relay.answer().await, kept("/behind"), "what hyper had read already is answered here");
        relay.settle().await;
        assert_eq!(relay.handovers(), 1);
        relay.send(&get("/next")).await;
        assert_eq!(relay.answer().await, kept("/next"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_and_a_download_end_where_they_are_and_then_the_connection_moves() {
    let mut relay = Relay::new(4096);
    relay.send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbo").await;
    relay.settle().await;
    relay.hand_over();
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(relay.handovers(), 0);
    relay.send("dy\r\n0\r\n\r\n").await;
    assert_eq!(relay.answer().await, kept("body"));
    relay.settle().await;
    assert_eq!(relay.handovers(), 1);
    // More than the client has room for: hyper has it all, and the client has not.
    relay.send(&(get("/big") + "GET /behind HTTP/1.1\r\nho")).await;
    relay.settle().await;
    relay.hand_over();
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(relay.handovers(), 1);
    assert_eq!(relay.answer().await.body.len(), BIG);
    relay.settle().await;
    assert_eq!(relay.handovers(), 2);
    relay.send("st: a\r\n\r\n").await;
    assert_eq!(relay.answer().await, kept("/behind"));
}

/// What an app leaves unread of a body would be a request to whoever goes on with the connection.
#[tokio::test(start_paused = true)]
async fn behind_a_body_that_the_app_does_not_read_nothing_is_handed_over() {
    let smuggled = get("/smuggled");
    let length = 100 + smuggled.len();
    let head = format!("POST /ignore HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    let chunked = "POST /ignore HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n";
    for head in [head.as_str(), chunked] {
        for early in [0, 50, 100, 100 + smuggled.len() - 1] {
            let mut relay = Relay::new(4096);
            let body = "x".repeat(100) + &smuggled;
            relay.send(&(head.to_owned() + &body[..early])).await;
            relay.settle().await;
            relay.hand_over();
            relay.settle().await;
            relay.app.gate.add_permits(1);
            assert_eq!(relay.answer().await.body, "ignored");
            relay.settle().await;
            assert_eq!(relay.handovers(), 0, "after {early} bytes of the body");
            // The rest may be too late for anybody to take it.
            let _ = relay.client.write_all(&body.as_bytes()[early..]).await;
            let mut rest = Vec::new();
            relay.client.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
            assert_eq!(relay.handovers(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_long_to_travel_is_waited_for() {
    let mut relay = Relay::new(MAX_UNREAD * 4);
    let long = format!("GET /long HTTP/1.1\r\nhost: a\r\nx: {}\r\n", "y".repeat(MAX_UNREAD));
    relay.send(&long).await;
    relay.settle().await;
    relay.hand_over();
    relay.settle().await;
    assert_eq!(relay.handovers(), 0);
    relay.send("\r\n").await;
    assert_eq!(relay.answer().await, kept("/long"));
    relay.settle().await;
    assert_eq!(relay.handovers(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_takes_a_connection_its_close_is_announced() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.settle().await;
    rig.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver });
    rig.settle().await;
    // The road has ended meanwhile.
    rig.drain();
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
    rig.end().await;
    assert!(rig.served.await.unwrap().is_none());
    assert_eq!(rig.lane.snapshot().dismissed, 1);

    let (mut client, transport) = tokio::io::duplex(4096);
    let (control, signal) = drain_signal();
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver });
    let app = Double { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let lane = Box::leak(Box::default());
    let served = tokio::spawn(serve_connection(Handover::accepted(transport), app, lane, signal.staying(), None));
    client.write_all(get("/stays").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut client).await, closing("/stays"));
    drop(client);
    assert!(served.await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_no_younger_for_having_been_handed_over() {
    // An idle one is closed after 90 to 120 s, however often it moves, and one that says nothing after 60.
    for (first, least, most) in [(true, HEAD_TIMEOUT * 3, HEAD_TIMEOUT * 4), (false, HEAD_TIMEOUT, HEAD_TIMEOUT * 2)] {
        let mut relay = Relay::new(4096);
        if first {
            relay.send(&get("/first")).await;
            relay.answer().await;
        }
        let began = Instant::now();
        while !relay.served.is_finished() && began.elapsed() < HEAD_TIMEOUT * 10 {
            tokio::time::sleep(Duration::from_secs(7)).await;
            relay.hand_over();
        }
        let lived = began.elapsed();
        assert!(lived >= least && lived <= most + Duration::from_secs(8), "{first}: {lived:?}");
        assert!(relay.handovers() > 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_serves_lets_go_of_as_many_idle_connections_as_are_invited() {
    let (control, signal) = drain_signal();
    let lane: &'static Lane = Box::leak(Box::default());
    let app = Double { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let mut clients = Vec::new();
    for number in 0..10 {
        let (mut client, transport) = tokio::io::duplex(4096);
        let served =
            tokio::spawn(serve_connection(Handover::accepted(transport), app.clone(), lane, signal.clone(), None));
        // Half of them are busy.
        if number % 2 == 0 {
            client.write_all(get("/idle").as_bytes()).await.unwrap();
            assert_eq!(read_answer(&mut client).await, kept("/idle"));
        } else {
            client.write_all(get("/hold").as_bytes()).await.unwrap();
        }
        clients.push((client, served));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    control.invite(3);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let left = |clients: &[(DuplexStream, JoinHandle<_>)]| clients.iter().filter(|(_, it)| it.is_finished()).count();
    assert_eq!(left(&clients), 3);
    control.invite(100);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(left(&clients), 5, "those that are busy stay");
    control.invite(0);
    app.gate.add_permits(5);
    for (client, served) in &mut clients {
        if !served.is_finished() {
            assert_eq!(read_answer(client).await, kept("held"));
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(left(&clients), 5);
    control.invite(2);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(left(&clients), 7);
}

#[tokio::test]
async fn connections_of_a_thread_hear_what_is_told_elsewhere() {
    let (control, signal) = drain_signal();
    let (here, relay) = signal.here();
    let relay = tokio::spawn(relay);
    let late = here.clone();
    let told = tokio::spawn(here.changed());
    let phase = Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver };
    std::thread::spawn(move || control.begin(phase)).join().unwrap();
    told.await.unwrap();
    assert_eq!(late.phase(), phase);
    // Nobody says anything any more, and what was said holds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!relay.is_finished());
    assert_eq!(late.phase(), phase);
}

/// A request that a client sends.
#[derive(Clone, Debug)]
enum Sent {
    Get {
        blank: bool,
    },
    Sized(Vec<u8>),
    Chunked {
        body: Vec<u8>,
        chunk: usize,
        trailer: bool,
    },
    /// A client that says so before it sends its body; it doesn't wait.
    Expects(Vec<u8>),
}

impl Sent {
    fn bytes(&self, number: usize) -> Vec<u8> {
        let head = |rest: &str| format!("POST /echo?{number} HTTP/1.1\r\nhost: a\r\n{rest}\r\n").into_bytes();
        match self {
            Self::Get { blank } => format!("{}{}", if *blank { "\r\n" } else { "" }, get(&format!("/{number}"))).into(),
            Self::Sized(body) => [head(&format!("content-length: {}\r\n", body.len())), body.clone()].concat(),
            Self::Expects(body) => {
                let head = head(&format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len()));
                [head, body.clone()].concat()
            }
            Self::Chunked { body, chunk, trailer } => {
                let mut sent = head("transfer-encoding: chunked\r\n");
                for chunk in body.chunks(*chunk) {
                    sent.extend_from_slice(format!("{:x};ext\r\n", chunk.len()).as_bytes());
                    sent.extend_from_slice(chunk);
                    sent.extend_from_slice(b"\r\n");
                }
                sent.extend_from_slice(if *trailer { b"0\r\nx: y\r\n\r\n" } else { b"0\r\n\r\n" });
                sent
            }
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    // Bodies that look like requests, and like chunks.
    let body = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            Just(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
            Just(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n".to_vec()),
            Just(vec![b'x'; 9000]),
        ]
    };
    prop_oneof![
        any::<bool>().prop_map(|blank| Sent::Get { blank }),
        body().prop_map(Sent::Sized),
        body().prop_map(Sent::Expects),
        (body(), 1_usize..5000, any::<bool>()).prop_map(|(body, chunk, trailer)| {
            // hyper takes no more than 16 KiB of extensions in one body.
            let chunk = chunk.max(body.len() / 1000);
            Sent::Chunked { body, chunk, trailer }
        }),
    ]
}

/// All that a client receives that sends `pieces`, reads as it likes, and ends its side then; `disturbed` says
/// behind which pieces the connection is to be handed over.
async fn received(pieces: &[(Vec<u8>, bool, bool)]) -> (Vec<u8>, usize) {
    let relay = Relay::new(1500);
    let (mut reader, mut writer) = tokio::io::split(relay.client);
    let (control, handovers, served) = (relay.control, relay.handovers, relay.served);
    let reads = tokio::spawn(async move {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        all
    });
    for (piece, pause, hand_over) in pieces {
        writer.write_all(piece).await.unwrap();
        if *pause {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if *hand_over {
            let phase = Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver };
            control.lock().unwrap().begin(phase);
        }
    }
    // A client that ends its side while a request is in flight is taken for gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    writer.shutdown().await.unwrap();
    let all = reads.await.unwrap();
    served.await.unwrap();
    (all, handovers.load(Relaxed))
}

/// Without the lines whose content is the time.
fn undated(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"date: ")).flatten().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a client's bytes are cut, and wherever its connection is handed over: what it receives is
    /// what an undisturbed server sends.
    #[test]
    fn a_client_receives_the_same_bytes_however_often_its_connection_moves(
        requests in prop::collection::vec(sent(), 1..8),
        cuts in prop::collection::vec((1_usize..400, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let stream: Vec<u8> = requests.iter().enumerate().flat_map(|(at, request)| request.bytes(at)).collect();
        let mut pieces = Vec::new();
        let mut rest = stream.as_slice();
        for (length, pause, hand_over) in cuts {
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            pieces.push((piece.to_vec(), pause, hand_over));
            rest = behind;
        }
        pieces.push((rest.to_vec(), true, true));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let calm: Vec<_> = pieces.iter().map(|(piece, pause, _)| (piece.clone(), *pause, false)).collect();
        let (expected, _) = runtime().block_on(received(&calm));
        let (found, handovers) = runtime().block_on(received(&pieces));
        prop_assert!(handovers > 0);
        let (expected, found) = (undated(&expected), undated(&found));
        prop_assert!(
            expected == found,
            "expected {}\nfound {}",
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&found)
        );
        let answers = found.windows(15).filter(|window| *window == b"HTTP/1.1 200 OK").count();
        prop_assert!(answers >= requests.len(), "{answers} answers to {}", requests.len());
    }
}
