//! Directories that are held open: what is done in them is done there, wherever their path leads later.
//!
//! A path is looked up anew at each use, and whoever owns a directory on it decides what is found: a
//! link to another's file, another directory, nothing. So whoever has more rights than others holds the
//! directory and names only what lies in it (`openat(2)`), follows no link there, and asks the descriptor
//! that it got, not the path, what it is. Owns those calls; what may lie where is for its users.

mod trusted;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat, stat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, unlinkat};

pub use trusted::{UntrustedPath, distrust_groups, open_trusted};

/// Which file it is, as long as somebody holds it: the number of its device and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl From<&FileStat> for FileId {
    fn from(found: &FileStat) -> Self {
        Self { device: found.st_dev, inode: found.st_ino }
    }
}

/// Whether a path leads to what is held: neither the file nor a directory before it was removed or exchanged. A path that
/// can't be looked at is taken to.
pub fn leads_to(path: &Path, held: &impl AsFd) -> bool {
    match (stat(path), fstat(held)) {
        (Ok(found), Ok(held)) => FileId::from(&found) == FileId::from(&held),
        (Err(error), _) => !matches!(error, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP),
        _ => true,
    }
}

/// What kind of file this is.
pub const fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode).intersection(SFlag::S_IFMT)
}

/// Its permission bits.
pub const fn permissions(found: &FileStat) -> Mode {
    Mode::from_bits_truncate(found.st_mode)
}

/// Whether somebody besides the owner may write to it.
pub const fn others_write(found: &FileStat) -> bool {
    permissions(found).intersects(Mode::S_IWGRP.union(Mode::S_IWOTH))
}

/// A directory that is held.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Holds the directory at `path`, wherever links lead. Needs no right to read it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// Holds the directory in which `path` lies; also says what its name is there. Needs no right to read it.
    pub fn of(path: &Path) -> io::Result<(Self, &OsStr)> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((Self::open(parent)?, name))
    }

    /// The same directory, held once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Holds the directory `name` in this one, which must be no link.
    pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self(openat(self, name, flags, Mode::empty())?))
    }

    /// As [`enter`](Self::enter), without the right to read it.
    fn pass(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self(openat(self, name, flags, Mode::empty())?))
    }

    /// Makes the directory `name` in this one and holds it; its mode is exactly `mode`.
    ///
    /// # Errors
    /// When something has that name already, or when somebody has put something else in its place meanwhile.
    pub fn make(&self, name: &OsStr, mode: Mode) -> io::Result<Self> {
        mkdirat(self, name, Mode::S_IRWXU)?;
        let entered = self.enter(name)?;
        // Whoever may write here may have exchanged it. What is empty, ours and nobody else's can be had: whatever
        // is done to it is done to nothing of anybody's.
        if entered.stat()?.st_uid != Uid::effective().as_raw() || !entered.is_empty()? {
            return Err(io::Error::other("somebody has exchanged it while it was made"));
        }
        // The umask may have taken something away.
        fchmod(&entered, mode)?;
        Ok(entered)
    }

    /// Makes it another's.
    pub fn give_to(&self, uid: Uid, gid: Gid) -> io::Result<()> {
        Ok(fchown(&self.0, Some(uid), Some(gid))?)
    }

    pub fn stat(&self) -> io::Result<FileStat> {
        Ok(fstat(&self.0)?)
    }

    /// What `name` is in it, which may be a link.
    pub fn look(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Opens `name`, which must be no link, and waits for nobody at the other end of a FIFO.
    pub fn open_file(&self, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, mode)?)
    }

    /// Holds whatever `name` is, without a right to it.
    pub fn hold(&self, name: &OsStr) -> io::Result<OwnedFd> {
        Ok(openat(&self.0, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Removes the file `name`.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// A path to `name` in this directory for as long as it is held, for calls that want one.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        path_of(self).join(name)
    }

    /// Whether nothing that lies in it can be executed, nor mapped as code.
    pub fn is_noexec(&self) -> io::Result<bool> {
        Ok(fstatvfs(&self.0)?.flags().contains(FsFlags::ST_NOEXEC))
    }

    fn is_empty(&self) -> io::Result<bool> {
        Ok(std::fs::read_dir(path_of(self))?.next().is_none())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A directory that only we write to, whoever reads it.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("its path can be led elsewhere")]
    Path(#[source] UntrustedPath),
    #[error(
        "it belongs to user {found}, expected {expected}, who runs the master; make it that user's, or choose another"
    )]
    Owner { found: u32, expected: u32 },
    #[error("others may write to it (its mode is {mode:o}); `chmod go-w` it, or choose another")]
    Mode { mode: u32 },
}

/// Holds the directory at `path`, which is made where it is missing, if nobody but us may write to it: what lies
/// there says which code runs.
pub fn own(path: &Path, mode: Mode, trust: PathTrust) -> Result<Directory, OwnError> {
    let mut directory = make_path(path, mode, trust, |_| Ok(()))?;
    if trust == PathTrust::Required {
        directory = open_trusted(&std::path::absolute(path)?).map_err(OwnError::Path)?;
    }
    directory.is_ours()?;
    Ok(directory)
}

