//! Log rotation by rename and SIGUSR1: no line is lost, and none comes twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use app_host_tests::{App, Host, Line, process, said};
use nix::sys::signal::Signal;

/// The app's lines of all files, by their number, and how often each is there.
fn numbers(texts: &[String]) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    for line in texts.iter().flat_map(|text| text.lines()).map(Line::parse) {
        assert!(!line.value().is_null(), "a whole line: {}", line.text());
        if let Some(number) = line.msg().strip_prefix("flood ").and_then(|rest| rest.split(' ').next()) {
            *seen.entry(number.parse().unwrap()).or_default() += 1;
        }
    }
    seen
}

/// How workers write to the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workers {
    /// They have its descriptor.
    Write,
    /// They run as somebody else and have a pipe, which the master reads.
    AreRelayed,
}

impl Workers {
    fn assert_do(self, worker: u32, log: &Path) {
        let has_it = process::descriptors(worker).iter().any(|(_, path)| path == log);
        assert_eq!(has_it, self == Self::Write, "worker {worker}");
    }
}

fn rotate_three_times_under_a_flood(host: &Host, workers: Workers) {
    const LINES: u64 = 3000;
    let log = host.path("log-file");
    let read = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default();
    host.wait("the workers to serve", || read(&log).contains("\"msg\":\"serving\"").then_some(()));
    // The address is in a file that the fixture doesn't read.
    let address = host.wait("the address", || {
        read(&log)
            .lines()
            .map(Line::parse)
            .find(|line| line.msg() == said::LISTENING)
            .map(|line| line.str("address").to_owned())
    });
    let address = app_host_tests::Address::parse(&address).unwrap();
    let flood = std::thread::spawn(move || {
        let mut connection = app_host_tests::Connection::connect(&address).unwrap();
        connection.get(&format!("/flood/{LINES}")).unwrap()
    });
    let mut rotated = Vec::new();
    for number in 0..3 {
        let old = host.path(&format!("log-file.{number}"));
        fs::rename(&log, &old).unwrap();
        host.signal(Signal::SIGUSR1);
        host.wait("the new file", || read(&log).contains("log files reopened").then_some(()));
        rotated.push(old);
    }
    assert_eq!(flood.join().unwrap(), 200);
    let all = || {
        let mut texts: Vec<String> = rotated.iter().map(|path| read(path)).collect();
        texts.push(read(&log));
        texts
    };
    host.wait("the last line", || {
        all().iter().any(|text| text.contains(&format!("flood {} ", LINES - 1))).then_some(())
    });
    let seen = numbers(&all());
    assert_eq!(seen.len() as u64, LINES, "none is lost");
    assert!(seen.values().all(|count| *count == 1), "none is there twice");
    // Workers write to the new file, and so does whoever is spawned later.
    host.workers().into_iter().for_each(|pid| workers.assert_do(pid, &log));
    host.signal(Signal::SIGHUP);
    host.wait("the verdict", || read(&log).contains("zero-downtime restart complete").then_some(()));
    host.workers().into_iter().for_each(|pid| workers.assert_do(pid, &log));
    assert!(read(&log).contains("\"by\":\"SIGHUP\""));
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(read(&log).contains("\"msg\":\"drained\""), "the workers' last lines too");
}

#[test]
fn rotation_by_rename_loses_no_line() {
    let host = Host::new(&App::build().app("telling")).with("/log/level", "info").with("/log/file", "log-file");
    host.spawn();
    rotate_three_times_under_a_flood(&host, Workers::Write);
}

#[test]
fn workers_of_another_user_have_no_descriptor_of_the_log_and_lose_no_line() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("not root: workers can't be somebody else here; the test above shows the rest");
        return;
    }
    let host = Host::new(&App::build().app("telling"))
        .with("/log/level", "info")
        .with("/log/file", "log-file")
        .with("/user", "nobody");
    host.spawn();
    rotate_three_times_under_a_flood(&host, Workers::AreRelayed);
}

#[test]
fn log_that_can_not_be_opened_anew_stays_as_it_was() {
    let host = Host::misbehaving().with("/log/file", "logs/file");
    fs::create_dir(host.path("logs")).unwrap();
    host.spawn();
    let read = || fs::read_to_string(host.path("moved/file")).unwrap_or_default();
    host.wait("the workers to serve", || {
        fs::read_to_string(host.path("logs/file")).unwrap_or_default().contains("\"msg\":\"serving\"").then_some(())
    });
    fs::rename(host.path("logs"), host.path("moved")).unwrap();
    host.signal(Signal::SIGUSR1);
    host.wait("the complaint", || read().contains("the log stays as it was").then_some(()));
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(read().contains("\"msg\":\"drained\""));
}

#[test]
fn a_restart_opens_every_log_anew_also_where_it_is_refused() {
    let host = Host::misbehaving()
        .with("/log/level", "info")
        .with("/log/file", "log-file")
        .with("/access_log", serde_json::json!({ "file": "access-file" }));
    host.spawn();
    let read = |name: &str| fs::read_to_string(host.path(name)).unwrap_or_default();
    host.wait("the workers to serve", || read("log-file").contains("\"msg\":\"serving\"").then_some(()));
    let rotate = |number: u32| {
        for log in ["log-file", "access-file"] {
            fs::rename(host.path(log), host.path(&format!("{log}.{number}"))).unwrap();
        }
    };
    let goes_on_in = |number: u32, verdict: &str| {
        host.wait("the verdict in the new file", || read("log-file").contains(verdict).then_some(()));
        assert!(!read(&format!("log-file.{number}")).contains(verdict));
        // As a compressor does once it has read it: what is written now is lost.
        let old = ["log-file", "access-file"].map(|log| host.path(&format!("{log}.{number}")));
        let sizes = || old.clone().map(|path| fs::metadata(path).unwrap().len());
        let before = sizes();
        let workers = host.workers();
        assert!(!workers.is_empty());
        for worker in workers {
            let open = process::descriptors(worker);
            for log in ["log-file", "access-file"] {
                assert!(open.iter().any(|(_, path)| *path == host.path(log)), "{log}: {open:?}");
            }
            assert!(open.iter().all(|(_, path)| !old.contains(path)), "{open:?}");
        }
        assert_eq!(sizes(), before);
    };
    rotate(1);
    host.signal(Signal::SIGHUP);
    goes_on_in(1, "zero-downtime restart complete");
    rotate(2);
    host.install_bytes(b"no library");
    host.signal(Signal::SIGUSR2);
    goes_on_in(2, "zero-downtime restart refused");
    // Nothing was rotated, so nothing is said.
    let said = |text: &str| text.matches("log files reopened").count();
    assert_eq!(said(&read("log-file")), 1);
    host.signal(Signal::SIGUSR2);
    host.wait("the next verdict", || (read("log-file").matches("restart refused").count() == 2).then_some(()));
    assert_eq!(said(&read("log-file")), 1);
}
