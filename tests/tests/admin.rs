//! The admin listener: what is counted, what is said of health, and that nobody who asks delays anything.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use app_host_tests::admin::get;
use app_host_tests::{Address, App, Connection, Host, Metrics, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn host() -> Host {
    Host::misbehaving().with("/admin", "127.0.0.1:0")
}

/// Waits until the metrics say so.
fn metrics_when(host: &Host, what: &str, fits: impl Fn(&Metrics) -> bool) -> Metrics {
    host.wait(what, || Some(host.metrics()).filter(|metrics| fits(metrics)))
}

#[test]
fn requests_restarts_and_deaths_are_counted_and_no_counter_goes_backwards() {
    let host = host().start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whoever looks at any time, while workers come and go.
        scope.spawn(|| {
            let mut last = host.metrics();
            while !stop.load(Ordering::Relaxed) {
                let now = host.metrics();
                now.assert_grown_since(&last);
                last = now;
            }
        });
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| count(&host)));
        stop.store(true, Ordering::Relaxed);
        looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn count(host: &Host) {
    let before = host.metrics();
    assert_eq!(before.count("requests_total"), 0);
    assert_eq!(before.count("workers{state=\"ready\"}"), 2);
    assert_eq!(before.count("phase{phase=\"serving\"}"), 1);
    for _ in 0..5 {
        host.get("/whoami");
    }
    assert_eq!(host.connect().get("/sleep/60").unwrap(), 200);
    assert_eq!(host.connect().get("/panic").unwrap(), 500);
    let served = host.metrics();
    assert_eq!(served.count("requests_total"), 7);
    assert_eq!(served.count("responses_total{class=\"2xx\"}"), 6);
    assert_eq!(served.count("responses_total{class=\"5xx\"}"), 1);
    assert_eq!(served.count("request_duration_seconds_count"), 7);
    assert!(served.get("request_duration_seconds_sum") >= 0.06, "{served:?}");
    assert!(served.get("request_duration_seconds_bucket{le=\"0.05\"}") <= 6.0, "the slow one isn't among the quick");
    assert!(served.get("request_duration_seconds_bucket{le=\"0.05\"}") >= 1.0, "{served:?}");
    assert!(served.find("worker_cpu_seconds_total{slot=\"0\",generation=\"1\"}").is_some());
    assert!(served.get("worker_resident_memory_bytes{slot=\"1\",generation=\"1\"}") > 1e5);

    host.restart_completes();
    let restarted = host.metrics();
    assert_eq!(restarted.count("requests_total"), 7, "what the old workers have done is not forgotten");
    assert_eq!(restarted.count("request_duration_seconds_count"), 7);
    assert_eq!(restarted.count("restarts_total{verdict=\"complete\",reason=\"\"}"), 1);
    assert_eq!(restarted.count("active_generation"), 2);
    assert_eq!(restarted.count("worker_exits_total{expected=\"true\"}"), 2);
    for stage in ["preflight", "start", "probation", "roll", "drain"] {
        assert_eq!(restarted.count(&format!("restart_stage_seconds_count{{stage=\"{stage}\"}}")), 1, "{stage}");
    }
    assert!(restarted.get("restart_stage_seconds_sum{stage=\"probation\"}") >= 0.02);
    assert_eq!(restarted.find("worker_cpu_seconds_total{slot=\"0\",generation=\"1\"}"), None, "nothing lingers");

    host.write_config(b"{");
    host.restart_is_refused("bad config");
    host.restore_config();
    let refused = host.metrics();
    assert_eq!(refused.count("restarts_total{verdict=\"refused\",reason=\"bad config\"}"), 1);

    // A worker that is killed with a request in flight.
    let mut cut = host.connect();
    cut.ask("/never").unwrap();
    metrics_when(host, "a request in flight", |metrics| metrics.count("requests_in_flight") == 1);
    let cpu = |metrics: &Metrics, slot| {
        metrics.find(&format!("worker_cpu_seconds_total{{slot=\"{slot}\",generation=\"2\"}}"))
    };
    let used = host.metrics();
    for worker in host.serving() {
        process::signal(worker, Signal::SIGKILL);
    }
    let respawned = metrics_when(host, "the respawned", |metrics| {
        metrics.count("respawns_total") == 2 && metrics.count("workers{state=\"ready\"}") == 2
    });
    respawned.assert_grown_since(&used);
    assert_eq!(respawned.count("requests_in_flight"), 0, "a gauge of the dead does not linger");
    assert_eq!(respawned.count("connections"), 0);
    assert_eq!(respawned.count("requests_cut_total"), 1);
    assert_eq!(respawned.count("requests_total"), used.count("requests_total"));
    assert_eq!(respawned.count("worker_exits_total{expected=\"false\"}"), 2);
    for slot in 0..2 {
        assert!(cpu(&respawned, slot) >= cpu(&used, slot), "the successor's CPU time adds to that of the dead");
        assert!(cpu(&respawned, slot) > Some(0.0), "to load an app takes some");
    }
}

