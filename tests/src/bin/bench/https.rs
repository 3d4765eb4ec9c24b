//! What TLS costs: the example app's `GET /hello` by HTTPS, and the same handler in a plain axum server behind tokio-rustls
//! with ring, alternating in one run. Kept alive, a connection with a whole handshake a request, and one with a ticket.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use app_host_tests::load::Kind;
use app_host_tests::tls::{Authority, Files};
use app_host_tests::{Address, App, Host};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Axum, Measured, Result, THREADS, measure, plain_router, spread};

/// Serves the plain server's router by HTTPS, with the certificate in `localhost.pem` and its key in this directory.
pub fn serve(directory: &str) -> Result<()> {
    let directory = Path::new(directory);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS.into()).enable_all().build()?;
    let chain =
        CertificateDer::pem_file_iter(directory.join("localhost.pem"))?.collect::<std::result::Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("localhost.key"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let mut config =
        builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        let router: Router = plain_router();
        loop {
            let (stream, _) = listener.accept().await?;
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                let stream = acceptor.accept(stream).await?;
                // As axum serves its connections.
                let served = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
                served.map_err(std::io::Error::other)
            });
        }
    })
}

impl Axum {
    fn start_https(directory: &Path) -> Result<(Self, Address)> {
        let mut command = Command::new("/proc/self/exe");
        let mut child = command.arg("serve-axum-https").arg(directory).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("axum has no output")?;
        let axum = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok((axum, Address::parse(line.trim()).ok_or("axum says no address")?))
    }
}

/// See the module.
pub fn run(rounds: u64, limit: Duration) -> Result<()> {
    let host = Host::new(&App::build().example()).with("/workers", THREADS).with("/log/level", "info");
    let authority = Authority::new(host.directory());
    let Files { certificate, .. } = authority.localhost();
    fs::metadata(certificate)?;
    let files = json!({ "certificate": "localhost.pem", "key": "localhost.key" });
    let listen = json!([{ "address": "127.0.0.1:0", "name": "https", "tls": { "certificates": [files] } }]);
    let host = host.with("/listen", listen).start();
    let (axum, axum_address) = Axum::start_https(host.directory())?;
    let mut host_processes = host.workers();
    host_processes.push(host.master());
    for (what, kind, tickets) in [
        ("kept alive", Kind::KeepAlive, true),
        ("a connection and a whole handshake a request", Kind::ConnectionPerRequest, false),
        ("a connection and a ticket a request", Kind::ConnectionPerRequest, true),
    ] {
        println!("{what}, 8 clients, {rounds} rounds of {limit:?} each");
        println!("  round  server      requests/s  CPU µs/request");
        let at = |address: &Address| {
            let trust = authority.trust("localhost");
            Address::Tls(address.tcp(), if tickets { trust } else { trust.without_tickets() })
        };
        let (ours, theirs) = (at(&host.address_of("https")), at(&axum_address));
        let (mut rates, mut cpus) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let one = |name: &str, address: &Address, processes: &[u32]| -> Result<Measured> {
                let measured = measure(address, processes, "/hello", kind, limit)?;
                println!("  {round:5}  {name:9} {:12.0} {:15.2}", measured.rate, measured.cpu);
                Ok(measured)
            };
            let first = round.is_multiple_of(2).then(|| one("app-host", &ours, &host_processes)).transpose()?;
            let plain = one("axum", &theirs, &[axum.0.id()])?;
            let ours = first.map_or_else(|| one("app-host", &ours, &host_processes), Ok)?;
            rates.push(ours.rate / plain.rate);
            cpus.push(ours.cpu / plain.cpu);
        }
        println!("  app-host / axum: CPU a request {}, requests/s {}\n", spread(&mut cpus), spread(&mut rates));
    }
    Ok(())
}
