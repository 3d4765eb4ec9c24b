//! HTTP/2 connections of a worker that drains, and their time-outs.

use super::*;

#[tokio::test(start_paused = true)]
async fn http2_finishes_its_streams_at_drain_and_takes_no_new_ones_after_the_linger() {
    let rig = Rig::new();
    let (control, stats, app, served) = (rig.control, rig.stats, rig.app, rig.served);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
    let client = tokio::spawn(connection);
    let request = |path: &str| Request::get(format!("http://test{path}")).body(Empty::<Bytes>::new()).unwrap();
    let first = sender.send_request(request("/first")).await.unwrap();
    assert_eq!(first.version(), http::Version::HTTP_2);
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "/first");

    let held = tokio::spawn(sender.send_request(request("/hold")));
    while stats.snapshot().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // While a stream is open the client isn't told yet.
    let new = sender.send_request(request("/new")).await.unwrap();
    assert_eq!(new.into_body().collect().await.unwrap().to_bytes(), "/new");
    tokio::time::sleep(LINGER).await;
    assert!(sender.send_request(request("/late")).await.is_err());
    app.gate.add_permits(1);
    let held = held.await.unwrap().unwrap();
    assert_eq!(held.into_body().collect().await.unwrap().to_bytes(), "held");
    client.await.unwrap().unwrap();
    served.await.unwrap();
    let figures = stats.snapshot();
    assert_eq!((figures.requests, figures.in_flight, figures.connections), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_is_told_to_go_when_its_last_stream_has_ended() {
    let rig = Rig::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
    let client = tokio::spawn(connection);
    let request = Request::get("http://test/hold").body(Empty::<Bytes>::new()).unwrap();
    let held = tokio::spawn(sender.send_request(request));
    while rig.stats.snapshot().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    rig.control.begin(Phase::Draining { since: began.into_std(), linger: LINGER, ending: Ending::Close });
    tokio::time::sleep(LINGER / 2).await;
    assert!(!sender.is_closed());
    rig.app.gate.add_permits(1);
    assert_eq!(held.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "held");
    client.await.unwrap().unwrap();
    rig.served.await.unwrap();
    assert!(began.elapsed() < LINGER, "{:?}", began.elapsed());
}

/// Such a response is complete for us as soon as h2 has all of it.
#[tokio::test(start_paused = true)]
async fn http2_sends_all_of_a_response_at_drain_however_slowly_its_client_reads() {
    const WINDOW: u32 = 16 * 1024;
    let rig = Rig::new();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .handshake(TokioIo::new(rig.client))
        .await
        .unwrap();
    let client = tokio::spawn(connection);
    let request = Request::get("http://test/big").body(Empty::<Bytes>::new()).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    rig.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(LINGER / 2).await;
    }
    assert_eq!(received, BIG);
    client.await.unwrap().unwrap();
    rig.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_takes_no_more_of_a_response_does_not_outlive_the_linger() {
    let rig = Rig::new();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(16 * 1024)
        .handshake(TokioIo::new(rig.client))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://test/big").body(Empty::<Bytes>::new()).unwrap();
    let _unread = sender.send_request(request).await.unwrap();
    rig.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    timeout(LINGER + Duration::from_secs(1), rig.served).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn http2_without_streams_ends_at_drain() {
    let rig = Rig::new();
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(rig.client))
            .await
            .unwrap();
    let client = tokio::spawn(connection);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let began = Instant::now();
    rig.control.begin(Phase::Draining { since: began.into_std(), linger: LINGER, ending: Ending::Close });
    client.await.unwrap().unwrap();
    rig.served.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_ignores_the_goaway_does_not_outlive_the_linger() {
    let mut rig = Rig::new();
    rig.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // An empty SETTINGS frame, and never an answer to a PING.
    rig.client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    rig.settle().await;
    rig.drain();
    timeout(LINGER + Duration::from_secs(1), rig.served).await.unwrap().unwrap();
}

/// Answering PINGs is not being busy.
#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_is_closed_although_its_client_is_there() {
    for requests in [0, 1] {
        let rig = Rig::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
        let client = tokio::spawn(connection);
        for _ in 0..requests {
            let request = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
            sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        }
        let began = Instant::now();
        rig.served.await.unwrap();
        let most = Limits::TEST.http.idle_timeout + Limits::TEST.look() * 2;
        assert!(began.elapsed() <= most, "{:?}", began.elapsed());
        client.await.unwrap().unwrap();
        assert_eq!(rig.stats.snapshot().refused.iter().sum::<u64>(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_whose_app_takes_long_is_kept() {
    let rig = Rig::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
    tokio::spawn(connection);
    let held = sender.send_request(Request::get("http://test/hold").body(Empty::<Bytes>::new()).unwrap());
    let held = tokio::spawn(held);
    tokio::time::sleep(Limits::TEST.http.idle_timeout * 10).await;
    rig.app.gate.add_permits(1);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
}

/// What it is answered is what keeps a thread from others.
#[tokio::test(start_paused = true)]
async fn an_http2_client_whose_frames_only_make_work_waits_for_its_turns() {
    const SENT: u32 = 500;
    let mut rig = Rig::new();
    rig.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let began = Instant::now();
    rig.client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(SENT as usize)).await.unwrap();
    let mut at_once = 0;
    let mut answered = 0;
    while answered < SENT {
        let mut head = [0; 9];
        rig.client.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        rig.client.read_exact(&mut payload).await.unwrap();
        // SETTINGS, acknowledged.
        if (head[3], head[4]) == (4, 1) {
            answered += 1;
            at_once += u32::from(began.elapsed().is_zero());
        }
    }
    assert!((100..120).contains(&at_once), "{at_once}");
    let waited = began.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(1)).contains(&waited), "{waited:?}");
}

/// A request that is given up at once is good for nothing, and no work for the app.
#[tokio::test(start_paused = true)]
async fn an_http2_client_that_gives_up_its_requests_waits_for_its_turns_and_is_cut_off() {
    let mut rig = Rig::new();
    rig.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    rig.client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    rig.settle().await;
    let began = Instant::now();
    for stream in (1..6000_u32).step_by(2) {
        // `GET /` to `a`, and RST_STREAM (CANCEL).
        let mut both = vec![0, 0, 6, 1, 5];
        both.extend_from_slice(&stream.to_be_bytes());
        both.extend_from_slice(&[0x82, 0x86, 0x84, 0x41, 1, b'a', 0, 0, 4, 3, 0]);
        both.extend_from_slice(&stream.to_be_bytes());
        both.extend_from_slice(&[0, 0, 0, 8]);
        if rig.client.write_all(&both).await.is_err() {
            break;
        }
    }
    rig.served.await.unwrap();
    // 900 of 1,000, eight in 10 ms.
    let waited = began.elapsed();
    assert!((Duration::from_millis(1100)..Duration::from_millis(1500)).contains(&waited), "{waited:?}");
    let figures = rig.stats.snapshot();
    assert_eq!((figures.requests, figures.in_flight), (0, 0));
    assert_eq!(figures.refused.iter().sum::<u64>(), 1);
}
