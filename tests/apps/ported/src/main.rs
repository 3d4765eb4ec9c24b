//! The service without app-host, for `cargo run`.

use std::error::Error;
use std::sync::Arc;

use axum_extra::extract::cookie::Key;
use ported::{Shared, Visits, report, routes};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let shared = Shared { visits: Visits::Alone(Arc::default()), key: Key::generate() };
    tokio::spawn(report(shared.visits.clone(), std::future::pending()));
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let end = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, routes(shared)).with_graceful_shutdown(end).await?;
    Ok(())
}
