//! The sources: what has changed since somebody last looked.
//!
//! Owns the list of files that count: those below the crates' directories that git doesn't ignore, and
//! a few more by name. Events of the file system only say when to look; what has changed is found by
//! comparing two looks. So nothing is missed that comes in an unusual way, and nothing is reported that
//! only was read. What the service itself writes is left out by [`written`](super::written).

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use ignore::WalkBuilder;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::written::Written;

/// How long it must be quiet before a change counts: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(15);

/// How long is waited for quiet at most.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// How often is looked where no event comes: some file systems have none.
const POLL: Duration = Duration::from_secs(2);

/// What is watched.
#[derive(Debug)]
pub struct Watched {
    pub directories: Vec<PathBuf>,
    pub files: Vec<PathBuf>,
    /// Not these, nor what is below them.
    pub without: Vec<PathBuf>,
}

/// What has changed.
#[derive(Debug)]
pub struct Change {
    pub paths: Vec<PathBuf>,
    /// When the first sign of it came.
    pub at: Instant,
}

impl Change {
    /// What is left of it without a file, if anything is.
    pub fn without(mut self, file: &Path) -> Option<Self> {
        self.paths.retain(|path| path != file);
        (!self.paths.is_empty()).then_some(self)
    }

    /// Both of them.
    pub fn and(mut self, later: Self) -> Self {
        self.paths.extend(later.paths.into_iter().filter(|path| !self.paths.contains(path)).collect::<Vec<_>>());
        self
    }
}

/// What is known of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    modified: Option<SystemTime>,
    length: u64,
}

impl Look {
    /// At a file, if it is there.
    pub fn at(path: &Path) -> Option<Self> {
        path.metadata().ok().as_ref().map(Self::from)
    }
}

impl From<&Metadata> for Look {
    fn from(metadata: &Metadata) -> Self {
        Self { modified: metadata.modified().ok(), length: metadata.len() }
    }
}

/// Tells `on_change` of changes, on a thread of its own, until it says that nobody listens any more.
///
/// # Errors
/// When the system gives no watch.
pub fn watch(
    watched: Watched,
    mut written: Written,
    mut on_change: impl FnMut(Change) -> bool + Send + 'static,
) -> io::Result<()> {
    // One waiting sign is enough: what it stands for is looked up.
    let (sign, signs) = sync_channel(1);
    let mut events = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        let _ = sign.try_send(());
    })
    .map_err(io::Error::other)?;
    let mut known = look(&watched, Some(&mut events));
    std::thread::Builder::new().name("sources".to_owned()).spawn(move || {
        while let Some(at) = next(&signs) {
            let now = look(&watched, Some(&mut events));
            let mut paths = difference(&known, &now);
            known = now;
            written.leave_out(&mut paths);
            if !paths.is_empty() && !on_change(Change { paths, at }) {
                return;
            }
        }
    })?;
    Ok(())
}

/// Waits until it is time to look; says since when. None when there are no events any more.
fn next(signs: &Receiver<()>) -> Option<Instant> {
    match signs.recv_timeout(POLL) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => return Some(Instant::now()),
        Err(RecvTimeoutError::Disconnected) => return None,
    }
    let at = Instant::now();
    while at.elapsed() < SETTLE_TIME {
        match signs.recv_timeout(QUIET) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    Some(at)
}

/// Every file that counts. Each directory on the way is watched from now on.
fn look(watched: &Watched, mut events: Option<&mut RecommendedWatcher>) -> HashMap<PathBuf, Look> {
    let mut found = HashMap::new();
    for directory in &watched.directories {
        let without = watched.without.clone();
        let mut walk = WalkBuilder::new(directory);
        // A crate needn't be in a repository for its .gitignore to be meant.
        walk.require_git(false).filter_entry(move |entry| !without.iter().any(|path| entry.path() == path));
        for entry in walk.build().flatten() {
            // What has gone meanwhile isn't there.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                if let Some(events) = &mut events {
                    // Watched already, or gone: the poll is there for all else.
                    let _ = events.watch(entry.path(), RecursiveMode::NonRecursive);
                }
            } else {
                found.insert(entry.into_path(), Look::from(&metadata));
            }
        }
    }
    for file in &watched.files {
        if let Some(look) = Look::at(file) {
            found.insert(file.clone(), look);
        }
    }
    found
}

fn difference(before: &HashMap<PathBuf, Look>, now: &HashMap<PathBuf, Look>) -> Vec<PathBuf> {
    let changed = now.iter().filter(|(path, look)| before.get(*path) != Some(look)).map(|(path, _)| path);
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    let mut paths: Vec<_> = changed.chain(gone).cloned().collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use super::super::written::Served;
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn every_way_to_save_counts_and_what_git_ignores_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        write(&path("src/lib.rs"), "1");
        write(&path(".gitignore"), "/out\n*.log\n");
        write(&path("src/.gitignore"), "made.rs\n");
        write(&path("target/debug/x"), "1");
        let (sender, changes) = channel();
        let watched = Watched {
            directories: vec![directory.path().to_owned()],
            files: vec![],
            without: vec![path("target"), path("state")],
        };
        watch(watched, Written::new(Served::default()), move |change| sender.send(change.paths).is_ok()).unwrap();
        let next_change = || changes.recv_timeout(Duration::from_secs(20)).expect("a change is seen");

        write(&path("src/lib.rs"), "22");
        assert_eq!(next_change(), [path("src/lib.rs")]);
        write(&path("src/new/mod.rs"), "1");
        assert_eq!(next_change(), [path("src/new/mod.rs")]);
        // In a directory that wasn't there before.
        write(&path("src/new/mod.rs"), "22");
        assert_eq!(next_change(), [path("src/new/mod.rs")]);
        write(&path("swap"), "333");
        assert_eq!(next_change(), [path("swap")]);
        fs::rename(path("swap"), path("src/lib.rs")).unwrap();
        assert_eq!(next_change(), [path("src/lib.rs"), path("swap")]);
        fs::remove_file(path("src/new/mod.rs")).unwrap();
        assert_eq!(next_change(), [path("src/new/mod.rs")]);

        for ignored in ["out/x", "a.log", "src/made.rs", "target/debug/x", "state/data", ".hidden"] {
            write(&path(ignored), "4444");
        }
        let _ = fs::read(path("src/lib.rs")).unwrap();
        write(&path("src/last.rs"), "1");
        assert_eq!(next_change(), [path("src/last.rs")], "nothing else was reported before");
    }
}
