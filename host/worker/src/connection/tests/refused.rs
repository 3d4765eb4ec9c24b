//! Clients that hyper refuses: each is counted by its reason.

use super::*;

/// Sends `text` and reads all that comes. Returns that, and what was counted.
pub(super) async fn refusals(text: &[u8], limits: &Limits) -> (String, Vec<Refused>) {
    let mut rig = Rig::with(Box::leak(Box::new(*limits)));
    // A server that refuses a client stops reading it.
    let _ = rig.client.write_all(text).await;
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), rig.client.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    rig.served.await.unwrap();
    let counted = rig.stats.snapshot().refused;
    let counted = Refused::ALL.iter().flat_map(|why| {
        let times = usize::try_from(counted[*why as usize]).unwrap();
        std::iter::repeat_n(*why, times)
    });
    (String::from_utf8_lossy(&rest).into_owned(), counted.collect())
}

pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn what_http_1_refuses_is_counted_with_the_answer() {
    let long = "x".repeat(20_000);
    let rows = [
        ("nonsense\r\n\r\n".to_owned(), 400, Refused::Malformed),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400, Refused::Malformed),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400, Refused::Malformed),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(), 400, Refused::Malformed),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414, Refused::UriTooLong),
        // hyper's own bound.
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000)), 414, Refused::UriTooLong),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)), 431, Refused::HeadTooLarge),
        // It never ends.
        (format!("GET / HTTP/1.1\r\na: {}", "x".repeat(1 << 20)), 431, Refused::HeadTooLarge),
    ];
    for (text, expected, why) in rows {
        // So that the longest of them is a whole head.
        let mut limits = Limits::TEST;
        limits.http.max_head = 100 * 1024;
        let (answer, counted) = refusals(text.as_bytes(), &limits).await;
        assert_eq!((status(&answer), counted), (expected, vec![why]), "{text:.50}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_http_2_refuses_is_counted() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // A frame of 16 MiB; DATA without a stream; HEADERS that no decoder accepts.
    let too_long = [0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1];
    let no_stream = [0, 0, 0, 0, 1, 0, 0, 0, 0];
    let headers = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x80];
    for frame in [&too_long[..], &no_stream, &headers] {
        let (_, counted) = refusals(&[&preface[..], &settings, frame].concat(), &Limits::TEST).await;
        assert_eq!(counted, [Refused::Malformed], "{frame:?}");
    }
    // A head that goes on for ever, in CONTINUATION frames that carry next to nothing.
    let begun = [0, 0, 1, 1, 1, 0, 0, 0, 1, 0x82];
    let goes_on = [0, 0, 1, 9, 0, 0, 0, 0, 1, 0x90].repeat(3000);
    let (_, counted) = refusals(&[&preface[..], &settings, &begun, &goes_on].concat(), &Limits::TEST).await;
    assert_eq!(counted, [Refused::Flood]);
    // Nothing but SETTINGS, nothing but PINGs, and DATA of nothing.
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
    for frame in [&settings[..], &ping] {
        let (_, counted) = refusals(&[&preface[..], &settings, &frame.repeat(2000)].concat(), &Limits::TEST).await;
        assert_eq!(counted, [Refused::Flood], "{frame:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_is_not_refused() {
    for text in
        ["", "\r\n", "G", "GET / HTTP/1.1\r\nho", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1"]
    {
        let mut rig = Rig::new();
        rig.send(text).await;
        rig.client.shutdown().await.unwrap();
        rig.served.await.unwrap();
        assert_eq!(rig.stats.snapshot().refused.iter().sum::<u64>(), 0, "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_is_refused_before_it_comes_or_when_it_does() {
    let mut limits = Limits::TEST;
    limits.http.max_body = Some(8);
    let chunked = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for text in [
        // Nothing of it has come.
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n".to_owned(),
        format!("{chunked}9\r\n123456789\r\n0\r\n\r\n"),
        format!("{chunked}5\r\n12345\r\n4\r\n6789\r\n"),
    ] {
        let (answer, counted) = refusals(text.as_bytes(), &limits).await;
        assert_eq!((status(&answer), counted), (413, vec![Refused::BodyTooLarge]), "{text}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    let mut rig = Rig::with(Box::leak(Box::new(limits)));
    for text in [
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n12345678",
        &format!("{chunked}8\r\n12345678\r\n0\r\n\r\n"),
    ] {
        rig.send(text).await;
        assert_eq!(rig.answer().await, kept("12345678"));
    }
    assert_eq!(rig.figures().requests, 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_head_is_kept_as_it_is_set() {
    let mut limits = Limits::TEST;
    (limits.http.max_head, limits.http.max_headers, limits.http.max_uri) = (4096, 3, 256);
    let head = |uri: usize, lines: usize, fill: usize| {
        let lines = format!("x: {}\r\n", "y".repeat(fill)).repeat(lines - 1);
        format!("GET /{} HTTP/1.1\r\nhost: a\r\n{lines}\r\n", "u".repeat(uri - 1))
    };
    let rows = [
        (head(257, 1, 1), 414, Refused::UriTooLong),
        (head(256, 4, 1), 431, Refused::HeadTooLarge),
        (head(256, 3, 2000), 431, Refused::HeadTooLarge),
    ];
    for (text, expected, why) in rows {
        let (answer, counted) = refusals(text.as_bytes(), &limits).await;
        assert_eq!((status(&answer), counted), (expected, vec![why]), "{answer}");
    }
    let mut rig = Rig::with(Box::leak(Box::new(limits)));
    rig.send(&head(256, 3, 1800)).await;
    assert_eq!(rig.answer().await.status, 200);
    // What was refused before the app counts neither as a request nor as one in flight.
    rig.send(&head(257, 1, 1)).await;
    assert_eq!(rig.answer().await.status, 414);
    assert_eq!((rig.figures().requests, rig.figures().in_flight), (1, 0));
}

/// On HTTP/2 a request that is refused harms no other of its connection.
#[tokio::test(start_paused = true)]
async fn a_limit_of_the_head_holds_for_http_2() {
    let mut limits = Limits::TEST;
    (limits.http.max_headers, limits.http.max_uri) = (3, 256);
    let rig = Rig::with(Box::leak(Box::new(limits)));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
    tokio::spawn(connection);
    for (uri, lines, length, expected) in
        [(10, 3, 1, 200), (300, 1, 1, 414), (10, 4, 1, 431), (10, 1, 70_000, 431), (10, 1, 60_000, 200)]
    {
        let mut request = Request::get(format!("http://test/{}", "u".repeat(uri)));
        for line in 0..lines {
            request = request.header(format!("x-{line}"), "y".repeat(length));
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), expected);
    }
    let refused = rig.stats.snapshot().refused;
    assert_eq!((refused[Refused::UriTooLong as usize], refused[Refused::HeadTooLarge as usize]), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_those_in_flight_is_told_to_come_back_and_its_connection_is_kept() {
    let mut limits = Limits::TEST;
    limits.http.max_in_flight = Some(1);
    let limits: &'static Limits = Box::leak(Box::new(limits));
    let mut busy = Rig::with(limits);
    busy.send(&get("/hold")).await;
    busy.settle().await;
    // Another connection of the same thread.
    let (mut client, transport) = tokio::io::duplex(4096);
    let (_control, signal) = drain_signal();
    tokio::spawn(serve_connection(Suspended::accepted(transport), busy.app.clone(), busy.stats, signal, None, limits));
    for _ in 0..2 {
        client.write_all(get("/").as_bytes()).await.unwrap();
        let answer = read_answer(&mut client).await;
        assert_eq!((answer.status, answer.closes), (503, false));
    }
    assert_eq!(busy.figures().refused[Refused::TooManyInFlight as usize], 2);
    busy.open_gate();
    assert_eq!(busy.answer().await, kept("held"));
    client.write_all(get("/").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut client).await, kept("/"));
    assert_eq!(busy.figures().in_flight, 0);
}

/// Wherever the connection is: how many it has had goes along.
#[tokio::test(start_paused = true)]
async fn the_last_request_of_a_connection_is_answered_with_its_close() {
    let mut limits = Limits::TEST;
    limits.http.max_requests = Some(3);
    let limits: &'static Limits = Box::leak(Box::new(limits));
    let mut rig = Rig::with(limits);
    for _ in 0..2 {
        assert_eq!(rig.get("/").await, kept("/"));
    }
    assert_eq!(rig.get("/").await, closing("/"));
    rig.end().await;
    assert_eq!((rig.figures().dismissed, rig.figures().refused.iter().sum::<u64>()), (0, 0));

    let rig = Rig::with(limits);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(rig.client)).await.unwrap();
    let client = tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    }
    timeout(Duration::from_secs(1), rig.served).await.expect("it ends").unwrap();
    client.await.unwrap().unwrap();
}
