//! The watcher, with the real one: however a build lands, it ends up running or refused, and what
//! hasn't changed asks for nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use app_host_tests::host::pause;
use app_host_tests::{App, Host, Line, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

/// How long a file must have been left alone before the watcher reads it.
const QUIET: Duration = Duration::from_millis(50);

/// Longer than any file is left alone in a copy that goes on.
const STALL: Duration = Duration::from_millis(150);

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

/// Waits for the next verdict on a request of the watcher behind a mark.
fn verdict_since(host: &Host, mark: usize) -> Line {
    host.wait("a verdict on a request of the watcher", || {
        let lines = host.lines();
        let mut verdicts = lines.into_iter().skip(mark).filter(|line| line.msg().starts_with("zero-downtime restart"));
        verdicts.find(|line| line.str("by") == "watcher")
    })
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

fn swap_link(link: &Path, target: &Path) {
    let new = link.with_file_name("swapped");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

/// A way in which a build lands at the path, for the directory of the test.
type Land = fn(root: &Path, path: &Path, bytes: &[u8]);

/// The library lies at `deploy/current/lib/app.so`, and `deploy/current` is a link to a release.
const WAYS: [(&str, Land); 14] = [
    ("cp over", |_, path, bytes| copy_over(path, bytes)),
    ("mv", |_, path, bytes| {
        let built = path.with_file_name("built");
        fs::write(&built, bytes).unwrap();
        assert!(Command::new("mv").arg(built).arg(path).status().unwrap().success());
    }),
    ("cargo's hard link", |root, path, bytes| {
        // It lies in `deps` under another name, is closed, and is linked then.
        let deps = root.join("deps");
        fs::create_dir_all(&deps).unwrap();
        let built = deps.join("libapp.so");
        let _ = fs::remove_file(&built);
        fs::write(&built, bytes).unwrap();
        fs::remove_file(path).unwrap();
        fs::hard_link(built, path).unwrap();
    }),
    ("written to through the hard link's other name", |root, _, bytes| {
        fs::write(root.join("deps/libapp.so"), bytes).unwrap();
    }),
    ("an editor that moves the old one away", |_, path, bytes| {
        fs::rename(path, path.with_extension("so~")).unwrap();
        let mut file = File::create(path).unwrap();
        bytes.chunks(1 << 20).for_each(|part| file.write_all(part).unwrap());
        file.sync_all().unwrap();
    }),
    ("rsync's temporary file", |_, path, bytes| {
        let partial = path.with_file_name(".app.so.Xb3kQz");
        fs::write(&partial, &bytes[..bytes.len() / 2]).unwrap();
        OpenOptions::new().append(true).open(&partial).unwrap().write_all(&bytes[bytes.len() / 2..]).unwrap();
        fs::rename(partial, path).unwrap();
    }),
    ("a network copy in small pieces", |_, path, bytes| {
        let mut file = File::create(path).unwrap();
        for part in bytes.chunks(bytes.len().div_ceil(6)) {
            file.write_all(part).unwrap();
            stall(STALL);
        }
    }),
    ("its size first, its bytes in pieces from behind", |_, path, bytes| {
        let mut file = File::create(path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        stall(STALL);
        let length = bytes.len().div_ceil(4);
        for (number, part) in bytes.chunks(length).enumerate().collect::<Vec<_>>().into_iter().rev() {
            file.seek(SeekFrom::Start((number * length) as u64)).unwrap();
            file.write_all(part).unwrap();
            stall(STALL);
        }
    }),
    ("a symbolic link swapped for the file", |root, path, bytes| {
        fs::write(root.join("build-9.so"), bytes).unwrap();
        swap_link(path, Path::new("../../../build-9.so"));
    }),
    ("the link's target replaced", |root, _, bytes| {
        fs::write(root.join("new"), bytes).unwrap();
        fs::rename(root.join("new"), root.join("build-9.so")).unwrap();
    }),
    ("a symbolic link swapped on the way", |root, _, bytes| {
        fs::create_dir_all(root.join("releases/2/lib")).unwrap();
        fs::write(root.join("releases/2/lib/app.so"), bytes).unwrap();
        swap_link(&root.join("deploy/current"), Path::new("../releases/2"));
    }),
    ("the directory replaced", |root, _, bytes| {
        // FAULTS 23
        fs::create_dir_all(root.join("lib.new")).unwrap();
        fs::write(root.join("lib.new/app.so"), bytes).unwrap();
        fs::rename(root.join("releases/2/lib"), root.join("lib.old")).unwrap();
        fs::rename(root.join("lib.new"), root.join("releases/2/lib")).unwrap();
    }),
    ("the directories above away for a while", |root, path, bytes| {
        // FAULTS 23
        fs::rename(root.join("deploy"), root.join("deploy.old")).unwrap();
        fs::remove_dir_all(root.join("releases")).unwrap();
        stall(STALL);
        fs::create_dir_all(root.join("deploy/current/lib")).unwrap();
        stall(STALL);
        fs::write(path, bytes).unwrap();
    }),
    ("the parent moved away and another one made", |root, path, bytes| {
        // FAULTS 23
        fs::rename(root.join("deploy/current"), root.join("deploy/gone")).unwrap();
        fs::create_dir_all(root.join("deploy/current/lib")).unwrap();
        copy_over(path, bytes);
    }),
];

#[test]
fn every_way_a_build_can_land_is_brought_in_by_one_restart() {
    // FAULTS 18 and 23. One after the other under one master, so that a watch that is lost is noticed.
    let host = Host::misbehaving();
    let path = host.path("deploy/current/lib/app.so");
    fs::create_dir_all(host.path("releases/1/lib")).unwrap();
    fs::create_dir_all(host.path("deploy")).unwrap();
    symlink("../releases/1", host.path("deploy/current")).unwrap();
    fs::write(&path, fresh()).unwrap();
    let host = settled(
        host.with("/watch", true).with("/app/library", "deploy/current/lib/app.so").with("/restart/probation", "0s"),
    );
    for (name, land) in WAYS {
        eprintln!("{name}");
        let mark = host.mark();
        let bytes = fresh();
        land(host.directory(), &path, &bytes);
        is_brought_in(&host, mark, &bytes);
        has_looked(&host);
        assert_eq!(requests_since(&host, mark).len(), 1, "{name}");
    }
}

#[test]
fn half_written_library_is_waited_for_and_a_signal_refuses_it() {
    // FAULTS 18
    let host = settled(watching());
    let bytes = fresh();
    let mark = host.mark();
    let mut file = File::create(host.library_path()).unwrap();
    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    host.wait_after(mark, said::LIBRARY_SEEN, |line| line.str("version").is_empty());
    has_looked(&host);
    assert!(requests_since(&host, mark).is_empty(), "half a library asks for nothing");
    host.restart_is_refused("bad artifact");
    let mark = host.mark();
    // All but the last byte that a loader needs, which is before those that make it fresh.
    file.write_all(&bytes[bytes.len() / 2..bytes.len() - 17]).unwrap();
    has_looked(&host);
    assert!(requests_since(&host, mark).is_empty());
    file.write_all(&bytes[bytes.len() - 17..]).unwrap();
    is_brought_in(&host, mark, &bytes);
}

#[test]
fn storm_of_500_events_a_second_ends_in_one_restart_of_the_last_build() {
    // FAULTS 22
    let host = settled(watching());
    let path = host.library_path();
    let bytes = fresh();
    host.wait("a storm without a lull", || {
        let mark = host.mark();
        let whole = |number: u32| [&bytes[..], &number.to_le_bytes(), &mark.to_le_bytes()].concat();
        let mut longest = Duration::ZERO;
        let begin = Instant::now();
        for number in 0..=1_000 {
            let event = Instant::now();
            match number % 20 {
                // Whole builds and half ones, touches, and strangers beside it.
                0 => {
                    fs::write(path.with_extension("new"), whole(number)).unwrap();
                    fs::rename(path.with_extension("new"), &path).unwrap();
                }
                10 => File::options().write(true).open(&path).unwrap().set_len(bytes.len() as u64 / 2).unwrap(),
                odd if odd % 2 == 1 => fs::write(path.with_file_name("stranger"), "x").unwrap(),
                _ => File::options().append(true).open(&path).unwrap().set_modified(SystemTime::now()).unwrap(),
            }
            while begin.elapsed() < Duration::from_millis(2) * number {
                pause();
            }
            longest = longest.max(event.elapsed());
        }
        is_brought_in(&host, mark, &whole(1_000));
        has_looked(&host);
        let requests = requests_since(&host, mark).len();
        eprintln!("{requests} requests, longest pause {longest:?}, {:?} in all", begin.elapsed());
        // On a busy machine the storm itself may fall asleep, and then what lies there is quiet.
        let had_a_lull = longest > QUIET * 4 / 5;
        assert!(requests == 1 || had_a_lull, "{requests} requests, longest pause {longest:?}");
        (!had_a_lull).then_some(())
    });
}

#[test]
fn build_that_lands_during_a_roll_is_refused_as_in_flight_and_brought_in_after_it() {
    // FAULTS 22
    let mut host = settled(watching());
    host.set("/app/config", json!({ "start_ms": 800 }));
    let mark = host.mark();
    let (first, second, third) = (fresh(), fresh(), fresh());
    host.install_bytes(&first);
    host.wait_after(mark, said::WORKER_SPAWNED, |_| true);
    host.install_bytes(&second);
    is_refused(&host, mark, "restart in flight");
    // The one that waits is the newest there is; to say once that it waits is enough.
    host.install_bytes(&third);
    is_brought_in(&host, mark, &third);
    has_looked(&host);
    let verdicts: Vec<_> = (1..=3).map(|request| host.verdict(request).verdict).collect();
    assert_eq!(verdicts, ["complete", "refused: restart in flight", "complete"]);
    assert_eq!(requests_since(&host, mark).len(), 3);
    assert!(version_is(&host, host.verdict(1).line.str("version"), &first));
}

#[test]
fn build_that_lands_during_an_operators_roll_is_brought_in_after_it() {
    // FAULTS 22
    let mut host = settled(watching());
    host.set("/app/config", json!({ "start_ms": 800 }));
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::WORKER_SPAWNED, |_| true);
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, mark, "restart in flight");
    is_brought_in(&host, mark, &bytes);
    assert_eq!(host.verdict(1).line.str("by"), "SIGUSR2");
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn build_that_lands_while_the_first_workers_start_is_brought_in_after_it() {
    // FAULTS 2 and 22
    let host = watching().with("/app/config", json!({ "start_ms": 1_200 }));
    host.spawn();
    host.wait_for(said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, 0, "starting");
    is_brought_in(&host, 0, &bytes);
}

#[test]
fn build_refused_for_the_databank_is_brought_in_once_that_is_back() {
    // FAULTS 22
    let host = Host::misbehaving().with("/databank", json!({ "driver": "sqlite", "path": "data/store.sqlite" }));
    let host = settled(host.with("/watch", true));
    let (store, aside) = (host.path("data/store.sqlite"), host.path("data/aside"));
    fs::rename(&store, &aside).unwrap();
    fs::create_dir(&store).unwrap();
    let mark = host.mark();
    let bytes = fresh();
    host.install_bytes(&bytes);
    let refused = is_refused(&host, mark, "databank unreachable");
    // Again, and again, each time later.
    let again = host.mark();
    is_refused(&host, again, "databank unreachable");
    let times: Vec<_> = requests_since(&host, mark).iter().filter_map(Line::seconds).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] > 0.2), "{times:?} after {}", refused.text());
    fs::remove_dir(&store).unwrap();
    fs::rename(aside, store).unwrap();
    is_brought_in(&host, mark, &bytes);
    has_looked(&host);
    let verdicts = host.lines_with(said::RESTART_COMPLETE);
    assert_eq!(verdicts.len(), 1);
}

