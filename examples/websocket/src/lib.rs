//! A chat over WebSockets: what one client says reaches the clients of all workers, of the old and the new version during a
//! restart too. Clients stay connected over restarts: a handler ends between two messages, and the new version's goes on. What
//! is said in that moment, a client may miss.

use app_abi::Host;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::response::{Html, Response};
use axum::{Router, routing::get};

fn router() -> Router {
    Router::new().route("/", get(async || Html(PAGE))).route("/chat", get(enter))
}

async fn enter(upgrade: WebSocketUpgrade, host: Host) -> Response {
    app_abi::resumable(upgrade.on_upgrade(move |socket| chat(socket, host)))
}

/// One client's stay, until it goes or the worker ends.
async fn chat(mut socket: WebSocket, host: Host) {
    let Ok(mut said) = host.subscribe("chat") else { return };
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                // Its own clients hear of it the same way as all others. A queue that is full loses the message.
                Some(Ok(Message::Text(text))) => drop(host.publish("chat", text.as_bytes())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            Some(heard) = said.next() => {
                let text = match heard {
                    Ok(message) => String::from_utf8_lossy(&message.bytes).into_owned(),
                    Err(lost) => lost.to_string(),
                };
                if socket.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
        }
    }
}

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<link rel="icon" href="data:,">
<form><input name="text" autofocus autocomplete="off"></form>
<ul></ul>
<script>
const form = document.querySelector("form"), list = document.querySelector("ul");
let socket, connected = 0;
function connect() {
    connected++;
    socket = new WebSocket(`ws://${location.host}/chat`);
    socket.onmessage = ({ data }) => list.appendChild(document.createElement("li")).textContent = data;
    socket.onclose = () => setTimeout(connect, 100);
}
form.onsubmit = (event) => { event.preventDefault(); socket.send(form.text.value); form.reset(); };
connect();
</script>
"#;

app_abi::export_axum!(router);
