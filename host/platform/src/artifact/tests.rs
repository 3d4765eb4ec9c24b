use super::*;

/// A library that is there on every machine that runs the tests: no app, but a complete file.
fn some_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("libc.so")).expect("tests link libc");
    PathBuf::from(&line[line.find('/').unwrap()..])
}

fn store(directory: &Path) -> Store {
    Store::open(directory.to_owned(), Directory::open(directory).unwrap()).unwrap()
}

#[test]
fn what_is_no_regular_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let versions = tempfile::tempdir().unwrap();
    let store = store(versions.path());
    let path = |name: &str| directory.path().join(name);
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink(path("loop"), path("loop")).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("text"), "#!/bin/sh\n".repeat(100)).unwrap();
    for (name, expected) in [
        ("", "is a directory"),
        ("fifo", "is a special file"),
        ("loop", "can't be read: Too many levels of symbolic links"),
        ("missing", "can't be read: No such file"),
        ("empty", "no ELF file"),
        ("text", "no ELF file"),
    ] {
        let error = anyhow::Error::new(store.admit(&path(name)).unwrap_err());
        assert!(format!("{error:#}").contains(expected), "{name}: {error:#}");
    }
    assert_eq!(fs::read_dir(versions.path()).unwrap().count(), 0, "no copy remains");
}

#[test]
fn a_store_that_was_removed_is_named_and_what_to_do() {
    let outer = tempfile::tempdir().unwrap();
    let versions = outer.path().join("versions");
    fs::create_dir(&versions).unwrap();
    let store = store(&versions);
    fs::remove_dir(&versions).unwrap();
    let error = anyhow::Error::new(store.admit(&some_library()).unwrap_err());
    let said = format!(
        "{} was removed under the master that uses it; restart the master, which makes it anew",
        versions.display()
    );
    assert_eq!(format!("{error:#}"), said);
}

#[test]
fn every_truncation_of_a_library_is_refused() {
    let versions = tempfile::tempdir().unwrap();
    let store = store(versions.path());
    let whole = fs::read(some_library()).unwrap();
    let path = versions.path().join("cut");
    for length in (0..whole.len()).step_by(whole.len() / 97).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = anyhow::Error::new(store.admit(&path).unwrap_err());
        let text = format!("{error:#}");
        assert!(text.contains("truncated") || text.contains("no ELF file"), "{length}: {text}");
    }
    fs::write(&path, &whole).unwrap();
    let error = anyhow::Error::new(store.admit(&path).unwrap_err());
    assert!(format!("{error:#}").contains("no app-abi manifest"), "{error:#}");
}

#[test]
fn a_library_that_grows_is_partial_until_its_last_byte() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(some_library()).unwrap();
    let path = directory.path().join("grows");
    for length in (0..whole.len()).step_by(whole.len() / 97).chain(0..70).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(look(&path).unwrap(), Look::Partial, "{length} bytes");
    }
    // Its size first, its bytes later.
    File::create(&path).unwrap().set_len(whole.len() as u64).unwrap();
    assert_eq!(look(&path).unwrap(), Look::Partial);
    fs::write(&path, &whole).unwrap();
    let Look::Whole(id) = look(&path).unwrap() else { panic!("it is whole") };
    Loadable::new(File::open(&path).unwrap().into(), &path).verify(id).unwrap();
}

#[test]
fn what_no_growth_makes_a_library_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text");
    for text in ["#!/bin/sh\n", "x", "\u{7f}ELG"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(look(&path).unwrap(), Look::Whole(_)), "{text:?}");
    }
}

#[test]
fn pruning_keeps_what_it_is_told_to_and_what_is_no_version() {
    let versions = tempfile::tempdir().unwrap();
    let store = store(versions.path());
    let id = |n: u8| VersionId::from_digest([n; 32]);
    for n in 0..10 {
        fs::write(store.path(id(n)), [n]).unwrap();
    }
    fs::write(versions.path().join("foreign"), "").unwrap();
    store.prune(&HashSet::from([id(0), id(9)])).unwrap();
    let left: Vec<u8> = (0..10).filter(|n| store.path(id(*n)).exists()).collect();
    assert_eq!(left, [0, 9]);
    assert!(versions.path().join("foreign").exists());
}
