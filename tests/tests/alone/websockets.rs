//! WebSockets stay open over restarts however many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use app_host_tests::{App, Host, machine, said};
use tokio::net::TcpStream;

use super::handover::Raised;
use crate::tower::resumed::talk;

const SOCKETS: u64 = 1000;
const RESTARTS: u64 = 20;

/// Each socket has four numbered messages on their way at any time, and checks what comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sockets_stay_open_over_twenty_restarts_and_no_message_is_lost_doubled_or_out_of_order() {
    let _alone = tokio::task::block_in_place(machine::alone);
    let _raised = Raised::limit();
    let host = Host::new(&App::build().app("axum_site")).with("/admin", "127.0.0.1:0").start();
    let address = host.address().tcp();
    let going = Arc::new(AtomicBool::new(true));
    let mut clients = Vec::new();
    for number in 0..SOCKETS {
        let stream = TcpStream::connect(address).await.unwrap();
        let opened = tokio_tungstenite::client_async(format!("ws://{address}/resumable?{number}"), stream);
        let client = Box::pin(opened).await.expect("the handshake").0;
        clients.push(tokio::spawn(talk(client, Arc::clone(&going), Duration::from_micros(20_000 + number * 10))));
    }
    tokio::task::block_in_place(|| (0..RESTARTS).for_each(|_| drop(host.restart_completes())));
    going.store(false, Relaxed);
    let (mut messages, mut seen) = (0, 0);
    for client in clients {
        let (heard, generations) = client.await.unwrap();
        assert!(heard > 0 && generations > 1, "{heard} from {generations}");
        messages += heard;
        seen += generations as u64 - 1;
    }
    let metrics = host.metrics();
    let resumed = metrics.count("websockets_resumed_total");
    println!("{messages} messages, {resumed} moves");
    assert_eq!(metrics.count("connections_accepted_total"), SOCKETS, "each has had one");
    // One that moves on before its new worker has asked is resumed where it comes to rest.
    assert!((seen..=SOCKETS * RESTARTS).contains(&resumed), "{seen} moves were seen, {resumed} counted");
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!((line.number("cut"), line.number("websockets_ended")), (Some(0), Some(0)), "{}", line.text());
    }
}
