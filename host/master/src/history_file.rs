//! The file that holds the history of generations, `generations.json` in the state directory.
//!
//! A save replaces it as a whole, and only the master that holds the directory's lock saves. What stands in it is
//! `restart::history`'s business. Only its owner may read it, because configurations may hold secrets.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::Uid;
use sha2::{Digest, Sha256};

use app_host_core::ids::ConfigId;
use app_host_core::restart::history::{History, Unreadable};
use app_host_platform::held::{self, Directory};

use crate::locks::StateLock;

/// The file's name, and what a damaged one is called from then on.
const NAME: &str = "generations.json";
const DAMAGED: &str = "generations.json.damaged";
const PARTIAL_PREFIX: &str = ".generations-";

/// The largest file that is read or written, in bytes: many times what many large configurations need.
const MAX_BYTES: u64 = 1 << 28;

/// A history that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryFileError {
    #[error("{} can't be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is none of ours: {found}", path.display())]
    Foreign { path: PathBuf, found: &'static str },
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("{} is damaged: what it says contradicts itself", path.display())]
    Unsound { path: PathBuf },
    #[error("{} would have {size} bytes, expected at most {MAX_BYTES}", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("{} can't be written", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// The way to the file. Only a master that holds the state directory has one.
#[derive(Clone, Debug)]
pub struct HistoryFile {
    /// The state directory, wherever its path leads now.
    held: Arc<Directory>,
    directory: PathBuf,
    /// What the file is called in errors.
    path: PathBuf,
}

/// The digest that names a configuration.
pub fn config_id(bytes: &[u8]) -> ConfigId {
    ConfigId::from_digest(Sha256::digest(bytes).into())
}

