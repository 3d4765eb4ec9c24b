//! Locks in the file system: one master a pid file and a state directory, and who still runs with which magic.
//!
//! All are `flock(2)` locks: the kernel releases them however their holders die, so a worker needs to do nothing but
//! keep the descriptor that it was given.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use app_abi::Magic;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::Uid;

use app_host_platform::held::{self, Directory};

/// A lock that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is locked: a master runs already, as process {}", path.display(), holder.trim())]
    Running { path: PathBuf, holder: String },
    #[error("{} is locked: the master that runs as process {} is stopping, and isn't gone", path.display(), holder.trim())]
    Stopping { path: PathBuf, holder: String },
    #[error("state_dir {} is used by another master; give each its own", path.display())]
    Shared { path: PathBuf },
    #[error("{} can't be locked", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is locked, and can't be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} can't be the pid file: it is no file of ours with one name; remove it", path.display())]
    Foreign { path: PathBuf },
}

/// The pid file, locked for as long as this value lives and removed with it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Where it lies, whatever becomes of the path.
    directory: Directory,
    name: OsString,
    file: File,
}

impl PidFile {
    /// Locks the file at `path` and writes this process's id into it.
    ///
    /// # Errors
    /// [`LockError::Running`] when another master holds it, [`LockError::Stopping`] when that one has said that it
    /// is on its way out.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        let (directory, name) = Directory::of(path).map_err(failed)?;
        loop {
            let file = open(&directory, name, 0o644).map_err(failed)?;
            // Before it is emptied: whoever may write to the directory may have linked another file there.
            let found = file.metadata().map_err(failed)?;
            if !found.is_file() || found.nlink() > 1 || found.uid() != Uid::effective().as_raw() {
                // Removed between our open and this look, by the last holder.
                if found.is_file() && found.nlink() == 0 {
                    continue;
                }
                return Err(LockError::Foreign { path: path.to_owned() });
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let stops = is_marked(&file);
                    // Only for the message: the lock is what counts.
                    let _ = file.take(32).read_to_string(&mut holder);
                    let path = path.to_owned();
                    return Err(if stops {
                        LockError::Stopping { path, holder }
                    } else {
                        LockError::Running { path, holder }
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // The last holder may have removed the file between our open and our lock.
            if !is_at(&file, &directory, name) {
                continue;
            }
            // With this value it is removed, so that a disk that is full keeps no empty one.
            let held = Self { path: path.to_owned(), directory, name: name.to_owned(), file };
            // Shortened only afterwards: a script that reads what a dead master left never finds it empty.
            let line = format!("{}\n", process::id());
            held.file
                .write_all_at(line.as_bytes(), 0)
                .and_then(|()| held.file.set_len(line.len() as u64))
                .map_err(|source| LockError::Write { path: path.to_owned(), source })?;
            return Ok(held);
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path leads to it.
    pub fn is_in_place(&self) -> bool {
        held::leads_to(&self.path, &self.file)
    }

    /// Makes it anew at its path, from where it was removed.
    ///
    /// # Errors
    /// As those of [`acquire`](Self::acquire); then the one that there was is held on to.
    pub fn make_anew(&mut self) -> Result<(), LockError> {
        *self = Self::acquire(&self.path)?;
        Ok(())
    }

    /// What tells the next master that this one is on its way out. Drop it no later than the pid file: it keeps the
    /// lock held.
    pub fn stop_mark(&self) -> io::Result<StopMark> {
        Ok(StopMark(self.file.try_clone()?))
    }
}

/// Says, to whoever finds the pid file locked, that its holder is stopping and worth waiting for.
///
/// It is a second lock, on the file's first byte (`F_OFD_SETLK` in `fcntl(2)`): so it ends with its holder like the
/// first one, and scripts find nothing in the file but the process id.
#[derive(Debug)]
pub struct StopMark(File);

impl StopMark {
    /// Sets the mark, for good. A file system without such locks costs the next master its wait, and nothing else.
    pub fn set(&self) {
        if let Err(error) = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&first_byte(libc::F_WRLCK))) {
            tracing::debug!(error = %error, "the next master can't be told that this one stops");
        }
    }
}

fn is_marked(file: &File) -> bool {
    let mut lock = first_byte(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}

fn first_byte(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).expect("F_RDLCK, F_WRLCK and F_UNLCK are small"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("it is 0"),
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.directory, &self.name) {
            // What stays behind is unlocked and harmless.
            let _ = self.directory.remove(&self.name);
        }
    }
}

fn is_at(file: &File, directory: &Directory, name: &OsStr) -> bool {
    match (file.metadata(), directory.look(name)) {
        (Ok(ours), Ok(found)) => (ours.dev(), ours.ino()) == (found.st_dev, found.st_ino),
        _ => false,
    }
}

fn open(directory: &Directory, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT;
    directory.open_file(name, flags, Mode::from_bits_truncate(mode)).map(File::from)
}

/// The lock on a state directory: two masters with pid files of their own must not share one.
#[derive(Debug)]
pub struct StateLock {
    /// Unlocked when it closes. The file stays: removing it would be a race.
    _file: File,
}

impl StateLock {
    /// Locks the directory that is held, and called `path` in errors.
    ///
    /// # Errors
    /// [`LockError::Shared`] when another master uses it.
    pub fn acquire(directory: &Directory, path: &Path) -> Result<Self, LockError> {
        let name = "master.lock";
        let failed = |source| LockError::File { path: path.join(name), source };
        let file = open(directory, OsStr::new(name), 0o600).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Shared { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Whose a lock's file is: ours alone.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// A shared lock that says: a worker with this magic may still run. The master gives every worker one of its own,
/// so it stays held until the last of them has exited, whatever became of the master. Not a duplicate: who unlocks that
/// unlocks it for all (`flock(2)`), and not for writing.
#[derive(Debug)]
pub struct MagicLock {
    directory: Directory,
    name: OsString,
    ours: File,
}

impl MagicLock {
    /// Takes the lock for `magic` in the directory that is held, and called `path` in errors.
    pub fn hold(directory: &Directory, path: &Path, magic: Magic) -> Result<Self, LockError> {
        // With a name of this master's own, so that it can tell its workers from those of an earlier one.
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = format!("{magic}.{}-{moment}{SUFFIX}", process::id());
        let failed = |source| LockError::File { path: path.join(&name), source };
        let file = open(directory, OsStr::new(&name), 0o600).map_err(failed)?;
        file.try_lock_shared().map_err(|error| failed(error.into()))?;
        let directory = directory.try_clone().map_err(|source| LockError::File { path: path.to_owned(), source })?;
        Ok(Self { directory, name: name.into(), ours: file })
    }

    /// What says whether workers of an earlier master still live.
    pub fn orphans(&self) -> io::Result<Orphans> {
        Ok(Orphans { directory: self.directory.try_clone()?, ours: self.name.clone() })
    }

    /// One to give to a worker.
    pub fn for_worker(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CREAT;
        let file = match self.directory.open_file(&self.name, flags, MODE) {
            Ok(file) => File::from(file),
            // The directory was deleted, and nothing is made in it any more: no master will look there, but a worker
            // is spawned all the same.
            Err(_) => File::open(held::path_of(&self.ours))?,
        };
        file.try_lock_shared()?;
        Ok(file.into())
    }
}

/// The locks of workers that an earlier master has left behind.
#[derive(Debug)]
pub struct Orphans {
    directory: Directory,
    /// The lock of this master and its workers.
    ours: OsString,
}

impl Orphans {
    /// Whether any is still held. What can't be looked at is taken to be.
    pub fn live(&self) -> bool {
        let Ok(entries) = fs::read_dir(held::path_of(&self.directory)) else { return true };
        entries.map_while(Result::ok).map(|entry| entry.file_name()).any(|name| {
            let is_another = name != self.ours && name.to_str().is_some_and(|name| name.ends_with(SUFFIX));
            is_another && !open(&self.directory, &name, 0o600).is_ok_and(|file| file.try_lock().is_ok())
        })
    }
}

/// How the locks of magics are named.
const SUFFIX: &str = ".lock";

/// Which magics workers still hold in the directory that is held, and called `path` in errors, as their file
/// names say them. Call it under the pid file's lock and before [`MagicLock::hold`]; locks that nobody holds are removed.
pub fn held_magics(directory: &Directory, path: &Path) -> Result<Vec<String>, LockError> {
    let failed = |source| LockError::File { path: path.to_owned(), source };
    let mut held = Vec::new();
    for entry in fs::read_dir(held::path_of(directory)).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(magic) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let magic = magic.split('.').next().unwrap_or(magic);
        let failed = |source| LockError::File { path: path.join(&name), source };
        match open(directory, &name, 0o600).map_err(failed)?.try_lock() {
            Ok(()) => directory.remove(&name).map_err(failed)?,
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
    fn a_pid_file_that_was_removed_is_made_anew_unless_its_path_is_anothers_now() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("run");
        let path = place.join("pid");
        fs::create_dir(&place).unwrap();
        let mut ours = PidFile::acquire(&path).unwrap();
        assert!(ours.is_in_place());
        fs::remove_dir_all(&place).unwrap();
        assert!(!ours.is_in_place());
        assert!(matches!(ours.make_anew(), Err(LockError::File { .. })), "there is no directory");
        fs::create_dir(&place).unwrap();
        ours.make_anew().unwrap();
        assert!(ours.is_in_place());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        fs::remove_file(&path).unwrap();
        let other = PidFile::acquire(&path).unwrap();
        assert!(matches!(ours.make_anew(), Err(LockError::Running { .. })));
        drop(ours);
        assert!(other.is_in_place(), "and is left to whoever has it");
    }

    #[test]
    fn a_holder_that_stops_is_told_from_one_that_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let first = PidFile::acquire(&path).unwrap();
        let mark = first.stop_mark().unwrap();
        assert!(matches!(PidFile::acquire(&path), Err(LockError::Running { .. })));
        mark.set();
        assert!(matches!(PidFile::acquire(&path), Err(LockError::Stopping { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        drop(first);
        // What lies there now is another file.
        let second = PidFile::acquire(&path).unwrap();
        assert!(matches!(PidFile::acquire(&path), Err(LockError::Running { .. })));
        drop((mark, second));
    }

    #[test]
    fn a_link_in_the_place_of_the_pid_file_costs_no_other_file_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, precious) = (directory.path().join("pid"), directory.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        fs::hard_link(&precious, &path).unwrap();
        assert!(matches!(PidFile::acquire(&path), Err(LockError::Foreign { .. })));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(PidFile::acquire(&path).is_err());
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn a_state_directory_has_one_master() {
        let directory = tempfile::tempdir().unwrap();
        let held = Directory::open(directory.path()).unwrap();
        let first = StateLock::acquire(&held, directory.path()).unwrap();
        assert!(matches!(StateLock::acquire(&held, directory.path()), Err(LockError::Shared { .. })));
        drop(first);
        StateLock::acquire(&held, directory.path()).unwrap();
    }

    #[test]
    fn a_magic_is_held_until_its_last_worker_ends_and_none_unlocks_it_for_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let held = Directory::open(path).unwrap();
        let lock = MagicLock::hold(&held, path, Magic(0x1_0000_0002)).unwrap();
        let (one, other) = (lock.for_worker().unwrap(), lock.for_worker().unwrap());
        drop(lock);
        File::from(one.try_clone().unwrap()).unlock().unwrap();
        assert!(File::from(one).set_len(1).is_err(), "it isn't theirs to write to");
        assert_eq!(held_magics(&held, path).unwrap(), ["00000001_00000002"]);
        drop(other);
        assert!(held_magics(&held, path).unwrap().is_empty());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
