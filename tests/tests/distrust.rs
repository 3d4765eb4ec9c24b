//! The master believes none of a worker's bytes and touches none of its descriptors: whatever a worker sends, the
//! others serve on, restarts complete and the service ends when it is told to.

use std::time::{Duration, Instant};

use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;

#[test]
fn no_descriptor_that_a_worker_sends_reaches_its_master() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    for worker in before {
        let mut connection = host.connect_to(worker);
        assert_eq!(connection.get("/smuggle").unwrap(), 200);
        // Only the socket for messages between workers takes packets, on a thread of its own.
        assert!(connection.text().parse::<usize>().unwrap() <= 8, "{}", connection.text());
    }
    host.restart_completes();
    assert!(host.lines_with(said::WORKER_MISBEHAVES).is_empty());
    host.stop();
}

#[test]
fn worker_that_says_what_no_worker_says_is_killed_and_replaced_and_that_is_said_once() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    let mut connection = host.connect_to(before[0]);
    let mark = host.mark();
    // It may be gone before it has answered.
    let _ = connection.get("/garbage");
    let exited = host.wait_after(mark, said::WORKER_EXITED, |line| line.worker_pid() == before[0]);
    assert_eq!(exited.str("status"), "signal 9");
    host.wait_after(mark, said::WORKER_READY, |_| true);
    let said = host.lines_with(said::WORKER_MISBEHAVES);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].worker_pid(), before[0]);
    assert!(said[0].str("detail").contains("4294967295 bytes"), "{}", said[0].text());
    host.restart_completes();
    process::signal(host.master(), Signal::SIGTERM);
    assert!(host.wait_exit().success());
}

#[test]
fn probe_that_says_what_no_probe_says_refuses_its_library_at_once() {
    let host = Host::misbehaving().start();
    host.install(&App::build().app("constructor_garbage"));
    let begin = Instant::now();
    let detail = host.restart_is_refused("bad artifact");
    assert!(detail.contains("no probe says") && detail.contains("4294967295 bytes"), "{detail}");
    assert!(begin.elapsed() < Duration::from_secs(9), "it isn't waited for, as one that hangs would be");
    host.install(&App::build().app("misbehaving"));
    host.restart_completes();
}

#[test]
fn error_of_8_mib_fails_a_restart_like_any_other_and_is_told_in_few_bytes_on_one_line() {
    let mut host = Host::misbehaving().start();
    host.set("/app/config", serde_json::json!({ "on_start": "long_error" }));
    let restart = host.ctl(&["restart", "--wait"]);
    let told = String::from_utf8(restart.stderr).unwrap();
    assert_eq!(restart.status.code(), Some(4), "{told:.300}");
    assert!(
        told.len() < 10_000 && told.contains("\\u{1b}[2J\\nlong\\nlong") && told.contains("… (cut: "),
        "{told:.300}"
    );
    let status = host.ctl(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(status.status.success() && text.len() < 20_000 && !text.contains('\u{1b}'), "{text:.300}");
    for line in host.lines() {
        // For debugging there is the same once more as it looks to the machine.
        assert!(line.text().len() < 80_000, "{:.300}", line.text());
    }
    host.wait_for(said::WORKER_UNABLE, |line| line.str("detail").contains("… (cut: "));
}
