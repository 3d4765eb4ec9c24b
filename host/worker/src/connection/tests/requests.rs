//! Requests and responses on a connection that serves.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let mut rig = Rig::new();
    assert_eq!(rig.get("/one").await, kept("/one"));
    rig.send(&(get("/two") + &post("/echo", "body") + &get("/three"))).await;
    assert_eq!(rig.answer().await, kept("/two"));
    assert_eq!(rig.answer().await, kept("body"));
    assert_eq!(rig.answer().await, kept("/three"));
    drop(rig.client);
    rig.served.await.unwrap();
    let figures = rig.stats.snapshot();
    assert_eq!((figures.requests, figures.in_flight, figures.connections, figures.cut), (4, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_byte_by_byte_is_answered() {
    let mut rig = Rig::new();
    for byte in get("/slow").chars() {
        rig.send(&byte.to_string()).await;
        rig.settle().await;
    }
    assert_eq!(rig.answer().await, kept("/slow"));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_gives_no_response_is_answered_for() {
    let mut rig = Rig::new();
    assert_eq!(rig.get("/fail").await, Answered { status: 500, ..kept("") });
    assert_eq!(rig.get("/next").await, kept("/next"));
}

#[tokio::test(start_paused = true)]
async fn a_response_of_another_length_than_it_says_is_a_failure() {
    let lines = Lines::default();
    let _guard = lines.subscribe();
    let mut rig = Rig::new();
    assert_eq!(rig.get("/right").await, kept("body"));
    assert_eq!(lines.of_level("ERROR"), [""; 0]);
    assert_eq!(rig.get("/wrong").await, Answered { status: 500, ..kept("") });
    let [line] = &lines.of_level("ERROR")[..] else { panic!("{:?}", lines.of_level("ERROR")) };
    assert!(line.contains("content_length=Some(\"5\") length=4"), "{line}");
    // These have no body, so their length is that of another answer.
    for request in [get("/empty"), get("/wrong").replace("GET", "HEAD")] {
        rig.send(&(request + &get("/next"))).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(rig.client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 304") || head.contains("content-length: 5\r\n"), "{head}");
        assert_eq!(rig.answer().await, kept("/next"));
    }
    assert_eq!(lines.of_level("ERROR").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_its_client_breaks_off_is_no_error() {
    let lines = Lines::default();
    let _guard = lines.subscribe();
    let mut rig = Rig::new();
    rig.send("POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome").await;
    rig.settle().await;
    drop(rig.client);
    rig.served.await.unwrap();
    assert_eq!(lines.of_level("response body failed").len(), 1, "{:?}", lines.of_level(""));
    assert_eq!(lines.of_level("ERROR"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_the_app_breaks_off_is_an_error() {
    let lines = Lines::default();
    let _guard = lines.subscribe();
    let mut rig = Rig::new();
    rig.send(&get("/late")).await;
    rig.app.gate.close();
    rig.client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(lines.of_level("ERROR").len(), 1, "{:?}", lines.of_level(""));
}

#[tokio::test(start_paused = true)]
async fn a_download_waits_for_its_client() {
    let mut rig = Rig::new();
    rig.send(&get("/endless")).await;
    tokio::time::sleep(HEAD_TIMEOUT).await;
    let made = rig.app.made.load(Relaxed) * CHUNK.len();
    assert!(made < 1024 * 1024, "{made} bytes were made for a client that reads nothing");
    let mut some = vec![0; 256 * 1024];
    rig.client.read_exact(&mut some).await.unwrap();
    assert!(rig.app.made.load(Relaxed) * CHUNK.len() > made);
}

#[tokio::test(start_paused = true)]
async fn an_upload_waits_for_its_app_and_comes_back_whole() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let mut rig = Rig::new();
    rig.send(&format!("POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut reading, mut writing) = tokio::io::split(rig.client);
    let progress = Arc::clone(&sent);
    let upload = tokio::spawn(async move {
        for _ in 0..LENGTH / 1024 {
            writing.write_all(&CHUNK).await.unwrap();
            progress.fetch_add(1024, Relaxed);
        }
        writing
    });
    // The echo can't go on before its client reads, and then nothing more may be taken from it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(sent.load(Relaxed) < LENGTH / 4, "{} bytes were taken", sent.load(Relaxed));
    let mut received = 0;
    let mut buffer = vec![0; 64 * 1024];
    while received < LENGTH {
        let length = reading.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the echo ended after {received} bytes");
        received += length;
    }
    upload.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_route_is_known_while_the_app_blocks_the_thread() {
    /// Looks when it is called, when it works, and when it makes the body.
    #[derive(Clone)]
    struct Looks(&'static ThreadStats);

    struct Seen(&'static ThreadStats, Vec<String>, bool);

    impl Seen {
        fn look(&mut self) {
            self.1.extend(self.0.snapshot().route);
        }
    }

    impl Body for Seen {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if std::mem::replace(&mut self.2, true) {
                return std::task::Poll::Ready(None);
            }
            self.look();
            std::task::Poll::Ready(Some(Ok(Frame::data(self.1.join(", ").into()))))
        }

        // Also a body whose length is known may be made while it is sent.
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact("GET /where, GET /where, GET /where".len() as u64)
        }
    }

    impl Application for Looks {
        type Body = Seen;
        type Error = Infallible;

        fn call(self, _: Request<RequestBody>) -> impl Future<Output = Result<Response<Seen>, Infallible>> + Send {
            let mut seen = Seen(self.0, Vec::new(), false);
            seen.look();
            async move {
                seen.look();
                Ok(Response::new(seen))
            }
        }
    }

    let stats: &'static ThreadStats = Box::leak(Box::default());
    let (mut client, transport) = tokio::io::duplex(4096);
    let (_control, signal) = drain_signal();
    tokio::spawn(serve_connection(Suspended::accepted(transport), Looks(stats), stats, signal, None, &Limits::TEST));
    client.write_all(get("/where?secret=1").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut client).await, kept("GET /where, GET /where, GET /where"));
    assert_eq!(stats.snapshot().route, None);
}
