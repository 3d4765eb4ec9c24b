//! What a preflight waits for, said while it waits: its verdict may be minutes away.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use app_host_platform::disk_thread::DiskThreadError;

use super::{DISK_TIMEOUT, Preflight};

/// What takes longer is said. Nothing on an idle machine does.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says once what is waited for, when that isn't over soon. Whoever waits has a deadline of its own, `limit`.
pub(super) async fn patiently<F: Future>(waits_for: &str, limit: Duration, future: F) -> F::Output {
    let mut future = pin!(future);
    if let Ok(output) = timeout(PATIENCE, &mut future).await {
        return output;
    }
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(waits_for, limit_ms = limit, "the preflight waits");
    future.await
}

impl Preflight {
    /// Has `job`, whose name is `what`, done where it may wait for the disk, for at most [`DISK_TIMEOUT`].
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        what: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskThreadError> {
        patiently(what, DISK_TIMEOUT, self.disk.run(DISK_TIMEOUT, job)).await
    }
}
