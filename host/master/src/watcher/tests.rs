//! The watcher with real files, by events and by polling alone.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use app_host_platform::artifact::{Look, look};

use super::*;

/// Far more than any look needs.
const DEADLINE: Duration = Duration::from_secs(20);

/// A watcher of `library` and `config` in a directory two below a temporary one.
struct Bench {
    root: TempDir,
    runtime: tokio::runtime::Runtime,
    watcher: Watcher,
}

impl Bench {
    fn new(mode: WatchMode) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("parent/child");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("library"), "version 0").unwrap();
        fs::write(directory.join("config"), "{}").unwrap();
        let targets = Targets {
            library: Some(directory.join("library")),
            config: directory.join("config"),
            certificates: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let watcher = Watcher::start(&targets, mode).unwrap();
        let mut bench = Self { root, runtime, watcher };
        let first = [bench.next(), bench.next()];
        assert!(first.contains(&bench.library()), "{first:?}");
        assert!(matches!(first[1], FileSeen::Config(Some(_))), "{first:?}");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("parent/child").join(name)
    }

    fn next(&mut self) -> FileSeen {
        let next = async { tokio::time::timeout(DEADLINE, self.watcher.next()).await };
        self.runtime.block_on(next).expect("something is to be seen").expect("the watcher lives")
    }

    /// What lies at the library's path.
    fn library(&self) -> FileSeen {
        match look(&self.path("library")).unwrap() {
            Look::Whole(version) => FileSeen::Library(Some(version)),
            Look::Partial => FileSeen::Library(None),
        }
    }

    /// Waits until the watcher says what really lies there.
    fn sees_the_library(&mut self) {
        let expected = self.library();
        while self.next() != expected {}
    }

    /// Whatever was done before this, the watcher says nothing of the library.
    fn sees_nothing_but(&mut self, mark: &str) {
        fs::write(self.path("config"), mark).unwrap();
        let first = self.next();
        assert_eq!(first, FileSeen::Config(None));
        assert!(matches!(self.next(), FileSeen::Config(Some(_))));
    }
}

/// A way in which a file can land.
type Land = fn(&Bench, text: &str);

const WAYS: [(&str, Land); 10] = [
    ("written in place", |bench, text| fs::write(bench.path("library"), text).unwrap()),
    ("renamed over", |bench, text| {
        fs::write(bench.path("new"), text).unwrap();
        fs::rename(bench.path("new"), bench.path("library")).unwrap();
    }),
    ("unlinked, then hard-linked", |bench, text| {
        let built = bench.root.path().join(format!("built {text}"));
        fs::write(&built, text).unwrap();
        fs::remove_file(bench.path("library")).unwrap();
        fs::hard_link(built, bench.path("library")).unwrap();
    }),
    ("written to through another name", |bench, text| {
        fs::hard_link(bench.path("library"), bench.path(text)).unwrap();
        fs::write(bench.path(text), format!("{text} of the same file")).unwrap();
    }),
    ("a symbolic link swapped for it", |bench, text| {
        let target = bench.root.path().join(text);
        fs::write(&target, text).unwrap();
        symlink(target, bench.path("link")).unwrap();
        fs::rename(bench.path("link"), bench.path("library")).unwrap();
    }),
    ("the target of a link written to", |bench, text| {
        let target = bench.root.path().join("target");
        fs::write(&target, format!("before {text}")).unwrap();
        symlink("../../target", bench.path("link")).unwrap();
        fs::rename(bench.path("link"), bench.path("library")).unwrap();
        fs::write(target, text).unwrap();
    }),
    ("its directory replaced", |bench, text| {
        let new = bench.root.path().join("new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("library"), text).unwrap();
        fs::copy(bench.path("config"), new.join("config")).unwrap();
        fs::rename(bench.path(""), bench.root.path().join(format!("old {text}"))).unwrap();
        fs::rename(new, bench.path("")).unwrap();
    }),
    ("the directory above replaced", |bench, text| {
        let parent = bench.root.path().join("parent");
        fs::rename(&parent, bench.root.path().join(format!("old parent {text}"))).unwrap();
        fs::create_dir_all(parent.join("child")).unwrap();
        fs::write(bench.path("config"), "{}").unwrap();
        fs::write(bench.path("library"), text).unwrap();
    }),
    ("its directory swapped for a link", |bench, text| {
        let elsewhere = bench.root.path().join(format!("elsewhere {text}"));
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("library"), text).unwrap();
        fs::copy(bench.path("config"), elsewhere.join("config")).unwrap();
        fs::remove_dir_all(bench.root.path().join("parent/child")).unwrap();
        symlink(elsewhere, bench.root.path().join("parent/child")).unwrap();
    }),
    ("written in place again", |bench, text| fs::write(bench.path("library"), text).unwrap()),
];

