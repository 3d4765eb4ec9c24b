//! `stop` and then `run`: the next master waits for one that is stopping, and `ctl stop --wait` for its end, so that
//! the service is never left down.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;
use rustix::fs::FlockOperation;
use serde_json::json;

/// A master with a request in flight that takes so long, and with a port that the next one must bind again.
fn working(ms: u64, shutdown_timeout: &str) -> (Host, app_host_tests::Connection) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let host =
        Host::misbehaving().with("/listen", json!([port])).with("/restart/shutdown_timeout", shutdown_timeout).start();
    let mut slow = host.connect();
    slow.ask(&format!("/sleep/{ms}")).unwrap();
    host.assert_all_serve(&host.serving());
    (host, slow)
}

#[test]
fn run_waits_for_a_master_that_is_stopping_however_it_was_told_to() {
    for how in ["ctl", "SIGTERM", "fast"] {
        let (host, mut slow) = working(if how == "fast" { 60_000 } else { 1_500 }, "20s");
        let (first, mark) = (host.master(), host.mark());
        match how {
            "SIGTERM" => host.signal(Signal::SIGTERM),
            _ => assert_eq!(host.ctl(&["stop"]).status.code(), Some(0)),
        }
        assert!(process::is_alive(first), "{how}: a request is in flight");
        host.spawn();
        if how == "fast" {
            host.wait_after(mark, said::WAITING_FOR_MASTER, |_| true);
            process::signal(first, Signal::SIGTERM);
        } else {
            assert_eq!(slow.receive().unwrap(), 200, "{how}");
        }
        host.wait_after(mark, said::SERVING, |_| true);
        assert!(!process::is_alive(first), "{how}");
        host.wait_after(mark, said::WAITING_FOR_MASTER, |line| {
            line.str("obstacle").contains(&format!("runs as process {first} is stopping"))
        });
        host.assert_all_serve(&host.serving());
        host.stop();
    }
}

/// Sees that the master waits for so long.
fn waits(host: &Host, time: Duration) {
    let begin = Instant::now();
    host.wait("the time to pass", || {
        assert_eq!(host.try_exit(), None, "it waits");
        (begin.elapsed() > time).then_some(())
    });
}

/// The kernel takes the mark of a process that ends before its lock.
#[test]
fn run_that_finds_a_stopping_masters_lock_without_its_mark_still_waits_for_it() {
    let host = Host::misbehaving();
    std::fs::create_dir_all(host.path("state")).unwrap();
    let file = File::create(host.path("state/app-host.pid")).unwrap();
    file.try_lock().unwrap();
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    host.spawn();
    host.wait_for(said::WAITING_FOR_MASTER, |_| true);
    // Longer than it would wait for the mark of a master that runs.
    waits(&host, Duration::from_secs(2));
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingUnlock).unwrap();
    waits(&host, Duration::from_millis(100));
    drop(file);
    host.wait_for(said::SERVING, |_| true);
    host.stop();
}

#[test]
fn run_waits_for_a_master_that_was_stopped_in_its_start() {
    let host = Host::misbehaving().with("/app/config", json!({ "start_ms": 1_500 }));
    host.spawn();
    host.wait_for(said::WORKER_SPAWNED, |_| true);
    assert_eq!(host.ctl(&["stop"]).status.code(), Some(0));
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    host.stop();
}

#[test]
fn run_beside_a_master_that_serves_is_refused_at_once_and_changes_nothing() {
    let host = Host::misbehaving().start();
    let began = Instant::now();
    let second = Command::new(App::build().host()).arg("run").arg(host.config_path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("a master runs already, as process {}", host.master())), "{said}");
    host.assert_all_serve(&host.serving());
}

#[test]
fn run_gives_up_on_a_master_that_stays_and_says_which() {
    let (host, _slow) = working(120_000, "120s");
    assert_eq!(host.ctl(&["stop"]).status.code(), Some(0));
    let mut impatient: serde_json::Value = serde_json::from_slice(&std::fs::read(host.config_path()).unwrap()).unwrap();
    impatient["restart"]["shutdown_timeout"] = "100ms".into();
    impatient["log"]["format"] = "text".into();
    host.write_config(impatient.to_string().as_bytes());
    let second = Command::new(App::build().host()).arg("run").arg(host.config_path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let expected = format!("the master that runs as process {} is stopping, and isn't gone", host.master());
    assert!(said.lines().last().unwrap().contains(&expected), "{said}");
}

#[test]
fn stop_wait_returns_when_the_master_has_gone() {
    let (host, mut slow) = working(1_200, "20s");
    let first = host.master();
    let began = Instant::now();
    let stopped = host.ctl_command(&["stop", "--wait"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(slow.receive().unwrap(), 200);
    let stopped = stopped.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(0), "{}", String::from_utf8_lossy(&stopped.stderr));
    // Nobody has waited for it yet, so it may be a zombie.
    assert!(!process::is_alive(first));
    assert!(began.elapsed() > Duration::from_millis(500), "the request was in flight for longer");
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert!(host.look(mark, |new| new.iter().all(|line| line.msg() != said::WAITING_FOR_MASTER)));
    let done = host.ctl(&["stop", "--wait", "--json", "--timeout", "20s"]);
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(0), b"{\"done\":true}\n".as_slice()));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn stop_wait_sees_the_end_of_a_master_that_has_no_number_where_it_is_asked() {
    let (host, mut slow) = working(1_200, "20s");
    let waiting = std::process::Command::new("unshare")
        .args(["--pid", "--fork"])
        .arg(App::build().host())
        .args(["ctl", "stop", "--wait"])
        .current_dir(host.directory())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(slow.receive().unwrap(), 200);
    let waiting = waiting.wait_with_output().unwrap();
    assert_eq!(waiting.status.code(), Some(0), "{}", String::from_utf8_lossy(&waiting.stderr));
    // All that it can see is that the master has closed the connection. The kernel does that of a process that ends one
    // descriptor after the other, so the lock may be held for a moment more, for which the next master waits.
    assert_eq!(host.lines_with(said::STOPPED).len(), 1, "it has said its last words");
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn stop_wait_that_takes_too_long_or_gets_no_answer_exits_with_6() {
    let (host, _slow) = working(120_000, "120s");
    let began = Instant::now();
    let late = host.ctl(&["stop", "--wait", "--timeout", "300ms"]);
    assert_eq!(late.status.code(), Some(6));
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(said.contains("is stopping, and isn't gone after "), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    assert_eq!(host.ctl(&["stop", "--timeout", "1s"]).status.code(), Some(2), "a bound of nothing");
    assert_eq!(host.ctl(&["stop", "--wait", "--timeout", "soon"]).status.code(), Some(2));
    drop(host);

    let (host, _slow) = working(120_000, "120s");
    let waiting = host.ctl_command(&["stop", "--wait"]).stderr(Stdio::piped()).spawn().unwrap();
    host.wait_for(said::STOPPING, |_| true);
    host.signal(Signal::SIGSTOP);
    let silent = waiting.wait_with_output().unwrap();
    host.signal(Signal::SIGCONT);
    assert_eq!(silent.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&silent.stderr).contains("doesn't answer"));
}

#[test]
fn stop_without_a_master_exits_with_5_waiting_or_not() {
    let host = Host::misbehaving();
    host.restore_config();
    for arguments in [["stop"].as_slice(), &["stop", "--wait"]] {
        assert_eq!(host.ctl(arguments).status.code(), Some(5));
    }
}
