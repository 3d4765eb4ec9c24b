//! axum's examples over plain HTTP.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use app_host_tests::build::{cargo, workspace};
use app_host_tests::client::request;
use app_host_tests::{App, Host};
use serde_json::{Value, json};

use super::site;

#[test]
fn axum_hello_is_an_app_by_one_line_and_survives_a_restart() {
    let library = App::build().app("axum_hello");
    let host = Host::new(&library).start();
    let mut kept = host.connect();
    for _ in 0..2 {
        assert_eq!(host.get("/"), "<h1>Hello, World!</h1>");
        assert_eq!(host.connect().get("/nowhere").unwrap(), 404);
        host.install_fresh(&library);
        assert_eq!(kept.get("/").unwrap(), 200);
        assert_eq!(kept.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(kept.header("content-length"), Some("22"));
        host.restart_completes();
        kept = host.connect();
    }
    let source = fs::read_to_string(workspace().join("tests/apps/axum_hello.rs")).unwrap();
    let ours: Vec<_> = source.lines().filter(|line| line.contains("app_abi")).collect();
    assert_eq!(ours, ["app_abi::export_axum!(router);"]);
}

#[test]
fn json_files_uploads_events_and_middleware_work_before_and_after_a_restart() {
    let host = site();
    let files = host.path("files");
    fs::create_dir(&files).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(files.join("large.bin"), &large).unwrap();
    fs::write(files.join("index.html"), "<p>index</p>").unwrap();
    let host = host.with("/app/config", json!({ "files": files })).start();
    for _ in 0..2 {
        let mut connection = host.connect();
        let body = br#"{"name":"Ada"}"#;
        let length = format!("content-length: {}", body.len());
        connection.begin("POST", "/json", &["content-type: application/json", &length]).unwrap();
        connection.send(body).unwrap();
        assert_eq!(connection.receive().unwrap(), 201);
        assert_eq!(connection.header("x-middleware"), Some("seen"));
        let answer: Value = serde_json::from_slice(connection.body()).unwrap();
        assert_eq!(answer, json!({ "name": "Ada", "id": 1337 }));
        assert_eq!(connection.post("/json", b"{").unwrap(), 415);

        // Axum's own limit; the host has none.
        let large_json = vec![b' '; 2 * 1024 * 1024 + 1];
        let length = format!("content-length: {}", large_json.len());
        let mut another = host.connect();
        another.begin("POST", "/json", &["content-type: application/json", &length]).unwrap();
        another.send(&large_json).unwrap();
        assert_eq!(another.receive().unwrap(), 413);

        assert_eq!(connection.get("/files/large.bin").unwrap(), 200);
        assert_eq!(connection.header("content-length"), Some("3000000"));
        assert!(connection.body() == large, "the file is another");
        assert_eq!(connection.get("/files/").unwrap(), 200);
        assert_eq!(connection.text(), "<p>index</p>");
        connection.begin("GET", "/files/large.bin", &["range: bytes=10-19"]).unwrap();
        assert_eq!(connection.receive().unwrap(), 206);
        assert_eq!(connection.body(), &large[10..20]);
        assert_eq!(connection.get("/files/none").unwrap(), 404);

        uploads_with_curl(&host, &files.join("large.bin"));
        events(&host);
        host.restart_completes();
    }
}

fn uploads_with_curl(host: &Host, file: &std::path::Path) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--form", "title=a file", "--form"])
        .arg(format!("file=@{}", file.display()))
        .arg(format!("http://{}/upload", host.address().tcp()))
        .output()
        .expect("curl is there");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "title=6;file=3000000;", "{}", String::from_utf8_lossy(&output.stderr));
}

/// Reads events and a sign of life, goes, and waits until the app knows it.
fn events(host: &Host) {
    let mark = host.mark();
    let mut stream = std::net::TcpStream::connect(host.address().tcp()).unwrap();
    stream.set_read_timeout(Some(app_host_tests::host::DEADLINE)).unwrap();
    stream.write_all(request("GET", "/sse", &["accept: text/event-stream"]).as_bytes()).unwrap();
    let mut text = String::new();
    while !text.contains(": still here") {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the events have ended: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    for number in 0..4 {
        assert!(text.contains(&format!("event: count\ndata: {number}\n\n")), "{text}");
    }
    drop(stream);
    let ended = host.wait_after(mark, "ended", |line| super::has(line, "what", "sse"));
    assert!(super::has(&ended, "entered", "true"), "{}", ended.text());
}

#[test]
fn handlers_reach_the_host_and_know_their_client() {
    let host = site().start();
    let mut connection = host.connect();
    assert_eq!(connection.get("/whoami").unwrap(), 200);
    let who: Value = serde_json::from_slice(connection.body()).unwrap();
    assert!(host.workers().contains(&u32::try_from(who["pid"].as_u64().unwrap()).unwrap()));
    let stream = std::net::TcpStream::connect(host.address().tcp()).unwrap();
    let own = stream.local_addr().unwrap().to_string();
    let mut connection = app_host_tests::Connection::from(stream);
    assert_eq!(connection.get("/peer").unwrap(), 200);
    assert_eq!(connection.text(), own);
}

#[test]
fn client_of_a_unix_socket_has_no_socket_address_and_is_served_otherwise() {
    let host = site().with("/listen", json!(["unix:socket"])).start();
    let mut connection = host.connect();
    assert_eq!(connection.get("/hello").unwrap(), 200);
    assert_eq!(connection.get("/peer").unwrap(), 500);
    assert!(connection.text().contains("ConnectInfo"), "{}", connection.text());
}

#[test]
fn maker_that_fails_fails_the_start_with_its_reason() {
    let mut host = site().start();
    host.set("/app/config", json!({ "fail": true }));
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "failed: app failed to start");
    assert!(verdict.line.text().contains("the site has nothing to show"), "{}", verdict.line.text());
}

#[test]
fn app_without_the_features_links_no_tokio() {
    let build = App::build();
    let mentions = |library: &std::path::Path, name: &[u8]| {
        let bytes = fs::read(library).unwrap();
        bytes.windows(name.len()).any(|window| window == name)
    };
    // Built together with the others, so that the features of app-abi are there for it, too. Code that is
    // linked brings the places where it may panic.
    for name in [&b"/tokio-1."[..], b"/hyper-1."] {
        assert!(mentions(&build.app("axum_hello"), name), "the search itself");
        assert!(!mentions(&build.example(), name));
        assert!(!mentions(&build.app("answer_a"), name));
    }
    let output = cargo()
        .current_dir(workspace())
        .args(["tree", "--offline", "-p", "example-app", "--edges", "normal", "--prefix", "none"])
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("async-ffi"), "{tree}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!tree.contains("tokio") && !tree.contains("hyper"), "{tree}");
}
