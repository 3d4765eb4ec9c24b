//! The examples, each with the configuration that lies beside it.

use std::fs;
use std::time::Duration;

use app_host_tests::build::workspace;
use app_host_tests::{App, Host, said};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A service of the example, configured as there but for what this machine may not have free.
fn example(name: &str) -> Host {
    let directory = workspace().join("examples").join(name);
    let config: Value = serde_json::from_slice(&fs::read(directory.join("app-host.json")).unwrap()).unwrap();
    let library = directory.join(config["app"]["library"].as_str().unwrap());
    assert!(library.ends_with(format!("target/release/lib{name}.so")), "{}", library.display());
    let host = Host::new(&App::build().profile().join(format!("lib{name}.so")));
    host.with("/app/config", config["app"].get("config").cloned().unwrap_or_else(|| serde_json::json!({})))
}

#[test]
fn hello_greets_by_the_path_and_over_a_restart() {
    let host = example("hello").start();
    assert_eq!(host.get("/Ada"), "Hello, Ada!\n");
    host.restart_completes();
    assert_eq!(host.get("/"), "Hello, world!\n");
}

type Client = WebSocketStream<TcpStream>;

async fn enter(host: &Host) -> Client {
    let address = host.address().tcp();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(format!("ws://{address}/chat"), stream).await.unwrap().0
}

async fn next(client: &mut Client) -> Message {
    let next = tokio::time::timeout(Duration::from_mins(1), client.next()).await.expect("a message in time");
    next.expect("the stream goes on").unwrap()
}

/// What is said until this text.
async fn hear(client: &mut Client, text: &str) {
    while next(client).await != Message::text(text) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chats_clients_hear_each_other_from_all_workers_and_stay_connected_over_restarts() {
    let host = example("websocket").start();
    // So many are surely with both workers.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(enter(&host).await);
    }
    for words in ["hello", "still here", "and again"] {
        clients[0].send(Message::text(words)).await.unwrap();
        for client in &mut clients {
            hear(client, words).await;
        }
        let asked = tokio::task::block_in_place(|| host.restart_completes());
        assert_eq!(asked.verdict, "complete");
    }
}

#[test]
fn a_new_epoch_is_refused_by_a_restart_and_migrates_what_is_stored_at_the_next_start() {
    let new = App::build().profile().join("libmigration.so");
    let before = App::build().app("before");
    let host = example("migration");
    host.install(&before);
    let host = host.start();
    let mut client = host.connect();
    assert_eq!(client.post("/1", b"Ada: buy milk").unwrap(), 201, "{}", client.text());
    assert_eq!(host.get("/1"), "Ada: buy milk\n");
    host.install(&new);
    let refused = host.restart();
    assert_eq!(refused.verdict, "refused: incompatibility");
    assert!(refused.line.str("detail").contains("00000001_00000002"), "{}", refused.line.text());
    assert_eq!(host.get("/1"), "Ada: buy milk\n");
    host.stop();
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert_eq!(host.get("/1"), "buy milk by Ada\n");
    // Once, by the worker that started alone.
    assert_eq!(host.lines_with("notes migrated").len(), 1);
}