#[test]
fn upgraded_connections_and_what_nobody_times_are_not_in_the_histogram() {
    let host = Host::new(&App::build().app("axum_chat")).with("/admin", "127.0.0.1:0").start();
    let mut chat = host.connect();
    let upgrade = "GET /websocket HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    chat.send(upgrade.as_bytes()).unwrap();
    metrics_when(&host, "the upgrade", |metrics| metrics.count("responses_total{class=\"1xx\"}") == 1);
    drop(chat);
    let ended = metrics_when(&host, "its end", |metrics| metrics.count("requests_in_flight") == 0);
    assert_eq!(ended.count("requests_total"), 1);
    assert_eq!(ended.count("request_duration_seconds_count"), 0);
}

#[test]
fn readiness_follows_the_master_from_its_start_to_its_end() {
    let mut host = host().with("/app/config", json!({ "start_ms": 1500 }));
    host.spawn();
    assert_eq!(host.ask_admin("/readyz"), (503, "not ready: starting, 0 of 2 workers\n".to_owned()));
    assert_eq!(host.ask_admin("/healthz"), (200, "ok\n".to_owned()));
    host.wait_for(said::SERVING, |_| true);
    assert_eq!(host.ask_admin("/readyz"), (200, "ready: serving, 2 of 2 workers\n".to_owned()));

    host.set("/app/config", json!({ "on_start": "exit" }));
    host.restart_fails("worker died");
    assert_eq!(host.ask_admin("/readyz"), (200, "ready: locked, 2 of 2 workers\n".to_owned()));
    let metrics = host.metrics();
    assert_eq!(metrics.count("phase{phase=\"locked\"}"), 1);
    assert_eq!(metrics.count("restarts_total{verdict=\"failed\",reason=\"worker died\"}"), 1);
    // The last but one of a locked master is enough.
    process::signal(host.serving()[0], Signal::SIGKILL);
    host.wait_for(said::WORKER_EXITED, |line| {
        line.flag("expected") == Some(false) && line.number("generation") == Some(1)
    });
    assert_eq!(host.ask_admin("/readyz"), (200, "ready: locked, 1 of 2 workers\n".to_owned()));

    // What is in flight keeps it from its end.
    let mut busy = host.connect();
    busy.ask("/never").unwrap();
    metrics_when(&host, "a request in flight", |metrics| metrics.count("requests_in_flight") == 1);
    host.signal(Signal::SIGTERM);
    host.wait_for(said::STOPPING, |_| true);
    assert_eq!(host.ask_admin("/readyz"), (503, "not ready: stopping, 0 of 2 workers\n".to_owned()));
    assert_eq!(host.ask_admin("/healthz").0, 200);
    let admin = host.admin_process().expect("it answers to the end");
    // Somebody ends all processes of this name: the master is meant, and says so.
    process::signal(admin, Signal::SIGTERM);
    assert_eq!(host.ask_admin("/healthz").0, 200);
    assert_eq!(host.admin_process(), Some(admin));
    let address = host.admin_address();
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(!process::is_alive(admin), "it ends before its master");
    assert!(Connection::connect(&address).is_err());
}

#[test]
fn master_that_stands_still_is_not_healthy_and_whoever_asks_is_told_in_time() {
    let host = host().start();
    assert_eq!(host.ask_admin("/healthz").0, 200);
    process::signal(host.master(), Signal::SIGSTOP);
    let begin = Instant::now();
    let (status, text) = host.ask_admin("/healthz");
    assert_eq!((status, text.as_str()), (503, "the master doesn't answer\n"));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(host.ask_admin("/metrics").0, 503);
    process::signal(host.master(), Signal::SIGCONT);
    host.wait("health", || (host.ask_admin("/healthz").0 == 200).then_some(()));
    host.assert_all_serve(&host.serving());
}

