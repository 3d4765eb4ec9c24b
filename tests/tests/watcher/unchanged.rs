//! What hasn't changed asks for nothing, and is not read again.

use std::fs::{self, File};
use std::time::{Duration, Instant, SystemTime};

use app_host_tests::{Host, said};
use nix::sys::signal::Signal;

use super::{copy_over, fresh, has_looked, is_brought_in, requests_since, settled, stall, version_is, watching};

#[test]
fn unchanged_bytes_ask_for_nothing() {
    let host = settled(watching());
    let bytes = fs::read(host.library_path()).unwrap();
    let mark = host.mark();
    let touches: [&dyn Fn(); 4] = [
        &|| File::options().append(true).open(host.library_path()).unwrap().set_modified(SystemTime::now()).unwrap(),
        &|| host.install_bytes(&bytes),
        &|| copy_over(&host.library_path(), &bytes),
        &|| {
            fs::rename(host.library_path(), host.path("aside")).unwrap();
            has_looked(&host);
            fs::rename(host.path("aside"), host.library_path()).unwrap();
        },
    ];
    for touch in touches {
        let before = host.mark();
        touch();
        host.wait_after(before, said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    }
    has_looked(&host);
    assert!(requests_since(&host, mark).is_empty());
    // For an operator it is worth a restart, and what is brought in is known to the watcher.
    host.restart_completes();
    let bytes = fresh();
    let mark = host.mark();
    host.install_bytes(&bytes);
    is_brought_in(&host, mark, &bytes);
    has_looked(&host);
    assert_eq!(requests_since(&host, mark).len(), 1);
}

#[test]
fn build_that_the_operator_brings_in_first_is_not_restarted_twice() {
    let host = settled(watching().with("/restart/probation", "0s"));
    for _ in 0..5 {
        let mark = host.mark();
        let bytes = fresh();
        host.install_bytes(&bytes);
        host.signal(Signal::SIGUSR2);
        host.wait_after(mark, said::RESTART_COMPLETE, |line| version_is(&host, line.str("version"), &bytes));
        has_looked(&host);
        let completes = host.lines().into_iter().skip(mark).filter(|line| line.str("verdict") == "complete").count();
        assert_eq!(completes, 1);
    }
}

/// How many bytes the master has read so far.
fn bytes_read(host: &Host) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", host.master())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("the kernel counts");
    line.parse().unwrap()
}

#[test]
fn library_is_read_when_it_changes_and_not_over_and_over() {
    let host = settled(watching());
    let size = fs::metadata(host.library_path()).unwrap().len();
    let before = bytes_read(&host);
    // Several polls, and events that are about something else.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2_500) {
        fs::write(host.path("stranger"), "x").unwrap();
        fs::read(host.library_path()).unwrap();
        stall(Duration::from_millis(20));
    }
    has_looked(&host);
    let idle = bytes_read(&host) - before;
    assert!(idle < size / 4, "{idle} bytes were read, the library has {size}");
    // Fifty touches at once are one look.
    let mark = host.mark();
    let file = File::options().append(true).open(host.library_path()).unwrap();
    (0..50).for_each(|_| file.set_modified(SystemTime::now()).unwrap());
    drop(file);
    host.wait_after(mark, said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    has_looked(&host);
    let touched = bytes_read(&host) - before - idle;
    assert!((size..3 * size).contains(&touched), "{touched} bytes were read, the library has {size}");
}
