//! Waiting for a deadline that there may not be.

use std::time::Instant;

/// Waits until `deadline`; for ever where there is none.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
