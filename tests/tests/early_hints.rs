//! Responses that an app sends before the one that it makes: early hints.

use std::process::Command;
use std::time::Instant;

use app_host_tests::tls::Authority;
use app_host_tests::{Address, App, Connection, Host};
use serde_json::json;

/// Asks for the page, and returns how long before it its hints were there.
fn ask_for_the_page(client: &mut Connection) -> u128 {
    client.ask("/").unwrap();
    assert_eq!(client.receive().unwrap(), 103);
    assert_eq!(client.header("link"), Some("</style.css>; rel=preload; as=style"));
    assert_eq!(client.header("content-length"), None, "of no message but the response");
    let hinted = Instant::now();
    assert_eq!((client.receive().unwrap(), client.text()), (200, "sent: true".to_owned()));
    hinted.elapsed().as_millis()
}

#[test]
fn a_client_has_them_before_the_response_is_made_with_and_without_tls_and_over_a_restart() {
    let host = Host::new(&App::build().app("axum_hints")).with("/log/level", "info");
    let authority = Authority::new(host.directory());
    let tls = json!({ "certificates": [authority.localhost().config()] });
    let https = json!({ "address": "127.0.0.2:0", "name": "https", "tls": tls });
    let host = host.with("/listen", json!(["127.0.0.1:0", https])).start();
    let https = Address::Tls(host.address_of("https").tcp(), authority.trust("localhost"));
    let mut clients = [host.connect(), Connection::connect(&https).unwrap()];
    for round in 0..2 {
        for client in &mut clients {
            let before = ask_for_the_page(client);
            assert!(before >= 200, "{before} ms");
            client.ask("/twice").unwrap();
            assert_eq!(client.receive().unwrap(), 103);
            assert_eq!(client.receive().unwrap(), 200);
            assert_eq!(client.text(), "sent: true");
            // What comes too late is not taken for a part of what follows.
            assert!(ask_for_the_page(client) >= 200);
        }
        if round == 0 {
            host.restart_completes();
        }
    }
}

/// By curl, which shows each head. Beside them on the same connection is a response without any.
#[test]
fn a_client_of_http_2_has_them_with_and_without_tls_and_over_a_restart() {
    let host = Host::new(&App::build().app("axum_hints"));
    let authority = Authority::new(host.directory());
    let tls = json!({ "certificates": [authority.localhost().config()] });
    let https = json!({ "address": "127.0.0.2:0", "name": "https", "tls": tls });
    let host = host.with("/listen", json!(["127.0.0.1:0", https])).start();
    let urls = [format!("http://{}", host.address().tcp()), format!("https://{}", host.address_of("https").tcp())];
    for round in 0..2 {
        for (url, version) in urls.iter().zip(["--http2-prior-knowledge", "--http2"]) {
            for (path, link) in [("/", "</style.css>; rel=preload; as=style"), ("/twice", "</a>; rel=preload")] {
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--show-error", "--insecure", "--include", "--max-time", "20", version]);
                let output = curl.arg(format!("{url}{path}")).output().unwrap();
                let told = String::from_utf8(output.stdout).unwrap();
                let heads: Vec<_> = told.split("\r\n\r\n").collect();
                let [hints, head, body] = heads[..] else {
                    panic!("{told}{}", String::from_utf8_lossy(&output.stderr))
                };
                let expected = format!("HTTP/2 103 \r\nlink: {link}\r\nlink: </font.woff2>; rel=preload; as=font");
                assert_eq!(hints, expected);
                assert!(head.starts_with("HTTP/2 200 \r\n") && !head.contains("link"), "{head}");
                assert_eq!(body, "sent: true");
            }
        }
        if round == 0 {
            host.restart_completes();
        }
    }
}

#[test]
fn who_can_have_none_gets_the_response() {
    let host = Host::new(&App::build().app("axum_hints")).start();
    let mut old = host.connect();
    old.send(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut some = [0; 1024];
    while let Ok(length @ 1..) = old.read(&mut some) {
        answer.extend_from_slice(&some[..length]);
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nsent: false"), "{answer}");
}
