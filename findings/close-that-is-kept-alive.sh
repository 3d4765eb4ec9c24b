#!/usr/bin/env bash
# hyper sends a service's `connection: close` to an HTTP/1.0 client as `connection: close, keep-alive`.
#
# Guess:  a response with `connection: close` is sent as it is, whatever the client's version.
# Seen:   hyper 1.12.0. To an HTTP/1.0 client that has asked for keep-alive hyper announces that it keeps the connection, and
#         looks whether the response says keep-alive, not whether it says close: it appends. The client reads both words, and
#         the connection is closed. HTTP/1.1 clients get `close`. A response whose version is set to HTTP/1.0 is left alone.
# Why it matters: a client that believes the second word waits for a connection that has gone. A server that must close
#         behind an answer (a body without a length, a request it refuses) has to set the response's version as well.
# Needs cargo.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cd "$T"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "closes"
version = "0.0.0"
edition = "2024"

[dependencies]
http-body-util = "=0.1.5"
hyper = { version = "=1.12.0", features = ["http1", "server"] }
hyper-util = { version = "=0.1.21", features = ["tokio"] }
tokio = { version = "=1.54.1", features = ["io-util", "macros", "rt"] }
TOML
cat >src/main.rs <<'RS'
use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What `connection` is in the answer to a client of this version that asks for keep-alive.
async fn answered(version: &str, as_client: bool) -> String {
    let (mut client, server) = tokio::io::duplex(4096);
    let service = service_fn(move |request: Request<Incoming>| async move {
        let mut response = Response::new(Full::new(Bytes::from_static(b"body")));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        *response.version_mut() = if as_client { request.version() } else { Version::HTTP_11 };
        Ok::<_, Infallible>(response)
    });
    let request = format!("GET / {version}\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let (_, text) = tokio::join!(http1::Builder::new().serve_connection(TokioIo::new(server), service), async {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    });
    let lines = text.lines().filter_map(|line| line.strip_prefix("connection: "));
    lines.collect::<Vec<_>>().join(" | ")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("1.1: {}", answered("HTTP/1.1", false).await);
    println!("1.0: {}", answered("HTTP/1.0", false).await);
    println!("1.0, answered as 1.0: {}", answered("HTTP/1.0", true).await);
}
RS
cargo tree --quiet --depth 1 --prefix none | tail -n +2
out=$(cargo run --quiet)
echo "$out"
[ "$out" = $'1.1: close\n1.0: close, keep-alive\n1.0, answered as 1.0: close' ]
