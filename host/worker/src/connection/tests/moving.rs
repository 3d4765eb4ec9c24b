//! HTTP/2 connections that move: their clients don't notice.

use std::future::poll_fn;

use app_host_core::config::Http2Restart;
use app_host_core::not_moved::NotMoved;
use h2::client::SendRequest;
use proptest::prelude::*;

use super::transfer::Relay;
use super::*;

const MOVES: &Limits = &Limits { http2: Http2Restart::Move, ..Limits::TEST };

/// A client of a connection that moves.
struct Client {
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// What a client sets, as far as it isn't the default.
#[derive(Clone, Debug, Default)]
struct Setup {
    window: Option<u32>,
    connection_window: Option<u32>,
    frame: Option<u32>,
    table: Option<u32>,
    buffer: Option<usize>,
}

impl Setup {
    async fn connect(&self, relay: Relay) -> (Client, Relay) {
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false);
        self.window.map(|size| builder.initial_window_size(size));
        self.connection_window.map(|size| builder.initial_connection_window_size(size));
        self.frame.map(|size| builder.max_frame_size(size));
        self.table.map(|size| builder.header_table_size(size));
        let (client, rest) = relay.without_client();
        let (sender, connection) = builder.handshake(client).await.unwrap();
        (Client { sender, connection: tokio::spawn(connection) }, rest)
    }
}

/// A request: some fields, of which a client's table has some, and a body in pieces.
#[derive(Clone, Debug)]
struct Asked {
    fields: Vec<(u8, u16)>,
    body: usize,
    piece: usize,
    /// Milliseconds between two pieces, and before the request.
    pause: u64,
    before: u64,
    /// Whether a field is longer than a frame.
    long: bool,
    /// After how many bytes of its answer the client gives it up.
    gives_up: Option<usize>,
}

impl Asked {
    fn plain() -> Self {
        Self { fields: vec![(1, 1), (2, 2)], body: 0, piece: 1, pause: 0, before: 0, long: false, gives_up: None }
    }

    fn bytes(&self, number: usize) -> Vec<u8> {
        (0..self.body).map(|at| u8::try_from((at * 31 + number * 7) % 251).unwrap()).collect()
    }

