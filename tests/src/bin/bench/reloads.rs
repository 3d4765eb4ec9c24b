//! What clients see of a reload: app-host's restart, nginx's reload, and a plain axum server that is stopped gracefully
//! and started again, in one run.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use app_host_tests::host::wait_until;
use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{Address, App, Connection, Host, process};
use nix::sys::signal::Signal;

use super::{Axum, Result, THREADS, WINDOW, spread};

/// A server that can be reloaded under load.
trait Server {
    fn name(&self) -> &'static str;
    fn address(&self) -> Address;
    /// Begins a reload and waits until it is done, as far as the server tells.
    fn reload(&mut self) -> Result<()>;
}

struct Ours {
    host: Host,
}

impl Server for Ours {
    fn name(&self) -> &'static str {
        "app-host"
    }

    fn address(&self) -> Address {
        self.host.address()
    }

    fn reload(&mut self) -> Result<()> {
        self.host.install_fresh(&App::build().example());
        self.host.restart_completes();
        Ok(())
    }
}

/// Killed on drop, with the workers that it has.
pub(super) struct Nginx {
    child: Child,
    address: Address,
    _directory: tempfile::TempDir,
}

impl Nginx {
    /// Serves by HTTPS if there is a directory with a `localhost.pem` and its key.
    pub(super) fn start(https: Option<&Path>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("app-host-bench-").tempdir()?;
        // It can't say which port it has: one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = directory.path();
        let (kind, certificate) = match https {
            None => ("", String::new()),
            Some(from) => {
                let from = from.display();
                let files = format!("ssl_certificate {from}/localhost.pem; ssl_certificate_key {from}/localhost.key;");
                (" ssl", format!("{files} ssl_protocols TLSv1.2 TLSv1.3;"))
            }
        };
        let config = format!(
            "daemon off; master_process on; worker_processes {THREADS}; pid {0}/pid; error_log {0}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; tcp_nodelay on;\n\
             client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d;\n\
             scgi_temp_path {0}/e;\n\
             server {{ listen 127.0.0.1:{port}{kind}; {certificate} default_type text/plain;\n\
             location / {{ return 200 \"Hello from nginx, world!\\n\"; }} }} }}\n",
            path.display()
        );
        let file = path.join("nginx.conf");
        fs::write(&file, config)?;
        let program = std::env::var("NGINX_PROGRAM").unwrap_or_else(|_| "nginx".to_owned());
        let child = Command::new(program).arg("-e").arg(path.join("error.log")).arg("-c").arg(&file).spawn();
        let child = child.map_err(|error| format!("nginx (Debian package nginx) can't be run: {error}"))?;
        let nginx = Self { child, address: Address::Tcp(([127, 0, 0, 1], port).into()), _directory: directory };
        wait_until(|| Connection::connect(&nginx.address).ok()).ok_or("nginx doesn't listen")?;
        Ok(nginx)
    }

    /// Its master and its workers.
    pub(super) fn processes(&self) -> Vec<u32> {
        let mut all = process::children(self.child.id());
        all.push(self.child.id());
        all
    }

    pub(super) fn address(&self) -> Address {
        self.address.clone()
    }
}

impl Server for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn address(&self) -> Address {
        self.address()
    }

    fn reload(&mut self) -> Result<()> {
        let before = process::children(self.child.id());
        process::signal(self.child.id(), Signal::SIGHUP);
        let done = || before.iter().all(|pid| !process::is_alive(*pid)).then_some(());
        wait_until(done).ok_or("nginx's old workers don't end")?;
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

struct Plain {
    axum: Axum,
    address: Address,
}

impl Plain {
    fn start() -> Result<Self> {
        let (axum, address) = Axum::start(0)?;
        Ok(Self { axum, address })
    }
}

impl Server for Plain {
    fn name(&self) -> &'static str {
        "axum"
    }

    fn address(&self) -> Address {
        self.address.clone()
    }

    fn reload(&mut self) -> Result<()> {
        process::signal(self.axum.0.id(), Signal::SIGTERM);
        wait_until(|| self.axum.0.try_wait().ok().flatten()).ok_or("axum doesn't end")?;
        (self.axum, self.address) = Axum::start(self.address.tcp().port())?;
        Ok(())
    }
}

/// What the windows of one server came to.
#[derive(Default)]
struct Seen {
    answered: u64,
    failed: u64,
    closed: u64,
    longest_gap: Duration,
    p999: Vec<f64>,
}

pub(super) fn run(rounds: u64) -> Result<()> {
    let host = Host::new(&App::build().example()).with("/workers", THREADS).with("/log/level", "info").start();
    let mut servers: Vec<Box<dyn Server>> =
        vec![Box::new(Ours { host }), Box::new(Nginx::start(None)?), Box::new(Plain::start()?)];
    println!("8 kept-alive clients at full speed, {rounds} windows of {WINDOW:?} with a reload and as many without");
    println!(
        "server    reload    answered  failed  connections closed  longest gap ms  p99.9 µs, median (least, most)"
    );
    let mut seen: Vec<[Seen; 2]> = servers.iter().map(|_| Default::default()).collect();
    for round in 0..=2 * rounds {
        for (server, seen) in servers.iter_mut().zip(&mut seen) {
            let reloads = round % 2 == 0;
            let load = Load {
                address: server.address(),
                clients: 8,
                kind: Kind::KeepAlive,
                posts: Posts::None,
                path: "/hello".to_owned(),
                limit: WINDOW,
            };
            let running = load.start(&Arc::new(Allowed::default()));
            if reloads {
                server.reload()?;
            }
            let outcome = running.finish();
            // The first warms up.
            if round > 0 {
                let seen = &mut seen[usize::from(!reloads)];
                seen.answered += outcome.answered;
                seen.failed += outcome.failed;
                seen.closed += outcome.closed + outcome.announced;
                seen.longest_gap = seen.longest_gap.max(outcome.longest_gap);
                seen.p999.push(outcome.percentile(0.999).as_secs_f64() * 1e6);
            }
        }
    }
    for (server, seen) in servers.iter().zip(&mut seen) {
        for (what, seen) in ["with", "without"].into_iter().zip(seen) {
            println!(
                "{:8}  {what:7} {:10}  {:6}  {:18}  {:14.1}  {}",
                server.name(),
                seen.answered,
                seen.failed,
                seen.closed,
                seen.longest_gap.as_secs_f64() * 1e3,
                spread(&mut seen.p999)
            );
        }
    }
    Ok(())
}
