//! The second ring: what needs tools of the system besides Rust. Run with `--features system`; it
//! says what is missing. `BUNYAN` is the path of bunyan's reader where that isn't on the PATH.
//!
//! `killall` is psmisc's. It runs in a process namespace of its own, because it would reach the
//! masters of other tests as well.
#![cfg(feature = "system")]

use std::fs;
use std::process::Command;

use app_host_tests::{Host, process};

#[test]
fn killall_of_psmisc_restarts_and_kills_nobody() {
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    let workers = host.workers();
    let output = Command::new("nsenter")
        .args(["--target", &host.master().to_string(), "--pid", "--mount"])
        .args(["sh", "-c", "mount -t proc proc /proc && exec killall -USR2 app-host"])
        .output()
        .expect("nsenter (util-linux) is needed");
    assert!(output.status.success(), "killall (psmisc) is needed: {}", String::from_utf8_lossy(&output.stderr));
    for _ in &workers {
        host.wait_for("signal left to the master", |line| line.str("signal").contains("USR2"));
    }
    assert_eq!(host.verdict(1).verdict, "complete");
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
    host.assert_all_serve(&host.serving());
}

#[test]
fn bunyans_own_reader_takes_every_line() {
    let host = Host::misbehaving().start();
    host.restart_completes();
    host.write_config(b"{");
    host.restart_is_refused("bad config");
    host.stop();
    let log = host.path("log");
    let output = Command::new(std::env::var_os("BUNYAN").unwrap_or_else(|| "bunyan".into()))
        // What is no bunyan line to it is left out in this mode.
        .args(["--strict", "-o", "bunyan"])
        .arg(&log)
        .output()
        .expect("bunyan's reader (npm install bunyan) is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    assert_eq!(read.lines().count(), fs::read_to_string(&log).unwrap().lines().count());
    assert!(read.contains("zero-downtime restart complete"));
}