    /// Asks, and checks every field and byte of the answer.
    ///
    /// # Errors
    /// The connection has ended.
    async fn ask(self, sender: SendRequest<Bytes>, number: usize) -> Result<(), h2::Error> {
        tokio::time::sleep(Duration::from_millis(self.before)).await;
        let mut sender = sender.ready().await?;
        let mut request = Request::post(format!("http://test/fields/{}", number % 5));
        for (name, value) in &self.fields {
            request = request.header(format!("x-{name}"), format!("value {value} {}", "v".repeat(usize::from(*name))));
        }
        if self.long {
            request = request.header("x-long", "l".repeat(20_000 + number));
        }
        let request = request.header("x-number", number).body(()).unwrap();
        let sent = request.headers().clone();
        let bytes = self.bytes(number);
        let (answer, mut upload) = sender.send_request(request, bytes.is_empty())?;
        drop(sender);
        let (piece, pause) = (self.piece, self.pause);
        let expected = bytes.clone();
        let uploaded = tokio::spawn(async move {
            let mut left = Bytes::from(bytes);
            while !left.is_empty() {
                upload.reserve_capacity(left.len().min(piece));
                let room = poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap()?;
                let next = left.split_to(room.min(left.len()));
                upload.send_data(next, left.is_empty())?;
                if pause > 0 {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
            Ok::<_, h2::Error>(())
        });
        let (head, mut body) = answer.await?.into_parts();
        let mut got = head.headers;
        let date = got.remove("date").unwrap_or_else(|| panic!("{got:?}"));
        assert!(httpdate::parse_http_date(date.to_str().unwrap()).is_ok(), "{date:?}");
        assert_eq!(got, sent, "{number}");
        let mut received = Vec::new();
        while let Some(next) = body.data().await {
            let next = next?;
            body.flow_control().release_capacity(next.len()).unwrap();
            received.extend_from_slice(&next);
            if self.gives_up.is_some_and(|most| received.len() >= most) {
                return Ok(());
            }
        }
        assert!(received == expected, "{number}: {} of {}", received.len(), expected.len());
        uploaded.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_notice_that_its_connection_moves() {
    let (client, relay) = Setup::default().connect(Relay::with(64 * 1024, MOVES)).await;
    Asked::plain().ask(client.sender.clone(), 0).await.unwrap();
    for number in 1..=20 {
        relay.transfer();
        relay.settle().await;
        assert_eq!(relay.transfers(), number);
        let body = number * 1000;
        Asked { body, piece: 700, ..Asked::plain() }.ask(client.sender.clone(), number).await.unwrap();
    }
    assert_eq!(relay.moved(), (20, vec![]));
    drop(client.sender);
    client.connection.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_told_to_go() {
    let (client, relay) = Setup::default().connect(Relay::with(64 * 1024, MOVES)).await;
    relay.settle().await;
    relay.transfer();
    client.connection.await.unwrap().unwrap();
    assert_eq!(relay.moved(), (0, vec![NotMoved::NoRequest]));
}

/// It goes on where it was, answers what has come, and tells its client to go in two steps.
#[tokio::test(start_paused = true)]
async fn a_connection_that_no_worker_takes_ends_here_and_loses_nothing() {
    let (client, transport) = tokio::io::duplex(64 * 1024);
    let (control, signal) = drain_signal();
    let stats: &'static ThreadStats = Box::leak(Box::default());
    let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let accepted = Suspended::accepted(transport);
    let served = tokio::spawn(serve(accepted, app.clone(), stats, signal.clone(), Arc::default(), MOVES));
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    let connection = tokio::spawn(connection);
    Asked::plain().ask(sender.clone(), 0).await.unwrap();
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver });
    let returned = served.await.unwrap().expect("it leaves");
    let late = tokio::spawn(Asked::plain().ask(sender, 1));
    let signal = signal.without_transfer();
    assert!(serve(returned, app, stats, signal, Arc::default(), MOVES).await.is_none());
    late.await.unwrap().unwrap();
    connection.await.unwrap().unwrap();
    let figures = stats.snapshot();
    assert_eq!((figures.requests, figures.moved_http2), (2, 0));
    assert_eq!((figures.not_moved[NotMoved::NoSuccessor as usize], figures.http2_not_moved()), (1, 1));
}

fn asked() -> impl Strategy<Value = Asked> {
    let fields = prop::collection::vec((0_u8..12, 0_u16..4), 0..6);
    let body = prop_oneof![3 => Just(0_usize), 3 => 1_usize..2000, 1 => 2000_usize..200_000];
    let times = (prop_oneof![2 => Just(0_u64), 1 => 1_u64..4], 0_u64..200);
    let gives_up = prop_oneof![6 => Just(None), 1 => (0_usize..3000).prop_map(Some)];
    let rest = (prop::bool::weighted(0.1), gives_up);
    (fields, body, 1_usize..20_000, times, rest).prop_map(|(fields, body, piece, (pause, before), (long, gives_up))| {
        let piece = piece.max(body / 20);
        Asked { fields, body, piece, pause, before, long, gives_up }
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    // Fewer would be so many window updates that the worker takes them for a flood.
    let window = prop_oneof![2 => Just(None), 1 => (1_000_u32..300_000).prop_map(Some)];
    let connection_window = prop_oneof![2 => Just(None), 1 => (65_535_u32..2_000_000).prop_map(Some)];
    let frame = prop_oneof![2 => Just(None), 1 => (16_384_u32..100_000).prop_map(Some)];
    let table = prop_oneof![2 => Just(None), 1 => (0_u32..10_000).prop_map(Some)];
    let buffer = (100_usize..100_000).prop_map(Some);
    (window, connection_window, frame, table, buffer).prop_map(|(window, connection_window, frame, table, buffer)| {
        Setup { window, connection_window, frame, table, buffer }
    })
}

/// Asks all of it on one connection, which is to move every `every` milliseconds and some turns of the runtime. Returns how often it has moved, and how often it
/// was told to go instead.
async fn ask_all(setup: &Setup, all: Vec<Asked>, (every, yields): (u64, usize)) -> (u64, Vec<NotMoved>) {
    let (client, relay) = setup.connect(Relay::with(setup.buffer.unwrap_or(64 * 1024), MOVES)).await;
    Asked::plain().ask(client.sender.clone(), 0).await.unwrap();
    let relay = Arc::new(relay);
    let mover = tokio::spawn({
        let relay = Arc::clone(&relay);
        async move {
            // In the midst of what can be done now, and when there is nothing to do.
            loop {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                relay.transfer();
                tokio::time::sleep(Duration::from_millis(every)).await;
            }
        }
    });
    let asks: Vec<_> =
        (1..).zip(all).map(|(number, asked)| tokio::spawn(asked.ask(client.sender.clone(), number))).collect();
    for ask in asks {
        if let Err(failed) = timeout(Duration::from_mins(1), ask).await.expect("it hangs").expect("it is wrong") {
            assert!(!relay.moved().1.is_empty(), "{failed:?}");
            break;
        }
    }
    mover.abort();
    let outcome = relay.moved();
    drop(client.sender);
    let ended = timeout(Duration::from_mins(1), client.connection).await.expect("it does not end").unwrap();
    assert!(ended.is_ok() || !outcome.1.is_empty(), "{ended:?}");
    outcome
}

proptest! {
    #[test]
    fn whatever_clients_do_and_whenever_they_move_they_get_what_they_asked_for(
        setup in setup(),
        all in prop::collection::vec(asked(), 1..25),
        every in (1_u64..60, 0_usize..500),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let moved = runtime.block_on(ask_all(&setup, all, every));
        // This client does as it is told.
        prop_assert!(moved.1.iter().all(|why| matches!(why, NotMoved::Streams | NotMoved::Unread)), "{:?}", moved);
        if std::env::var_os("SHOW_MOVES").is_some() {
            println!("{moved:?}");
        }
    }
}

/// Where h2 begins otherwise than is known, no connection moves, and none is harmed.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_self_test_fails_tells_its_clients_to_go() {
    const STAYS: &Limits = &Limits { stays: true, ..*MOVES };
    self_test(MOVES).unwrap();
    let (client, relay) = Setup::default().connect(Relay::with(64 * 1024, STAYS)).await;
    Asked::plain().ask(client.sender.clone(), 0).await.unwrap();
    relay.transfer();
    client.connection.await.unwrap().unwrap();
    assert_eq!(relay.moved(), (0, vec![NotMoved::SelfTest]));
}
