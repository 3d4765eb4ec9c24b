//! Real proxies of TCP in front, which tell by the PROXY protocol who their client is: HAProxy, and nginx' `stream`.
//! `HAPROXY_PROGRAM`, `NGINX_PROGRAM` and `NGINX_STREAM_MODULE` say where they are, if that isn't the usual place.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};

use app_host_tests::client::TIMEOUT;
use app_host_tests::host::wait_until;
use app_host_tests::tls::{Authority, Trust};
use app_host_tests::{Connection, Host, process};
use nix::sys::signal::Signal;
use serde_json::json;

/// A proxy that runs, and where it listens: at a socket that it gets as its standard input, so that no port must be free.
struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn program(variable: &str, usual: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| usual.into())
}

impl Proxy {
    fn start(mut command: Command, listener: TcpListener, directory: &Path) -> Self {
        let address = listener.local_addr().unwrap();
        let log = File::create(directory.join("proxy.log")).unwrap();
        command.stdin(OwnedFd::from(listener)).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, address }
    }

    /// With these words behind `bind` and the server's address.
    fn haproxy(directory: &Path, upstream: SocketAddr, bind: &str, server: &str) -> Self {
        let config = directory.join("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
             listen front\n bind fd@0 {bind}\n option httpchk GET /whoami?check\n http-check send hdr host check\n \
             server shop {upstream} {server} check inter 100ms\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program("HAPROXY_PROGRAM", "haproxy"));
        command.arg("-db").arg("-f").arg(config);
        Self::start(command, TcpListener::bind("127.0.0.1:0").unwrap(), directory)
    }

    fn nginx(directory: &Path, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (place, at) = (directory.display(), listener.local_addr().unwrap());
        let module = program("NGINX_STREAM_MODULE", "/usr/lib/nginx/modules/ngx_stream_module.so");
        let text = format!(
            "load_module {}; daemon off; user root; worker_processes 1; pid {place}/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 64; }}\n\
             stream {{ server {{ listen {at}; proxy_pass {upstream}; proxy_protocol on; }} }}\n",
            module.display()
        );
        let config = directory.join("nginx.conf");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program("NGINX_PROGRAM", "nginx"));
        // So it is told of sockets by the nginx that it replaces.
        command.env("NGINX", "0;").args(["-e", "stderr", "-c"]).arg(config);
        Self::start(command, listener, directory)
    }

    /// A client at an address that is no proxy's, and its own end of the connection.
    fn connect(&self) -> (TcpStream, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let socket = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            socket.connect(self.address).await.unwrap().into_std().unwrap()
        });
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let own = socket.local_addr().unwrap();
        (socket, own)
    }
}

/// A host that believes the proxies, with a plain listener and one with TLS.
fn host() -> (Host, Authority) {
    let host = Host::misbehaving().with("/restart/probation", "0s").with("/access_log", json!({}));
    let authority = Authority::new(host.directory());
    let announced = json!({ "trusted_peers": ["127.0.0.1"], "proxy_protocol": "require", "address": "127.0.0.1:0" });
    let (mut plain, mut tls) = (announced.clone(), announced);
    plain["name"] = "plain".into();
    (tls["name"], tls["address"]) = ("tls".into(), "127.0.0.3:0".into());
    tls["tls"] = json!({ "certificates": [authority.localhost().config()] });
    (host.with("/listen", json!([plain, tls])).start(), authority)
}

