//! Connections survive a restart: they are handed over to other workers, and their clients see nothing of it. What
//! takes the whole machine for that is in `alone/handover.rs`.

use std::time::{Duration, Instant};

use app_host_tests::client::request;
use app_host_tests::{Connection, Host, process, said};
use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit};
use serde_json::{Value, json};

/// Who has answered last.
fn worker_of(connection: &Connection) -> u32 {
    let answer: Value = serde_json::from_slice(connection.body()).expect("whoami answers JSON");
    u32::try_from(answer["pid"].as_u64().expect("it has a pid")).unwrap()
}

/// Asks on a connection that must be open and stay so; says who has answered.
pub(crate) fn ask(connection: &mut Connection) -> u32 {
    assert_eq!(connection.get("/whoami").expect("the connection lives"), 200);
    assert!(!connection.announced_close());
    worker_of(connection)
}

/// So many connections that have had a request each.
///
/// As many of each worker: the others stand still meanwhile, or the quickest may have them all.
fn idle(host: &Host, count: usize) -> Vec<Connection> {
    let serving = host.serving();
    let mut connections = Vec::new();
    for (index, pid) in serving.iter().enumerate() {
        let others: Vec<u32> = serving.iter().copied().filter(|other| other != pid).collect();
        for other in &others {
            process::signal(*other, Signal::SIGSTOP);
            host.wait("it to stand still", || process::is_stopped(*other).then_some(()));
        }
        let wanted = count * (index + 1) / serving.len();
        while connections.len() < wanted {
            let mut connection = host.connect();
            assert_eq!(ask(&mut connection), *pid);
            connections.push(connection);
        }
        for other in &others {
            process::signal(*other, Signal::SIGCONT);
        }
    }
    connections
}

/// The sum of a figure over all workers that have exited.
pub(crate) fn exited(host: &Host, figure: &str) -> u64 {
    host.lines_with(said::WORKER_EXITED).iter().filter_map(|line| line.number(figure)).sum()
}

/// A figure of each worker that lives.
fn figures(host: &Host, figure: &str) -> Vec<(u32, u64)> {
    let status = host.control().ask_json("STATUS");
    let workers = status["workers"].as_array().unwrap();
    let pair = |it: &Value| (u32::try_from(it["pid"].as_u64().unwrap()).unwrap(), it[figure].as_u64().unwrap());
    workers.iter().map(pair).collect()
}

