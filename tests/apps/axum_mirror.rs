//! Answers with what it has seen of a request: `seen` has the method and the whole of where it went, and what the client
//! calls `x-…` comes back under its name, and so does the body. `generation` says who answers. With `x-wait` it waits for so
//! many milliseconds first, and with `x-make` it makes a body of so many pieces of 10 KiB, one each millisecond.

use std::convert::Infallible;
use std::time::Duration;

use app_abi::Host;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::response::Response;
use futures_util::stream;

async fn mirror(host: Host, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let number = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(wait) = number("x-wait") {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    let mut response = Response::new(number("x-make").map_or(body, make));
    for (name, value) in head.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-")) {
        response.headers_mut().append(name.clone(), value.clone());
    }
    let seen = format!("{} {}", head.method, head.uri);
    response.headers_mut().insert("seen", HeaderValue::try_from(seen).expect("it came in a head"));
    response.headers_mut().insert("generation", host.generation().into());
    response
}

/// Each piece has the low byte of its number.
fn make(pieces: u64) -> Body {
    let made = stream::unfold(0_u64, move |number| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let piece = Bytes::from(vec![number.to_le_bytes()[0]; 10 * 1024]);
        (number < pieces).then_some((Ok::<_, Infallible>(piece), number + 1))
    });
    Body::from_stream(made)
}

fn router(host: Host) -> Router {
    Router::new().fallback(move |request: Request| mirror(host, request))
}

app_abi::export_axum!(router);
