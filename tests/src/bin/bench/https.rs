//! What TLS costs: the example app's `GET /hello` by HTTPS, the same handler in a plain axum server behind tokio-rustls with
//! ring, and nginx with the same certificate where it is installed (or named by `NGINX_PROGRAM`), alternating in one run. Kept
//! alive, a connection with a whole handshake a request, and one with a ticket.

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

use super::reloads::Nginx;
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
    let nginx = match Nginx::start(Some(host.directory())) {
        Ok(nginx) => Some(nginx),
        Err(error) => {
            println!("without nginx: {error}\n");
            None
        }
    };
    let mut host_processes = host.workers();
    host_processes.push(host.master());
    let mut servers =
        vec![("app-host", host.address_of("https"), host_processes), ("axum", axum_address, vec![axum.0.id()])];
    servers.extend(nginx.as_ref().map(|nginx| ("nginx", nginx.address(), nginx.processes())));
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
        let addresses: Vec<Address> = servers.iter().map(|(_, address, _)| at(address)).collect();
        let mut measured: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            // Whoever goes first has a warmer or a colder machine: take turns.
            for turn in 0..servers.len() {
                let index = (turn + usize::try_from(round)?) % servers.len();
                let (name, _, processes) = &servers[index];
                let one = measure(&addresses[index], processes, "/hello", kind, limit)?;
                println!("  {round:5}  {name:9} {:12.0} {:15.2}", one.rate, one.cpu);
                measured[index].push(one);
            }
        }
        let ours = &measured[0];
        for ((name, ..), theirs) in servers.iter().zip(&measured).skip(1) {
            let pairs = || ours.iter().zip(theirs);
            let mut cpus: Vec<f64> = pairs().map(|(ours, theirs)| ours.cpu / theirs.cpu).collect();
            let mut rates: Vec<f64> = pairs().map(|(ours, theirs)| ours.rate / theirs.rate).collect();
            println!("  app-host / {name}: CPU a request {}, requests/s {}", spread(&mut cpus), spread(&mut rates));
        }
        println!();
    }
    Ok(())
}
