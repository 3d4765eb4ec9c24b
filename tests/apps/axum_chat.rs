//! A chat over WebSockets, in the manner of axum's example. What makes it an app is the last line.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::broadcast;

/// Who is in the room, and what is said there.
struct Room {
    names: Mutex<HashSet<String>>,
    said: broadcast::Sender<String>,
}

fn router() -> Router {
    let (said, _) = broadcast::channel(100);
    let room = Arc::new(Room { names: Mutex::default(), said });
    Router::new().route("/websocket", get(enter)).with_state(room)
}

async fn enter(socket: WebSocketUpgrade, State(room): State<Arc<Room>>) -> impl IntoResponse {
    socket.on_upgrade(|socket| chat(socket, room))
}

/// One client's stay: the first message is its name, each further one is said to all.
async fn chat(socket: WebSocket, room: Arc<Room>) {
    let (mut sender, mut receiver) = socket.split();
    let Some(Ok(Message::Text(name))) = receiver.next().await else { return };
    let name = name.to_string();
    if !room.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
        let _ = sender.send(Message::Text(Utf8Bytes::from_static("The name is taken."))).await;
        return;
    }
    let mut said = room.said.subscribe();
    let _ = room.said.send(format!("{name} joined."));
    let mut hearing = tokio::spawn(async move {
        while let Ok(text) = said.recv().await {
            if sender.send(Message::text(text)).await.is_err() {
                break;
            }
        }
    });
    let saying = room.said.clone();
    let speaker = name.clone();
    let mut speaking = tokio::spawn(async move {
        while let Some(Ok(Message::Text(text))) = receiver.next().await {
            let _ = saying.send(format!("{speaker}: {text}"));
        }
    });
    tokio::select! {
        _ = &mut hearing => speaking.abort(),
        _ = &mut speaking => hearing.abort(),
    }
    let _ = room.said.send(format!("{name} left."));
    room.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
}

app_abi::export_axum!(router);
