//! nginx in front, configured as the page `docs/operate/nginx.md` says. `NGINX_PROGRAM` is its program where that isn't on the PATH.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use app_host_tests::build::workspace;
use app_host_tests::host::wait_until;
use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{Address, App, Connection, Host, process};
use nix::sys::signal::Signal;
use serde_json::json;

struct Nginx {
    child: Child,
    address: Address,
}

impl Nginx {
    /// Serves at a Unix socket in `directory`, so that no port has to be free.
    fn start(directory: &Path, upstream: &Address) -> Self {
        let page = fs::read_to_string(workspace().join("docs/operate/nginx.md")).unwrap();
        let shown = page.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
        let own = directory.join("nginx.sock");
        let upstream = match upstream {
            Address::Tcp(address) | Address::Tls(address, _) => format!("server {address};"),
            Address::Unix(path) => format!("server unix:{};", path.display()),
        };
        let replaced =
            [("server 127.0.0.1:8080;", upstream), ("listen 80;", format!("listen unix:{};", own.display()))];
        let shown = replaced.iter().fold(shown.to_owned(), |text, (from, to)| {
            assert_eq!(text.matches(from).count(), 1, "{from} on the page");
            text.replace(from, to)
        });
        let config = format!(
            "daemon off; user root; worker_processes 2; pid {0}/nginx.pid; error_log {0}/nginx.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ log_format own $request_id; access_log {0}/ids own; client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c;\n\
             uwsgi_temp_path {0}/d; scgi_temp_path {0}/e; keepalive_requests 1000000;\n{shown}}}\n",
            directory.display()
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let program = std::env::var_os("NGINX_PROGRAM").unwrap_or_else(|| "nginx".into());
        let child = Command::new(program).arg("-e").arg(directory.join("nginx.log")).arg("-c").arg(&file).spawn();
        let child = child.expect("nginx (Debian's package nginx) is needed");
        let nginx = Self { child, address: Address::Unix(own) };
        let listens = wait_until(|| Connection::connect(&nginx.address).ok());
        let log = || fs::read_to_string(directory.join("nginx.log")).unwrap_or_default();
        assert!(listens.is_some(), "nginx listens: {}", log());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// What the app sees of a header that the client sends, and nginx changes.
fn header(nginx: &Nginx, name: &str, sent: &[&str]) -> String {
    let mut client = Connection::connect(&nginx.address).unwrap();
    client.begin("GET", &format!("/header/{name}"), sent).unwrap();
    assert_eq!(client.receive().unwrap(), 200, "{name}");
    client.text()
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn requests_websockets_and_ids_pass_as_the_page_says_and_restarts_lose_none() {
    // By a Unix socket, of a peer that is trusted, or by TCP, of one that isn't.
    for (listen, peers) in [("unix:http.sock", json!(["unix"])), ("127.0.0.1:0", json!([]))] {
        let directory = tempfile::tempdir().unwrap();
        let trusted = peers != json!([]);
        let host = Host::misbehaving()
            .with("/listen", json!([listen]))
            .with("/access_log", json!({ "file": "access", "trusted_peers": peers }))
            .start();
        let nginx = Nginx::start(directory.path(), &host.address());
        assert_eq!(header(&nginx, "host", &[]), "test", "not the upstream's name");
        assert_eq!(header(&nginx, "x-forwarded-for", &["x-forwarded-for: 192.0.2.66"]), "unix:");
        assert_eq!(header(&nginx, "x-forwarded-proto", &[]), "http");
        assert_eq!(header(&nginx, "connection", &[]), "", "the connection is kept");
        let id = header(&nginx, "x-request-id", &["x-request-id: a-client's"]);
        assert_eq!(id.len(), 32, "{id}");
        let ids = || fs::read_to_string(directory.path().join("ids")).unwrap_or_default();
        host.wait("nginx's own log of the five requests", || (ids().lines().count() == 5).then_some(()));
        assert_eq!(ids().lines().any(|own| own == id), trusted, "{id} is nginx's own");
        let access = || fs::read_to_string(host.path("access")).unwrap_or_default();
        host.wait("the request's id in the access log", || access().contains(&id).then_some(()));
    }

    let directory = tempfile::tempdir().unwrap();
    let host = Host::new(&App::build().app("axum_chat")).start();
    let nginx = Nginx::start(directory.path(), &host.address());
    let mut chat = Connection::connect(&nginx.address).unwrap();
    let upgrade = [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    chat.begin("GET", "/websocket", &upgrade).unwrap();
    let mut head = [0; 64];
    let length = chat.read(&mut head).unwrap();
    assert!(head[..length].starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head[..length]));

    let directory = tempfile::tempdir().unwrap();
    let host = Host::answering("a").start();
    let nginx = Nginx::start(directory.path(), &host.address());
    let load = Load {
        address: nginx.address.clone(),
        clients: 4,
        kind: Kind::KeepAlive,
        posts: Posts::Sized(2_000),
        path: "/".to_owned(),
        limit: Duration::from_mins(1),
    };
    let allowed = Arc::new(Allowed::default());
    allowed.set("a");
    let running = load.start(&allowed);
    for _ in 0..5 {
        host.restart_completes();
    }
    let outcome = running.stop();
    assert!(outcome.answered > 100, "{outcome:?}");
    assert_eq!(outcome.failed, 0, "{outcome:?}");
}
