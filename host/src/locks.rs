//! Locks in the file system: one master a pid file and a state directory, and who still runs with which magic.
//!
//! All are `flock(2)` locks: the kernel releases them however their holders die, and every
//! duplicate of the descriptor holds them, so that a worker needs to do nothing but keep one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use app_abi::Magic;

/// A lock that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is locked: a master runs already, as process {}", path.display(), holder.trim())]
    Running { path: PathBuf, holder: String },
    #[error("state_dir {} is used by another master; give each its own", path.display())]
    Shared { path: PathBuf },
    #[error("{} can't be locked", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// The pid file, locked for as long as this value lives and removed with it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Locks the file at `path` and writes this process's id into it.
    ///
    /// # Errors
    /// [`LockError::Running`] when another master holds it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        loop {
            let mut file = open(path, 0o644).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // Only for the message: the lock is what counts.
                    let _ = file.take(32).read_to_string(&mut holder);
                    return Err(LockError::Running { path: path.to_owned(), holder });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // The last holder may have removed the file between our open and our lock.
            if !is_at(&file, path) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", process::id()))
                .map_err(failed)?;
            return Ok(Self { path: path.to_owned(), file });
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            // What stays behind is unlocked and harmless.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(found)) => (ours.dev(), ours.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

fn open(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// The lock on a state directory: two masters with pid files of their own must not share one.
#[derive(Debug)]
pub struct StateLock {
    /// Unlocked when it closes. The file stays: removing it would be a race.
    _file: File,
}

impl StateLock {
    /// Locks `directory`, which must exist.
    ///
    /// # Errors
    /// [`LockError::Shared`] when another master uses it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("master.lock");
        let failed = |source| LockError::File { path: path.clone(), source };
        let file = open(&path, 0o600).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Shared { path: directory.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// A shared lock that says: a worker with this magic may still run. The master hands every worker a
/// duplicate, so it stays held until the last of them has exited, whatever became of the master.
#[derive(Debug)]
pub struct MagicLock(File);

impl MagicLock {
    /// Takes the lock for `magic` in `directory`.
    pub fn hold(directory: &Path, magic: Magic) -> Result<Self, LockError> {
        let path = directory.join(format!("{magic}{SUFFIX}"));
        let failed = |source| LockError::File { path: path.clone(), source };
        let file = open(&path, 0o600).map_err(failed)?;
        file.try_lock_shared().map_err(|error| failed(error.into()))?;
        Ok(Self(file))
    }

    /// The descriptor to hand to workers.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How the locks of magics are named.
const SUFFIX: &str = ".lock";

/// Which magics workers in `directory` still hold, as their file names say them. Call it under the
/// pid file's lock and before [`MagicLock::hold`]; locks that nobody holds are removed.
pub fn held_magics(directory: &Path) -> Result<Vec<String>, LockError> {
    let failed = |source| LockError::File { path: directory.to_owned(), source };
    let mut held = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(magic) = name.strip_suffix(SUFFIX) else { continue };
        let failed = |source| LockError::File { path: path.clone(), source };
        match open(&path, 0o600).map_err(failed)?.try_lock() {
            Ok(()) => fs::remove_file(&path).map_err(failed)?,
            Err(TryLockError::WouldBlock) => held.push(magic.to_owned()),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_has_one_holder_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "99999 stale and longer than ours").unwrap();
        let first = PidFile::acquire(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        let error = PidFile::acquire(&path).unwrap_err();
        assert!(error.to_string().ends_with(&format!("as process {}", process::id())), "{error}");
        drop(first);
        assert!(!path.exists());
        PidFile::acquire(&path).unwrap();
    }

    #[test]
    fn a_state_directory_has_one_master() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateLock::acquire(directory.path()).unwrap();
        assert!(matches!(StateLock::acquire(directory.path()), Err(LockError::Shared { .. })));
        drop(first);
        StateLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_magic_is_held_until_its_last_duplicate_closes() {
        let directory = tempfile::tempdir().unwrap();
        let lock = MagicLock::hold(directory.path(), Magic(0x1_0000_0002)).unwrap();
        let duplicate = lock.as_fd().try_clone_to_owned().unwrap();
        drop(lock);
        assert_eq!(held_magics(directory.path()).unwrap(), ["00000001_00000002"]);
        drop(duplicate);
        assert!(held_magics(directory.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
