//! Certificates that are read anew while the workers serve.

use std::fs;
use std::process::Command;

use app_host_tests::{Address, App, Connection, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{der, https, pid, shows, usual};

#[test]
fn certificates_are_read_anew_by_a_restart_and_alone() {
    let (host, authority) = usual();
    let host = host.with("/admin", "127.0.0.1:0").start();
    let address = https(&host, &authority);
    let ctl = |words: &[&str]| {
        let mut command = Command::new(App::build().host());
        command.args(["ctl", "--config"]).arg(host.config_path()).args(words).output().unwrap()
    };
    let mut kept = Connection::connect(&address).unwrap();
    let (first, served_by) = (shows(&kept), pid(&mut kept));
    let fresh = || {
        shows(
            &Connection::connect(&Address::Tls(host.address_of("https").tcp(), authority.trust("localhost"))).unwrap(),
        )
    };
    assert_eq!(fresh(), first);
    let workers = host.serving();

    authority.localhost();
    assert_eq!(fresh(), first, "nobody has asked for it");
    let output = ctl(&["reload-certificates"]);
    assert!(output.status.success(), "{output:?}");
    // Each worker is told by itself.
    let all_show_another = |than: &[u8]| {
        host.wait("the new certificate", || {
            let shown: Vec<_> = (0..8).map(|_| fresh()).collect();
            (shown[0] != than && shown.iter().all(|each| *each == shown[0])).then(|| shown[0].clone())
        })
    };
    let second = all_show_another(&first);
    host.wait_for("certificates reloaded", |line| line.str("listeners") == "https");
    assert_eq!((host.serving(), pid(&mut kept)), (workers.clone(), served_by), "no worker, no connection is touched");

    fs::write(host.path("localhost.key"), "no key").unwrap();
    let output = ctl(&["reload-certificates"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("localhost.key has no private key in PEM form"), "{said}");
    assert_eq!(fresh(), second);
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("listen: https: tls: ") && detail.contains("localhost.key has no private key"), "{detail}");

    authority.localhost();
    host.restart_completes();
    let third = all_show_another(&second);
    assert_ne!(third, first);
    assert!(host.serving().contains(&pid(&mut kept)));
    // What a worker is respawned with is what was read last.
    authority.localhost();
    assert!(ctl(&["reload-certificates"]).status.success());
    let newest = all_show_another(&third);
    let mark = host.mark();
    for worker in host.serving() {
        process::signal(worker, Signal::SIGKILL);
        host.wait_after(mark, said::WORKER_EXITED, |line| line.worker_pid() == worker);
        host.wait("two workers", || (host.serving().len() == 2).then_some(()));
    }
    assert_eq!(fresh(), newest);
}

#[test]
fn certificates_that_are_put_in_place_are_read_without_being_asked_for_and_bad_ones_change_nothing() {
    let (host, authority) = usual();
    let host = host.with("/watch", json!({ "library": false, "certificates": true })).start();
    let address = https(&host, &authority);
    let mut open = Connection::connect(&address).unwrap();
    let before = pid(&mut open);
    let first = shows(&open);
    host.wait_for("watching", |line| line.number("certificates") == Some(2));
    // The watcher has seen what lies there when it has seen the configuration.
    host.wait_for("configuration seen", |_| true);
    host.wait("the watcher to have seen both files", || {
        let mark = host.mark();
        authority.localhost();
        let reloaded =
            |lines: &[app_host_tests::Line]| lines.iter().any(|line| line.str("msg") == "certificates reloaded");
        app_host_tests::host::wait_until(|| host.look(mark, reloaded).then_some(()))
    });
    let second = der(&host.path("localhost.pem"));
    host.wait("a handshake with the new one", || {
        let shown = shows(&Connection::connect(&address).unwrap());
        (shown == second && shown != first).then_some(())
    });
    let mark = host.mark();
    fs::write(host.path("localhost.pem"), "no certificate").unwrap();
    host.wait_after(mark, "certificates stay as they were", |_| true);
    assert_eq!(shows(&Connection::connect(&address).unwrap()), second);
    // And the right one again, which its authority has signed for another key meanwhile.
    let mark = host.mark();
    authority.localhost();
    host.wait_after(mark, "certificates reloaded", |_| true);
    assert_eq!(pid(&mut open), before, "no worker was replaced, and no connection touched");
    assert_eq!(host.lines_with("certificates stay as they were").len(), 1, "said once");
}
