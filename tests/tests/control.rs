//! The control socket: what goes over the wire, byte for byte, and that no client delays the master.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{App, Control, Host, Line, process, said};
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn every_command_is_answered_byte_for_byte() {
    let host = Host::misbehaving().start();
    let mut control = host.control();
    for (line, answer) in [
        (
            "CMDS",
            "ACK CMDS DRAIN EVENTS LOGLEVEL RELOAD-CERTIFICATES RESTART ROLLBACK STATUS STOP VERSION VERSIONS WAIT WORKERS\n",
        ),
        ("version", concat!("ACK ", env!("CARGO_PKG_VERSION"), "\n")),
        ("LOGLEVEL debug", "ACK\n"),
        ("LogLevel restore", "ACK\n"),
        ("LOGLEVEL loud", "NACK invalid\n"),
        ("LOGLEVEL", "NACK invalid\n"),
        ("PUMP", "NACK unknown\n"),
        ("RELOAD-CERTIFICATES now", "NACK invalid\n"),
        ("reload-certificates", "NACK no listener has TLS\n"),
        ("WAIT 1", "NACK no such request\n"),
        ("WAIT 0", "NACK no such request\n"),
        ("RESTART", "ACK\n"),
        ("WAIT 1", "ACK 1 complete\n"),
        ("RESTART WAIT", "ACK 2 complete\n"),
        ("restart wait\r", "ACK 3 complete\n"),
        ("WAIT 2", "ACK 2 complete\n"),
        ("EVENTS now", "NACK invalid\n"),
    ] {
        assert_eq!(control.ask(line), answer, "{line}");
    }
    host.write_config(b"{");
    assert_eq!(control.ask("RESTART"), "NACK bad config\n");
    assert_eq!(control.ask("RESTART WAIT"), "NACK 5 refused: bad config\n");
    assert_eq!(control.ask("WAIT 4"), "NACK 4 refused: bad config\n");
    for number in 1..=5 {
        let line = host.verdict(number).line;
        assert_eq!(line.str("by"), "control socket", "{}", line.text());
    }
    assert_eq!(control.ask("STOP"), "ACK\n");
    assert_eq!(host.wait_exit().code(), Some(0));
    assert_eq!(control.line(), None);
    assert!(!host.path("state/control.sock").exists(), "its owner has removed it");
}

#[test]
fn lines_may_be_blank_said_ahead_and_ended_by_a_shut_down_half() {
    let host = Host::misbehaving().start();
    let mut control = host.control();
    control.send(b"\n\n  \r\nVERSION\nnonsense\n\nRESTART WAIT\nWAIT 1\nLOGLEVEL");
    control.end_input();
    let version = concat!("ACK ", env!("CARGO_PKG_VERSION"), "\n");
    for line in [version, "NACK unknown\n", "ACK 1 complete\n", "ACK 1 complete\n", "NACK incomplete\n"] {
        assert_eq!(control.line().as_deref(), Some(line));
    }
    assert_eq!(control.line(), None);
}

#[test]
fn pumpctl_of_the_ancestor_sets_a_level_and_goes_without_its_answer() {
    // As `pumpctl loglevel` does: three writes, and the end.
    let host = Host::misbehaving().start();
    let mut control = host.control();
    for part in ["LOGLEVEL ", "warn", "\n"] {
        control.send(part.as_bytes());
    }
    drop(control);
    host.wait("the level", || (host.control().ask_json("STATUS")["log_level"] == "warn").then_some(()));
}

#[test]
fn every_refusal_of_a_restart_is_its_reason() {
    // FAULTS 2: before the first workers are ready.
    let host = Host::misbehaving().with("/app/config", serde_json::json!({ "start_ms": 800 }));
    host.spawn();
    let mut control = host.wait("the control socket", || Control::connect(&host.path("state/control.sock")).ok());
    let answer = control.ask("RESTART");
    assert_eq!(answer, "NACK starting\n");
    drop(host);

    let host = Host::misbehaving().with("/workers", 1).start();
    assert_eq!(host.control().ask("RESTART"), "NACK no workers\n");
    assert_eq!(host.control().ask("RESTART WAIT"), "NACK 2 refused: no workers\n");
    drop(host);

    let host = Host::misbehaving().with("/databank", serde_json::json!({ "driver": "memory" })).start();
    assert_eq!(host.control().ask("RESTART"), "NACK bad driver\n");
    drop(host);

    let host = Host::misbehaving().start();
    host.install(&App::build().app("epoch_two"));
    assert_eq!(host.control().ask("RESTART"), "NACK incompatibility\n");
    host.install_bytes(b"no library");
    assert_eq!(host.control().ask("RESTART"), "NACK bad artifact\n");
}

