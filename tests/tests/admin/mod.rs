//! The admin listener: what is counted, what is said of health, and that nobody who asks delays anything.

mod clients;
mod health;
mod listener;
mod metrics;
mod process;

use app_host_tests::{Host, Metrics};

fn host() -> Host {
    Host::misbehaving().with("/admin", "127.0.0.1:0")
}

/// Waits until the metrics say so.
fn metrics_when(host: &Host, what: &str, fits: impl Fn(&Metrics) -> bool) -> Metrics {
    host.wait(what, || Some(host.metrics()).filter(|metrics| fits(metrics)))
}