#[test]
fn process_that_serves_metrics_comes_back_and_its_death_is_nobody_elses() {
    let host = host().start();
    host.get("/whoami");
    let workers = host.serving();
    for round in 1..=2 {
        let first = host.wait("the process", || host.admin_process());
        assert_ne!(process::status(first, "PPid").as_deref(), Some("1"));
        process::signal(first, Signal::SIGKILL);
        host.wait("another one", || host.admin_process().filter(|pid| *pid != first));
        // Whoever comes meanwhile waits in the listener's queue, and what was counted is the master's.
        assert_eq!(host.metrics().count("requests_total"), 1);
        assert_eq!(host.lines_with("the process that serves metrics has ended").len(), round);
    }
    assert_eq!(host.serving(), workers);
    // A restart doesn't wait for it, nor replace it.
    let admin = host.admin_process().unwrap();
    process::signal(admin, Signal::SIGSTOP);
    host.restart_completes();
    process::signal(admin, Signal::SIGCONT);
    assert_eq!(host.metrics().count("active_generation"), 2);
    assert_eq!(host.admin_process(), Some(admin));
    // Nor does the end of the master wait for one that hangs.
    process::signal(admin, Signal::SIGSTOP);
    host.stop();
    assert!(!process::is_alive(admin));
}

#[test]
fn master_that_is_killed_takes_it_along() {
    let host = host().start();
    let (admin, address) = (host.admin_process().unwrap(), host.admin_address());
    process::signal(host.master(), Signal::SIGKILL);
    host.wait("its end", || (!process::is_alive(admin)).then_some(()));
    // Other threads of the master may still be on their way out.
    host.wait("the address to be free", || Connection::connect(&address).is_err().then_some(()));
}

#[test]
fn clients_that_hang_or_flood_delay_nothing() {
    let host = host().start();
    // Pages that are open, and more than are heard at once with nothing or half a request.
    let mut pages: Vec<_> = (0..20).map(|_| host.admin()).collect();
    for page in &mut pages {
        page.send(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        assert_eq!(page.opened().unwrap(), 200);
    }
    let mut hanging: Vec<_> = (0..70).map(|_| host.admin()).collect();
    for (number, connection) in hanging.iter_mut().enumerate() {
        // The first may be gone already.
        let _ = connection.send(if number % 2 == 0 { b"GET /metr" } else { b"" });
    }
    for _ in 0..100 {
        let mut beyond = host.admin();
        assert_eq!(get(&mut beyond, "/healthz").unwrap(), 200, "a crowd is no sickness");
        hanging.push(beyond);
    }
    host.wait("the oldest to make room", || hanging[0].is_closed().unwrap_or(true).then_some(()));
    for page in &mut pages {
        assert!(page.chunk().unwrap().is_some(), "whoever is answered stays");
    }
    host.restart_completes();
    host.assert_all_serve(&host.serving());
    drop((hanging, pages));

    // Many who ask at once cost the master one question now and then.
    let begin = Instant::now();
    let seen = std::thread::scope(|scope| {
        let flood = || {
            let mut connection = host.admin();
            let mut seen = Vec::new();
            while begin.elapsed() < Duration::from_secs(2) {
                assert_eq!(get(&mut connection, "/metrics").unwrap(), 200);
                seen.push(Metrics::parse(&connection.text()).get("uptime_seconds").to_bits());
            }
            seen
        };
        let floods: Vec<_> = (0..8).map(|_| scope.spawn(flood)).collect();
        host.restart_completes();
        floods.into_iter().flat_map(|flood| flood.join().unwrap()).collect::<Vec<_>>()
    });
    let distinct = seen.iter().collect::<BTreeSet<_>>().len();
    assert!(seen.len() > distinct * 4, "{} answers of {distinct} snapshots", seen.len());
    assert!(distinct <= 2 + usize::try_from(begin.elapsed().as_millis() / 200).unwrap(), "{distinct} snapshots");
}

#[test]
fn what_is_no_question_gets_its_answer_and_nothing_else() {
    let host = host().start();
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nhost: rebound.example\r\n\r\n", Some(403)),
        ("POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc", Some(405)),
        ("GET /../state/control.sock HTTP/1.1\r\nhost: localhost\r\n\r\n", Some(404)),
        ("nonsense\r\n\r\n", Some(400)),
        ("\0\0\0\0", None),
    ] {
        let mut connection = host.admin();
        connection.send(request.as_bytes()).unwrap();
        let answered = connection.receive().ok();
        assert!(answered == status || (status.is_none() && answered == Some(400)), "{request}: {answered:?}");
    }
    let mut large = host.admin();
    let sent =
        large.send(format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024)).as_bytes());
    // It may have been refused before it was sent.
    let answered = sent.and_then(|()| large.receive());
    assert!(matches!(answered, Ok(431) | Err(_)), "{answered:?}");
    // A HEAD has no body: the next answer follows at once.
    let mut connection = host.admin();
    connection.send(b"HEAD /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(connection.read(&mut byte).unwrap(), 1);
        head.push(byte[0]);
    }
    assert_eq!(get(&mut connection, "/healthz").unwrap(), 200);
    assert_eq!(host.ask_admin("/").0, 200);
}