#[test]
fn control_socket_can_not_change_under_running_workers() {
    let mut host = Host::misbehaving().start();
    host.set("/control_socket", "elsewhere.sock");
    let detail = host.restart_is_refused("incompatibility");
    assert!(detail.contains("control_socket"), "{detail}");
}

#[test]
fn faults_1_two_requests_within_a_millisecond_get_a_verdict_each() {
    let host = Host::misbehaving().with("/restart/probation", "300ms").start();
    let (mut first, mut second) = (host.control(), host.control());
    first.send(b"RESTART WAIT\n");
    second.send(b"RESTART WAIT\n");
    let mut answers = [first.line().unwrap(), second.line().unwrap()];
    answers.sort_by_key(|answer| answer.starts_with("NACK"));
    assert_eq!(answers, ["ACK 1 complete\n", "NACK 2 refused: restart in flight\n"]);
    assert_eq!(host.verdict(1).verdict, "complete");
    assert_eq!(host.verdict(2).verdict, "refused: restart in flight");
}

#[test]
fn verdict_is_the_same_in_log_status_events_and_for_who_waits() {
    let host = Host::misbehaving().with("/restart/probation", "300ms").start();
    let (mut listens, mut waits, mut asks) = (host.control(), host.control(), host.control());
    assert_eq!(listens.ask("EVENTS"), "ACK\n");
    assert_eq!(asks.ask("RESTART"), "ACK\n");
    // Asked by a signal, heard of at the socket all the same.
    host.signal(Signal::SIGHUP);
    assert_eq!(waits.ask("WAIT 1"), "ACK 1 complete\n");
    let mut names = Vec::new();
    let verdicts: Vec<Value> = std::iter::from_fn(|| {
        let event = listens.event();
        names.push(event["event"].as_str().unwrap().to_owned());
        Some(event)
    })
    .filter(|event| event["event"] == "verdict")
    .take(2)
    .collect();
    for (verdict, by) in [(&verdicts[1], "control socket"), (&verdicts[0], "SIGHUP")] {
        let number = verdict["request"].as_u64().unwrap();
        let line = host.verdict(number).line;
        assert_eq!((verdict["by"].as_str(), line.str("by")), (Some(by), by));
        assert_eq!(verdict["verdict"], line.str("verdict"));
        let status = asks.ask_json("STATUS");
        let kept = status["verdicts"].as_array().unwrap().iter().find(|it| it["request"] == number).unwrap();
        for key in ["verdict", "by", "reason", "detail", "took_ms", "time", "generation"] {
            assert_eq!(kept[key], verdict[key], "{key}");
        }
    }
    assert_eq!(verdicts[0]["verdict"], "refused: restart in flight");
    for name in [
        "restart requested",
        "restart preflight passed",
        "restart roll started",
        "worker spawned",
        "worker ready",
        "worker ordered to drain",
        "worker exited",
        "restart probation passed",
    ] {
        assert!(names.iter().any(|each| each == name), "{name}: {names:?}");
    }
}

