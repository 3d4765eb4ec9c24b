//! Listeners of the app's own: bound once, kept over restarts, taken by name, shut when the service ends.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use app_host_tests::client::TIMEOUT;
use app_host_tests::host::pause;
use app_host_tests::{Address, App, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

fn talkative() -> Host {
    Host::new(&App::build().app("talkative"))
}

/// With a listener `smtp` that its app takes.
fn with_smtp() -> Host {
    talkative()
        .with("/app_listeners", json!([{ "name": "smtp", "address": "127.0.0.2:0" }]))
        .with("/app/config", json!({ "take": ["smtp"] }))
}

fn smtp(host: &Host) -> SocketAddr {
    host.address_of("smtp").tcp()
}

/// Connects, echoes a line, and gives the generation that answered and the worker's process id.
fn greet(address: SocketAddr) -> (u64, u32) {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let hello = lines.next().unwrap().unwrap();
    stream.write_all(b"HELO test\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "HELO test");
    let (generation, pid) = hello.split_once(' ').unwrap();
    (generation.parse().unwrap(), pid.parse().unwrap())
}

fn wait_until_refused(host: &Host, address: SocketAddr) {
    host.wait("the listener's end", || {
        TcpStream::connect(address).err().filter(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn both_generations_accept_during_a_restart_and_the_address_stays() {
    let mut host = with_smtp().start();
    let address = smtp(&host);
    let before = host.serving();
    let mut answered = BTreeSet::new();
    host.wait("an answer of each worker", || {
        answered.insert(greet(address).1);
        (answered.len() == 2).then_some(())
    });
    assert!(before.iter().all(|worker| answered.contains(worker)));
    host.set("/restart/probation", "3s");
    host.signal(Signal::SIGUSR2);
    host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2));
    let mut generations = BTreeSet::new();
    host.wait("an answer of each generation", || {
        generations.insert(greet(address).0);
        (generations.len() == 2).then_some(())
    });
    assert_eq!(host.verdict(1).verdict, "complete");
    assert_eq!(smtp(&host), address);
    assert_eq!(host.lines_with(said::LISTENING).len(), 2, "each was bound once");
    for _ in 0..10 {
        assert_eq!(greet(address).0, 2);
    }
}

#[test]
fn no_client_is_refused_over_restarts() {
    let host = with_smtp().start();
    let address = smtp(&host);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut clients = 0;
            while !over.load(Ordering::Relaxed) {
                TcpStream::connect(address).unwrap();
                clients += 1;
                // There are only so many ports for clients.
                pause();
            }
            clients
        });
        let _end = End(&over);
        for _ in 0..3 {
            host.restart_completes();
        }
        over.store(true, Ordering::Relaxed);
        assert!(clients.join().unwrap() > 10);
    });
    greet(address);
}

/// Ends the clients, also where a test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn listener_on_a_unix_socket_is_taken_with_its_mode() {
    let host = talkative()
        .with("/app_listeners", json!([{ "name": "local", "address": "unix:local.sock", "mode": "0600" }]))
        .with("/app/config", json!({ "take": ["local"] }))
        .start();
    let Address::Unix(path) = host.address_of("local") else { panic!("a Unix socket") };
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for _ in 0..2 {
        let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
        let mut hello = String::new();
        stream.read_line(&mut hello).unwrap();
        assert!(hello.ends_with('\n'), "{hello}");
        drop(stream);
        host.restart_completes();
    }
    host.stop();
    assert!(!path.exists());
}

#[test]
fn name_that_is_not_there_fails_the_restart_as_cannot_listen_and_locks() {
    let mut host = with_smtp().start();
    let before = host.serving();
    host.set("/app/config", json!({ "take": ["smtp", "pop"] }));
    let detail = host.restart_fails("cannot listen");
    assert!(detail.contains("there is no listener \"pop\" in app_listeners, which has \"smtp\""), "{detail}");
    assert_eq!(host.serving(), before);
    host.restart_is_refused("aborted restart");
    greet(smtp(&host));
}

#[test]
fn listener_that_is_taken_twice_fails_the_restart_as_cannot_listen() {
    let mut host = with_smtp().start();
    host.set("/app/config", json!({ "take": ["smtp", "smtp"] }));
    let detail = host.restart_fails("cannot listen");
    assert!(detail.contains("listener \"smtp\" was taken before"), "{detail}");
}

#[test]
fn first_start_without_its_listener_ends_the_master_saying_so() {
    let host = talkative().with("/app/config", json!({ "take": ["smtp"] }));
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let line = host.wait_for("the first workers could not start", |_| true);
    assert_eq!(line.str("reason"), "cannot listen");
    assert!(line.str("detail").contains("which has none"), "{}", line.text());
}

