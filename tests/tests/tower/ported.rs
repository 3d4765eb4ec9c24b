//! The worked port of `docs/guide/bringing-an-app.md`, both ways: by itself, as `cargo run` starts it, and as an app.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use app_host_tests::build::workspace;
use app_host_tests::client::request;
use app_host_tests::{Address, App, Connection, Host, process};
use nix::sys::signal::Signal;
use serde_json::json;

fn ported() -> Host {
    let host = Host::new(&App::build().ported_library());
    fs::write(host.path("cookie.key"), "k".repeat(64) + "\n").unwrap();
    host.with("/workers", 3)
        .with("/databank", json!({ "driver": "sqlite" }))
        .with("/app/config", json!({ "cookie_key": { "file": "cookie.key" } }))
}

/// The number of visits, this one included.
fn visit(connection: &mut Connection) -> i64 {
    assert_eq!(connection.get("/").unwrap(), 200, "{}", connection.text());
    connection.text().split(' ').next().unwrap().parse().unwrap()
}

fn login(connection: &mut Connection) -> String {
    assert_eq!(connection.get("/login/Ada").unwrap(), 200);
    connection.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

/// Who the cookie says it is.
fn me(connection: &mut Connection, cookie: &str) -> (u16, String) {
    let request = request("GET", "/me", &[&format!("cookie: {cookie}")]);
    connection.send(request.as_bytes()).unwrap();
    (connection.receive().unwrap(), connection.text().trim().to_owned())
}

#[test]
fn visits_logins_and_the_job_are_right_whichever_worker_answers_and_over_restarts() {
    let host = ported().start();
    let mut expected = 0;
    let cookie = login(&mut host.connect());
    for generation in 1..=3 {
        for _ in 0..20 {
            let mut connection = host.connect();
            expected += 1;
            assert_eq!(visit(&mut connection), expected);
            assert_eq!(me(&mut connection, &cookie), (200, "Ada".to_owned()), "by whichever worker, in any generation");
            assert_eq!(me(&mut connection, &cookie.replace("Ada", "Eve")).0, 401);
        }
        host.wait("the job's begin", || (host.lines_with("reporting").len() == generation).then_some(()));
        assert_eq!(host.lines_with("reporting ends").len(), generation - 1, "one at a time");
        if generation < 3 {
            host.install_fresh(&App::build().ported_library());
            host.restart_completes();
        }
    }
    host.stop();
    assert_eq!(host.lines_with("reporting ends").len(), 3, "the end waits for it, and nobody begins then");
}

#[test]
fn a_key_that_is_too_short_fails_the_start_and_is_not_shown() {
    let host = ported();
    fs::write(host.path("cookie.key"), "too-short").unwrap();
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert!(!host.report().contains("too-short"), "{}", host.report());
}

#[test]
fn the_same_code_serves_without_app_host() {
    let mut child = Command::new(App::build().ported())
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening"))).unwrap().unwrap();
    // The subscriber of its own paints what it prints.
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let port: u16 = digits(line.rsplit("127.0.0.1:").next().unwrap()).parse().unwrap();
    let mut connection = Connection::connect(&Address::parse(&format!("127.0.0.1:{port}")).unwrap()).unwrap();
    assert_eq!([visit(&mut connection), visit(&mut connection)], [1, 2]);
    let cookie = login(&mut connection);
    assert_eq!(me(&mut connection, &cookie), (200, "Ada".to_owned()));
    drop(connection);
    process::signal(child.id(), Signal::SIGINT);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_page_shows_the_code_as_it_is() {
    let page = fs::read_to_string(workspace().join("docs/guide/bringing-an-app.md")).unwrap();
    let source = ["src/lib.rs", "src/main.rs"]
        .map(|file| fs::read_to_string(workspace().join("tests/apps/ported").join(file)).unwrap());
    let blocks: Vec<_> = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        for line in block.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "…") {
            assert!(source.iter().any(|text| text.contains(line)), "not in the port: {line}");
        }
    }
    assert!(page.len() < 8192, "{}", page.len());
}
