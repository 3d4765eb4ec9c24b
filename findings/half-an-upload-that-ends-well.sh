#!/usr/bin/env bash
# An HTTP/2 upload that its client gives up with RST_STREAM(NO_ERROR) is a whole body to a service on hyper.
#
# Guess:  the body fails, as it does for any other reason: its `content-length` hasn't come, and no END_STREAM.
# Seen:   hyper 1.12.0 on h2 0.4.20. With CANCEL the body is an error; with NO_ERROR it ends, and `collect` gives the part that
#         has come without an error. hyper follows RFC 9113, section 8.1, where NO_ERROR says that the rest isn't needed: but
#         there a server says so to a client, and not the other way round.
# Why it matters: some proxies give this reason when their own client goes away in the middle of an upload. A handler that
#         stores what `collect` gives stores half a file. (Here: whatever the reason, it is an error.)
# Needs cargo.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cd "$T"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "half"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.12.1"
h2 = "=0.4.20"
http = "=1.5.0"
http-body-util = "=0.1.5"
hyper = { version = "=1.12.0", features = ["http2", "server"] }
hyper-util = { version = "=0.1.21", features = ["tokio"] }
tokio = { version = "=1.54.1", features = ["io-util", "macros", "rt", "sync", "time"] }
TOML
cat >src/main.rs <<'RS'
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (tell, mut told) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            let tell = tell.clone();
            async move {
                // On a task of its own, as a handler's that goes on when its client has gone.
                tokio::spawn(async move {
                    let body = request.into_body().collect().await;
                    tell.send(body.map(|body| body.to_bytes()).map_err(drop)).unwrap();
                });
                std::future::pending::<()>().await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service));
        let (sender, connection) = h2::client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let request = Request::post("http://test/").header("content-length", "1000").body(()).unwrap();
        let (_response, mut upload) = sender.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"half"), false).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        upload.send_reset(reason);
        match told.recv().await.unwrap() {
            Ok(body) => println!("{reason:?}: the whole body is {body:?}"),
            Err(()) => println!("{reason:?}: the body failed"),
        }
    }
}
RS
cargo run --quiet >seen 2>log || { cat log >&2; exit 1; }
cat seen
cat >expected <<'TXT'
CANCEL: the body failed
NO_ERROR: the whole body is b"half"
TXT
diff expected seen
echo "as stated"