#[test]
fn app_that_can_do_without_a_listener_starts_and_one_that_nobody_takes_is_told_of() {
    let host = with_smtp().with("/app/config", json!({ "take": ["pop"], "take_what_there_is": true })).start();
    host.wait_for("a listener is not there", |line| line.text().contains("pop"));
    for pid in host.serving() {
        host.wait_for("the app has not taken a listener: its clients get no answer", |line| {
            line.pid() == pid && line.str("listener") == "smtp"
        });
    }
}

#[test]
fn listener_that_is_new_and_cannot_be_bound_refuses_the_restart() {
    let mut host = with_smtp().start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listeners =
        |address: &str| json!([{ "name": "smtp", "address": "127.0.0.2:0" }, { "name": "pop", "address": address }]);
    host.set("/app_listeners", listeners(&address));
    let detail = host.restart_is_refused("cannot bind");
    assert!(detail.contains(&address), "{detail}");
    drop(taken);
    host.set("/app/config", json!({ "take": ["smtp", "pop"] }));
    host.restart_completes();
    assert_eq!(greet(host.address_of("pop").tcp()).0, 2);
}

#[test]
fn name_or_address_that_is_there_already_is_a_bad_config_with_its_place() {
    // FAULTS 32
    let mut host = with_smtp().start();
    for (entry, text) in [
        (json!({ "name": "pop", "address": "127.0.0.1:0" }), "the address 127.0.0.1:0 is in \"listen\" already"),
        (
            json!({ "name": "127.0.0.1:0", "address": "127.0.0.3:0" }),
            "the name \"127.0.0.1:0\" is in \"listen\" already",
        ),
    ] {
        host.set("/app_listeners", json!([{ "name": "smtp", "address": "127.0.0.2:0" }, entry]));
        let detail = host.restart_is_refused("bad config");
        assert!(detail.contains("app_listeners[1]: ") && detail.contains(text), "{detail}");
        assert!(detail.contains("app-host.json:1:"), "{detail}");
    }
    assert_eq!(greet(smtp(&host)).0, 1);
}

#[test]
fn removed_listener_closes_with_the_last_worker_that_serves_it() {
    let mut host = with_smtp().start();
    let address = smtp(&host);
    host.set("/app_listeners", json!([]));
    host.set("/app/config", json!({}));
    host.restart_completes();
    wait_until_refused(&host, address);
}

#[test]
fn stop_refuses_new_clients_at_once_while_requests_are_finished() {
    let host = with_smtp().with("/restart/shutdown_timeout", "5s").start();
    let address = smtp(&host);
    let workers = host.serving();
    // A stream that doesn't end with the drain keeps each worker alive.
    let mut held: Vec<_> = workers.iter().map(|worker| host.connect_to(*worker)).collect();
    for connection in &mut held {
        assert_eq!(connection.open("/listen/nothing").unwrap(), 200);
    }
    let began = Instant::now();
    host.signal(Signal::SIGTERM);
    wait_until_refused(&host, address);
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    assert!(workers.iter().all(|pid| process::is_alive(*pid)), "it was shut, they did not just die");
    for pid in &workers {
        host.wait_for("the app's own listener is done", |line| line.pid() == *pid);
    }
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn workers_of_a_killed_master_refuse_new_clients_at_once() {
    // FAULTS 28
    let host = with_smtp().with("/restart/shutdown_timeout", "5s").start();
    let address = smtp(&host);
    let workers = host.serving();
    // What a drain waits for; a subscription would end with the master.
    let mut held: Vec<_> = workers.iter().map(|worker| host.connect_to(*worker)).collect();
    for connection in &mut held {
        connection.begin("POST", "/publish/x", &["content-length: 9"]).unwrap();
    }
    host.assert_all_serve(&workers);
    let began = Instant::now();
    host.signal(Signal::SIGKILL);
    host.wait_exit();
    wait_until_refused(&host, address);
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    assert!(workers.iter().all(|pid| process::is_alive(*pid)), "it was shut, they did not just die");
    host.wait("the workers' exit", || workers.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
}

#[test]
fn restarts_leak_no_descriptor_of_a_listener() {
    // FAULTS 26
    let host = with_smtp().with("/restart/probation", "0s").start();
    let open = |pid: u32| process::descriptors(pid).len();
    host.restart_completes();
    let before: Vec<_> = host.serving().into_iter().chain([host.master()]).map(open).collect();
    for _ in 0..5 {
        host.restart_completes();
    }
    // What a restart needs for its own time may be open a little longer, then and now.
    host.wait("no more descriptors than before", || {
        let after = host.serving().into_iter().chain([host.master()]).map(open);
        after.zip(&before).all(|(after, before)| after <= *before).then_some(())
    });
}
