//! What a service manager hears (`sd_notify(3)`): each message of a service's life, in its order.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use app_host_tests::host::DEADLINE;
use app_host_tests::{App, Host};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// A service manager's end of the protocol.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
    heard: VecDeque<Vec<(String, String)>>,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { directory, socket, heard: VecDeque::new() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    fn host(&self) -> Host {
        Host::answering("a").with_variable("NOTIFY_SOCKET", self.path())
    }

    /// The next message: its assignments.
    fn next(&mut self) -> Vec<(String, String)> {
        loop {
            let mut message = self.any();
            // More time may be asked for at any moment: that has tests of its own.
            message.retain(|(name, _)| name != "EXTEND_TIMEOUT_USEC");
            if !message.is_empty() {
                return message;
            }
        }
    }

    fn any(&mut self) -> Vec<(String, String)> {
        self.heard.pop_front().unwrap_or_else(|| {
            let mut buffer = [0; 4096];
            let len = self.socket.recv(&mut buffer).expect("a message comes in time");
            let text = String::from_utf8(buffer[..len].to_vec()).unwrap();
            assert!(text.ends_with('\n'), "{text}");
            let assignments = text.lines().map(|line| line.split_once('=').unwrap());
            assignments.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        })
    }

    /// The next message has just these names, and its status these words.
    fn hears(&mut self, names: &[&str], words: &[&str]) {
        let message = self.next();
        assert_eq!(message.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names, "{message:?}");
        for (name, value) in &message {
            match name.as_str() {
                "READY" | "RELOADING" | "STOPPING" | "WATCHDOG" => assert_eq!(value, "1"),
                "STATUS" => assert!(words.iter().all(|word| value.contains(word)), "{words:?} in {value}"),
                "MONOTONIC_USEC" => assert!(value.parse::<u64>().unwrap() <= now_usec()),
                other => panic!("{other}"),
            }
        }
    }
}

fn now_usec() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    // Its hundredths are rounded down.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an uptime is a small positive number")]
    let micros = (seconds * 1e6) as u64;
    micros + 10_000
}

const RELOADING: [&str; 2] = ["RELOADING", "MONOTONIC_USEC"];

#[test]
fn manager_hears_of_start_restart_refusal_and_stop_in_their_order() {
    let mut manager = Manager::new();
    let host = manager.host().start();
    manager.hears(&["READY", "STATUS"], &["generation 1 of app-host-tests serves", "2 workers"]);

    host.install(&App::build().app("answer_b"));
    assert_eq!(host.restart().verdict, "complete");
    manager.hears(&RELOADING, &[]);
    manager.hears(&["READY", "STATUS"], &["restart complete: generation 2"]);

    // Refused in preflight: the service is ready as before.
    host.install_bytes(b"no library");
    assert_eq!(host.restart().verdict, "refused: bad artifact");
    manager.hears(&RELOADING, &[]);
    manager.hears(&["READY", "STATUS"], &["restart refused: ", "generation 2"]);

    host.signal(Signal::SIGTERM);
    manager.hears(&["STOPPING", "STATUS"], &["stopping"]);
    assert_eq!(host.wait_exit().code(), Some(0));
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 10]).is_err(), "nothing is said behind the end");
}

/// How long the manager is asked to wait from now on, in each message until the one that has `last`.
fn asked_for(manager: &mut Manager, last: &str) -> Vec<u64> {
    let mut asked = Vec::new();
    loop {
        let message = manager.any();
        let value = message.iter().find(|(name, _)| name == "EXTEND_TIMEOUT_USEC").map(|(_, value)| value);
        asked.extend(value.map(|value| value.parse::<u64>().unwrap()));
        if message.iter().any(|(name, _)| name == last) {
            return asked;
        }
    }
}

