//! The watcher, with the real one: however a build lands, it ends up running or refused, and what
//! hasn't changed asks for nothing.

mod landing;
mod refused;
mod targets;
mod unchanged;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use app_host_tests::host::pause;
use app_host_tests::{App, Host, Line, said};

/// A library that works and that nobody has seen before.
fn fresh() -> Vec<u8> {
    let mut bytes = fs::read(App::build().app("misbehaving")).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    bytes.extend_from_slice(&now.as_nanos().to_le_bytes());
    bytes
}

fn watching() -> Host {
    Host::misbehaving().with("/watch", true)
}

/// Started, and the watcher has said what lies there.
fn settled(host: Host) -> Host {
    let host = host.start();
    host.wait_for(said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    host
}

fn requests_since(host: &Host, mark: usize) -> Vec<Line> {
    host.lines().into_iter().skip(mark).filter(|line| line.msg() == said::RESTART_REQUESTED).collect()
}

/// Waits until a request of the watcher was refused for this reason behind a mark.
fn is_refused(host: &Host, mark: usize, reason: &str) -> Line {
    host.wait_after(mark, said::RESTART_REFUSED, |line| {
        line.str("by") == "watcher" && line.str("verdict") == format!("refused: {reason}")
    })
}

/// Waits until a restart that the watcher has asked for has brought in these bytes.
fn is_brought_in(host: &Host, mark: usize, bytes: &[u8]) {
    let is_it = |line: &Line| line.str("by") == "watcher" && version_is(host, line.str("version"), bytes);
    host.wait_after(mark, said::RESTART_COMPLETE, is_it);
    host.assert_served_since(mark);
}

fn version_is(host: &Host, short: &str, bytes: &[u8]) -> bool {
    let versions = fs::read_dir(host.path("state/versions")).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(short));
    versions.filter(named).any(|path| fs::read(path).is_ok_and(|found| found == bytes))
}

/// Waits until the watcher has looked at everything that was done before this, by something that it
/// tells: it looks at the configuration last.
fn has_looked(host: &Host) {
    let mark = host.mark();
    let file = OpenOptions::new().append(true).open(host.config_path()).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
    drop(file);
    host.wait_after(mark, "configuration seen", |line| line.flag("there") == Some(true));
}

/// Lets time go by while somebody else does nothing, as people and networks do.
fn stall(duration: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        pause();
    }
}

fn copy_over(path: &Path, bytes: &[u8]) {
    let source = path.with_file_name("source");
    fs::write(&source, bytes).unwrap();
    assert!(Command::new("cp").arg(&source).arg(path).status().unwrap().success());
}
