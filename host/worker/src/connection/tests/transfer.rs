//! Connections that are suspended for another worker, and what never is.

use app_host_core::not_resumed::{LongLived, NotResumed};

use app_host_core::not_moved::NotMoved;

use super::*;

/// A connection that is served by one worker after the other.
pub struct Relay {
    pub client: DuplexStream,
    pub control: Arc<Mutex<DrainControl>>,
    pub transfers: Arc<AtomicUsize>,
    pub app: TestApp,
    pub served: JoinHandle<()>,
    /// A page for each worker that it has come to.
    pages: Arc<Mutex<Vec<&'static ThreadStats>>>,
}

impl Relay {
    pub fn new(buffer: usize) -> Self {
        Self::with(buffer, &Limits::TEST)
    }

    pub fn with(buffer: usize, limits: &'static Limits) -> Self {
        let (client, transport) = tokio::io::duplex(buffer);
        let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
        let (first, mut signal) = drain_signal();
        let control = Arc::new(Mutex::new(first));
        let transfers = Arc::<AtomicUsize>::default();
        let pages = Arc::<Mutex<Vec<_>>>::default();
        let (shared, count, test_app) = (Arc::clone(&control), Arc::clone(&transfers), app.clone());
        let all = Arc::clone(&pages);
        let served = tokio::spawn(async move {
            let mut connection = Suspended::accepted(transport);
            loop {
                let stats: &'static ThreadStats = Box::leak(Box::default());
                all.lock().unwrap().push(stats);
                let Some(next) = serve(connection, test_app.clone(), stats, signal, Arc::default(), limits).await
                else {
                    return;
                };
                let (control, again) = drain_signal();
                *shared.lock().unwrap() = control;
                signal = again;
                count.fetch_add(1, Relaxed);
                connection = next;
            }
        });
        Self { client, control, transfers, app, served, pages }
    }

    /// The client's end, and the rest.
    pub fn without_client(self) -> (DuplexStream, Self) {
        let (none, _) = tokio::io::duplex(1);
        let mut this = self;
        (std::mem::replace(&mut this.client, none), this)
    }

    /// How many WebSockets have gone on, and for which reasons others have not.
    pub fn resumed(&self) -> (u64, Vec<NotResumed>) {
        self.gone_on(LongLived::WebSocket)
    }

    /// How many of a kind have gone on, and for which reasons others have not.
    pub fn gone_on(&self, what: LongLived) -> (u64, Vec<NotResumed>) {
        let pages: Vec<_> = self.pages.lock().unwrap().iter().map(|page| page.snapshot()).collect();
        let ended =
            |why: &NotResumed| -> u64 { pages.iter().map(|page| page.not_resumed[what as usize][*why as usize]).sum() };
        let reasons = NotResumed::ALL.iter().flat_map(|why| (0..ended(why)).map(|_| *why));
        (pages.iter().map(|page| page.resumed(what)).sum(), reasons.collect())
    }

    pub fn transfer(&self) {
        let linger = LINGER;
        self.begin(Phase::Draining { since: Instant::now().into_std(), linger, ending: Ending::HandOver });
    }

    pub fn begin(&self, phase: Phase) {
        self.control.lock().unwrap().begin(phase);
    }

    /// How many requests each worker has had that it has come to.
    pub fn requests(&self) -> Vec<u64> {
        self.pages.lock().unwrap().iter().map(|page| page.snapshot().requests).collect()
    }

    /// How many connections of HTTP/2 have gone on, and for which reasons others have not.
    pub fn moved(&self) -> (u64, Vec<NotMoved>) {
        let pages: Vec<_> = self.pages.lock().unwrap().iter().map(|page| page.snapshot()).collect();
        let ended = |why: &NotMoved| -> u64 { pages.iter().map(|page| page.not_moved[*why as usize]).sum() };
        let reasons = NotMoved::ALL.iter().flat_map(|why| (0..ended(why)).map(|_| *why));
        (pages.iter().map(|page| page.moved_http2).sum(), reasons.collect())
    }

