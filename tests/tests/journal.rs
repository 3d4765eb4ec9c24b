//! A log that is systemd's journal: `JOURNAL_STREAM` names it by device and inode. Here it is a file that plays it; the real
//! one is in the third ring (`tests/systemd/journal.rs`).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use app_host_tests::{Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

fn stream(metadata: &fs::Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

/// The lines of the log once all has been served and said.
fn lines(host: &Host) -> Vec<String> {
    let says = |what: &str, count: usize| {
        host.wait(what, || {
            let text = fs::read_to_string(host.path("log")).ok()?;
            (text.matches(&format!("\"msg\":\"{what}\"")).count() == count).then_some(text)
        })
    };
    host.spawn();
    says(said::SERVING, 1);
    // Has each worker say something of its own.
    for worker in process::children(host.master()) {
        process::signal(worker, Signal::SIGUSR2);
    }
    let text = says(said::SIGNAL_LEFT, 2);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_line_of_master_and_workers_begins_with_its_priority_where_the_log_is_the_journal() {
    // The workers aren't told by a variable.
    let host = Host::misbehaving().with("/environment", json!(["PATH"]));
    let log = File::create(host.path("log")).unwrap();
    let host = host.with_variable("JOURNAL_STREAM", stream(&log.metadata().unwrap()));
    let lines = lines(&host);
    let mut processes = std::collections::HashSet::new();
    for line in &lines {
        let (priority, json) = line.split_at(3);
        let value: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{line}"));
        let expected = match value["level"].as_u64() {
            Some(50) => "<3>",
            Some(40) => "<4>",
            Some(30) => "<6>",
            _ => "<7>",
        };
        assert_eq!(priority, expected, "{line}");
        processes.insert(value["pid"].as_u64());
    }
    assert!(processes.len() >= 3, "a master and two workers have said something: {processes:?}");
}

#[test]
fn a_log_that_is_another_stream_than_the_journal_has_plain_lines() {
    let other = tempfile::NamedTempFile::new().unwrap();
    let other = stream(&other.as_file().metadata().unwrap());
    for value in [other.as_str(), "", "1", "not:numbers"] {
        let host = Host::misbehaving().with_variable("JOURNAL_STREAM", value);
        let lines = lines(&host);
        assert!(lines.len() > 3 && lines.iter().all(|line| line.starts_with('{')), "{value}: {lines:?}");
    }
}
