//! WebSockets and other upgrades.

use std::time::Duration;

use app_host_tests::client::request;
use app_host_tests::{App, Host, process, said};
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{begin_restart, has, site, within};

type Client<S = MaybeTlsStream<TcpStream>> = WebSocketStream<S>;

async fn open(host: &Host, path: &str) -> WebSocketStream<TcpStream> {
    let address = host.address().tcp();
    let stream = TcpStream::connect(address).await.unwrap();
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{address}{path}");
    let opened = tokio_tungstenite::client_async_with_config(url, stream, Some(config));
    within("the handshake", opened).await.unwrap().0
}

async fn text<S>(client: &mut Client<S>) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    match within("a message", client.next()).await {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("expected a text: {other:?}"),
    }
}

async fn say(client: &mut Client<TcpStream>, words: &str) {
    client.send(Message::text(words)).await.unwrap();
}

/// Reads up to these words; what came before.
async fn hear(client: &mut Client<TcpStream>, words: &str) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let text = text(client).await;
        if text == words {
            return heard;
        }
        heard.push(text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_goes_on_in_the_old_workers_while_new_ones_serve() {
    let library = App::build().app("axum_chat");
    let host = Host::new(&library).start();
    // Of three, two are in one worker.
    let mut clients = Vec::new();
    for name in ["a", "b", "c"] {
        let mut client = open(&host, "/websocket").await;
        say(&mut client, name).await;
        hear(&mut client, &format!("{name} joined.")).await;
        clients.push((name, client));
    }
    for phase in ["before", "during"] {
        for (name, client) in &mut clients {
            say(client, phase).await;
            hear(client, &format!("{name}: {phase}")).await;
        }
        let mut met = 0;
        for (name, client) in &mut clients {
            say(client, "end").await;
            met += hear(client, &format!("{name}: end")).await.iter().filter(|text| text.ends_with(phase)).count();
        }
        assert!(met > 0, "nobody heard anybody {phase} the restart");
        if phase == "before" {
            host.install_fresh(&library);
            begin_restart(&host);
            let mut newcomer = open(&host, "/websocket").await;
            // The same name is free: it is another worker.
            say(&mut newcomer, "a").await;
            hear(&mut newcomer, "a joined.").await;
            newcomer.close(None).await.unwrap();
        }
    }
    for (_, mut client) in clients {
        client.close(None).await.unwrap();
    }
    let verdict = host.verdict(1);
    assert_eq!(verdict.verdict, "complete");
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!(line.number("cut"), Some(0), "{}", line.text());
    }
    let source = std::fs::read_to_string(app_host_tests::build::workspace().join("tests/apps/axum_chat.rs")).unwrap();
    let ours: Vec<_> = source.lines().filter(|line| line.contains("app_abi")).collect();
    assert_eq!(ours, ["app_abi::export_axum!(router);"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_echoes_ten_thousand_messages_whole_and_in_pieces_and_closes_properly() {
    const COUNT: usize = 10_000;
    let host = site().start();
    let (mut sender, mut receiver) = open(&host, "/echo").await.split();
    let payload = |number: usize| {
        let length = if number % 1000 == 999 { 300_000 } else { number % 700 };
        Bytes::from(vec![number.to_le_bytes()[0]; length])
    };
    let sending = tokio::spawn(async move {
        for number in 0..COUNT {
            let bytes = payload(number);
            if number % 3 == 0 {
                let third = bytes.len() / 3;
                let pieces = [bytes.slice(..third), bytes.slice(third..2 * third), bytes.slice(2 * third..)];
                for (at, piece) in pieces.into_iter().enumerate() {
                    let code = OpCode::Data(if at == 0 { Data::Binary } else { Data::Continue });
                    sender.feed(Message::Frame(Frame::message(piece, code, at == 2))).await.unwrap();
                }
                sender.flush().await.unwrap();
            } else {
                sender.send(Message::Binary(bytes)).await.unwrap();
            }
        }
        sender
    });
    for number in 0..COUNT {
        match within("an echo", receiver.next()).await {
            Some(Ok(Message::Binary(bytes))) => assert!(bytes == payload(number), "message {number} is another"),
            other => panic!("message {number}: {other:?}"),
        }
    }
    let mut sender = sending.await.unwrap();
    let frame = CloseFrame { code: CloseCode::Normal, reason: "enough".into() };
    sender.send(Message::Close(Some(frame.clone()))).await.unwrap();
    match within("the close", receiver.next()).await {
        Some(Ok(Message::Close(Some(answer)))) => assert_eq!(answer, frame),
        other => panic!("expected the close: {other:?}"),
    }
    assert!(within("the end", receiver.next()).await.is_none(), "the end comes without an error");
    host.wait_for("ended", |line| has(line, "what", "echo"));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_stops_the_writer() {
    const FEW_MIB_IN_KIB: u64 = 8 * 1024;
    let host = site().with("/workers", 1).start();
    host.get("/hello");
    let worker = host.workers()[0];
    let before = process::peak_resident_kib(worker).unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(open(&host, "/flood").await);
    }
    let sent = || host.get("/sent").parse::<u64>().unwrap();
    let mut last = (0, 0);
    // The kernel's buffers fill, and then nothing moves any more.
    let stuck = host.wait("the writers' stop", || {
        let now = sent();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        std::thread::yield_now();
        (now > 0 && last.1 >= 200).then_some(now)
    });
    let after = process::peak_resident_kib(worker).unwrap();
    assert!(after < before + FEW_MIB_IN_KIB, "KiB before: {before}, after: {after}");
    assert!(stuck < 64 << 20, "{stuck} bytes were written that nobody read");
    println!("a stuck writer: {stuck} bytes in four sockets, VmHWM {before} to {after} KiB");
    // Whoever reads on gets what is missing, and more.
    for client in &mut clients {
        let mut read = 0;
        while read < 32 << 20 {
            match within("a message", client.next()).await {
                Some(Ok(Message::Binary(bytes))) => read += bytes.len(),
                other => panic!("{other:?}"),
            }
        }
    }
    let after = process::peak_resident_kib(worker).unwrap();
    assert!(after < before + FEW_MIB_IN_KIB, "KiB before: {before}, after reading: {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_vanishes_ends_its_socket() {
    let host = site().start();
    let mut client = open(&host, "/hold").await;
    assert_eq!(text(&mut client).await, "held");
    drop(client);
    host.wait_for("ended", |line| has(line, "what", "hold"));
    host.stop();
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!(line.number("cut"), Some(0), "{}", line.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_sockets_live_until_the_shutdown_timeout_and_are_counted_as_cut() {
    let host = site().with("/restart/shutdown_timeout", "2s").start();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = open(&host, "/hold").await;
        assert_eq!(text(&mut client).await, "held");
        clients.push(client);
    }
    let began = std::time::Instant::now();
    let request = begin_restart(&host);
    let ends = tokio::spawn(async move {
        for client in &mut clients {
            let end = within("the cut", client.next()).await;
            assert!(matches!(end, None | Some(Err(_))), "{end:?}");
        }
        began.elapsed()
    });
    let lived = ends.await.unwrap();
    assert!(lived >= Duration::from_millis(1500), "cut after {lived:?}");
    assert_eq!(host.verdict(request).verdict, "complete");
    let exits = host.lines_with(said::WORKER_EXITED);
    assert_eq!(exits.iter().filter_map(|line| line.number("cut")).sum::<u64>(), 5);
    assert!(exits.iter().all(|line| line.str("status") == "exit 0"), "{exits:?}");
    // The app was told by an error, unless its runtime ended first and dropped the task.
    assert_eq!(host.lines_with("ended").iter().filter(|line| has(line, "what", "hold")).count(), 5);
    let told = host.lines_with("the held socket has ended");
    assert!(told.iter().all(|line| line.text().contains("ConnectionAborted")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_notice_lets_an_app_say_goodbye_by_1001_and_no_socket_holds_the_restart_up() {
    let host = site().start();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = open(&host, "/polite").await;
        assert_eq!(text(&mut client).await, "held");
        clients.push(client);
    }
    let request = begin_restart(&host);
    for client in &mut clients {
        match within("the goodbye", client.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => {
                assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "a new version is coming"));
            }
            other => panic!("expected the close: {other:?}"),
        }
        assert!(within("the end", client.next()).await.is_none(), "the end comes without an error");
    }
    assert_eq!(host.verdict(request).verdict, "complete");
    let exits = host.lines_with(said::WORKER_EXITED);
    assert_eq!(exits.len(), 2);
    assert!(exits.iter().all(|line| line.number("cut") == Some(0)), "{exits:?}");
    // Far from any time-out.
    let took = host.lines_with(said::RESTART_COMPLETE)[0].number("took_ms").unwrap();
    assert!(took < 10_000, "{took} ms");
    assert_eq!(host.lines_with("ended").iter().filter(|line| has(line, "what", "polite")).count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_upgrade_is_an_ordinary_answer_and_the_connection_is_kept() {
    let host = site().start();
    let mut connection = host.connect();
    let asks = |path: &str, protocol: &str| {
        let upgrade = format!("upgrade: {protocol}");
        let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        request("GET", path, &["connection: upgrade", &upgrade, "sec-websocket-version: 13", key])
    };
    for (path, protocol, status) in
        [("/refused", "websocket", 403), ("/echo", "other", 400), ("/hello", "h2c", 200), ("/nowhere", "h2c", 404)]
    {
        connection.send(asks(path, protocol).as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap(), status, "{path}: {}", connection.text());
    }
    assert_eq!(connection.get("/hello").unwrap(), 200);
    drop(connection);
    // Nothing is left in flight that would hold a drain up.
    host.restart_completes();
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_over_http2_is_served_as_by_axum_itself() {
    let host = site().start();
    let stream = TcpStream::connect(host.address().tcp()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    // Known once the settings have come.
    sender = sender.ready().await.unwrap();
    within("the settings", async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("http://{}/echo", host.address().tcp()))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (response, out) = sender.send_request(request, false).unwrap();
    let response = within("the answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let stream = Stream { incoming: response.into_body(), out, left: Bytes::new() };
    let mut client = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    for number in 0..1000 {
        let words = number.to_string().repeat(number % 50 + 1);
        client.send(Message::text(words.as_str())).await.unwrap();
        assert_eq!(text(&mut client).await, words);
    }
    let request = begin_restart(&host);
    client.send(Message::text("still there")).await.unwrap();
    assert_eq!(text(&mut client).await, "still there");
    client.close(None).await.unwrap();
    loop {
        match within("the close", client.next()).await {
            Some(Ok(Message::Close(_))) => {}
            None | Some(Err(Error::ConnectionClosed)) => break,
            other => panic!("{other:?}"),
        }
    }
    drop((client, sender));
    assert_eq!(host.verdict(request).verdict, "complete");
    within("the end", driver).await.unwrap().unwrap();
    assert!(host.lines_with(said::WORKER_EXITED).iter().all(|line| line.number("cut") == Some(0)));
}

/// An HTTP/2 stream as bytes.
struct Stream {
    incoming: h2::RecvStream,
    out: h2::SendStream<Bytes>,
    left: Bytes,
}

impl tokio::io::AsyncRead for Stream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        use std::task::{Poll, ready};
        while self.left.is_empty() {
            match ready!(self.incoming.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                Some(Ok(data)) => {
                    self.incoming.flow_control().release_capacity(data.len()).map_err(std::io::Error::other)?;
                    self.left = data;
                }
            }
        }
        let length = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..length]);
        self.left.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Stream {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        // A few bytes, which the window always has room for.
        let sent = self.out.send_data(Bytes::copy_from_slice(bytes), false);
        std::task::Poll::Ready(sent.map(|()| bytes.len()).map_err(std::io::Error::other))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(self.out.send_data(Bytes::new(), true).map_err(std::io::Error::other))
    }
}