/// A client behind the proxy, with TLS if it trusts somebody, keeps its connection over restarts; the app and the access log
/// see its address, and what else the app sees of it, in the old worker and in each new one.
fn assert_seen(host: &Host, directory: &Path, proxy: &Proxy, trust: Option<&Trust>, seen: &str) {
    let connect = || {
        let (socket, own) = proxy.connect();
        let connection = match trust {
            None => Connection::from(socket),
            Some(trust) => Connection::shake(socket, trust).ok()?,
        };
        Some((connection, own))
    };
    // A proxy may close what comes before it knows that its server is there.
    let answered = wait_until(|| {
        let (mut client, own) = connect()?;
        client.get("/client").ok().filter(|status| *status == 200)?;
        Some((client, own))
    });
    let log = || fs::read_to_string(directory.join("proxy.log")).unwrap_or_default();
    let (mut client, own) = answered.unwrap_or_else(|| panic!("no answer by the proxy: {}", log()));
    let expected = format!("{own} {seen}");
    assert_eq!(client.text(), expected);
    for _ in 0..3 {
        host.restart_completes();
        assert_eq!(client.get("/client").unwrap(), 200);
        assert_eq!(client.text(), expected);
    }
    let own = own.to_string();
    let lines = || host.lines_with("request").into_iter().filter(|line| line.str("client") == own).collect::<Vec<_>>();
    host.wait("four lines of the access log", || (lines().len() == 4).then_some(()));
    let scheme = seen.split(' ').next().unwrap();
    for line in lines() {
        assert_eq!((line.str("uri"), line.str("client_scheme")), ("/client", scheme), "{}", line.text());
        assert!(line.str("peer").starts_with("127.0.0.1:"), "the peer is the proxy: {}", line.text());
    }
    assert!(host.lines_with("refused").is_empty(), "{}", host.report());
}

/// HAProxy looks after its server, and speaks for itself then.
fn assert_checked(host: &Host) {
    let checks = || host.lines_with("request").into_iter().filter(|line| line.str("uri") == "/whoami?check");
    let before = checks().count();
    host.wait("some checks", || (checks().count() > before + 3).then_some(()));
    for line in checks() {
        assert_eq!(line.number("status"), Some(200), "{}", line.text());
        assert!(["", line.str("peer")].contains(&line.str("client")), "{}", line.text());
    }
    assert!(host.lines_with("refused").is_empty(), "{}", host.report());
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn clients_behind_haproxy_are_seen_with_their_address_and_their_tls_and_its_checks_are_its_own() {
    let (host, authority) = host();
    let directory = tempfile::tempdir().unwrap();
    let (plain, tls) = (host.address_of("plain").tcp(), host.address_of("tls").tcp());
    let trust = authority.trust("localhost");
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c,authority"] {
        let proxy = Proxy::haproxy(directory.path(), plain, "", version);
        assert_seen(&host, directory.path(), &proxy, None, "http");
        assert_checked(&host);
        drop(proxy);
        // The checks speak TLS as well, as far as the server's name.
        let server = format!("{version} check-ssl verify none check-sni localhost");
        let proxy = Proxy::haproxy(directory.path(), tls, "", &server);
        assert_seen(&host, directory.path(), &proxy, Some(&trust), "https");
        assert_checked(&host);
    }
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn tls_that_ends_at_haproxy_is_seen_by_the_app() {
    let (host, authority) = host();
    let directory = tempfile::tempdir().unwrap();
    let files = authority.localhost();
    let both = [&files.certificate, &files.key].map(|file| fs::read_to_string(file).unwrap()).concat();
    let pem = directory.path().join("both.pem");
    fs::write(&pem, both).unwrap();
    let (pem, ca) = (pem.display(), authority.file());
    let bind = format!("ssl crt {pem} alpn http/1.1 ca-file {} verify optional", ca.display());
    let server = "send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c,authority";
    let proxy = Proxy::haproxy(directory.path(), host.address_of("plain").tcp(), &bind, server);
    let shown = authority.sign("client", &["client.example"], (2020, 2100));
    let with = authority.trust_with("localhost", rustls::ALL_VERSIONS, Some(&shown));
    let seen = "https  TLSv1.3 localhost http/1.1 rcgen self signed cert";
    assert_seen(&host, directory.path(), &proxy, Some(&with), seen);
    let without = authority.trust_with("localhost", &[&rustls::version::TLS12], None);
    assert_seen(&host, directory.path(), &proxy, Some(&without), "https  TLSv1.2 localhost http/1.1");
    assert_checked(&host);
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn clients_behind_nginx_as_a_proxy_of_tcp_are_seen_with_their_address() {
    let (host, authority) = host();
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::nginx(directory.path(), host.address_of("plain").tcp());
    assert_seen(&host, directory.path(), &proxy, None, "http");
    drop(proxy);
    let proxy = Proxy::nginx(directory.path(), host.address_of("tls").tcp());
    assert_seen(&host, directory.path(), &proxy, Some(&authority.trust("localhost")), "https");
}
