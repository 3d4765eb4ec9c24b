//! Listeners that a worker shuts down under all others.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;

use app_host_tests::{Address, App, Connection, Host, process, said};
use serde_json::json;

/// Has the process shut down its listening socket, as its app could.
fn shut_down(pid: u32, address: &Address) {
    // Perl makes a duplicate of another process's descriptor with `pidfd_getfd(2)`, which root may.
    let inode = |line: &str| line.trim_start_matches("socket:[").trim_end_matches(']').to_owned();
    let listening: Vec<u32> = process::descriptors(pid)
        .into_iter()
        .filter(|(_, target)| target.to_string_lossy().starts_with("socket:"))
        .map(|(number, target)| (number, inode(&target.to_string_lossy())))
        .filter(|(_, inode)| is_listening_at(inode, address))
        .map(|(number, _)| number)
        .collect();
    let number = listening.first().expect("the process listens there");
    let script = "my $p = syscall(434, $ARGV[0]+0, 0); die qq(pidfd: $!) if $p < 0;
                  my $d = syscall(438, $p, $ARGV[1]+0, 0); die qq(getfd: $!) if $d < 0;
                  open(my $s, '+<&=', $d) or die $!; shutdown($s, 2) or die $!;";
    let output = std::process::Command::new("/usr/bin/perl")
        .args(["-e", script, &pid.to_string(), &number.to_string()])
        .output()
        .expect("perl is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the socket with this number is the listener at `address`.
fn is_listening_at(inode: &str, address: &Address) -> bool {
    match address {
        Address::Tcp(address) | Address::Tls(address, _) => {
            let port = format!(":{:04X}", address.port());
            fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.get(9) == Some(&inode) && fields[3] == "0A" && fields[1].ends_with(&port)
            })
        }
        Address::Unix(path) => fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(6) == Some(&inode) && fields.get(7).is_some_and(|at| Path::new(at) == path)
        }),
    }
}

#[test]
#[ignore = "second ring: needs root"]
fn a_tcp_listener_that_a_worker_shuts_down_listens_again_and_nobody_is_restarted() {
    let host = Host::misbehaving().with("/hang_timeout", json!(null)).with("/admin", "unix:admin.sock").start();
    let (address, workers) = (host.address(), host.workers());
    for round in 1..=2 {
        let mark = host.mark();
        shut_down(workers[0], &address);
        host.wait_after(mark, "listening again", |_| true);
        host.wait("a client to be served", || {
            Connection::connect(&address).ok().and_then(|mut it| it.get("/whoami").ok()).filter(|it| *it == 200)
        });
        host.assert_all_serve(&workers);
        let mut admin = Connection::connect(&Address::Unix(host.path("admin.sock"))).unwrap();
        assert_eq!(admin.get("/metrics").unwrap(), 200);
        assert!(admin.text().contains(&format!("app_host_listener_shutdowns_total {round}")), "{}", admin.text());
    }
    assert_eq!(host.workers(), workers);
    host.restart_completes();
    host.assert_all_serve(&host.serving());
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_unix_listener_that_a_worker_shuts_down_is_bound_anew_by_a_restart_of_the_masters_own() {
    let host =
        Host::misbehaving().with("/listen", json!(["127.0.0.1:0", "unix:s"])).with("/admin", "unix:admin.sock").start();
    let (path, workers) = (Address::Unix(host.path("s")), host.workers());
    let ready = || Connection::connect(&Address::Unix(host.path("admin.sock"))).unwrap().get("/readyz").unwrap();
    assert_eq!(ready(), 200);
    shut_down(workers[0], &path);
    assert_eq!(ready(), 503);
    host.wait_for(said::RESTART_REQUESTED, |line| line.str("by") == "healing");
    assert_eq!(host.verdict(1).verdict, "complete");
    assert_eq!(ready(), 200);
    for pid in host.serving() {
        assert!(!workers.contains(&pid));
    }
    assert_eq!(Connection::connect(&path).unwrap().get("/whoami").unwrap(), 200);
    host.restart_completes();
    assert_eq!(Connection::connect(&path).unwrap().get("/whoami").unwrap(), 200);
    host.stop();
    assert!(!host.path("s").exists());
}

#[test]
#[ignore = "second ring: needs root"]
fn a_unix_listener_that_was_shut_down_costs_no_thread_although_no_restart_may_heal_it() {
    let host = Host::misbehaving()
        .with("/listen", json!(["127.0.0.1:0", "unix:s"]))
        .with("/workers", 1)
        .with("/admin", "unix:admin.sock")
        .start();
    let worker = host.workers()[0];
    let used = process::cpu_time(worker).unwrap();
    shut_down(worker, &Address::Unix(host.path("s")));
    host.wait_for("listener was shut down under a worker that serves", |line| line.str("listener") == "unix:s");
    host.wait_for(said::RESTART_REFUSED, |line| line.str("reason") == "no workers");
    // The thread serves its other listener.
    assert_eq!(Connection::connect(&host.address()).unwrap().get("/whoami").unwrap(), 200);
    let used = process::cpu_time(worker).unwrap().saturating_sub(used);
    assert!(used.as_millis() < 500, "{used:?}");
    let mut admin = Connection::connect(&Address::Unix(host.path("admin.sock"))).unwrap();
    assert_eq!(admin.get("/readyz").unwrap(), 503);
    assert!(admin.text().contains("turning clients away: "), "{}", admin.text());
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_listener_of_the_apps_that_was_shut_down_keeps_its_port_and_is_taken_by_new_workers() {
    let host = Host::new(&App::build().app("talkative"))
        .with("/app_listeners", json!([{ "name": "smtp", "address": "127.0.0.2:0" }]))
        .with("/app/config", json!({ "take": ["smtp"] }))
        .start();
    let address = host.address_of("smtp");
    let workers = host.workers();
    shut_down(workers[0], &address);
    host.wait_for(said::RESTART_REQUESTED, |line| line.str("by") == "healing");
    assert_eq!(host.verdict(1).verdict, "complete");
    let mut hello = String::new();
    BufReader::new(TcpStream::connect(address.tcp()).unwrap()).read_line(&mut hello).unwrap();
    assert!(hello.starts_with("2 "), "the second generation answers: {hello}");
    assert!(host.lines_with(said::LISTENING).len() == 2, "each was bound once");
    host.stop();
}