#[test]
fn build_refused_for_what_it_is_is_not_tried_again_until_it_changes() {
    let host = settled(watching());
    for (app, reason) in [("no_manifest", "bad artifact"), ("epoch_two", "incompatibility")] {
        let mark = host.mark();
        host.install(&App::build().app(app));
        is_refused(&host, mark, reason);
        // Touched, moved away and back, and looked at for longer than the first pauses.
        File::options().append(true).open(host.library_path()).unwrap().set_modified(SystemTime::now()).unwrap();
        has_looked(&host);
        fs::rename(host.library_path(), host.path("aside")).unwrap();
        host.wait_after(mark, said::LIBRARY_SEEN, |line| line.str("version").is_empty());
        fs::rename(host.path("aside"), host.library_path()).unwrap();
        stall(Duration::from_millis(1_200));
        has_looked(&host);
        assert_eq!(requests_since(&host, mark).len(), 1, "{app}");
        let mark = host.mark();
        let bytes = fresh();
        host.install_bytes(&bytes);
        is_brought_in(&host, mark, &bytes);
        assert_eq!(requests_since(&host, mark).len(), 1, "{app}");
    }
    let mark = host.mark();
    host.install_bytes(b"#!/bin/sh\nexit 0\n");
    is_refused(&host, mark, "bad artifact");
}

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

