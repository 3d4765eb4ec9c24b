#!/usr/bin/env bash
# h2's server sends an informational response behind the final one, and on a stream that was reset, without an error.
#
# Guess:  `SendResponse::send_informational` fails once the final response has been sent, as its documentation says ("The
#         final response has already been sent" is in its list of errors), and once the client has reset the stream.
# Seen:   h2 0.4.20. Behind the head of the response it returns `Ok`, and h2's own client ends the stream with PROTOCOL_ERROR:
#         the response that was on its way is lost. On a stream that its client has reset it returns `Ok`, too.
# Why it matters: an app that sends hints from a task of its own can be too late by itself. Whoever passes its hints on has to
#         know by other means whether the response has begun (here: the queue closes when the app has answered).
# Needs cargo.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cd "$T"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "behind"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.12.1"
h2 = "=0.4.20"
http = "=1.5.0"
tokio = { version = "=1.54.1", features = ["io-util", "macros", "rt", "time"] }
TOML
cat >src/main.rs <<'RS'
use bytes::Bytes;
use http::{Request, Response};

fn hints() -> Response<()> {
    Response::builder().status(103).header("link", "</a>; rel=preload").body(()).unwrap()
}

async fn a_moment() {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (client, server) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(server).await.unwrap();
        while let Some(Ok((request, mut reply))) = connection.accept().await {
            tokio::spawn(async move {
                let path = request.uri().path().to_owned();
                if path == "/reset" {
                    is_reset(&mut reply).await;
                    println!("on a stream that was reset: {:?}", reply.send_informational(hints()).is_ok());
                    return;
                }
                if path == "/before" {
                    println!("before the response: {:?}", reply.send_informational(hints()).is_ok());
                }
                let mut body = reply.send_response(Response::new(()), false).unwrap();
                a_moment().await;
                if path == "/behind" {
                    println!("behind its head: {:?}", reply.send_informational(hints()).is_ok());
                }
                a_moment().await;
                let _ = body.send_data(Bytes::from_static(b"whole"), true);
            });
        }
    });
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for path in ["/before", "/behind", "/reset"] {
        let request = Request::get(format!("http://test{path}")).body(()).unwrap();
        let (response, mut stream) = sender.send_request(request, true).unwrap();
        if path == "/reset" {
            a_moment().await;
            stream.send_reset(h2::Reason::CANCEL);
            a_moment().await;
            continue;
        }
        let mut body = response.await.unwrap().into_body();
        match body.data().await.transpose() {
            Ok(data) => println!("the client of {path} has {:?}", data.unwrap()),
            Err(error) => println!("the client of {path} has {:?}", error.reason().unwrap()),
        }
    }
}

/// Waits for the client to reset the stream.
async fn is_reset(reply: &mut h2::server::SendResponse<Bytes>) {
    let _ = std::future::poll_fn(|cx| reply.poll_reset(cx)).await;
}
RS
cargo run --quiet >seen 2>log || { cat log >&2; exit 1; }
cat seen
cat >expected <<'TXT'
before the response: true
the client of /before has b"whole"
behind its head: true
the client of /behind has PROTOCOL_ERROR
on a stream that was reset: true
TXT
diff expected seen
echo "as stated"