#[test]
fn each_event_is_a_line_of_the_log_with_the_same_fields() {
    let host = Host::misbehaving().with("/restart/probation", "100ms").start();
    let (mut listens, mut asks) = (host.control(), host.control());
    assert_eq!(listens.ask("EVENTS"), "ACK\n");
    assert_eq!(asks.ask("LOGLEVEL warn"), "ACK\n");
    assert_eq!(asks.ask("LOGLEVEL restore"), "ACK\n");
    assert_eq!(asks.ask("DRAIN on"), "ACK\n");
    assert_eq!(asks.ask("DRAIN off"), "ACK\n");
    host.signal(Signal::SIGUSR1);
    assert_eq!(asks.ask("WORKERS 3"), "ACK\n");
    assert_eq!(asks.ask("RESTART wait"), "ACK 1 complete\n");
    process::signal(host.serving()[0], Signal::SIGKILL);
    listens.event_called("worker respawn scheduled");
    assert_eq!(asks.ask("STOP"), "ACK\n");
    let mut all = Vec::new();
    while let Some(event) = listens.line() {
        all.push(serde_json::from_str::<Value>(&event).unwrap());
    }
    assert!(all.iter().any(|event| event["event"] == "worker exited"), "{all:#?}");
    // The last lines are written behind the last event.
    host.wait_exit();
    let lines = host.lines();
    for event in all.iter().filter(|event| event["event"] != "verdict") {
        let fields = event.as_object().unwrap().iter().filter(|(name, _)| !["event", "time"].contains(&name.as_str()));
        let fields: Vec<_> = fields.collect();
        let same = |line: &Line| {
            line.msg() == event["event"].as_str().unwrap()
                && fields.iter().all(|(name, value)| line.value().get(name) == Some(*value))
        };
        assert!(lines.iter().any(same), "{event} is no line");
    }
}

#[test]
fn status_tells_of_every_worker() {
    let host = Host::misbehaving().start();
    host.assert_all_serve(&host.serving());
    let mut slow = host.connect();
    slow.ask("/sleep/3000").unwrap();
    let mut control = host.control();
    let status = host.wait("a request in flight", || {
        let status = control.ask_json("STATUS");
        let in_flight: u64 = status["workers"].as_array()?.iter().filter_map(|it| it["in_flight"].as_u64()).sum();
        (in_flight == 1).then_some(status)
    });
    assert_eq!(status["pid"], host.master());
    assert_eq!((&status["phase"], &status["generation"]), (&"serving".into(), &1.into()));
    assert_eq!(status["workers_configured"], 2);
    assert!(status["magic"].as_str().unwrap().contains('_') && status["version"].as_str().unwrap().len() == 64);
    let workers = status["workers"].as_array().unwrap();
    let mut pids: Vec<u32> = workers.iter().map(|it| u32::try_from(it["pid"].as_u64().unwrap()).unwrap()).collect();
    pids.sort_unstable();
    let mut alive = host.workers();
    alive.sort_unstable();
    assert_eq!(pids, alive);
    for worker in workers {
        assert_eq!((&worker["state"], &worker["generation"]), (&"ready".into(), &1.into()));
        assert_eq!(worker["version"], status["version"]);
        assert!(worker["requests"].as_u64().unwrap() > 0 && worker["memory_bytes"].as_u64().unwrap() > 1 << 20);
        assert!(worker["uptime_ms"].as_u64().unwrap() > 0 && worker["cpu_ms"].is_u64());
    }
    assert_eq!(control.ask("RESTART"), "ACK\n");
    host.wait("a worker that drains", || {
        let status = control.ask_json("STATUS");
        let drains = status["workers"].as_array()?.iter().any(|it| it["state"] == "draining");
        (drains && status["phase"] == "rolling").then_some(())
    });
    assert_eq!(slow.receive().unwrap(), 200);
    assert_eq!(control.ask("WAIT 1"), "ACK 1 complete\n");
}

#[test]
fn log_level_takes_effect_in_workers_that_live_and_in_those_to_come() {
    let host = Host::new(&App::build().app("telling")).with("/log/level", "info").start();
    let mut control = host.control();
    let hidden = |host: &Host| host.lines_with("hidden at info").len();
    host.get("/event");
    assert_eq!(hidden(&host), 0);
    assert_eq!(control.ask("LOGLEVEL debug"), "ACK\n");
    host.wait("the app's line at debug in every worker", || {
        host.get("/event");
        let lines = host.lines_with("hidden at info");
        host.workers().iter().all(|pid| lines.iter().any(|line| line.pid() == *pid)).then_some(())
    });
    // Those that are spawned later.
    assert_eq!(control.ask("RESTART WAIT"), "ACK 1 complete\n");
    assert!(!host.lines_with("event handled").is_empty(), "the master's own");
    host.wait("the app's line at debug in every new worker", || {
        host.get("/event");
        let lines = host.lines_with("hidden at info");
        host.workers().iter().all(|pid| lines.iter().any(|line| line.pid() == *pid)).then_some(())
    });
    assert_eq!(control.ask("LOGLEVEL restore"), "ACK\n");
    host.wait("both workers to be quiet again", || {
        let before = hidden(&host);
        for _ in 0..8 {
            host.get("/event");
        }
        (hidden(&host) == before).then_some(())
    });
}