#[test]
fn every_way_to_land_is_seen_by_events_and_by_polling() {
    for mode in [WatchMode::Events, WatchMode::PollAlone] {
        let mut bench = Bench::new(mode);
        // Each in the directory that the one before has left, so that a watch that is lost is noticed.
        for (number, (name, land)) in WAYS.iter().enumerate() {
            eprintln!("{mode:?}: {name}");
            land(&bench, &format!("version {}", number + 1));
            bench.sees_the_library();
        }
    }
}

#[test]
fn unchanged_bytes_are_said_to_be_what_they_were() {
    let mut bench = Bench::new(WatchMode::Events);
    let known = bench.library();
    let file = fs::File::options().append(true).open(bench.path("library")).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    assert_eq!([bench.next(), bench.next()], [FileSeen::Library(None), known]);
    // To read it is no change, nor is anything that happens beside it.
    fs::read(bench.path("library")).unwrap();
    fs::write(bench.path("other"), "x").unwrap();
    bench.sees_nothing_but("mark");
}

#[test]
fn what_is_gone_or_no_file_is_nothing_until_it_is_back() {
    for mode in [WatchMode::Events, WatchMode::PollAlone] {
        let mut bench = Bench::new(mode);
        fs::remove_file(bench.path("library")).unwrap();
        assert_eq!(bench.next(), FileSeen::Library(None));
        let path = bench.path("library");
        fs::create_dir(&path).unwrap();
        bench.sees_nothing_but("a directory");
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        bench.sees_nothing_but("a FIFO");
        fs::remove_file(&path).unwrap();
        symlink(&path, &path).unwrap();
        bench.sees_nothing_but("a loop");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "back").unwrap();
        bench.sees_the_library();
    }
}

#[test]
fn a_way_is_walked_as_the_kernel_does() {
    let root = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(root.path()).unwrap();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir_all(root.join("c/d")).unwrap();
    fs::write(root.join("c/file"), "").unwrap();
    symlink(root.join("c/d"), root.join("a/b/link")).unwrap();
    // Behind the link, `..` is c, and not a/b.
    symlink("../file", root.join("c/d/library")).unwrap();
    let way = PathChain::to(&root.join("a/./b/link/library"));
    assert_eq!(way.end(), Some("file".as_ref()));
    let below: Vec<_> = way.directories().filter_map(|path| path.strip_prefix(&root).ok()).collect();
    let walked = ["", "a", "a/b", "", "c", "c/d", "c"].map(Path::new);
    assert_eq!(below, walked);
    // As far as it leads.
    let way = PathChain::to(&root.join("a/missing/library"));
    assert_eq!((way.end(), way.directories().last()), (Some("missing".as_ref()), Some(root.join("a").as_path())));
    // And not for ever.
    symlink("loop", root.join("loop")).unwrap();
    assert!(PathChain::to(&root.join("loop/library")).directories().count() < 100);
}

#[test]
fn the_thread_ends_with_its_handle() {
    let bench = Bench::new(WatchMode::Events);
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "watcher").count()
    };
    // Other tests have theirs, but not as many.
    let root = tempfile::tempdir().unwrap();
    let targets = Targets { library: None, config: root.path().join("config"), certificates: Vec::new() };
    let many = (0..20).map(|_| Watcher::start(&targets, WatchMode::Events).unwrap()).collect::<Vec<_>>();
    let wait_until = |condition: &dyn Fn(usize) -> bool| {
        let begin = Instant::now();
        while !condition(threads()) {
            assert!(begin.elapsed() < DEADLINE, "there are {} threads", threads());
            std::thread::yield_now();
        }
    };
    // A thread gives itself its name.
    wait_until(&|threads| threads >= many.len());
    drop(many);
    wait_until(&|threads| threads < 20);
    drop(bench);
}