fn watcher_threads(host: &Host) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", host.master())).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name == "watcher" || name.contains("notify")).collect()
}

#[test]
fn nothing_is_watched_unless_it_is_asked_for_and_a_restart_changes_that() {
    let mut host = Host::misbehaving().start();
    host.install_bytes(&fresh());
    assert_eq!(watcher_threads(&host), [""; 0], "nobody looks");
    host.restart_completes();
    assert_eq!(host.verdict(1).line.str("by"), "SIGUSR2");
    let mark = host.mark();
    host.set("/watch", true);
    host.restart_completes();
    host.wait_after(mark, said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_brought_in(&host, mark, &bytes);
    let descriptors = process::descriptors(host.master()).len();
    host.set("/watch", false);
    host.restart_completes();
    host.wait_after(mark, said::NOTHING_WATCHED, |_| true);
    host.wait("the end of the watcher", || watcher_threads(&host).is_empty().then_some(()));
    host.wait("the end of its descriptors", || (process::descriptors(host.master()).len() < descriptors).then_some(()));
    let mark = host.mark();
    host.install_bytes(&fresh());
    // A restart that is asked for later finds it, and nobody has asked before.
    host.restart_completes();
    assert_eq!(requests_since(&host, mark).len(), 1);
}

#[test]
fn another_path_is_watched_once_it_is_configured() {
    let mut host = settled(watching());
    let elsewhere = host.path("elsewhere/app.so");
    fs::create_dir(host.path("elsewhere")).unwrap();
    fs::write(&elsewhere, fresh()).unwrap();
    let old = host.library_path();
    host.set("/app/library", "elsewhere/app.so");
    let mark = host.mark();
    host.restart_completes();
    host.wait_after(mark, said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    let mark = host.mark();
    fs::write(old, fresh()).unwrap();
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_brought_in(&host, mark, &bytes);
    has_looked(&host);
    assert_eq!(requests_since(&host, mark).len(), 1);
}

#[test]
fn configuration_is_watched_where_that_is_asked_for() {
    let mut host = settled(Host::misbehaving().with("/watch", json!({ "config": true })));
    let mark = host.mark();
    host.set("/app/config", json!({ "marker": "two" }));
    assert_eq!(verdict_since(&host, mark).str("verdict"), "complete");
    assert!(host.get("/whoami").contains("\"two\""));
    // One that isn't valid is refused once, and is tried again when it changes.
    let mark = host.mark();
    host.write_config(b"{");
    is_refused(&host, mark, "bad config");
    stall(Duration::from_millis(1_200));
    has_looked(&host);
    assert_eq!(requests_since(&host, mark).len(), 1);
    let mark = host.mark();
    host.set("/app/config", json!({ "marker": "three" }));
    assert_eq!(verdict_since(&host, mark).str("verdict"), "complete");
    assert!(host.get("/whoami").contains("\"three\""));
    // What is active by now asks for nothing.
    let mark = host.mark();
    host.restore_config();
    has_looked(&host);
    assert!(requests_since(&host, mark).is_empty());
}

#[test]
fn configuration_that_is_not_watched_asks_for_nothing_but_lets_a_refused_build_in_when_it_is_mended() {
    let mut host = settled(watching());
    let mark = host.mark();
    host.set("/app/config", json!({ "marker": "two" }));
    has_looked(&host);
    assert!(requests_since(&host, mark).is_empty());
    host.write_config(b"{");
    has_looked(&host);
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, mark, "bad config");
    host.restore_config();
    is_brought_in(&host, mark, &bytes);
    assert!(host.get("/whoami").contains("\"two\""));
}

#[test]
fn build_refused_for_a_listener_is_brought_in_once_that_can_be_bound() {
    // FAULTS 22
    let mut host = settled(watching());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set("/listen", json!(["127.0.0.1:0", taken.local_addr().unwrap().to_string()]));
    let mark = host.mark();
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, mark, "cannot bind");
    drop(taken);
    is_brought_in(&host, mark, &bytes);
}

#[test]
fn locked_master_watches_nothing_any_more() {
    let mut host = settled(watching());
    host.set("/app/config", json!({ "on_start": "error" }));
    let mark = host.mark();
    host.install_bytes(&fresh());
    assert_eq!(verdict_since(&host, mark).str("verdict"), "failed: app failed to start");
    host.wait_after(mark, said::NOTHING_WATCHED, |_| true);
    host.wait("the end of the watcher", || watcher_threads(&host).is_empty().then_some(()));
    host.set("/app/config", json!({}));
    host.install_bytes(&fresh());
    assert_eq!(host.restart().verdict, "refused: aborted restart");
    assert_eq!(requests_since(&host, mark).len(), 2, "the operator's is the second");
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

#[test]
fn workers_inherit_nothing_of_the_watcher() {
    let host = settled(watching());
    let mark = host.mark();
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_brought_in(&host, mark, &bytes);
    let is_inotify = |(_, target): &(u32, PathBuf)| target.to_string_lossy().contains("inotify");
    assert!(process::descriptors(host.master()).iter().any(&is_inotify));
    for worker in host.workers() {
        assert!(!process::descriptors(worker).iter().any(&is_inotify), "{worker}");
    }
    host.stop();
}