#[test]
fn manager_is_asked_for_more_time_while_a_start_a_restart_and_a_stop_last() {
    let mut manager = Manager::new();
    let mut host = Host::misbehaving()
        .with("/app/config", serde_json::json!({ "start_ms": 3000 }))
        .with_variable("NOTIFY_SOCKET", manager.path())
        .start();
    let asked = asked_for(&mut manager, "READY");
    assert!(asked.len() >= 3 && asked.iter().all(|asked| *asked == 10_000_000), "{asked:?}");
    host.set("/app/config/start_ms", 3001);
    host.restart();
    assert_eq!(asked_for(&mut manager, "RELOADING").len(), 1);
    let asked = asked_for(&mut manager, "READY");
    assert!(asked.len() >= 2, "{asked:?}");
    // Nothing is under way, and nothing asked for.
    let mut slow = host.connect();
    slow.ask("/sleep/5000").unwrap();
    host.wait("the request to be in flight", || {
        let status = host.control().ask_json("STATUS");
        status["workers"].as_array()?.iter().any(|worker| worker["in_flight"] == 1).then_some(())
    });
    host.signal(Signal::SIGTERM);
    assert_eq!(asked_for(&mut manager, "STOPPING").len(), 1);
    assert_eq!(slow.receive().unwrap(), 200);
    assert_eq!(host.wait_exit().code(), Some(0));
    manager.socket.set_nonblocking(true).unwrap();
    let asked = std::iter::from_fn(|| manager.socket.recv(&mut [0; 4096]).ok()).count();
    assert!(asked >= 2, "{asked}");
}

#[test]
fn manager_hears_why_a_restart_failed_and_that_the_master_is_locked() {
    let mut manager = Manager::new();
    let mut host = Host::misbehaving().with_variable("NOTIFY_SOCKET", manager.path()).start();
    manager.hears(&["READY", "STATUS"], &["generation 1"]);
    host.set("/app/config", serde_json::json!({ "on_start": "error" }));
    assert_eq!(host.restart().verdict, "failed: app failed to start");
    manager.hears(&RELOADING, &[]);
    manager.hears(&["READY", "STATUS"], &["restart failed: ", "locked: restart the service"]);
    // Refused at the gate: nothing was reloaded.
    assert_eq!(host.restart().verdict, "refused: aborted restart");
    manager.hears(&["STATUS"], &["restart refused: ", "generation 1"]);
}

#[test]
fn watchdog_is_fed_while_the_master_lives_and_workers_know_nothing_of_the_manager() {
    let mut manager = Manager::new();
    let host = manager.host().with_variable("WATCHDOG_USEC", "400000").start();
    let mut fed = 0;
    while fed < 5 {
        fed += manager.next().iter().filter(|(name, _)| name == "WATCHDOG").count();
    }
    for worker in host.workers() {
        let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(environment.contains("PATH=") && !environment.contains("NOTIFY_SOCKET"), "{environment}");
        assert!(!environment.contains("WATCHDOG"), "{environment}");
    }
    // A master that stands still is noticed.
    app_host_tests::process::signal(host.master(), Signal::SIGSTOP);
    manager.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    manager.socket.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
    assert!(manager.socket.recv(&mut [0; 4096]).is_err(), "a stopped master says that it lives");
    app_host_tests::process::signal(host.master(), Signal::SIGCONT);
    manager.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    manager.next();
}

#[test]
fn manager_that_never_reads_delays_no_restart() {
    let manager = Manager::new();
    let host = manager.host().with_variable("WATCHDOG_USEC", "2000").start();
    for app in ["answer_b", "answer_a", "answer_b"] {
        host.install(&App::build().app(app));
        assert_eq!(host.restart().verdict, "complete");
    }
    host.stop();
}

#[test]
fn manager_that_cannot_be_reached_is_said_and_the_service_serves() {
    let host = Host::answering("a").with_variable("NOTIFY_SOCKET", "/nowhere/at/all").start();
    let line = host.wait_for("the service manager is told nothing", |_| true);
    assert!(line.text().contains("/nowhere/at/all"), "{}", line.text());
}
