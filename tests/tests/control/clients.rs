//! Clients that are hostile, many, or slow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{Control, Host, said};

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