impl HistoryFile {
    /// The file in the directory that is `held`, whose lock the caller has; removes what an earlier master left
    /// half-written.
    pub fn open(held: Arc<Directory>, directory: &Path, _lock: &StateLock) -> io::Result<Self> {
        for entry in fs::read_dir(held::path_of(&*held))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(PARTIAL_PREFIX) {
                held.remove(&name)?;
            }
        }
        Ok(Self { held, directory: directory.to_owned(), path: directory.join(NAME) })
    }

    /// Reads what the last master wrote down; nothing where there was none. Blocks on the disk.
    ///
    /// # Errors
    /// When what lies there can't be one that this host has written whole.
    pub fn load(&self) -> Result<History, HistoryFileError> {
        let path = &self.path;
        let read_failed = |source| HistoryFileError::Read { path: path.clone(), source };
        let foreign = |found| HistoryFileError::Foreign { path: path.clone(), found };
        let file = match self.held.open_file(OsStr::new(NAME), OFlag::O_RDONLY, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
            Err(error) => return Err(read_failed(error)),
        };
        let metadata = file.metadata().map_err(read_failed)?;
        if !metadata.is_file() {
            return Err(foreign("it is no regular file"));
        }
        // Who may write here decides what code a master starts with.
        if metadata.uid() != Uid::effective().as_raw() {
            return Err(foreign("it belongs to another user"));
        }
        if metadata.len() > MAX_BYTES {
            return Err(HistoryFileError::TooLarge { path: path.clone(), size: metadata.len() });
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(read_failed)?;
        History::parse(&bytes, |config| config_id(config.as_bytes())).map_err(|error| match error {
            Unreadable::Damaged(source) => HistoryFileError::Damaged { path: path.clone(), source },
            Unreadable::Form => foreign("it has another form, of another app-host"),
            Unreadable::Unsound => HistoryFileError::Unsound { path: path.clone() },
        })
    }

    /// Puts what can't be read out of the way, so that it can be looked at; says where.
    pub fn set_aside(&self) -> io::Result<PathBuf> {
        fs::rename(self.held.at(NAME), self.held.at(DAMAGED))?;
        Ok(self.directory.join(DAMAGED))
    }

    /// Writes it down: whoever reads the file sees all of the old one or all of the new one, after a
    /// loss of power too. Blocks on the disk.
    pub fn save(&self, history: &History) -> Result<(), HistoryFileError> {
        let failed = |source| HistoryFileError::Write { path: self.path.clone(), source };
        let bytes = history.to_json().map_err(|error| failed(error.into()))?;
        let size = bytes.len() as u64;
        if size > MAX_BYTES {
            return Err(HistoryFileError::TooLarge { path: self.path.clone(), size });
        }
        let mut file = tempfile::Builder::new()
            .prefix(PARTIAL_PREFIX)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(held::path_of(&*self.held))
            .map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(self.held.at(NAME)).map_err(|error| failed(error.error))?;
        File::open(held::path_of(&*self.held)).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use app_host_core::ids::VersionId;
    use app_host_core::restart::Pair;
    use app_host_core::restart::history::Kept;

    fn some_history() -> History {
        let config = "{\"app\": {\"library\": \"ü.so\"}}".to_owned();
        let pair = Pair { version: VersionId::from_digest([1; 32]), config: config_id(config.as_bytes()) };
        let mut history = History::default();
        history.activated(Kept { pair, since: 1, app: String::new(), app_version: String::new(), config }, None, 5);
        history.quarantine(Pair { version: VersionId::from_digest([2; 32]), ..pair }, 2, "worker died");
        history
    }

    #[test]
    fn a_history_reads_back_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let held = Arc::new(Directory::open(directory.path()).unwrap());
        let lock = StateLock::acquire(&held, directory.path()).unwrap();
        let file = HistoryFile::open(Arc::clone(&held), directory.path(), &lock).unwrap();
        assert_eq!(file.load().unwrap(), History::default(), "there is none yet");
        for history in [some_history(), History::default(), some_history()] {
            file.save(&history).unwrap();
            assert_eq!(file.load().unwrap(), history);
        }
        assert_eq!(fs::metadata(directory.path().join(NAME)).unwrap().mode() & 0o777, 0o600);
        fs::write(directory.path().join(".generations-half"), "{").unwrap();
        HistoryFile::open(held, directory.path(), &lock).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [NAME, "master.lock"]);
    }

    #[test]
    fn every_damage_is_noticed_and_can_be_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let held = Arc::new(Directory::open(directory.path()).unwrap());
        let lock = StateLock::acquire(&held, directory.path()).unwrap();
        let file = HistoryFile::open(Arc::clone(&held), directory.path(), &lock).unwrap();
        file.save(&some_history()).unwrap();
        let path = directory.path().join(NAME);
        let whole = fs::read_to_string(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole.as_bytes()[..length]).unwrap();
            assert!(matches!(file.load(), Err(HistoryFileError::Damaged { .. })), "{length} bytes");
        }
        for (damage, expected) in [
            (whole.replace("\"form\":1", "\"form\":2"), "another form"),
            (whole.replace("ü.so", "u.so"), "contradicts itself"),
            (whole.replace("\"kept\"", "\"cept\""), "is damaged"),
            ("null".to_owned(), "is damaged"),
        ] {
            assert_ne!(damage, whole);
            fs::write(&path, damage).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let aside = file.set_aside().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "null");
        assert_eq!(file.load().unwrap(), History::default());
    }

    #[test]
    fn what_is_no_file_of_ours_is_not_read_and_a_fifo_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let held = Arc::new(Directory::open(directory.path()).unwrap());
        let lock = StateLock::acquire(&held, directory.path()).unwrap();
        let file = HistoryFile::open(Arc::clone(&held), directory.path(), &lock).unwrap();
        let path = directory.path().join(NAME);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(file.load(), Err(HistoryFileError::Foreign { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(file.load(), Err(HistoryFileError::Foreign { .. })));
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(file.load(), Err(HistoryFileError::Read { .. })));
        // What is written replaces it, and not what it points to.
        file.save(&some_history()).unwrap();
        assert_eq!(file.load().unwrap(), some_history());
        assert!(!directory.path().join("elsewhere").exists());
    }
}