#[test]
fn faults_29_a_stale_socket_is_replaced_and_is_private_from_its_first_moment() {
    let host = Host::misbehaving();
    let path = host.path("state/control.sock");
    fs::create_dir(host.path("state")).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let host = host.start();
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(host.control().ask("VERSION").starts_with("ACK "));
    // A master that was killed leaves a stale one.
    process::signal(host.master(), Signal::SIGKILL);
    host.wait_exit();
    assert!(path.exists());
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert!(host.control().ask("VERSION").starts_with("ACK "));
    host.stop();
    assert!(!path.exists());
}

#[test]
fn faults_29_a_live_socket_and_what_is_no_socket_are_left_alone_and_the_start_refused() {
    let host = Host::misbehaving();
    let path = host.path("state/control.sock");
    fs::create_dir(host.path("state")).unwrap();
    let live = UnixListener::bind(&path).unwrap();
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert!(host.report().contains("in use by another process"), "it says so");
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    drop(live);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert!(host.report().contains("something that is no socket lies there"), "it says so");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn no_child_inherits_the_control_socket() {
    let host = Host::misbehaving().start();
    let sockets = |pid: u32| -> Vec<String> {
        process::descriptors(pid).into_iter().map(|(_, target)| target.display().to_string()).collect()
    };
    let text = fs::read_to_string("/proc/net/unix").unwrap();
    let path = host.path("state/control.sock").display().to_string();
    let inode = text.lines().find(|line| line.ends_with(&path)).unwrap().split_whitespace().nth(6).unwrap();
    let name = format!("socket:[{inode}]");
    assert!(sockets(host.master()).contains(&name));
    let _held = host.control();
    host.restart_completes();
    for pid in host.workers() {
        assert!(!sockets(pid).contains(&name));
    }
}

#[test]
fn hostile_clients_delay_no_restart_and_lose_no_request() {
    let host = Host::answering("a").with("/log/level", "info").start();
    // One that hangs in a line, one that says more than is read, and many that only hold a connection.
    let mut hangs = host.control();
    hangs.send(b"RESTA");
    let mut long = host.control();
    long.send(&[b'x'; 4000]);
    assert_eq!(long.line().as_deref(), Some("NACK line too long\n"));
    assert_eq!(long.line(), None);
    let flood = |bytes: &'static [u8]| {
        let path = host.path("state/control.sock");
        move |stop: &std::sync::atomic::AtomicBool| {
            use std::io::Write;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Reads nothing, and comes back when it is thrown out.
                let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&path) else { continue };
                stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && stream.write_all(bytes).is_ok() {}
            }
        }
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let allowed = Arc::new(Allowed::default());
    allowed.set("ab");
    let load = Load {
        address: host.address(),
        clients: 4,
        kind: Kind::KeepAlive,
        posts: Posts::None,
        path: "/".to_owned(),
        limit: Duration::from_mins(2),
    };
    std::thread::scope(|scope| {
        let garbage = flood(b"\xff\0garbage\n");
        let commands = flood(b"STATUS\nLOGLEVEL info\nWAIT 99\n");
        let restarts = flood(b"EVENTS\nWAIT 1\n");
        let stop = &stop;
        scope.spawn(move || garbage(stop));
        scope.spawn(move || commands(stop));
        scope.spawn(move || restarts(stop));
        let running = load.start(&allowed);
        let mut control = host.wait("a place among the connections", || {
            let mut control = host.control();
            control.ask("VERSION").starts_with("ACK ").then_some(control)
        });
        let began = Instant::now();
        for number in 1..=3 {
            let answer = control.ask("RESTART WAIT");
            assert!(answer.ends_with(" complete\n"), "restart {number}: {answer}");
            // One that vanishes in the middle of its wait; its restart goes on.
            let mut vanishes = host.control();
            let mark = host.mark();
            vanishes.send(b"RESTART WAIT\n");
            let requested = host.wait_after(mark, said::RESTART_REQUESTED, |_| true).number("request").unwrap();
            drop(vanishes);
            assert_eq!(host.verdict(requested).verdict, "complete");
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let outcome = running.stop();
        assert_eq!(outcome.failed, 0, "{outcome:?}");
        assert!(outcome.answered > 0);
    });
    // Its beginning is still worth the rest.
    hangs.send(b"RT FOO\n");
    assert_eq!(hangs.line().as_deref(), Some("NACK invalid\n"));
    assert_eq!(host.workers().len(), 2);
}

