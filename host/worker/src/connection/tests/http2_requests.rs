//! Requests on HTTP/2, from the side of h2's own client.

use http::{HeaderMap, StatusCode};

use super::*;

type Sender = h2::client::SendRequest<Bytes>;

async fn connect(client: DuplexStream) -> Sender {
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://test{path}")).body(()).unwrap()
}

async fn collect(body: &mut h2::RecvStream) -> Bytes {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all.into()
}

/// What comes before a response: the fields of each.
async fn hints(response: &mut h2::client::ResponseFuture) -> Vec<HeaderMap> {
    let mut hints = Vec::new();
    while let Some(hint) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
        let hint = hint.unwrap();
        assert_eq!(hint.status(), StatusCode::EARLY_HINTS);
        hints.push(hint.into_parts().0.headers);
    }
    hints
}

#[tokio::test(start_paused = true)]
async fn hints_are_there_before_the_response_is_made_on_each_stream_its_own() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    let mut waiting = Vec::new();
    for path in ["/hint/hold", "/hint/later", "/hold"] {
        let (mut response, _) = sender.send_request(request("GET", path), true).unwrap();
        if path == "/hold" {
            waiting.push(response);
            continue;
        }
        let hint = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hint.status(), hint.headers()["link"].as_bytes()), (StatusCode::EARLY_HINTS, &b"</a>"[..]));
        waiting.push(response);
    }
    rig.app.gate.add_permits(3);
    for mut response in waiting {
        assert_eq!(hints(&mut response).await, [], "no more than its own");
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!((head.status, collect(&mut body).await), (StatusCode::OK, "held".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn hints_come_before_a_response_that_is_ready_at_once_and_not_after_it() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    let (mut response, _) = sender.send_request(request("GET", "/hint/now"), true).unwrap();
    assert_eq!(hints(&mut response).await.len(), 2);
    assert_eq!(collect(response.await.unwrap().body_mut()).await, "hinted");
    // h2 would send them in the middle of a response (0.4.20), and a client would take the stream for broken.
    let (mut response, _) = sender.send_request(request("GET", "/hint/late"), true).unwrap();
    assert_eq!(hints(&mut response).await, []);
    assert_eq!(collect(response.await.unwrap().body_mut()).await, "late");
    assert_eq!(rig.app.made.load(Relaxed), 0, "none of them was taken");
}

/// The client resets its stream while the app works: nothing may be sent on it any more, and the app's future is dropped.
#[tokio::test(start_paused = true)]
async fn a_request_whose_stream_is_reset_ends() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    for path in ["/hold", "/hint/later", "/endless"] {
        let (response, mut stream) = sender.send_request(request("GET", path), true).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(rig.stats.snapshot().in_flight, 1, "{path}");
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(rig.stats.snapshot().in_flight, 0, "{path}");
    }
    let (response, _) = sender.send_request(request("GET", "/first"), true).unwrap();
    assert_eq!(collect(response.await.unwrap().body_mut()).await, "/first");
}

#[tokio::test(start_paused = true)]
async fn a_head_says_what_it_must_and_nothing_of_a_connection() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    let (response, _) = sender.send_request(request("GET", "/first"), true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    assert_eq!(head.headers["content-length"], "6");
    assert!(httpdate::parse_http_date(head.headers["date"].to_str().unwrap()).is_ok());
    assert_eq!(collect(&mut body).await, "/first");
    // What a GET would say, and no body.
    let (response, _) = sender.send_request(request("HEAD", "/first"), true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    assert_eq!((head.status, &head.headers["content-length"]), (StatusCode::OK, &"6".parse().unwrap()));
    assert!(body.is_end_stream());
    assert_eq!(collect(&mut body).await, "");
}

/// Both windows are smaller than the body, and a second stream isn't held up.
#[tokio::test(start_paused = true)]
async fn bodies_pass_however_small_the_windows_are() {
    let rig = Rig::new();
    let (sender, connection) =
        h2::client::Builder::new().initial_window_size(5000).handshake::<_, Bytes>(rig.client).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let (slow, _) = sender.send_request(request("GET", "/big"), true).unwrap();
    let mut slow = slow.await.unwrap().into_body();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (quick, _) = sender.send_request(request("GET", "/first"), true).unwrap();
    assert_eq!(collect(quick.await.unwrap().body_mut()).await, "/first");
    assert_eq!(collect(&mut slow).await.len(), BIG);
    assert!(slow.trailers().await.unwrap().is_none());
}

/// A client that can't be reached any more sends no FIN.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_ping_is_given_up() {
    let mut rig = Rig::new();
    rig.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // SETTINGS, and a request that the app holds: so no time-out for idle clients ends it.
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    // HEADERS, END_STREAM and END_HEADERS: GET, http, `/hold`, and a literal `:authority`.
    let block = [&[0x82, 0x86, 0x04, 5][..], b"/hold", &[0x01, 1], b"a"].concat();
    frames.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    frames.extend_from_slice(&block);
    rig.client.write_all(&frames).await.unwrap();
    let began = Instant::now();
    rig.served.await.unwrap();
    let lasted = began.elapsed().as_secs();
    // It has sent something in the first 30 s, nothing in the next, and no answer in 20 s.
    assert!((50..=81).contains(&lasted), "{lasted}");
}

#[tokio::test(start_paused = true)]
async fn an_upload_arrives_with_its_trailers_and_one_that_is_not_read_holds_nothing_up() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    let (response, mut upload) = sender.send_request(request("POST", "/stream"), false).unwrap();
    let sent = vec![b'y'; 3 * BIG / 2];
    let uploaded = tokio::spawn(async move {
        for chunk in sent.chunks(50_000) {
            upload.reserve_capacity(chunk.len());
            while upload.capacity() < chunk.len() {
                std::future::poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap().unwrap();
            }
            upload.send_data(Bytes::copy_from_slice(chunk), false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        upload.send_trailers(trailers).unwrap();
    });
    let mut body = response.await.unwrap().into_body();
    assert_eq!(collect(&mut body).await.len(), 3 * BIG / 2);
    assert_eq!(body.trailers().await.unwrap().unwrap()["x-sum"], "1");
    uploaded.await.unwrap();

    rig.app.gate.add_permits(40);
    for _ in 0..40 {
        // All that the window takes: together far more than the connection's.
        let (response, mut upload) = sender.send_request(request("POST", "/ignore"), false).unwrap();
        upload.send_data(Bytes::from(vec![b'z'; 60_000]), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(collect(&mut body).await, "ignored");
        drop(upload);
    }
}

/// Whatever reason the client gives: half a body is not taken for a whole one.
#[tokio::test(start_paused = true)]
async fn an_upload_that_is_given_up_is_an_error_for_the_app() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::CANCEL] {
        let lines = Lines::default();
        let _here = lines.subscribe();
        let rig = Rig::new();
        let mut sender = connect(rig.client).await;
        let upload = Request::post("http://test/echo").header("content-length", "1000").body(()).unwrap();
        let (response, mut upload) = sender.send_request(upload, false).unwrap();
        upload.send_data(Bytes::from_static(b"half"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        upload.send_reset(reason);
        drop((response, upload));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(rig.stats.snapshot().in_flight, 0);
        let errors = lines.of_level(" ERROR ");
        assert!(errors.len() == 1 && errors[0].contains("app gave no response"), "{errors:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_a_response_is_no_response() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    // A 101 that no request of HTTP/2 can ask for, too.
    for path in ["/103", "/tunnel"] {
        let (response, _) = sender.send_request(request("GET", path), true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
}

fn tunnel() -> http::request::Builder {
    Request::builder()
        .method("CONNECT")
        .uri("http://test/tunnel")
        .extension(h2::ext::Protocol::from_static("websocket"))
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_carries_bytes_both_ways_and_ends_from_either_side() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(sender.is_extended_connect_protocol_enabled());
    for ends in [true, false] {
        let (response, mut send) = sender.send_request(tunnel().body(()).unwrap(), false).unwrap();
        let (head, mut receive) = response.await.unwrap().into_parts();
        assert_eq!((head.status, head.headers.get("content-length")), (StatusCode::OK, None));
        for word in ["hello", "again"] {
            send.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
            let mut echoed = Vec::new();
            while echoed.len() < word.len() {
                echoed.extend_from_slice(&receive.data().await.unwrap().unwrap());
            }
            assert_eq!(echoed, word.as_bytes());
        }
        assert_eq!(rig.stats.snapshot().in_flight, 1);
        if ends {
            send.send_data(Bytes::new(), true).unwrap();
            assert_eq!(collect(&mut receive).await, "", "its other side is ended, not reset");
        } else {
            send.send_reset(h2::Reason::CANCEL);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(rig.stats.snapshot().in_flight, 0);
    }
    // What it must not have.
    let (response, _) = sender.send_request(tunnel().header("content-length", "5").body(()).unwrap(), false).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(rig.stats.snapshot().refused.iter().sum::<u64>(), 1);
}

/// A proxy that carries many WebSockets on one connection, each of which it ends by a reset.
#[tokio::test(start_paused = true)]
async fn tunnels_and_answers_that_end_by_a_reset_are_no_flood() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let began = Instant::now();
    for number in 0..3000 {
        let asked = if number % 2 == 0 { tunnel().body(()).unwrap() } else { request("GET", "/endless") };
        let (response, mut send) = sender.send_request(asked, false).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        send.send_reset(h2::Reason::CANCEL);
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

/// It takes a long response slowly, and has nothing to say: no PING may make it a dead one.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_response_slowly_is_there() {
    let rig = Rig::new();
    let mut client = rig.client;
    // SETTINGS with the largest window of a stream, WINDOW_UPDATE of the connection, and `GET /endless`.
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff".to_vec();
    sent.extend_from_slice(b"\0\0\x04\x08\0\0\0\0\0\x7f\0\0\0");
    let block = [&[0x82, 0x86, 0x04, 8][..], b"/endless", &[0x01, 1], b"a"].concat();
    sent.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    sent.extend_from_slice(&block);
    client.write_all(&sent).await.unwrap();
    let began = Instant::now();
    let mut space = vec![0; 4096];
    while began.elapsed() < Duration::from_mins(4) {
        assert_ne!(client.read(&mut space).await.unwrap(), 0, "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Browsers and gRPC's deadlines give up some.
#[tokio::test(start_paused = true)]
async fn an_http2_client_that_wants_most_of_its_answers_is_not_held_up() {
    let rig = Rig::new();
    let mut sender = connect(rig.client).await;
    let began = Instant::now();
    for _ in 0..3000 {
        let (response, mut stream) = sender.send_request(request("GET", "/hold"), true).unwrap();
        tokio::task::yield_now().await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        let (response, _) = sender.send_request(request("GET", "/first"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}
