//! Event streams whose clients stay connected over restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use app_host_tests::said;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Doors, site, within};

/// Hears numbers on one connection, until it is told to end. Returns how many they were, and from how many generations.
async fn hear<S>(stream: S, going: Arc<AtomicBool>) -> (u64, u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/numbers").header("host", "localhost").header("accept", "text/event-stream");
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut body, mut text, mut heard, mut generations) = (response.into_body(), String::new(), 0, Vec::new());
    while going.load(Relaxed) {
        let frame = within("an event", body.frame()).await.expect("it goes on").expect("it is open");
        text += std::str::from_utf8(frame.data_ref().expect("there are no trailers")).unwrap();
        while let Some((event, rest)) = text.split_once("\n\n") {
            let (id, generation) = event.split_once('\n').expect("an id and a generation");
            heard += 1;
            assert_eq!(id, format!("id: {heard}"), "none is lost, doubled or out of order");
            let generation: u64 = generation.strip_prefix("data: ").unwrap().parse().unwrap();
            if generations.last() != Some(&generation) {
                assert!(generations.last().is_none_or(|last| *last < generation), "{generations:?}, {generation}");
                generations.push(generation);
            }
            text = rest.to_owned();
        }
    }
    (heard, generations.len() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_stay_open_over_ten_restarts_and_no_event_is_lost_doubled_or_out_of_order() {
    const RESTARTS: usize = 10;
    let doors = Doors::of(site().with("/access_log", json!({ "file": "access" })));
    let going = Arc::new(AtomicBool::new(true));
    let mut clients = Vec::new();
    for number in 0..60 {
        let going = Arc::clone(&going);
        if number % 2 == 0 {
            clients.push(tokio::spawn(hear(doors.open().await, going)));
        } else {
            clients.push(tokio::spawn(hear(doors.open_tls().await, going)));
        }
    }
    let host = &doors.host;
    tokio::task::block_in_place(|| (0..RESTARTS).for_each(|_| drop(host.restart_completes())));
    going.store(false, Relaxed);
    let mut seen = 0;
    for client in clients {
        let (heard, generations) = client.await.unwrap();
        assert!(heard > 0 && generations > 1, "{heard} from {generations}");
        seen += generations - 1;
    }
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!((line.number("cut"), line.number("event_streams_ended")), (Some(0), Some(0)), "{}", line.text());
    }
    assert_eq!(host.metrics().count("connections_accepted_total"), 60, "each has had one");
    // Each worker has a line of its own, and only the last ones have seen clients go.
    let log = std::fs::read_to_string(host.path("access")).unwrap();
    let last = format!("\"generation\":{}", RESTARTS + 1);
    let moved: Vec<_> = log.lines().filter(|line| !line.contains(&last)).collect();
    assert!(moved.len() as u64 >= seen && moved.iter().all(|line| line.contains("\"outcome\":\"complete\"")), "{log}");
    // One that moves on before its new worker has asked is resumed where it comes to rest.
    let resumed = host.metrics().count("event_streams_resumed_total");
    assert!((seen..=600).contains(&resumed), "{seen} moves were seen, {resumed} counted");
}
