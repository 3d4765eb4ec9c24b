//! HTTPS: whose certificate a client gets, what the app sees, what is refused, and connections that stay.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use app_host_tests::client::TIMEOUT;
use app_host_tests::tls::{Authority, Files};
use app_host_tests::{Address, App, Connection, Host, process, said};
use nix::sys::signal::Signal;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

const YEARS: (i32, i32) = (2020, 2100);

/// A host that is about to listen for HTTPS, with an authority that writes to its directory.
fn site(certificates: impl FnOnce(&Authority) -> Value) -> (Host, Authority) {
    let host = Host::misbehaving().with("/restart/probation", "0s").with("/access_log", json!({}));
    let authority = Authority::new(host.directory());
    let tls = certificates(&authority);
    let listen = json!(["127.0.0.1:0", { "address": "127.0.0.2:0", "name": "https", "tls": tls }]);
    (host.with("/listen", listen), authority)
}

fn one(files: &Files) -> Value {
    json!({ "certificates": [files.config()] })
}

fn usual() -> (Host, Authority) {
    site(|authority| one(&authority.localhost()))
}

fn https(host: &Host, authority: &Authority) -> Address {
    Address::Tls(host.address_of("https").tcp(), authority.trust("localhost"))
}

fn get(connection: &mut Connection, path: &str) -> String {
    assert_eq!(connection.get(path).unwrap(), 200);
    connection.text()
}

fn pid(connection: &mut Connection) -> u32 {
    let answer: Value = serde_json::from_str(&get(connection, "/whoami")).unwrap();
    u32::try_from(answer["pid"].as_u64().unwrap()).unwrap()
}

fn shows(connection: &Connection) -> Vec<u8> {
    connection.tls().peer_certificates().unwrap()[0].to_vec()
}

