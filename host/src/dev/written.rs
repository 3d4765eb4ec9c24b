//! What is written while an app runs, and is therefore no source of it.
//!
//! Owns the question whether a file that has changed is to be left out: it is where our own output goes to, somebody
//! of the service holds it open for writing, or it is a database of SQLite or a file beside one. What has once been left
//! out stays so. A file that the app opens, writes and closes can't be told from one that an editor saves: for
//! that there is `.gitignore`.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::unistd::Pid;

use super::processes;

/// What SQLite writes beside a database (<https://sqlite.org/tempfiles.html>).
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What a database of SQLite begins with (<https://sqlite.org/fileformat.html>).
const HEADER: &[u8; 16] = b"SQLite format 3\0";

/// More files than any app keeps in its directory are not remembered.
const MAX_KNOWN: usize = 4096;

/// A file, whatever it is called.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The master that runs, if one does.
#[derive(Clone, Debug, Default)]
pub struct Served(Arc<AtomicI32>);

impl Served {
    pub fn set(&self, master: Pid) {
        self.0.store(master.as_raw(), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Pid> {
        Some(self.0.load(Ordering::Relaxed)).filter(|pid| *pid > 0).map(Pid::from_raw)
    }
}

/// What is left out. See the module.
#[derive(Debug)]
pub struct Written {
    output: Vec<Identity>,
    served: Served,
    known: HashSet<PathBuf>,
}

impl Written {
    pub fn new(served: Served) -> Self {
        let of = |stream: &dyn AsFd| {
            let file = File::from(stream.as_fd().try_clone_to_owned().ok()?);
            file.metadata().ok().filter(Metadata::is_file).as_ref().map(identity)
        };
        let output = [of(&io::stdout()), of(&io::stderr())].into_iter().flatten().collect();
        Self { output, served, known: HashSet::new() }
    }

    /// Leaves out of files that have changed those that are only written.
    pub fn leave_out(&mut self, changed: &mut Vec<PathBuf>) {
        if changed.is_empty() {
            return;
        }
        let held = self.served.get().map(held_by).unwrap_or_default();
        changed.retain(|path| {
            let is_written = self.known.contains(path) || self.is_written(path, &held) || is_databank(path);
            if is_written && self.known.len() < MAX_KNOWN {
                self.known.insert(path.clone());
            }
            !is_written
        });
    }

    fn is_written(&self, path: &Path, held: &HashSet<Identity>) -> bool {
        let Ok(metadata) = fs::metadata(path) else { return false };
        let identity = identity(&metadata);
        self.output.contains(&identity) || held.contains(&identity)
    }
}

/// The regular files that a process, and those that came of it, have open for writing.
fn held_by(master: Pid) -> HashSet<Identity> {
    let descriptors = |pid: Pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let opened = processes::family(master).into_iter().flat_map(descriptors).filter_map(|entry| {
        // The link's own mode says how the file was opened (`proc(5)`).
        let writes = entry.metadata().is_ok_and(|link| link.mode() & 0o200 != 0);
        writes.then(|| fs::metadata(entry.path()).ok()).flatten()
    });
    opened.filter(Metadata::is_file).map(|metadata| identity(&metadata)).collect()
}

/// Whether a file is a database of SQLite, or one that SQLite keeps beside it.
fn is_databank(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    if let Some(base) = BESIDE.iter().find_map(|end| name.strip_suffix(end)) {
        return path.with_file_name(base).is_file();
    }
    let begins = || {
        let mut begin = [0; HEADER.len()];
        File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == *HEADER
    };
    BESIDE.iter().any(|end| path.with_file_name(format!("{name}{end}")).is_file()) || begins()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    const NOTHING: [PathBuf; 0] = [];

    fn left(written: &mut Written, paths: &[&Path]) -> Vec<PathBuf> {
        let mut changed = paths.iter().map(|path| path.to_path_buf()).collect();
        written.leave_out(&mut changed);
        changed
    }

    #[test]
    fn what_a_process_of_the_service_holds_open_for_writing_is_left_out_then_and_later() {
        let directory = tempfile::tempdir().unwrap();
        let [log, source] = ["app.log", "lib.rs"].map(|name| directory.path().join(name));
        fs::write(&source, "1").unwrap();
        let (file, _read) = (File::create(&log).unwrap(), File::open(&source).unwrap());
        let served = Served::default();
        let mut written = Written::new(served.clone());
        assert_eq!(left(&mut written, &[&log, &source]), [log.clone(), source.clone()], "nothing is served yet");
        served.set(nix::unistd::getpid());
        assert_eq!(left(&mut written, &[&log, &source]), [source.as_path()], "reading is no writing");
        drop(file);
        assert_eq!(left(&mut written, &[&log]), NOTHING);
        // The same name elsewhere, or another name of the same file.
        let other = directory.path().join("other.log");
        fs::write(&other, "1").unwrap();
        assert_eq!(left(&mut written, &[&other]), [other.as_path()]);
        let _file = OpenOptions::new().append(true).open(&other).unwrap();
        let name = directory.path().join("name.log");
        fs::hard_link(&other, &name).unwrap();
        assert_eq!(left(&mut written, &[&name]), NOTHING);
    }

    #[test]
    fn a_database_of_sqlite_and_what_is_beside_it_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut written = Written::new(Served::default());
        for (name, text) in
            [("a.db", "x"), ("a.db-wal", "x"), ("b.sqlite", "SQLite format 3\0…"), ("c-journal", "x"), ("d.rs", "x")]
        {
            fs::write(path(name), text).unwrap();
        }
        assert_eq!(left(&mut written, &[&path("a.db"), &path("a.db-wal"), &path("b.sqlite")]), NOTHING);
        // A journal that has gone meanwhile.
        assert_eq!(left(&mut written, &[&path("b.sqlite-journal")]), NOTHING);
        let others = [path("c-journal"), path("d.rs")];
        assert_eq!(left(&mut written, &[&others[0], &others[1]]), others, "there is no database called c");
    }
}
