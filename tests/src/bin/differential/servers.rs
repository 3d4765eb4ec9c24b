//! The servers beside app-host.

use std::convert::Infallible;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use app_host_tests::host::wait_until;
use app_host_tests::{Address, Connection};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;

/// Serves as the app `answer_a` does, by hyper with its defaults, until this process ends.
pub fn serve_hyper() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    listener.set_nonblocking(true).expect("a socket can be made non-blocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime is made");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime takes a listener");
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(client), service_fn(answer)).await;
                });
            }
        });
    });
    Address::Tcp(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from("a"));
    if *request.method() == Method::POST && request.into_body().collect().await.is_err() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

/// A proxy before the plain server. Killed on drop.
pub struct Proxy {
    pub name: &'static str,
    pub address: Address,
    child: Child,
}

impl Proxy {
    /// nginx with its defaults. An error says that its program is missing, or why it doesn't serve.
    pub fn nginx(directory: &Path, upstream: &Address) -> Result<Self, String> {
        let place = directory.display();
        let own = directory.join("nginx.sock");
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {place}/nginx.pid; error_log {place}/nginx.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; client_body_temp_path {place}/a; proxy_temp_path {place}/b;\n\
             fastcgi_temp_path {place}/c; uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;\n\
             server {{ listen unix:{own}; location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1;\n\
             proxy_set_header Host $http_host; proxy_set_header Connection \"\"; }} }} }}\n",
            own = own.display(),
            upstream = upstream.tcp()
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, config).map_err(|error| error.to_string())?;
        let mut command = Command::new(program("NGINX_PROGRAM", "nginx"));
        command.arg("-e").arg(directory.join("nginx.log")).arg("-c").arg(&file);
        Self::start("nginx", command, Address::Unix(own))
    }

    /// HAProxy with its defaults, and the time-outs that it asks for.
    pub fn haproxy(directory: &Path, upstream: &Address) -> Result<Self, String> {
        let own = directory.join("haproxy.sock");
        let config = format!(
            "global\n  maxconn 512\ndefaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n\
             frontend f\n  bind unix@{}\n  default_backend b\nbackend b\n  server s {}\n",
            own.display(),
            upstream.tcp()
        );
        let file = directory.join("haproxy.cfg");
        fs::write(&file, config).map_err(|error| error.to_string())?;
        let mut command = Command::new(program("HAPROXY_PROGRAM", "haproxy"));
        command.arg("-db").arg("-f").arg(&file);
        Self::start("HAProxy", command, Address::Unix(own))
    }

    fn start(name: &'static str, mut command: Command, address: Address) -> Result<Self, String> {
        let child = command.stdout(Stdio::null()).spawn().map_err(|error| format!("{name}: {error}"))?;
        let proxy = Self { name, address, child };
        match wait_until(|| Connection::connect(&proxy.address).ok()) {
            Some(_) => Ok(proxy),
            None => Err(format!("{name} doesn't listen")),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(variable: &str, default: &str) -> std::ffi::OsString {
    std::env::var_os(variable).unwrap_or_else(|| default.into())
}
