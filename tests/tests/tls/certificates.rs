//! Whose certificate is shown and asked for, which are refused or warned of, and that no key is seen.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use app_host_tests::{Address, App, Connection};
use serde_json::json;

use super::{der, get, https, one, shows, site, usual};

const YEARS: (i32, i32) = (2020, 2100);

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
