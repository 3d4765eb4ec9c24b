//! Idle HTTPS connections survive restarts however many there are, and cost next to nothing.

use std::time::{Duration, Instant};

use app_host_tests::tls::Authority;
use app_host_tests::{Address, Connection, Host, machine, process};
use serde_json::json;

use super::handover::Raised;
use crate::handover::{ask, exited};

/// How many connections are idle.
const CONNECTIONS: usize = 5_000;

/// The most private memory of a worker that an idle connection may cost, in bytes.
const MOST_OF_ONE: u64 = 1024;

/// What restarts with idle connections came to.
struct Kept {
    restarts: Vec<Duration>,
    /// How many bytes of private memory a connection costs.
    of_one: u64,
}

/// Opens the connections and has the host restart ten times; each connection must be the one that it was: with TLS, its keys
/// and the numbers of its records are what the client goes on with.
fn keep(host: &Host, address: &Address) -> Kept {
    let memory = || host.workers().iter().filter_map(|pid| process::private_kib(*pid)).sum::<u64>();
    let timed = || {
        let began = Instant::now();
        host.restart_completes();
        began.elapsed()
    };
    let without: Vec<_> = (0..4).map(|_| timed()).collect();
    let before = memory();
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Connection::connect(address).unwrap()).collect();
    for connection in &mut connections {
        ask(connection);
    }
    let opened = memory();
    let restarts: Vec<_> = (0..10).map(|_| timed()).collect();
    let after = memory();
    for connection in &mut connections {
        ask(connection);
    }
    println!("restarts without connections {without:?}, with {CONNECTIONS} idle ones {restarts:?}");
    println!("private memory of both workers, KiB: {before} without, {opened} with, {after} after 10 restarts");
    assert_eq!((exited(host, "closed"), exited(host, "cut")), (0, 0));
    assert!(restarts.iter().all(|took| *took < Duration::from_secs(15)), "{restarts:?}");
    Kept { restarts, of_one: after.saturating_sub(before) * 1024 / CONNECTIONS as u64 }
}

#[test]
fn five_thousand_idle_https_connections_survive_10_restarts_at_a_kibibyte_each() {
    let _alone = machine::alone();
    let _raised = Raised::limit();
    let host = || {
        Host::misbehaving()
            .with("/restart/probation", "0s")
            .with("/restart/idle_linger", "1m")
            .with("/restart/shutdown_timeout", "2m")
            .with("/log/level", "info")
    };
    let encrypted = {
        let host = host();
        let authority = Authority::new(host.directory());
        let tls = json!({ "certificates": [authority.localhost().config()] });
        let host = host.with("/listen", json!([{ "address": "127.0.0.1:0", "name": "https", "tls": tls }])).start();
        let address = Address::Tls(host.address_of("https").tcp(), authority.trust("localhost"));
        keep(&host, &address)
    };
    assert!(encrypted.of_one <= MOST_OF_ONE, "{} bytes each", encrypted.of_one);
    // Beside it, for whoever wants to know what TLS costs: `--nocapture`.
    let host = host().start();
    let plain = keep(&host, &host.address());
    let median = |Kept { mut restarts, .. }: Kept| {
        restarts.sort_unstable();
        restarts[restarts.len() / 2].as_secs_f64()
    };
    println!("median restart: HTTPS / plain {:.2}", median(encrypted) / median(plain));
}
