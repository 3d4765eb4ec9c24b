//! A restart that can't be done is refused with its reason, and touches nothing: after each refusal
//! every worker that served before still serves (`restart_is_refused` checks that).

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use app_host_tests::{App, Host, said};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn restart_before_the_first_workers_are_ready_is_refused_as_starting() {
    // FAULTS 2
    let host = Host::misbehaving().with("/app/config", json!({ "start_ms": 700 }));
    host.spawn();
    host.wait_for(said::WORKER_SPAWNED, |_| true);
    assert_eq!(host.restart().verdict, "refused: starting");
    host.wait_for(said::SERVING, |_| true);
    host.assert_all_serve(&host.serving());
}

#[test]
fn signals_from_the_very_first_moment_kill_nobody() {
    // FAULTS 2: before the master has even read its configuration.
    let host = Host::misbehaving();
    host.spawn();
    for _ in 0..200 {
        for signal in [Signal::SIGUSR2, Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGTTIN, Signal::SIGTTOU] {
            // A process that has not executed the binary yet is still the test's copy.
            if app_host_tests::process::name(host.master()) == "app-host"
                && app_host_tests::process::status(host.master(), "SigIgn")
                    .is_some_and(|mask| app_host_tests::process::has_signal(&mask, Signal::SIGUSR2))
            {
                host.signal(signal);
            }
        }
    }
    host.wait_for(said::SERVING, |_| true);
    assert!(host.try_exit().is_none());
}

#[test]
fn restart_while_the_master_stops_is_refused_as_stopping() {
    let host = Host::misbehaving().start();
    let mut slow = host.connect();
    slow.ask("/sleep/1500").unwrap();
    // An answer on another connection of each worker shows that the request has been taken in.
    host.assert_all_serve(&host.serving());
    host.signal(Signal::SIGTERM);
    host.wait_for(said::STOPPING, |_| true);
    assert_eq!(host.restart().verdict, "refused: stopping");
    assert_eq!(slow.receive().unwrap(), 200);
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn restart_with_one_worker_is_refused_as_no_workers() {
    let host = Host::misbehaving().with("/workers", 1).start();
    host.restart_is_refused("no workers");
}

#[test]
fn restart_to_one_worker_is_refused_as_no_workers() {
    let mut host = Host::misbehaving().start();
    host.set("/workers", 1);
    host.restart_is_refused("no workers");
}

#[test]
fn second_request_in_flight_is_refused_and_the_first_completes() {
    // FAULTS 1
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "start_ms": 400 }));
    host.signal(Signal::SIGUSR2);
    host.wait_for(said::RESTART_REQUESTED, |line| line.number("request") == Some(1));
    host.signal(Signal::SIGUSR2);
    assert_eq!(host.verdict(2).verdict, "refused: restart in flight");
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn each_of_many_requests_at_once_gets_one_verdict() {
    // FAULTS 1: signals that arrive together coalesce, but each that is counted is answered once.
    let host = Host::misbehaving().start();
    for _ in 0..50 {
        host.signal(Signal::SIGUSR2);
    }
    // Once the storm is over one more restart completes; it comes after all others.
    let last = host.wait("a restart after the storm", || {
        let verdict = host.restart();
        (verdict.verdict == "complete").then_some(verdict.request)
    });
    for request in 1..=last {
        let verdicts = host
            .lines()
            .into_iter()
            .filter(|line| line.msg().starts_with("zero-downtime restart") && line.number("request") == Some(request));
        assert_eq!(verdicts.count(), 1, "verdicts on request {request}");
    }
}

