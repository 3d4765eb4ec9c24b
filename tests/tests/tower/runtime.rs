//! The app's runtime: what it can do, where its panics go, and its end.

use std::time::{Duration, Instant};

use app_host_tests::said;
use serde_json::json;

use super::{has, site};

#[test]
fn tasks_timers_blocking_calls_and_sockets_work_in_a_handler() {
    let host = site().start();
    assert_eq!(host.get("/spawn"), "app 42 true");
    let fetched = host.get(&format!("/fetch/{}", host.address().tcp()));
    assert!(fetched.starts_with("Hello from app-host"), "{fetched}");
}

#[test]
fn pending_handler_is_dropped_when_its_client_goes() {
    // A client that has gone looks for so long like one that waits for its answer.
    let host = site().with("/http", serde_json::json!({ "half_closed_timeout": "1s", "head_timeout": "1s" })).start();
    let mut connection = host.connect();
    connection.ask("/wait/late").unwrap();
    host.wait_for("begun", |line| has(line, "what", "late"));
    assert!(host.lines_with("ended").is_empty());
    drop(connection);
    let ended = host.wait_for("ended", |line| has(line, "what", "late"));
    assert!(has(&ended, "entered", "true"), "{}", ended.text());
}

#[test]
fn panic_before_or_behind_the_first_await_is_an_answer_and_a_line_in_the_log() {
    let host = site().start();
    let mut connection = host.connect();
    for (when, message) in [("early", "the handler gave up at once"), ("late", "the handler gave up late")] {
        let mark = host.mark();
        assert_eq!(connection.get(&format!("/panic/{when}")).unwrap(), 500);
        assert_eq!(connection.text(), "internal server error\n");
        let line = host.wait_after(mark, said::APP_PANICKED, |line| has(line, "panic", message));
        assert!(line.text().contains("axum_site.rs:"), "{}", line.text());
        assert_eq!(connection.get("/hello").unwrap(), 200);
    }
    assert_eq!(connection.get("/panic/task").unwrap(), 200);
    let line = host.wait_for("app thread panicked", |line| has(line, "panic", "the task gave up"));
    assert!(line.text().contains("axum_site.rs:"), "{}", line.text());
}

#[test]
fn runtime_ends_with_its_worker_and_drops_its_tasks() {
    let host = site().start();
    host.stop();
    assert_eq!(host.lines_with("the task was dropped").len(), 2);
}

#[test]
fn blocking_call_that_goes_on_holds_the_end_up_for_a_bounded_time() {
    let host = site().with("/app/config", json!({ "linger": 3_600_000 })).start();
    let began = Instant::now();
    host.stop();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "blocking calls are waited for: {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(host.lines_with(said::APP_STOP_TOO_LONG).is_empty());
}
