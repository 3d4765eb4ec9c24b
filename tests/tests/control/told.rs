//! What is told of verdicts, events, workers and the level of the log, and that it is the same everywhere.

use app_host_tests::{App, Host, Line, process};
use nix::sys::signal::Signal;
use serde_json::Value;

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