/// The certificate in a file, as it is shown.
fn der(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

fn counted(host: &Host, name: &str) -> u64 {
    host.metrics().count(&format!("{name}_total"))
}

#[test]
fn the_app_sees_how_its_client_came() {
    let (host, authority) = usual();
    let host = host.start();
    assert_eq!(get(&mut host.connect(), "/tls"), "http");
    let at = host.address_of("https").tcp();
    let mut newest = Connection::connect(&Address::Tls(at, authority.trust("localhost"))).unwrap();
    assert_eq!(get(&mut newest, "/tls"), "https TLSv1.3 localhost 0");
    let older = authority.trust_with("localhost", &[&rustls::version::TLS12], None);
    let mut older = Connection::connect(&Address::Tls(at, older)).unwrap();
    assert_eq!(get(&mut older, "/tls"), "https TLSv1.2 localhost 0");
    // And in the next worker as well.
    host.restart_completes();
    assert_eq!(get(&mut newest, "/tls"), "https TLSv1.3 localhost 0");
    assert_eq!(get(&mut older, "/tls"), "https TLSv1.2 localhost 0");
}

#[test]
fn connections_stay_over_restarts_idle_parked_or_in_the_middle_of_a_request() {
    let (host, authority) = usual();
    let host = host.start();
    let address = https(&host, &authority);
    let mut idle = Connection::connect(&address).unwrap();
    let before = pid(&mut idle);
    let mut half = Connection::connect(&address).unwrap();
    half.send(b"GET /whoami HTT").unwrap();
    let mut slow = Connection::connect(&address).unwrap();
    slow.ask("/sleep/700").unwrap();
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::RESTART_COMPLETE, |_| true);
    assert_eq!(slow.receive().unwrap(), 200);
    half.send(b"P/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(half.receive().unwrap(), 200);
    assert_ne!(pid(&mut idle), before);
    for _ in 0..5 {
        host.restart_completes();
    }
    let serving = host.serving();
    for connection in [&mut idle, &mut half, &mut slow] {
        assert!(serving.contains(&pid(connection)));
    }
}

#[test]
fn client_that_has_said_nothing_yet_shakes_hands_with_the_next_worker() {
    let (host, authority) = usual();
    let host = host.start();
    let at = host.address_of("https").tcp();
    let silent: Vec<_> = (0..6).map(|_| TcpStream::connect_timeout(&at, TIMEOUT).unwrap()).collect();
    // Until they have been accepted.
    host.wait("connections", || {
        let workers = host.control().ask_json("STATUS")["workers"].clone();
        let open: u64 = workers.as_array()?.iter().filter_map(|worker| worker["connections"].as_u64()).sum();
        (open >= 6).then_some(())
    });
    for _ in 0..3 {
        host.restart_completes();
    }
    let trust = authority.trust("localhost");
    for socket in silent {
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut stream = trust.shake(socket).unwrap();
        stream.write_all(b"GET /tls HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        // With a proper end, or else it is an error.
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("https TLSv1.3 localhost 0"), "{answer}");
    }
}

#[test]
fn each_name_gets_its_certificate_and_an_unknown_one_the_first() {
    let (host, authority) = site(|authority| {
        let names = [("first", "localhost"), ("shop", "shop.example"), ("all", "*.shop.example")];
        let certificates = names.map(|(file, name)| authority.sign(file, &[name, "other.example"], YEARS).config());
        json!({ "certificates": certificates })
    });
    let host = host.start();
    let at = host.address_of("https").tcp();
    let files = ["first", "shop", "all"].map(|name| der(&host.path(&format!("{name}.pem"))));
    for (name, expected) in [("localhost", 0), ("shop.example", 1), ("a.shop.example", 2), ("other.example", 0)] {
        let connection = Connection::connect(&Address::Tls(at, authority.trust(name))).unwrap();
        assert_eq!(files.iter().position(|file| *file == shows(&connection)), Some(expected), "{name}");
    }
}

#[test]
fn clients_show_a_certificate_where_they_are_asked_for_one() {
    for (word, required) in [("require", true), ("request", false)] {
        let (host, authority) = site(|authority| {
            let certificates = [authority.localhost().config()];
            let clients = json!({ "authorities": authority.file(), "certificate": word });
            json!({ "certificates": certificates, "clients": clients })
        });
        let host = host.start();
        let at = host.address_of("https").tcp();
        let proof = authority.sign("client", &["client.example"], YEARS);
        let seen = format!("https TLSv1.3 localhost {}", der(&proof.certificate).len());
        let trust = authority.trust_with("localhost", rustls::ALL_VERSIONS, Some(&proof));
        let mut shows = Connection::connect(&Address::Tls(at, trust)).unwrap();
        for _ in 0..2 {
            assert_eq!(get(&mut shows, "/tls"), seen);
            host.restart_completes();
        }
        let bare =
            Connection::connect(&Address::Tls(at, authority.trust("localhost"))).and_then(|mut it| it.get("/tls"));
        assert_eq!(bare.is_err(), required, "{bare:?}");
        if required {
            let line = host.wait_for("refused", |line| line.str("reason") == "handshake failed");
            assert!(line.str("detail").contains("no certificates"), "{}", line.text());
        }
    }
}

#[test]
fn client_comes_back_with_its_ticket_over_restarts() {
    let (host, authority) = usual();
    let host = host.with("/admin", "127.0.0.1:0").start();
    let address = https(&host, &authority);
    let kind = || {
        let mut connection = Connection::connect(&address).unwrap();
        assert_eq!(get(&mut connection, "/tls"), "https TLSv1.3 localhost 0");
        connection.tls().handshake_kind()
    };
    assert_eq!(kind(), Some(HandshakeKind::Full));
    for _ in 0..3 {
        host.restart_completes();
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
    }
    assert_eq!((counted(&host, "tls_handshakes"), counted(&host, "tls_handshakes_resumed")), (1, 3));
}

#[test]
fn certificates_are_read_anew_by_a_restart_and_alone() {
    let (host, authority) = usual();
    let host = host.with("/admin", "127.0.0.1:0").start();
    let address = https(&host, &authority);
    let ctl = |words: &[&str]| {
        let mut command = Command::new(App::build().host());
        command.args(["ctl", "--config"]).arg(host.config_path()).args(words).output().unwrap()
    };
    let mut kept = Connection::connect(&address).unwrap();
    let (first, served_by) = (shows(&kept), pid(&mut kept));
    let fresh = || {
        shows(
            &Connection::connect(&Address::Tls(host.address_of("https").tcp(), authority.trust("localhost"))).unwrap(),
        )
    };
    assert_eq!(fresh(), first);
    let workers = host.serving();

    authority.localhost();
    assert_eq!(fresh(), first, "nobody has asked for it");
    let output = ctl(&["reload-certificates"]);
    assert!(output.status.success(), "{output:?}");
    // Each worker is told by itself.
    let all_show_another = |than: &[u8]| {
        host.wait("the new certificate", || {
            let shown: Vec<_> = (0..8).map(|_| fresh()).collect();
            (shown[0] != than && shown.iter().all(|each| *each == shown[0])).then(|| shown[0].clone())
        })
    };
    let second = all_show_another(&first);
    host.wait_for("certificates reloaded", |line| line.str("listeners") == "https");
    assert_eq!((host.serving(), pid(&mut kept)), (workers.clone(), served_by), "no worker, no connection is touched");

    fs::write(host.path("localhost.key"), "no key").unwrap();
    let output = ctl(&["reload-certificates"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("localhost.key has no private key in PEM form"), "{said}");
    assert_eq!(fresh(), second);
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("listen: https: tls: ") && detail.contains("localhost.key has no private key"), "{detail}");

    authority.localhost();
    host.restart_completes();
    let third = all_show_another(&second);
    assert_ne!(third, first);
    assert!(host.serving().contains(&pid(&mut kept)));
    // What a worker is respawned with is what was read last.
    authority.localhost();
    assert!(ctl(&["reload-certificates"]).status.success());
    let newest = all_show_another(&third);
    let mark = host.mark();
    for worker in host.serving() {
        process::signal(worker, Signal::SIGKILL);
        host.wait_after(mark, said::WORKER_EXITED, |line| line.worker_pid() == worker);
        host.wait("two workers", || (host.serving().len() == 2).then_some(()));
    }
    assert_eq!(fresh(), newest);
}

#[test]
fn what_is_wrong_with_a_certificate_is_refused_by_its_file() {
    let (host, authority) = usual();
    let mut host = host.start();
    let good = authority.localhost();
    let other = authority.sign("other", &["localhost"], YEARS);
    let directory = host.directory().to_owned();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let config = |certificate: &Path, key: &Path| json!({ "certificate": certificate, "key": key });
    let nowhere = directory.join("nowhere");
    for (files, path, what) in [
        (config(&nowhere, &good.key), "nowhere", "can't be read: No such file"),
        (config(&good.certificate, &directory), "", "is a directory, expected a file"),
        (config(&file("text.pem", "hello"), &good.key), "text.pem", "has no certificate in PEM form"),
        (config(&good.certificate, &file("text.key", "hello")), "text.key", "has no private key in PEM form"),
        (config(&good.key, &good.certificate), "localhost.key", "has no certificate in PEM form"),
        (config(&good.certificate, &other.key), "other.key", "has a private key that does not match the certificate"),
        (
            authority.sign("old", &["localhost"], (2020, 2021)).config(),
            "old.pem",
            "has a certificate that expired: it was valid until 2021-01-01T00:00:00Z",
        ),
        (
            authority.sign("young", &["localhost"], (2090, 2091)).config(),
            "young.pem",
            "has a certificate that is not valid yet: it is valid from 2090-01-01T00:00:00Z on",
        ),
        (authority.sign("nobody", &[], YEARS).config(), "nobody.pem", "has a certificate without a name"),
        (
            json!({ "certificate": good.certificate, "key": good.key, "ocsp": file("ocsp", "hello") }),
            "ocsp",
            "has no OCSP response in DER form",
        ),
    ] {
        host.set(
            "/listen",
            json!(["127.0.0.1:0", { "address": "127.0.0.2:0", "name": "https", "tls": { "certificates": [files] } }]),
        );
        let detail = host.restart_is_refused("bad config");
        assert!(detail.contains(&format!("{path} {what}")), "{detail}");
        let check = Command::new(App::build().host()).arg("check").arg(host.config_path()).output().unwrap();
        let said = String::from_utf8(check.stderr).unwrap();
        assert_eq!(check.status.code(), Some(1), "{said}");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn certificate_that_ends_soon_is_warned_of() {
    let (host, _authority) = site(|authority| {
        let soon = time_soon();
        one(&authority.sign_until("soon", &["localhost"], soon))
    });
    let host = host.with("/admin", "127.0.0.1:0").start();
    let line = host.wait_for("certificate ends soon", |line| line.str("listener") == "https");
    assert_eq!(line.str("names"), "localhost");
    let status = host.control().ask_json("STATUS");
    let certificate = &status["certificates"][0];
    assert_eq!((&certificate["listener"], &certificate["ends_soon"]), (&"https".into(), &true.into()));
    assert_eq!(certificate["not_after"], line.str("not_after"));
    let metric = host.metrics().count("certificate_not_after_seconds{listener=\"https\",names=\"localhost\"}");
    assert_eq!(metric.to_string(), certificate["not_after_seconds"].to_string());
}

fn time_soon() -> std::time::SystemTime {
    std::time::SystemTime::now() + Duration::from_hours(24 * 10)
}

#[test]
fn who_speaks_plain_http_is_told_so_and_what_failed_is_logged() {
    let (host, authority) = usual();
    let host = host.with("/admin", "127.0.0.1:0").start();
    let mut plain = Connection::connect(&Address::Tcp(host.address_of("https").tcp())).unwrap();
    assert_eq!(plain.get("/").unwrap(), 400);
    assert_eq!(plain.text(), "This port speaks HTTPS, and you have sent HTTP.");
    let stranger = Authority::new(&host.path("state"));
    let refused = Connection::connect(&Address::Tls(host.address_of("https").tcp(), stranger.trust("localhost")));
    assert!(refused.unwrap_err().to_string().contains("UnknownIssuer"));
    host.wait_for("refused", |line| line.str("detail") == "it does not speak TLS");
    host.wait_for("refused", |line| line.str("detail").contains("UnknownCA") && !line.str("peer").is_empty());
    assert_eq!(counted(&host, "tls_handshakes_failed"), 2);
    drop(authority);
}

#[test]
fn no_key_is_seen_anywhere() {
    let (host, authority) = usual();
    let host = host.with("/log/level", "trace").start();
    let mut connection = Connection::connect(&https(&host, &authority)).unwrap();
    get(&mut connection, "/whoami");
    host.restart_completes();
    get(&mut connection, "/whoami");
    let key = fs::read_to_string(host.path("localhost.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let mut places = vec![fs::read(host.path("log")).unwrap(), host.control().ask("STATUS").into_bytes()];
    for pid in host.workers().into_iter().chain([host.master()]) {
        for file in ["cmdline", "environ"] {
            places.push(fs::read(format!("/proc/{pid}/{file}")).unwrap());
        }
    }
    for entry in fs::read_dir(host.path("state")).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        places.push(fs::read(entry.path()).unwrap_or_default());
    }
    for place in places {
        assert!(!String::from_utf8_lossy(&place).contains(secret));
    }
}