    pub async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Answered {
        read_answer(&mut self.client).await
    }

    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub fn transfers(&self) -> usize {
        self.transfers.load(Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_suspended_at_once_with_the_bytes_of_half_a_head() {
    let request = get("/first") + &post("/echo", "body");
    let first = get("/first").len();
    for sent in [0, 1, 5, first, first + 1, first + 20] {
        let mut relay = Relay::new(4096);
        relay.send(&request[..sent]).await;
        relay.settle().await;
        for number in 1..=3 {
            relay.transfer();
            relay.settle().await;
            assert_eq!(relay.transfers(), number, "{:?}", &request[..sent]);
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
    relay.transfer();
    relay.settle().await;
    assert_eq!(relay.transfers(), 1);
    relay.send("\r\nSM\r\n\r\n").await;
    // Settings, an empty frame of this kind: 9 bytes and what they announce.
    let mut head = [0; 9];
    relay.client.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "{head:?}");
}

#[tokio::test(start_paused = true)]
async fn a_preface_behind_a_request_is_no_http2_here_nor_elsewhere() {
    for transferred in [false, true] {
        let mut relay = Relay::new(4096);
        relay.send(&get("/first")).await;
        assert_eq!(relay.answer().await, kept("/first"));
        if transferred {
            relay.transfer();
            relay.settle().await;
        }
        relay.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let mut rest = Vec::new();
        relay.client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
        assert_eq!(relay.transfers(), usize::from(transferred));
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_follows_its_response_and_announces_no_close() {
    for pause in [Duration::ZERO, LINGER * 3] {
        let mut relay = Relay::new(4096);
        relay.send(&(get("/hold") + &get("/behind"))).await;
        relay.settle().await;
        relay.transfer();
        tokio::time::sleep(pause).await;
        assert_eq!(relay.transfers(), 0);
        relay.app.gate.add_permits(1);
        assert_eq!(relay.answer().await, kept("held"));
        assert_eq!(relay.answer().await, kept("/behind"), "what hyper had read already is answered here");
        relay.settle().await;
        assert_eq!(relay.transfers(), 1);
        relay.send(&get("/next")).await;
        assert_eq!(relay.answer().await, kept("/next"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_and_a_download_end_where_they_are_and_then_the_connection_moves() {
    let mut relay = Relay::new(4096);
    relay.send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbo").await;
    relay.settle().await;
    relay.transfer();
    tokio::time::sleep(Limits::TEST.stall / 2).await;
    assert_eq!(relay.transfers(), 0);
    relay.send("dy\r\n0\r\n\r\n").await;
    assert_eq!(relay.answer().await, kept("body"));
    relay.settle().await;
    assert_eq!(relay.transfers(), 1);
    // More than the client has room for: hyper has it all, and the client has not.
    relay.send(&(get("/big") + "GET /behind HTTP/1.1\r\nho")).await;
    relay.settle().await;
    relay.transfer();
    tokio::time::sleep(Limits::TEST.stall / 2).await;
    assert_eq!(relay.transfers(), 1);
    assert_eq!(relay.answer().await.body.len(), BIG);
    relay.settle().await;
    assert_eq!(relay.transfers(), 2);
    relay.send("st: a\r\n\r\n").await;
    assert_eq!(relay.answer().await, kept("/behind"));
}

/// What an app leaves unread of a body would be a request to the next worker.
#[tokio::test(start_paused = true)]
async fn behind_a_body_that_the_app_does_not_read_nothing_is_transferred() {
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
            relay.transfer();
            relay.settle().await;
            relay.app.gate.add_permits(1);
            assert_eq!(relay.answer().await.body, "ignored");
            relay.settle().await;
            assert_eq!(relay.transfers(), 0, "after {early} bytes of the body");
            // The rest may come too late to be read.
            let _ = relay.client.write_all(&body.as_bytes()[early..]).await;
            let mut rest = Vec::new();
            relay.client.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
            assert_eq!(relay.transfers(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_long_to_travel_is_waited_for() {
    let mut limits = Limits::TEST;
    limits.http.max_head = 1 << 20;
    let mut relay = Relay::with(MAX_UNREAD * 4, Box::leak(Box::new(limits)));
    let long = format!("GET /long HTTP/1.1\r\nhost: a\r\nx: {}\r\n", "y".repeat(MAX_UNREAD));
    relay.send(&long).await;
    relay.settle().await;
    relay.transfer();
    relay.settle().await;
    assert_eq!(relay.transfers(), 0);
    relay.send("\r\n").await;
    assert_eq!(relay.answer().await, kept("/long"));
    relay.settle().await;
    assert_eq!(relay.transfers(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_no_worker_accepts_a_connection_its_close_is_announced() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.settle().await;
    rig.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver });
    rig.settle().await;
    // There is no other worker any more.
    rig.drain();
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
    rig.end().await;
    assert!(rig.served.await.unwrap().is_none());
    assert_eq!(rig.stats.snapshot().dismissed, 1);

    let (mut client, transport) = tokio::io::duplex(4096);
    let (control, signal) = drain_signal();
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver });
    let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let stats = Box::leak(Box::default());
    let served = tokio::spawn(serve_connection(
        Suspended::accepted(transport),
        app,
        stats,
        signal.without_transfer(),
        None,
        &Limits::TEST,
    ));
    client.write_all(get("/stays").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut client).await, closing("/stays"));
    drop(client);
    assert!(served.await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_transfer_makes_no_connection_younger() {
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
            relay.transfer();
        }
        let lived = began.elapsed();
        assert!(lived >= least && lived <= most + Duration::from_secs(8), "{first}: {lived:?}");
        assert!(relay.transfers() > 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_serves_suspends_as_many_idle_connections_as_are_invited() {
    let (control, signal) = drain_signal();
    let stats: &'static ThreadStats = Box::leak(Box::default());
    let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let mut clients = Vec::new();
    for number in 0..10 {
        let (mut client, transport) = tokio::io::duplex(4096);
        let served = tokio::spawn(serve_connection(
            Suspended::accepted(transport),
            app.clone(),
            stats,
            signal.clone(),
            None,
            &Limits::TEST,
        ));
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
