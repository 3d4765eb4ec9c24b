//! Any tower service is an app: axum's examples and tonic's greeter, driven by real clients, over
//! restarts.

mod event_streams;
mod examples;
mod grpc;
mod mistakes;
mod ported;
pub(crate) mod resumed;
mod runtime;
mod sockets;

use std::net::SocketAddr;
use std::time::Duration;

use app_host_tests::tls::Authority;
use app_host_tests::{App, Host, Line, said};
use nix::sys::signal::Signal;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A master with the app of many examples.
fn site() -> Host {
    Host::new(&App::build().app("axum_site"))
}

/// A site that is served with and without TLS, and what connects to it.
struct Doors {
    host: Host,
    http: SocketAddr,
    https: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Doors {
    /// Those of a host that isn't started yet.
    fn of(host: Host) -> Self {
        let authority = Authority::new(host.directory());
        let tls = json!({ "certificates": [authority.localhost().config()] });
        let https = json!({ "address": "127.0.0.2:0", "name": "https", "tls": tls });
        let host = host.with("/admin", "127.0.0.1:0").with("/listen", json!(["127.0.0.1:0", https])).start();
        let (http, https) = (host.address().tcp(), host.address_of("https").tcp());
        let (config, name) = authority.trust("localhost").parts();
        Self { host, http, https, connector: TlsConnector::from(config), name }
    }

    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.http).await.unwrap()
    }

    async fn open_tls(&self) -> TlsStream<TcpStream> {
        self.connector.connect(self.name.clone(), TcpStream::connect(self.https).await.unwrap()).await.unwrap()
    }
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
