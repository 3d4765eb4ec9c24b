#!/usr/bin/env bash
# A request whose fields exceed SETTINGS_MAX_HEADER_LIST_SIZE is answered by h2 itself: hyper's service never hears of it.
#
# Guess:  such a request reaches the service, or ends the connection with an error that names it: a server can count it.
# Seen:   h2 0.4.20 under hyper 1.12.0. The client gets 431 with no field at all (no date) and no content, the service is not
#         called, the connection's future reports nothing then or at its end, and the next request is served. RFC 9113,
#         section 6.5.2, calls the limit advisory; hyper's own default is 16 KiB.
# Why it matters: access logs and metrics of a server on hyper have no trace of these clients. On HTTP/1.1 the same head ends
#         the connection with an error that can be counted.
# Needs cargo.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cd "$T"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "unheard"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.12.1"
h2 = "=0.4.20"
http = "=1.5.0"
http-body-util = "=0.1.5"
hyper = { version = "=1.12.0", features = ["http2", "server"] }
hyper-util = { version = "=0.1.21", features = ["tokio"] }
tokio = { version = "=1.54.1", features = ["io-util", "macros", "rt"] }
TOML
cat >src/main.rs <<'RS'
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (client, server) = tokio::io::duplex(1 << 20);
    let called = Arc::new(AtomicUsize::new(0));
    let counted = called.clone();
    let service = service_fn(move |_: Request<Incoming>| {
        counted.fetch_add(1, Relaxed);
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"served")))) }
    });
    let served = tokio::spawn(
        http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(4096)
            .serve_connection(TokioIo::new(server), service),
    );
    let (mut sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    for bytes in [5000, 10] {
        sender = sender.ready().await.unwrap();
        let request = Request::get("http://a/").header("x", "y".repeat(bytes)).body(()).unwrap();
        let response = sender.send_request(request, true).unwrap().0.await.unwrap();
        println!(
            "{bytes} bytes: {}, fields {}, service called {}, connection {}",
            response.status().as_u16(),
            response.headers().len(),
            called.load(Relaxed),
            if served.is_finished() { "ended" } else { "open" },
        );
    }
    drop(sender);
    println!("the connection ended with {:?}", served.await.unwrap().map_err(|error| error.to_string()));
}
RS
cargo run --quiet >out 2>err || { cat err; exit 1; }
cat out
diff out - <<'OUT'
5000 bytes: 431, fields 0, service called 0, connection open
10 bytes: 200, fields 2, service called 1, connection open
the connection ended with Ok(())
OUT
echo "as seen"
