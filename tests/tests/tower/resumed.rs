//! WebSockets whose clients stay connected over restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use app_host_tests::said;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Doors, site, within};

/// Numbered texts, some on their way at a time, until it is told to end. Returns how many came back, and from how many
/// generations.
pub(crate) async fn talk<S>(mut client: WebSocketStream<S>, going: Arc<AtomicBool>, pause: Duration) -> (u64, usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const ON_THEIR_WAY: u64 = 4;
    let (mut sent, mut heard, mut generations) = (0_u64, 0_u64, Vec::new());
    while going.load(Relaxed) || heard < sent {
        while going.load(Relaxed) && sent < heard + ON_THEIR_WAY {
            client.send(Message::text(sent.to_string())).await.expect("it is open");
            sent += 1;
        }
        let message = within("an answer", client.next()).await.expect("it goes on").expect("it is open");
        let Message::Text(text) = message else { panic!("{message:?}") };
        let (generation, number) = text.split_once(' ').expect("a generation and a number");
        assert_eq!(number, heard.to_string(), "none is lost, doubled or out of order");
        heard += 1;
        let generation: u64 = generation.parse().unwrap();
        if generations.last() != Some(&generation) {
            assert!(generations.last().is_none_or(|last| *last < generation), "{generations:?}, {generation}");
            generations.push(generation);
        }
        tokio::time::sleep(pause).await;
    }
    client.close(None).await.expect("it is open");
    while let Some(message) = within("the end", client.next()).await {
        assert!(matches!(message, Ok(Message::Close(_)) | Err(Error::ConnectionClosed)), "{message:?}");
    }
    (heard, generations.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_stay_open_over_ten_restarts_and_no_message_is_lost_doubled_or_out_of_order() {
    const RESTARTS: usize = 10;
    let doors = Doors::of(site());
    let (http, https) = (doors.http, doors.https);
    let going = Arc::new(AtomicBool::new(true));
    let mut clients = Vec::new();
    for number in 0..60_u64 {
        let (going, pause) = (Arc::clone(&going), Duration::from_micros(number * 70));
        if number % 2 == 0 {
            let url = format!("ws://{http}/resumable?{number}");
            let opened = tokio_tungstenite::client_async(url, doors.open().await);
            clients.push(tokio::spawn(talk(within("the handshake", Box::pin(opened)).await.unwrap().0, going, pause)));
        } else {
            let url = format!("wss://{https}/resumable?{number}");
            let opened = tokio_tungstenite::client_async(url, doors.open_tls().await);
            clients.push(tokio::spawn(talk(within("the handshake", Box::pin(opened)).await.unwrap().0, going, pause)));
        }
    }
    let host = &doors.host;
    tokio::task::block_in_place(|| (0..RESTARTS).for_each(|_| drop(host.restart_completes())));
    going.store(false, Relaxed);
    let mut seen = 0;
    for client in clients {
        let (heard, generations) = client.await.unwrap();
        assert!(heard > 0 && generations > 1, "{heard} from {generations}");
        seen += generations as u64 - 1;
    }
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!(line.number("cut"), Some(0), "{}", line.text());
    }
    assert_eq!(host.metrics().count("connections_accepted_total"), 60, "each has had one");
    // One that moves on before its new worker has asked is resumed where it comes to rest.
    let resumed = host.metrics().count("websockets_resumed_total");
    assert!((seen..=600).contains(&resumed), "{seen} moves were seen, {resumed} counted");
}

/// A client that sends a long message in pieces while its worker drains.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_megabyte_in_fragments_crosses_a_restart_whole() {
    let host = site().start();
    let address = host.address().tcp();
    let stream = TcpStream::connect(address).await.unwrap();
    let opened = tokio_tungstenite::client_async(format!("ws://{address}/resumable"), stream);
    let mut client = within("the handshake", Box::pin(opened)).await.unwrap().0;
    let message: Bytes = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    let request = host.last_request() + 1;
    let pieces = 64;
    for number in 0..pieces {
        let length = message.len() / pieces;
        let piece = message.slice(number * length..(number + 1) * length);
        let code = OpCode::Data(if number == 0 { Data::Binary } else { Data::Continue });
        let frame = Frame::message(piece, code, number + 1 == pieces);
        client.send(Message::Frame(frame)).await.unwrap();
        if number == pieces / 2 {
            super::begin_restart(&host);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let back = within("the message", client.next()).await.unwrap().unwrap();
    assert!(back == Message::Binary(message));
    let verdict = tokio::task::block_in_place(|| host.verdict(request));
    assert_eq!(verdict.verdict, "complete");
    client.send(Message::text("still here")).await.unwrap();
    let text = within("a text", client.next()).await.unwrap().unwrap();
    assert_eq!(text, Message::text("2 still here"));
}

/// Over TLS, whose keys travel beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_finds_what_the_one_before_has_saved_up_to_64_kib() {
    let doors = Doors::of(site());
    let (host, url) = (&doors.host, format!("wss://{}/kept", doors.https));
    let opened = tokio_tungstenite::client_async(url, doors.open_tls().await);
    let mut client = within("the handshake", Box::pin(opened)).await.unwrap().0;
    for (said, answer) in [
        ("one", "3"),
        ("three", "8"),
        ("fill", "65536"),
        ("more", "65540 bytes are too many to be saved: 65536 are the most"),
        // What was saved before stays.
        ("fill", "65536"),
    ] {
        client.send(Message::text(said)).await.unwrap();
        assert_eq!(within("an answer", client.next()).await.unwrap().unwrap(), Message::text(answer));
        let asked = tokio::task::block_in_place(|| host.restart_completes());
        assert_eq!(asked.verdict, "complete");
    }
}
