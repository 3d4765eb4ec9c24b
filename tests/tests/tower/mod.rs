//! Any tower service is an app: axum's examples and tonic's greeter, driven by real clients, over
//! restarts.

mod examples;
mod grpc;
mod mistakes;
mod ported;
mod runtime;
mod sockets;

use std::time::Duration;

use app_host_tests::{App, Host, Line, said};
use nix::sys::signal::Signal;

/// A master with the app of many examples.
fn site() -> Host {
    Host::new(&App::build().app("axum_site"))
}

/// Whether a line of the app's has this field, however the log shows it.
fn has(line: &Line, key: &str, value: &str) -> bool {
    line.text().replace('\\', "").contains(&format!("\"{key}\":\"{value}\""))
}

/// Asks for a restart that can't end before something else has, and waits until every old worker drains.
fn begin_restart(host: &Host) -> u64 {
    let request = host.last_request() + 1;
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let workers = usize::try_from(host.configured_workers()).unwrap();
    host.wait("all drains", || {
        let drains = host.lines().into_iter().skip(mark).filter(|line| line.msg() == said::WORKER_DRAINS);
        (drains.count() == workers).then_some(())
    });
    request
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_mins(1);
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} in vain for {what}"))
}