/// What [`look`] has found.
#[derive(Debug)]
pub struct Found {
    pub directory: Directory,
    /// Whether that is what was looked for, and not one in which it would be made.
    pub is_whole: bool,
}

/// As [`own`], but makes nothing: holds the last directory on the path that is there.
pub fn look(path: &Path, trust: PathTrust) -> Result<Found, OwnError> {
    let (there, directory, missing) = nearest(path)?;
    let directory = match trust {
        PathTrust::Any => directory,
        PathTrust::Required => open_trusted(&std::path::absolute(there)?).map_err(OwnError::Path)?,
    };
    let is_whole = missing.is_empty();
    if is_whole {
        directory.is_ours()?;
    }
    Ok(Found { directory, is_whole })
}

impl Directory {
    /// As [`Self::own`], but makes nothing.
    pub fn owned(&self, name: &str) -> Result<Self, OwnError> {
        let directory = self.enter(OsStr::new(name))?;
        directory.is_ours()?;
        Ok(directory)
    }

    /// As [`own`], for the directory `name` in this one, which must be no link.
    pub fn own(&self, name: &str, mode: Mode) -> Result<Self, OwnError> {
        let name = OsStr::new(name);
        let directory = match self.make(name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.enter(name)?,
            result => result?,
        };
        directory.is_ours()?;
        Ok(directory)
    }

    fn is_ours(&self) -> Result<(), OwnError> {
        let (found, expected) = (self.stat()?, Uid::effective().as_raw());
        if found.st_uid != expected {
            return Err(OwnError::Owner { found: found.st_uid, expected });
        }
        if others_write(&found) {
            return Err(OwnError::Mode { mode: permissions(&found).bits() });
        }
        Ok(())
    }
}

/// A path to what is held, for as long as it is (`proc(5)`).
pub fn path_of(held: &impl AsFd) -> PathBuf {
    Path::new("/proc/self/fd").join(held.as_fd().as_raw_fd().to_string())
}

/// Sets the mode of what is held, also where it is held with `O_PATH`, which `fchmod(2)` refuses.
pub fn set_mode(held: &impl AsFd, mode: Mode) -> io::Result<()> {
    Ok(fchmodat(AT_FDCWD, &path_of(held), mode, FchmodatFlags::FollowSymlink)?)
}

/// Whose a file is to be; absent: it stays whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: Option<Uid>,
    pub gid: Option<Gid>,
}

/// Gives away what is held, also where it is held with `O_PATH`, which `fchown(2)` refuses.
pub fn set_owner(held: &impl AsFd, owner: Owner) -> io::Result<()> {
    Ok(fchownat(held, "", owner.uid, owner.gid, AtFlags::AT_EMPTY_PATH)?)
}

/// Who may be able to lead a path elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathTrust {
    /// Anybody: nothing can be gained by that.
    Any,
    /// Root and we alone, because children run as somebody who may do less ([`open_trusted`]).
    Required,
}

/// Makes every directory that `path` lacks, the missing parents with mode 755 and itself with `mode`, and hands
/// what was made last to `finish`; where it is there already, it is only held. What is made is entered and never
/// looked up again, so no link that somebody puts there meanwhile leads elsewhere.
///
/// # Errors
/// Also when something is to be made under a path that isn't trusted as required.
pub fn make_path(
    path: &Path,
    mode: Mode,
    trust: PathTrust,
    finish: impl FnOnce(&Directory) -> io::Result<()>,
) -> io::Result<Directory> {
    const PARENTS: Mode =
        Mode::S_IRWXU.union(Mode::S_IRGRP).union(Mode::S_IXGRP).union(Mode::S_IROTH).union(Mode::S_IXOTH);
    let (there, mut directory, missing) = nearest(path)?;
    let Some(last) = missing.first().copied() else { return Ok(directory) };
    if trust == PathTrust::Required {
        directory = open_trusted(&std::path::absolute(there)?).map_err(io::Error::other)?;
    }
    for parent in missing.iter().skip(1).rev() {
        directory = directory.make(parent, PARENTS)?;
    }
    directory = directory.make(last, mode)?;
    finish(&directory)?;
    Ok(directory)
}

/// The last directory on `path` that is there, held, and the names behind it that are not, the last one first.
fn nearest(path: &Path) -> io::Result<(&Path, Directory, Vec<&OsStr>)> {
    let mut there = path;
    let mut missing = Vec::new();
    loop {
        match Directory::open(there) {
            Ok(directory) => return Ok((there, directory, missing)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A dead link, or a name that can't be made.
                let Some(Component::Normal(name)) = there.components().next_back() else { return Err(error) };
                missing.push(name);
                there = there.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
