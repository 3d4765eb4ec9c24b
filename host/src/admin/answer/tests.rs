//! What is answered, without a network.

use http_body_util::Empty;

use super::*;

/// A responder whose master never answers.
fn responder(listens: AdminListens) -> Responder {
    let (source, _) = super::super::source::open();
    Responder::new(listens, source, watch::channel(false).1)
}

fn ask(method: &str, path: &str, host: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(host) = host {
        request = request.header(HOST, host);
    }
    request.body(Empty::new()).unwrap()
}

#[tokio::test]
async fn page_of_somebody_else_gets_nothing_from_the_loopback_interface() {
    for (listens, host, status) in [
        (AdminListens::Loopback, Some("localhost:9090"), 200),
        (AdminListens::Loopback, None, 200),
        (AdminListens::Loopback, Some("rebound.example:9090"), 403),
        (AdminListens::Loopback, Some("\u{e9}"), 403),
        (AdminListens::Network, Some("metrics.example"), 200),
        (AdminListens::Unix, Some("whatever"), 200),
    ] {
        let response = responder(listens).answer(&ask("GET", "/", host)).await;
        assert_eq!(response.status(), status, "{listens:?} {host:?}");
    }
    let responder = responder(AdminListens::Loopback);
    let absolute = ask("GET", "http://rebound.example/", Some("localhost"));
    assert_eq!(responder.answer(&absolute).await.status(), 403);
    let mut two = ask("GET", "/", Some("localhost"));
    two.headers_mut().append(HOST, HeaderValue::from_static("rebound.example"));
    assert_eq!(responder.answer(&two).await.status(), 403);
}

#[tokio::test]
async fn every_answer_forbids_what_a_page_does_not_need() {
    let responder = responder(AdminListens::Loopback);
    for (method, path, status, kind) in [
        ("GET", "/", 200, "text/html; charset=utf-8"),
        ("HEAD", "/page.css", 200, "text/css; charset=utf-8"),
        ("GET", "/page.js?x", 200, "text/javascript; charset=utf-8"),
        ("GET", "/events", 200, "text/event-stream"),
        ("GET", "/nothing", 404, PLAIN),
        ("POST", "/", 405, PLAIN),
        ("DELETE", "/metrics", 405, PLAIN),
        ("GET", "/healthz", 503, PLAIN),
        ("GET", "/readyz", 503, PLAIN),
        ("GET", "/metrics", 503, PLAIN),
    ] {
        let response = responder.answer(&ask(method, path, Some("127.0.0.1:1"))).await;
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.headers()[CONTENT_TYPE], kind, "{path}");
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY, "{path}");
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store", "{path}");
    }
}

#[tokio::test]
async fn as_many_pages_as_are_bounded_may_be_open_and_one_that_closes_makes_room() {
    let responder = responder(AdminListens::Loopback);
    let mut open = Vec::new();
    let refused = loop {
        let response = responder.answer(&ask("GET", "/events", None)).await;
        if response.status() != 200 {
            break response;
        }
        open.push(response);
    };
    assert_eq!((open.len(), refused.status()), (32, StatusCode::SERVICE_UNAVAILABLE));
    assert!(refused.headers().contains_key(RETRY_AFTER));
    open.pop();
    assert_eq!(responder.answer(&ask("GET", "/events", None)).await.status(), 200);
}

#[test]
fn service_is_ready_while_somebody_serves_and_the_master_neither_starts_nor_stops() {
    let status = |phase: &str, states: &[&str]| -> Status {
        let workers: Vec<_> = states
            .iter()
            .map(|state| {
                serde_json::json!({
                    "slot": 0, "generation": 1, "version": "v", "pid": 1, "state": state, "uptime_ms": 0, "connections": 0,
                    "in_flight": 0, "requests": 0, "cpu_ms": null, "memory_bytes": null,
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "app_host": "0", "pid": 1, "uptime_ms": 0, "phase": phase, "app": "a", "app_version": "0", "magic": "m",
            "generation": 1, "version": "v", "workers_configured": 2, "log_level": "info", "workers": workers,
            "verdicts": [],
        }))
        .unwrap()
    };
    for phase in ["serving", "preflight", "rolling", "returning", "locked"] {
        assert!(is_ready(&status(phase, &["draining", "ready"])), "{phase}");
        assert!(is_ready(&status(phase, &["retiring"])), "{phase}");
        assert!(!is_ready(&status(phase, &["starting", "draining", "killed", "leaving"])), "{phase}");
    }
    let down = Status { listeners_down: vec!["web".to_owned()], ..status("serving", &["ready"]) };
    assert!(!is_ready(&down), "clients are refused");
    assert_eq!(standing_in_words(&down), "not ready: serving, 1 of 2 workers, turning clients away: web\n");
    // After SIGTTIN.
    let more = Status { workers_wanted: Some(3), ..status("serving", &["ready", "ready", "ready"]) };
    assert_eq!(standing_in_words(&more), "ready: serving, 3 of 3 workers\n");
    for phase in ["starting", "stopping"] {
        assert!(!is_ready(&status(phase, &["ready", "ready"])), "{phase}");
    }
}
