//! HTTP/2 connections of a worker that drains.

use super::*;

#[tokio::test(start_paused = true)]
async fn http2_finishes_its_streams_at_drain_and_takes_no_new_ones() {
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
    assert!(sender.send_request(request("/new")).await.is_err());
    app.gate.add_permits(1);
    let held = held.await.unwrap().unwrap();
    assert_eq!(held.into_body().collect().await.unwrap().to_bytes(), "held");
    client.await.unwrap().unwrap();
    served.await.unwrap();
    let figures = stats.snapshot();
    assert_eq!((figures.requests, figures.in_flight, figures.connections), (2, 0, 0));
}

/// hyper says that such a response is complete as soon as its first byte has gone out.
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
