//! axum's first example. What makes it an app is the last line.

use axum::{Router, response::Html, routing::get};

fn router() -> Router {
    Router::new().route("/", get(handler))
}

async fn handler() -> Html<&'static str> {
    Html("<h1>Hello, World!</h1>")
}

app_abi::export_axum!(router);
