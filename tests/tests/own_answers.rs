//! What a listener answers by itself: the way to HTTPS, HSTS, and challenges of ACME servers.

use std::fs;
use std::os::unix::fs::symlink;

use app_host_tests::tls::Authority;
use app_host_tests::{Address, Connection, Host};
use serde_json::json;

/// A host with a plain listener, which has these settings, and one with TLS.
fn site(plain: &serde_json::Value, hsts: &serde_json::Value) -> (Host, Authority) {
    let host = Host::misbehaving().with("/restart/probation", "0s").with("/access_log", json!({}));
    let authority = Authority::new(host.directory());
    let mut front = json!({ "address": "127.0.0.1:0", "name": "plain" });
    front.as_object_mut().unwrap().extend(plain.as_object().unwrap().clone());
    let tls = json!({ "certificates": [authority.localhost().config()], "hsts": hsts });
    let listen = json!([front, { "address": "127.0.0.2:0", "name": "https", "tls": tls }]);
    (host.with("/listen", listen), authority)
}

fn ask(connection: &mut Connection, method: &str, path: &str, fields: &[&str]) -> (u16, Option<String>) {
    connection.begin(method, path, fields).unwrap();
    let status = connection.receive().unwrap();
    (status, connection.header("location").map(str::to_owned))
}

#[test]
fn who_comes_without_tls_is_sent_to_https_and_told_to_remember_it_there() {
    let trusted = json!({ "redirect": "https:8443", "trusted_peers": ["127.0.0.1"], "forwarded": "x-forwarded" });
    let (host, authority) = site(&trusted, &json!({ "max_age": "365d", "include_subdomains": true }));
    let host = host.start();
    let mut plain = Connection::connect(&host.address_of("plain")).unwrap();
    let to = |code, path: &str| (code, Some(format!("https://test:8443{path}")));
    assert_eq!(ask(&mut plain, "GET", "/whoami?a=b", &[]), to(301, "/whoami?a=b"));
    assert_eq!(ask(&mut plain, "POST", "/upload", &["content-length: 0"]), to(308, "/upload"));
    assert_eq!(plain.header("strict-transport-security"), None, "not without TLS");
    let line = host.wait_for("request", |line| line.str("method") == "POST");
    assert_eq!((line.number("status"), line.str("listener")), (Some(308), "plain"));
    // Its client speaks TLS with a proxy: anything else would send it round in circles.
    assert_eq!(ask(&mut plain, "GET", "/whoami", &["x-forwarded-proto: https"]), (200, None));
    // In the next worker as well.
    host.restart_completes();
    assert_eq!(ask(&mut plain, "GET", "/", &[]), to(301, "/"));
    plain.send(b"GET / HTTP/1.1\r\nhost: a@b\r\n\r\n").unwrap();
    assert_eq!(plain.receive().unwrap(), 400);

    let https = Address::Tls(host.address_of("https").tcp(), authority.trust("localhost"));
    let mut https = Connection::connect(&https).unwrap();
    assert_eq!(https.get("/whoami").unwrap(), 200);
    assert_eq!(https.header("strict-transport-security"), Some("max-age=31536000; includeSubDomains"));
}

#[test]
fn challenges_are_answered_from_their_directory_before_anything_else_and_nothing_beside_them() {
    let (host, _authority) = site(&json!({ "redirect": "https", "acme_challenges": "acme" }), &json!(null));
    let host = host.start();
    fs::create_dir(host.path("acme")).unwrap();
    fs::write(host.path("acme/token-1_A"), "token-1_A.thumbprint").unwrap();
    fs::write(host.path("secret"), "secret").unwrap();
    fs::write(host.path("acme/with.dot"), "secret").unwrap();
    symlink(host.path("secret"), host.path("acme/link")).unwrap();
    let mut client = Connection::connect(&host.address_of("plain")).unwrap();
    let place = "/.well-known/acme-challenge/";
    assert_eq!(ask(&mut client, "GET", &format!("{place}token-1_A"), &[]), (200, None));
    assert_eq!(client.text(), "token-1_A.thumbprint");
    for name in ["none", "link", "with.dot", "../secret", "%2e%2e%2fsecret", ""] {
        assert_eq!(ask(&mut client, "GET", &format!("{place}{name}"), &[]).0, 404, "{name}");
        assert!(!client.text().contains("secret"));
    }
    assert_eq!(ask(&mut client, "DELETE", &format!("{place}token-1_A"), &[]).0, 405);
    assert_eq!(
        host.wait_for("an ACME challenge can't be read", |_| true).str("path"),
        host.path("acme/link").to_str().unwrap()
    );
    assert_eq!(ask(&mut client, "GET", "/", &[]), (301, Some("https://test/".to_owned())));
}