#[test]
fn connections_are_bounded_and_a_vanished_client_gives_its_place_back() {
    let host = Host::misbehaving().start();
    let mut all: Vec<Control> = Vec::new();
    let refused = loop {
        let mut control = host.control();
        let answer = control.ask("EVENTS");
        if answer != "ACK\n" {
            break answer;
        }
        all.push(control);
    };
    assert_eq!((all.len(), refused.as_str()), (32, "NACK too many connections\n"));
    drop(all);
    host.wait("a place", || (host.control().ask("VERSION") != "NACK too many connections\n").then_some(()));
}

#[test]
fn slow_reader_of_events_is_told_how_many_it_has_lost() {
    let host = Host::misbehaving().start();
    let mut slow = host.control();
    assert_eq!(slow.ask("EVENTS"), "ACK\n");
    let mut busy = host.control();
    // More than the socket's buffer and the queue hold.
    for _ in 0..6000 {
        assert_eq!(busy.ask("LOGLEVEL warn"), "ACK\n");
    }
    let mut lost = 0;
    loop {
        let event = slow.event();
        if event["event"] == "lost" {
            lost = event["events"].as_u64().unwrap();
            break;
        }
        if event["event"] != "log level changed" {
            break;
        }
    }
    assert!(lost > 0, "it was told");
    assert!(busy.ask("VERSION").starts_with("ACK "));
}

#[test]
fn a_control_socket_and_a_pid_file_that_were_removed_come_back() {
    const MADE: &str = "the master's own file was removed or replaced, and is made anew";
    let host = Host::misbehaving().start();
    let (socket, pid_file) = (host.path("state/control.sock"), host.path("state/app-host.pid"));
    let mut before = host.control();
    let pid = fs::read_to_string(&pid_file).unwrap();
    let is_back = |mark: usize, what: &[&str]| {
        // The control socket is made first.
        for what in what {
            host.wait_after(mark, MADE, |line| line.str("what") == *what);
        }
        assert_eq!(fs::symlink_metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(host.control().ask("VERSION").starts_with("ACK "));
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid);
    };
    // By itself, within seconds; a stale file of somebody's is no reason not to.
    let mark = host.mark();
    fs::remove_file(&socket).unwrap();
    is_back(mark, &["control socket"]);
    // At SIGUSR1 at once, and at a restart.
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        let mark = host.mark();
        fs::write(host.path("stale"), "4711\n").unwrap();
        fs::rename(host.path("stale"), &pid_file).unwrap();
        fs::remove_file(&socket).unwrap();
        host.signal(signal);
        is_back(mark, &["control socket", "pid file"]);
    }
    assert!(before.ask("VERSION").starts_with("ACK "), "who was connected still is");
    // What is somebody else's is left alone, said once, and given up when it goes.
    let mark = host.mark();
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    for _ in 0..2 {
        host.signal(Signal::SIGUSR1);
        host.wait_after(mark, said::LOGS_REOPENED, |_| true);
    }
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    let complaints = host.look(mark, |new| new.iter().filter(|line| line.msg().contains("nobody finds it")).count());
    assert_eq!(complaints, 1);
    fs::remove_file(&socket).unwrap();
    host.signal(Signal::SIGUSR1);
    is_back(mark, &["control socket"]);
    host.stop();
    assert!(!socket.exists() && !pid_file.exists(), "they go with the master");
}
