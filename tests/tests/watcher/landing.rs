//! However a build lands, and however long that takes, it is brought in by one restart.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use app_host_tests::host::pause;
use app_host_tests::{Host, said};

use super::{copy_over, fresh, has_looked, is_brought_in, requests_since, settled, stall, watching};

/// How long a file must have been left alone before the watcher reads it.
const QUIET: Duration = Duration::from_millis(50);

/// Longer than any file is left alone in a copy that goes on.
const STALL: Duration = Duration::from_millis(150);

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
