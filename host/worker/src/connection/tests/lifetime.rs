//! How long a connection may be open.

use app_host_core::config::ConnectionLimits;

use super::*;

const LIFETIME: Duration = Duration::from_secs(100);

/// Not yet so long.
const BEFORE: Duration = Duration::from_secs(99);

static LIMITS: Limits = Limits {
    connections: ConnectionLimits { max_lifetime: Some(LIFETIME), ..ConnectionLimits::DEFAULT },
    ..Limits::TEST
};

#[tokio::test(start_paused = true)]
async fn one_that_is_asked_again_and_again_is_closed_by_a_response() {
    let mut rig = Rig::with(&LIMITS);
    let began = Instant::now();
    while began.elapsed() < BEFORE {
        assert_eq!(rig.get("/again").await, kept("/again"), "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    rig.send(&get("/hold")).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"), "what is in flight goes on");
    rig.end().await;
}

/// Sooner than for having been idle, and whether or not it was parked meanwhile.
#[tokio::test(start_paused = true)]
async fn one_that_waits_ends_with_its_time() {
    let mut rig = Rig::with(&LIMITS);
    let began = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(LIFETIME / 5).await;
        rig.get("/again").await;
    }
    rig.end().await;
    assert_eq!(began.elapsed().as_secs(), LIFETIME.as_secs());
    let mut rig = Rig::with(&LIMITS);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    rig.get("/once").await;
    rig.end().await;
    assert_eq!(began.elapsed().as_secs(), LIFETIME.as_secs());
    assert!(rig.parks.load(Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn it_begins_with_the_accept_in_whichever_worker() {
    let (mut client, transport) = tokio::io::duplex(4096);
    let (_control, signal) = drain_signal();
    let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let stats: &'static ThreadStats = Box::leak(Box::default());
    tokio::time::sleep(LIFETIME).await;
    let opened = (Instant::now() - BEFORE).into_std();
    let history = History { detected: Detected::Http1, requests: 7, ..History::NEW };
    let connection = Suspended { opened, history, ..Suspended::accepted(transport) };
    let began = Instant::now();
    tokio::spawn(serve_connection(connection, app, stats, signal, None, &LIMITS));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http2_is_told_and_what_is_in_flight_goes_on() {
    let rig = Rig::with(&LIMITS);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
    let client = tokio::spawn(connection);
    let request = |path: &str| Request::get(format!("http://test{path}")).body(Empty::<Bytes>::new()).unwrap();
    let held = tokio::spawn(sender.send_request(request("/hold")));
    tokio::time::sleep(BEFORE).await;
    assert_eq!(sender.send_request(request("/before")).await.unwrap().status(), 200);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(sender.send_request(request("/late")).await.is_err());
    tokio::time::sleep(Duration::from_secs(200)).await;
    rig.app.gate.add_permits(1);
    assert_eq!(held.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "held");
    client.await.unwrap().unwrap();
    rig.served.await.unwrap();
}

/// A lifetime that is shorter than the time for a head takes nothing from that.
#[tokio::test(start_paused = true)]
async fn the_first_request_has_its_time_all_the_same() {
    static SHORT: Limits = Limits {
        connections: ConnectionLimits { max_lifetime: Some(Duration::from_secs(1)), ..ConnectionLimits::DEFAULT },
        ..Limits::TEST
    };
    for begun in ["", "GET /first HT"] {
        let mut rig = Rig::with(&SHORT);
        rig.send(begun).await;
        tokio::time::sleep(HEAD_TIMEOUT / 2).await;
        rig.send(&get("/first")[begun.len()..]).await;
        // It is old by then: whether or not that was seen before the response, nothing comes behind it.
        assert_eq!(rig.answer().await.body, "/first");
        rig.end().await;
        assert_eq!(rig.figures().refused.iter().sum::<u64>(), 0);
    }
}