#[test]
fn half_a_request_goes_along_and_an_upload_follows_its_answer() {
    let host = Host::misbehaving().start();
    let mut silent = host.connect();
    let mut half = host.connect();
    half.send(b"GET /whoami HTT").unwrap();
    let mut upload = host.connect();
    upload.begin("POST", "/upload", &["transfer-encoding: chunked"]).unwrap();
    upload.send(b"5\r\nhel").unwrap();
    let mut slow = host.connect();
    let (whole, whoami) = (request("GET", "/sleep/700", &[]), request("GET", "/whoami", &[]));
    let (begun, rest) = whoami.split_at(6);
    slow.send([&whole, &whoami, begun].concat().as_bytes()).unwrap();
    host.assert_all_serve(&host.serving());
    let before = host.serving();
    host.signal(Signal::SIGUSR2);
    let after = host.wait("the candidates", || {
        let serving = host.serving();
        (serving.len() == 2 && serving.iter().all(|pid| !before.contains(pid))).then_some(serving)
    });
    // Whoever sends the rest before is answered where it is.
    host.wait("the two that have nothing in flight to move", || {
        let living: u64 = figures(&host, "handed_over").iter().map(|(_, given)| given).sum();
        (living + exited(&host, "handed_over") >= 2).then_some(())
    });
    half.send(b"P/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(half.receive().unwrap(), 200);
    assert!(after.contains(&worker_of(&half)));
    assert!(after.contains(&ask(&mut silent)));
    // What has begun ends where it is.
    assert_eq!(slow.receive().unwrap(), 200);
    assert!(before.contains(&worker_of(&slow)) && !slow.announced_close());
    assert_eq!(slow.receive().unwrap(), 200);
    slow.send(rest.as_bytes()).unwrap();
    assert_eq!(slow.receive().unwrap(), 200);
    assert!(after.contains(&worker_of(&slow)));
    upload.send(b"lo\r\n0\r\n\r\n").unwrap();
    assert_eq!(upload.receive().unwrap(), 200);
    assert_eq!((upload.text().as_str(), upload.announced_close()), ("5", false));
    assert!(after.contains(&ask(&mut upload)));
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn peer_and_listener_go_along() {
    let host = Host::misbehaving().start();
    let mut connection = host.connect();
    assert_eq!(connection.get("/connection").unwrap(), 200);
    let before = connection.text();
    for _ in 0..3 {
        host.restart_completes();
        assert_eq!(connection.get("/connection").unwrap(), 200);
        assert_eq!(connection.text(), before);
    }
}

#[test]
fn connection_whose_listener_is_gone_is_closed_politely() {
    let listen = json!(["127.0.0.1:0", { "address": "127.0.0.2:0", "name": "second" }]);
    let mut host = Host::misbehaving().with("/listen", listen).with("/restart/idle_linger", "2s").start();
    let mut first = host.connect();
    ask(&mut first);
    let [mut silent, mut asks] = [(); 2].map(|()| Connection::connect(&host.address_of("second")).unwrap());
    ask(&mut silent);
    ask(&mut asks);
    host.set("/listen", json!(["127.0.0.1:0"]));
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_draining(mark, 2);
    // Those that nobody else takes have come back to stay.
    assert_eq!(asks.get("/whoami").unwrap(), 200);
    assert!(asks.announced_close());
    assert_eq!(host.verdict(1).verdict, "complete");
    assert!(silent.is_closed().unwrap());
    ask(&mut first);
    assert_eq!((exited(&host, "closed"), exited(&host, "handed_over")), (2, 1));
}

#[test]
fn connections_that_a_failed_generation_had_come_back() {
    let mut host = Host::misbehaving().with("/workers", 3).with("/restart/on_failure", "rollback").start();
    let mut connections = idle(&host, 60);
    for only_slot in [2, 1] {
        let before = host.serving();
        // Not before others have been replaced.
        host.set("/app/config", json!({ "on_start": "abort", "only_slot": only_slot, "start_ms": 700 }));
        assert_eq!(host.restart().verdict, "failed: worker died");
        let now = host.serving();
        assert!(now != before, "some have been replaced");
        for connection in &mut connections {
            assert!(now.contains(&ask(connection)));
        }
    }
    assert_eq!(exited(&host, "closed"), 0);
}

#[test]
fn workers_that_go_outside_a_restart_hand_over_what_they_have() {
    let host = Host::misbehaving().with("/workers", 3).start();
    let mut connections = idle(&host, 60);
    let terminated = host.serving()[0];
    process::signal(terminated, Signal::SIGTERM);
    host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == terminated);
    host.signal(Signal::SIGTTOU);
    host.wait("two workers", || (host.workers().len() == 2).then_some(()));
    let now = host.serving();
    for connection in &mut connections {
        assert!(now.contains(&ask(connection)));
    }
    assert_eq!(exited(&host, "closed"), 0);
    // The service's end is everybody's.
    host.signal(Signal::SIGTERM);
    host.wait_exit();
    assert_eq!(exited(&host, "closed"), 60);
}

#[test]
fn a_worker_without_descriptors_takes_what_it_can_and_nothing_is_dropped() {
    // What finds no descriptor free is dropped by the kernel, unless its sender still has it.
    let mut host = Host::misbehaving().with("/restart/idle_linger", "300ms").start();
    let mut connections = idle(&host, 300);
    host.set("/restart/probation", "2s");
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let candidate = host.wait_after(mark, said::WORKER_READY, |line| line.number("slot") == Some(0)).worker_pid();
    let pid = rustix::process::Pid::from_raw(i32::try_from(candidate).unwrap());
    let open = process::descriptors(candidate).len() as u64;
    let few = Rlimit { current: Some(open + 40), maximum: Some(open + 40) };
    rustix::process::prlimit(pid, Resource::Nofile, few).expect("the limit of our own child can be lowered");
    assert_eq!(host.verdict(1).verdict, "complete");
    let (mut alive, mut closed) = (0, 0);
    let mut of_candidate = 0;
    for connection in &mut connections {
        if connection.is_closed().unwrap() {
            closed += 1;
        } else {
            alive += 1;
            of_candidate += usize::from(ask(connection) == candidate);
        }
    }
    println!("{alive} connections live, {of_candidate} of them with the one that has few; {closed} were closed");
    assert!(of_candidate > 5 && of_candidate <= 60, "{of_candidate}");
    // Those of the first slot have the second candidate, too, as soon as it is ready.
    assert!(alive > 150, "{alive}");
    assert_eq!(exited(&host, "closed"), closed);
}

#[test]
fn what_a_killed_worker_has_not_said_to_take_goes_to_another() {
    let host = Host::misbehaving().with("/restart/on_failure", "rollback").with("/restart/probation", "500ms").start();
    let mut connections = idle(&host, 60);
    let before = host.serving();
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let candidate = host.wait_after(mark, said::WORKER_READY, |_| true).worker_pid();
    process::signal(candidate, Signal::SIGSTOP);
    host.wait("it to stand still", || process::is_stopped(candidate).then_some(()));
    host.wait_after(mark, said::WORKER_DRAINS, |line| line.worker_pid() == before[0]);
    host.wait("the connections to be sent", || figures(&host, "connections").contains(&(before[0], 0)).then_some(()));
    process::signal(candidate, Signal::SIGKILL);
    assert_eq!(host.verdict(1).verdict, "failed: worker died");
    let now = host.serving();
    for connection in &mut connections {
        assert!(now.contains(&ask(connection)));
    }
    assert_eq!((exited(&host, "closed"), exited(&host, "cut")), (0, 0));
    let killed = host.lines_with(said::WORKER_EXITED).into_iter().find(|line| line.worker_pid() == candidate);
    assert_eq!(killed.unwrap().number("received"), Some(0));
}

#[test]
fn connections_are_evened_out_unless_it_is_said_otherwise() {
    for balance in [true, false] {
        let host = Host::misbehaving().with("/restart/balance", balance).start();
        let killed = host.serving()[0];
        process::signal(killed, Signal::SIGKILL);
        host.wait("two workers", || (host.serving().len() == 2 && !host.serving().contains(&killed)).then_some(()));
        let [fresh, old] = host.serving()[..] else { panic!("two serve") };
        // While it is stopped, all that come go to the other.
        process::signal(fresh, Signal::SIGSTOP);
        host.wait("it to stand still", || process::is_stopped(fresh).then_some(()));
        let mut connections: Vec<_> = (0..200).map(|_| host.connect()).collect();
        assert!(connections.iter_mut().all(|connection| ask(connection) == old));
        process::signal(fresh, Signal::SIGCONT);
        let is_even = || {
            let held = figures(&host, "connections");
            held.iter().all(|(_, held)| *held >= 60)
        };
        if balance {
            host.wait("the balance", || is_even().then_some(()));
        } else {
            let until = Instant::now() + Duration::from_millis(2500);
            host.wait("some time", || (Instant::now() > until).then_some(()));
            assert!(!is_even());
        }
        assert!(connections.iter().all(|connection| worker_of(connection) == old));
        let moved: usize = connections.iter_mut().map(|connection| usize::from(ask(connection) == fresh)).sum();
        assert!(if balance { moved >= 60 } else { moved == 0 }, "{moved}");
        let given: u64 = figures(&host, "handed_over").iter().map(|(_, given)| given).sum();
        let received: u64 = figures(&host, "received").iter().map(|(_, received)| received).sum();
        assert_eq!((given, received), (moved as u64, moved as u64));
    }
}

#[test]
fn connections_that_nobody_has_used_for_a_while_rest_and_nobody_notices() {
    // They are looked at every 30 s, or as often as this, and rest when nothing has come between two looks.
    let host = Host::misbehaving().with("/log/level", "trace").with("/http", json!({ "head_timeout": "3s" })).start();
    let mut connections = idle(&host, 60);
    let held = figures(&host, "connections");
    assert!(host.lines_with(said::CONNECTION_PARKED).is_empty());
    host.wait("all of them to be parked", || (host.lines_with(said::CONNECTION_PARKED).len() == 60).then_some(()));
    host.wait("them to be counted as before", || (figures(&host, "connections") == held).then_some(()));
    // Those that ask are answered where they are; the others move while they rest.
    for connection in connections.iter_mut().step_by(2) {
        let before = worker_of(connection);
        assert_eq!(ask(connection), before);
    }
    host.restart_completes();
    let serving = host.serving();
    assert!(connections.iter_mut().all(|connection| serving.contains(&ask(connection))));
    assert_eq!((exited(&host, "handed_over"), exited(&host, "closed")), (60, 0));
}
