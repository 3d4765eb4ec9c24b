//! A Router whose page takes a while to make: meanwhile the client is told what it will need.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use app_abi::header::{CONTENT_LENGTH, HeaderValue, LINK};
use app_abi::tower::{WithEarlyHints, with_early_hints};
use app_abi::{EarlyHints, HeaderMap};
use axum::{Router, response::Html, routing::get};

fn router() -> WithEarlyHints<Router> {
    let routes = Router::new().route("/", get(page)).route("/twice", get(twice));
    with_early_hints(routes.route("/styled", get(styled)).route("/style.css", get(style)))
}

/// How many times the style was asked for.
static STYLES: AtomicUsize = AtomicUsize::new(0);

async fn style() -> ([(&'static str, &'static str); 1], &'static str) {
    STYLES.fetch_add(1, Relaxed);
    ([("content-type", "text/css")], "#made { color: rgb(1, 2, 3); }")
}

/// A page that is made when the client has begun to load what it needs, or when it has not for a while.
async fn styled(hints: Option<EarlyHints>) -> Html<String> {
    let before = STYLES.load(Relaxed);
    let sent = hints.is_some_and(|hints| send(&hints, "</style.css>; rel=preload; as=style"));
    for _ in 0..200 {
        if STYLES.load(Relaxed) > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let made = if STYLES.load(Relaxed) > before { "behind its style" } else { "first" };
    Html(format!(
        "<link rel=icon href=data:,><link rel=stylesheet href=/style.css><p id=made>sent: {sent}, made {made}"
    ))
}

fn send(hints: &EarlyHints, link: &'static str) -> bool {
    // What would be taken for the response's own is left out.
    let mut fields = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("7"))]);
    for link in [link, "</font.woff2>; rel=preload; as=font"] {
        fields.append(LINK, HeaderValue::from_static(link));
    }
    hints.send(&fields)
}

async fn page(hints: Option<EarlyHints>) -> Html<String> {
    let sent = hints.as_ref().is_some_and(|hints| send(hints, "</style.css>; rel=preload; as=style"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    Html(format!("sent: {sent}"))
}

/// One from a task of its own, and one for which it is too late.
async fn twice(hints: Option<EarlyHints>) -> Html<String> {
    let Some(hints) = hints else { return Html("none".to_owned()) };
    let first = hints.clone();
    let sent = tokio::spawn(async move { send(&first, "</a>; rel=preload") }).await.unwrap_or_default();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        send(&hints, "</late>; rel=preload");
    });
    Html(format!("sent: {sent}"))
}

app_abi::export_axum!(router);