#[test]
fn listener_beyond_this_machine_answers_to_any_name_and_is_warned_of() {
    let host = Host::misbehaving().with("/admin", "0.0.0.0:0").start();
    host.wait_for("admin listens beyond this machine", |line| line.str("advice").contains("asks nobody"));
    let mut connection = host.admin();
    connection.send(b"GET /healthz HTTP/1.1\r\nhost: metrics.example\r\n\r\n").unwrap();
    assert_eq!(connection.receive().unwrap(), 200);
}

/// The next state that is pushed.
fn pushed(stream: &mut Connection) -> Option<Value> {
    let mut text = String::new();
    loop {
        text.push_str(&String::from_utf8(stream.chunk().ok()??).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            if let Some(data) = event.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
            assert!(event == "retry: 1000", "{event}");
            text = rest.to_owned();
        }
    }
}

#[test]
fn what_happens_is_pushed_to_a_page_as_it_happens_until_the_master_ends() {
    let host = host().with("/restart/probation", "700ms").start();
    let mut stream = host.admin();
    stream.send(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(stream.opened().unwrap(), 200);
    let first = pushed(&mut stream).unwrap();
    assert_eq!((&first["phase"], &first["ready"]), (&"serving".into(), &true.into()));
    assert_eq!(first["workers"].as_array().unwrap().len(), 2);
    host.signal(Signal::SIGUSR2);
    let mut seen = Vec::new();
    let last = loop {
        let state = pushed(&mut stream).expect("the stream goes on");
        seen.push(format!("{} {}", state["phase"].as_str().unwrap(), state["workers"].as_array().unwrap().len()));
        if state["generation"] == 2 && state["workers"].as_array().unwrap().len() == 2 {
            break state;
        }
    };
    assert!(seen.contains(&"rolling 3".to_owned()), "{seen:?}");
    assert_eq!(last["verdicts"][0]["verdict"], "complete");
    assert_eq!(last["versions"][0]["state"], "active");
    // Figures come by themselves, about once a second.
    host.get("/whoami");
    let counted = loop {
        let state = pushed(&mut stream).expect("the stream goes on");
        if state["totals"]["requests"] != 0 {
            break state;
        }
    };
    assert_eq!(counted["totals"]["requests"], 1);
    host.stop();
    while pushed(&mut stream).is_some() {}
}

#[test]
fn listener_moves_with_a_restart_or_the_restart_is_refused() {
    let mut host = host().start();
    let first = host.admin_address();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    host.set("/admin", taken.local_addr().unwrap().to_string());
    let detail = host.restart_is_refused("cannot bind");
    assert!(detail.contains(&taken.local_addr().unwrap().to_string()), "{detail}");
    assert_eq!(host.ask_admin("/healthz").0, 200);
    // On a Unix socket, which is for whom its mode says.
    let socket = host.path("admin.sock");
    host.set("/admin", json!({ "address": format!("unix:{}", socket.display()), "mode": "600" }));
    host.restart_completes();
    assert_eq!(
        host.wait("the move", || Some(host.admin_address()).filter(|now| *now != first)),
        Address::Unix(socket.clone())
    );
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(host.metrics().count("active_generation"), 2);
    host.wait("the old one's end", || Connection::connect(&first).is_err().then_some(()));
    // Its address stays, and so does its process.
    let admin = host.admin_process();
    host.restart_completes();
    assert_eq!(host.metrics().count("active_generation"), 3);
    assert_eq!(host.admin_process(), admin);
    host.set("/admin", Value::Null);
    host.restart_completes();
    host.wait("its end", || host.admin_process().is_none().then_some(()));
    assert!(!socket.exists());
    host.stop();
}

#[test]
fn log_that_is_rotated_is_let_go_of() {
    let host = host().with("/log/file", "log").start();
    let (admin, address) = (host.admin_process().unwrap(), host.admin_address());
    let old = host.path("log.1");
    fs::rename(host.path("log"), &old).unwrap();
    host.signal(Signal::SIGUSR1);
    host.wait("the new file", || fs::exists(host.path("log")).unwrap().then_some(()));
    // It only has a pipe, which the master reads, and goes on.
    let holds_a_log = process::descriptors(admin).iter().any(|(_, target)| target.starts_with(host.directory()));
    assert!(!holds_a_log, "{:?}", process::descriptors(admin));
    assert_eq!(host.admin_process(), Some(admin));
    assert_eq!(get(&mut Connection::connect(&address).unwrap(), "/metrics").unwrap(), 200);
}

#[test]
fn without_the_setting_there_is_no_process_and_no_listener() {
    let host = Host::misbehaving().start();
    assert_eq!(host.admin_process(), None);
    assert_eq!(process::children(host.master()).len(), 2);
    assert_eq!(host.lines_with(said::ADMIN_LISTENING).len(), 0);
}
