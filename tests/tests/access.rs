//! The access log: each request is a line, with an id that the app has seen.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{Address, Connection, Host, Line, said};
use nix::sys::signal::Signal;
use serde_json::json;

/// The requests in a file, oldest first. A line that isn't whole is a failure.
fn requests(host: &Host, name: &str) -> Vec<Line> {
    let text = fs::read_to_string(host.path(name)).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(Line::parse).collect();
    for line in &lines {
        assert_eq!(line.msg(), "request", "{}", line.text());
    }
    lines
}

/// The line of the request for this URI.
fn line_for(host: &Host, uri: &str) -> Line {
    host.wait(&format!("the line of {uri}"), || {
        requests(host, "access").into_iter().find(|line| line.str("uri") == uri)
    })
}

/// A GET with one header more; what the app says.
fn get_with(connection: &mut Connection, path: &str, header: &str) -> String {
    connection.begin("GET", path, &[header]).unwrap();
    assert_eq!(connection.receive().unwrap(), 200);
    connection.text()
}

#[test]
fn request_is_a_line_with_the_id_that_the_app_has_seen() {
    let host = Host::misbehaving().with("/access_log", json!({ "file": "access" })).start();
    let mut connection = host.connect();
    let id = get_with(&mut connection, "/header/x-request-id", "user-agent: tester\r\nx-request-id: forged");
    let line = line_for(&host, "/header/x-request-id");
    assert_eq!(line.str("request_id"), id);
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    for (key, value) in [
        ("method", json!("GET")),
        ("version", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("outcome", json!("complete")),
        ("received_bytes", json!(0)),
        ("sent_bytes", json!(32)),
        ("listener", json!("127.0.0.1:0")),
        ("host", json!("test")),
        ("user_agent", json!("tester")),
        ("generation", json!(1)),
    ] {
        assert_eq!(line.value()[key], value, "{key} of {}", line.text());
    }
    assert!(line.str("peer").starts_with("127.0.0.1:"), "{}", line.text());

    assert_eq!(connection.post("/upload?a=b", &[b'x'; 5000]).unwrap(), 200);
    let line = line_for(&host, "/upload?a=b");
    assert_eq!(line.number("received_bytes"), Some(5000), "{}", line.text());
    assert_ne!(line.str("request_id"), id);

    assert_eq!(connection.get("/stream/100000").unwrap(), 200);
    let line = line_for(&host, "/stream/100000");
    assert_eq!((line.number("sent_bytes"), line.str("outcome")), (Some(100_000), "complete"));

    assert_eq!(connection.get("/panic").unwrap(), 500);
    assert_eq!(line_for(&host, "/panic").number("status"), Some(500));
    connection.begin("HEAD", "/whole/9", &[]).unwrap();
    let line = line_for(&host, "/whole/9");
    assert_eq!((line.number("sent_bytes"), line.str("outcome")), (Some(0), "complete"));
}

#[test]
fn client_that_goes_and_a_cut_are_told_apart() {
    let host = Host::misbehaving()
        .with("/access_log", json!({ "file": "access" }))
        .with("/restart/shutdown_timeout", "1s")
        .with("/http", json!({ "half_closed_timeout": "1s", "head_timeout": "1s" }))
        .start();
    // Whether it waits for the answer or has gone looks the same for a while.
    let mut gone = host.connect();
    gone.ask("/never").unwrap();
    drop(gone);
    let line = line_for(&host, "/never");
    assert_eq!((line.str("outcome"), line.number("status")), ("aborted", None), "{}", line.text());
    let mut half = host.connect();
    half.open("/stream/1000000000").unwrap();
    drop(half);
    let line = line_for(&host, "/stream/1000000000");
    assert_eq!((line.str("outcome"), line.number("status")), ("aborted", Some(200)), "{}", line.text());
    // In flight for longer than the drain may take.
    let mut late = host.connect();
    late.ask("/sleep/60000").unwrap();
    let in_flight = || host.restart().verdict;
    assert_eq!(in_flight(), "complete");
    let line = line_for(&host, "/sleep/60000");
    assert_eq!((line.str("outcome"), line.number("status")), ("cut", None), "{}", line.text());
}

#[test]
fn ids_of_trusted_peers_are_taken_over() {
    let access_log = json!({ "file": "access", "trusted_peers": ["127.0.0.0/8"] });
    let host = Host::misbehaving()
        .with("/listen", json!(["127.0.0.1:0", "unix:socket"]))
        .with("/access_log", access_log)
        .start();
    let ask =
        |connection: &mut Connection| get_with(connection, "/header/x-request-id", "x-request-id: from-the-proxy");
    assert_eq!(ask(&mut host.connect()), "from-the-proxy");
    let line = line_for(&host, "/header/x-request-id");
    assert_eq!(line.str("request_id"), "from-the-proxy");
    let mut unix = Connection::connect(&Address::Unix(host.path("socket"))).unwrap();
    assert_ne!(ask(&mut unix), "from-the-proxy", "not named among the trusted");
}

#[test]
fn without_an_access_log_headers_pass_as_they_are_and_nothing_is_written() {
    let host = Host::misbehaving().start();
    assert_eq!(get_with(&mut host.connect(), "/header/x-request-id", "x-request-id: mine"), "mine");
    assert_eq!(get_with(&mut host.connect(), "/header/x-request-id", "a: b"), "");
    host.stop();
    assert!(host.lines_with("request").is_empty());
}

#[test]
fn in_the_log_itself_a_request_is_a_line_like_any_other_whatever_its_level() {
    for format in ["bunyan", "text"] {
        let host = Host::misbehaving()
            .with("/access_log", true)
            .with("/log/format", format)
            .with("/log/level", "warn")
            .with("/listen", json!(["unix:socket"]));
        host.spawn();
        let address = Address::Unix(host.path("socket"));
        let mut connection = host.wait("the listener", || {
            let mut connection = Connection::connect(&address).ok()?;
            connection.get("/whoami").ok().map(|_| connection)
        });
        // What a client sends makes no second line.
        let agent = "a\u{85}b\u{2028}\"c";
        get_with(&mut connection, "/header/user-agent?%0a", &format!("user-agent: {agent}"));
        let line = host.wait("the line", || {
            let text = fs::read_to_string(host.path("log")).unwrap_or_default();
            text.lines().find(|line| line.contains("/header/user-agent")).map(str::to_owned)
        });
        if format == "bunyan" {
            let line = Line::parse(&line);
            assert_eq!((line.msg(), line.str("user_agent"), line.str("peer")), ("request", agent, "unix"));
        } else {
            assert!(line.contains(" INFO access: request request_id=\""), "{line}");
            assert!(line.contains("uri=\"/header/user-agent?%0a\"") && line.contains(" status=200 "), "{line}");
        }
        host.signal(Signal::SIGTERM);
        assert_eq!(host.wait_exit().code(), Some(0));
    }
}

#[test]
fn restarts_and_rotations_under_load_lose_no_line_and_double_none() {
    let host = Host::answering("a")
        .with("/log/level", "info")
        .with("/log/file", "log-file")
        .with("/listen", json!(["unix:socket"]))
        .with("/access_log", json!({ "file": "access" }));
    host.spawn();
    let told = |msg: &str| fs::read_to_string(host.path("log-file")).unwrap_or_default().matches(msg).count();
    host.wait("the workers to serve", || (told("\"msg\":\"serving\"") == 1).then_some(()));
    let load = Load {
        address: Address::Unix(host.path("socket")),
        clients: 4,
        kind: Kind::KeepAlive,
        posts: Posts::None,
        path: "/".to_owned(),
        limit: Duration::from_mins(1),
    };
    let allowed = Arc::new(Allowed::default());
    allowed.set("a");
    let running = load.start(&allowed);
    let mut files = vec!["access".to_owned()];
    for number in 1..=3 {
        let old = format!("access.{number}");
        fs::rename(host.path("access"), host.path(&old)).unwrap();
        files.push(old);
        host.signal(Signal::SIGUSR1);
        host.wait("the new file", || (told(said::LOGS_REOPENED) == number).then_some(()));
        host.signal(Signal::SIGUSR2);
        host.wait("the verdict", || (told(said::RESTART_COMPLETE) == number).then_some(()));
    }
    let outcome = running.stop();
    assert_eq!(outcome.failed, 0, "{:#?}", outcome.failures);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert_eq!(told("lines lost"), 0);
    let lines: Vec<_> = files.iter().flat_map(|file| requests(&host, file)).collect();
    let ids: HashSet<_> = lines.iter().map(|line| line.str("request_id").to_owned()).collect();
    assert_eq!(ids.len(), lines.len(), "no id comes twice");
    let complete = lines.iter().filter(|line| line.str("outcome") == "complete").count();
    assert_eq!(complete as u64, outcome.answered);
    let generations: HashSet<_> = lines.iter().filter_map(|line| line.number("generation")).collect();
    assert_eq!(generations.len(), 4);
}

#[test]
fn access_log_that_can_not_be_opened_is_refused_and_one_that_can_begins_with_its_generation() {
    let mut host = Host::misbehaving().start();
    host.set("/access_log", json!({ "file": "no/such/directory" }));
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "refused: bad config", "{}", verdict.line.text());
    assert!(verdict.line.text().contains("no/such/directory"), "{}", verdict.line.text());
    host.set("/access_log", json!({ "file": "access" }));
    assert_eq!(host.restart().verdict, "complete");
    host.get("/whoami");
    assert_eq!(line_for(&host, "/whoami").number("generation"), Some(2));
    host.set("/access_log", false);
    assert_eq!(host.restart().verdict, "complete");
    host.get("/whoami");
    host.stop();
    assert_eq!(requests(&host, "access").len(), 1);
}

#[test]
fn access_log_that_nobody_reads_holds_up_no_request() {
    let host = Host::misbehaving().with("/access_log", json!({ "file": "fifo" }));
    nix::unistd::mkfifo(&host.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // So that it can be opened; and then nothing is read.
    let reader = fs::File::options().read(true).write(true).open(host.path("fifo")).unwrap();
    let host = host.start();
    let mut connection = host.connect();
    // More lines than there is room for.
    for _ in 0..8000 {
        assert_eq!(connection.get("/whole/1").unwrap(), 200);
    }
    host.wait_for("access log is written too slowly; lines lost", |line| line.number("lines") > Some(0));
    host.stop();
    assert_eq!(host.lines_with("access log takes nothing; its last lines are lost").len(), 1);
    drop(reader);
}
