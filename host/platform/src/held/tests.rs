use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn what_is_missing_is_made_with_its_mode_and_what_is_there_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/c");
    let mut finished = 0;
    for _ in 0..2 {
        let held = make_path(&path, Mode::S_IRWXU, PathTrust::Any, |_| {
            finished += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(permissions(&held.stat().unwrap()), Mode::S_IRWXU);
    }
    assert_eq!(finished, 1);
    assert_eq!(fs::metadata(directory.path().join("a/b")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_held_directory_is_the_same_after_its_name_has_become_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let (real, moved, other) =
        (directory.path().join("real"), directory.path().join("moved"), directory.path().join("other"));
    fs::create_dir(&real).unwrap();
    fs::create_dir(&other).unwrap();
    let held = Directory::open(&real).unwrap();
    fs::rename(&real, &moved).unwrap();
    symlink(&other, &real).unwrap();
    fs::write(held.at("file"), "mine").unwrap();
    assert!(moved.join("file").exists() && !other.join("file").exists());
    let (parent, name) = Directory::of(&real).unwrap();
    assert!(parent.enter(name).is_err(), "a link is not entered");
    symlink("/etc/passwd", moved.join("link")).unwrap();
    assert!(held.open_file(OsStr::new("link"), OFlag::O_RDONLY, Mode::empty()).is_err());
}

#[test]
fn a_directory_that_others_may_write_to_is_not_ours() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mode = Mode::from_bits_truncate(0o755);
    let held = own(&path, mode, PathTrust::Required).unwrap();
    held.own("versions", mode).unwrap();
    for others in [0o775, 0o757, 0o1777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(others)).unwrap();
        let expected = |error| matches!(error, OwnError::Mode { .. } | OwnError::Path(UntrustedPath::Mode { .. }));
        assert!(own(&path, mode, PathTrust::Required).is_err_and(expected), "{others:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    own(&path, mode, PathTrust::Required).unwrap();
    fs::set_permissions(path.join("versions"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(held.own("versions", mode), Err(OwnError::Mode { .. })));
    symlink(directory.path(), path.join("locks")).unwrap();
    assert!(held.own("locks", mode).is_err(), "a link is not entered");
    if Uid::effective().is_root() {
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        assert!(own(&path, mode, PathTrust::Required).is_err());
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        std::os::unix::fs::chown(directory.path(), Some(12345), None).unwrap();
        assert!(matches!(own(&path, mode, PathTrust::Required), Err(OwnError::Path(UntrustedPath::Owner { .. }))));
        own(&path, mode, PathTrust::Any).unwrap();
    }
}

#[test]
fn nothing_of_anybodys_is_given_away_by_a_race_for_the_name_of_what_is_made() {
    if !Uid::effective().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (theirs, precious) = (directory.path().join("theirs"), directory.path().join("precious"));
    for path in [&theirs, &precious] {
        fs::create_dir(path).unwrap();
    }
    fs::write(precious.join("file"), "").unwrap();
    let (path, aside) = (theirs.join("data"), theirs.join("aside"));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // As the owner of `theirs` could at any moment.
                if fs::rename(&path, &aside).is_ok() {
                    let _ = symlink(&precious, &path);
                }
            }
        });
        for _ in 0..2000 {
            let _ = make_path(&path, Mode::S_IRWXU, PathTrust::Any, |made| {
                made.give_to(Uid::from_raw(12345), Gid::from_raw(12345))
            });
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir(&path);
            let _ = fs::remove_dir(&aside);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let found = fs::metadata(&precious).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o755));
}

#[test]
fn a_link_to_nowhere_is_not_made_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("link");
    symlink(directory.path().join("target"), &path).unwrap();
    assert!(make_path(&path, Mode::S_IRWXU, PathTrust::Any, |_| Ok(())).is_err());
    assert!(!directory.path().join("target").exists());
}