#[test]
fn configuration_that_is_not_valid_is_refused_with_its_place() {
    // FAULTS 32
    let host = Host::misbehaving().start();
    for (bytes, expected) in [
        (&b"{\n  \"app\": }"[..], "app-host.json:2:10"),
        (b"", "app-host.json:1:1: EOF"),
        (b"{\"app\": {\"library\": \"\xff\"}}", "app-host.json:1:"),
        (br#"{"app": {"library": "app.so"}, "worker": 2}"#, "worker"),
        (br#"{"app": {"library": "app.so"}, "workers": "two"}"#, "workers"),
        (br#"{"app": {"library": "app.so"}, "listen": ["127.0.0.1:1", "127.0.0.1:1"]}"#, "127.0.0.1:1 is there twice"),
        (br#"{"app": {"library": "app.so"}, "restart": {"probation": "soon"}}"#, "restart.probation"),
    ] {
        host.write_config(bytes);
        let detail = host.restart_is_refused("bad config");
        assert!(detail.contains(expected), "{}: {detail}", String::from_utf8_lossy(bytes));
    }
    fs::remove_file(host.config_path()).unwrap();
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("app-host.json"), "{detail}");
    host.restore_config();
    host.restart_completes();
}

#[test]
fn library_that_cannot_be_loaded_is_refused_with_what_is_wrong() {
    // FAULTS 20, and 18 for a half-written library.
    let host = Host::misbehaving().start();
    let good = fs::read(App::build().app("misbehaving")).unwrap();
    let mut foreign = good.clone();
    foreign[18] = 0x28;
    foreign[19] = 0;
    for (bytes, expected) in [
        (&good[..good.len() / 2], "truncated"),
        (&good[..good.len() - 1], "truncated"),
        (b"", "no ELF file"),
        (b"#!/bin/sh\nexit 0\n", "no ELF file"),
        (&foreign, "another architecture"),
        (&fs::read(App::build().app("no_manifest")).unwrap(), "no app-abi manifest"),
        (&fs::read(App::build().app("unresolved")).unwrap(), "no_library_has_this_function"),
    ] {
        host.install_bytes(bytes);
        let detail = host.restart_is_refused("bad artifact");
        assert!(detail.contains(expected), "expected \"{expected}\": {detail}");
    }
    host.install(&App::build().app("misbehaving"));
    host.restart_completes();
}

/// Puts something at a path.
type Make = fn(&Path);

#[test]
fn path_that_is_no_library_is_refused_and_nothing_hangs_on_it() {
    // FAULTS 20
    let host = Host::misbehaving().start();
    let path = host.library_path();
    let make: [(&str, Make); 4] = [
        ("No such file", |_| {}),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("special file", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("symbolic links", |path| symlink(path, path).unwrap()),
    ];
    fs::remove_file(&path).unwrap();
    for (expected, make) in make {
        make(&path);
        let detail = host.restart_is_refused("bad artifact");
        assert!(detail.contains(expected), "expected \"{expected}\": {detail}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        } else if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn library_whose_constructor_misbehaves_is_refused_and_the_master_is_untouched() {
    // FAULTS 8: the probe loads it first.
    let host = Host::misbehaving().with("/restart/start_timeout", "700ms").start();
    for app in ["constructor_abort", "constructor_exit", "constructor_hang"] {
        host.install(&App::build().app(app));
        let detail = host.restart_is_refused("bad artifact");
        assert!(!detail.is_empty(), "{app} has no detail");
    }
    host.install(&App::build().app("misbehaving"));
    host.restart_completes();
}

#[test]
fn another_epoch_is_refused_as_incompatible_naming_both_numbers() {
    let host = Host::misbehaving().start();
    host.install(&App::build().app("epoch_two"));
    let detail = host.restart_is_refused("incompatibility");
    assert!(detail.contains("00000001_00000002") && detail.contains("00000001_00000001"), "{detail}");
    assert!(detail.contains("epoch"), "{detail}");
}

#[test]
fn setting_that_cannot_change_under_running_workers_is_refused_naming_it() {
    for (key, value) in
        [("state_dir", "elsewhere"), ("pid_file", "elsewhere.pid"), ("user", "daemon"), ("group", "daemon")]
    {
        let mut host = Host::misbehaving().start();
        host.set(&format!("/{key}"), value);
        let detail = host.restart_is_refused("incompatibility");
        assert!(detail.contains(key), "expected \"{key}\": {detail}");
    }
}

#[test]
fn new_listener_that_cannot_be_bound_is_refused_naming_it() {
    let mut host = Host::misbehaving().start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    host.set("/listen", json!(["127.0.0.1:0", address]));
    let detail = host.restart_is_refused("cannot bind");
    assert!(detail.contains(&address), "{detail}");
    drop(taken);
    host.restart_completes();
}

#[test]
fn live_unix_socket_or_a_file_in_its_place_is_not_taken_over() {
    // FAULTS 29, for listeners.
    let mut host = Host::misbehaving().start();
    let path = host.path("socket");
    host.set("/listen", json!(["127.0.0.1:0", "unix:socket"]));
    let live = UnixListener::bind(&path).unwrap();
    host.restart_is_refused("cannot bind");
    drop(live);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    host.restart_is_refused("cannot bind");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    // A stale one, which nobody listens on, is replaced.
    drop(UnixListener::bind(&path).unwrap());
    host.restart_completes();
}
