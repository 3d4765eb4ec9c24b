//! The file of a Unix socket: made where nothing of anybody's is lost, and removed by who made it.
//!
//! Owns the questions whether a path is free, stale or live, whether a file is still ours, and its mode. The
//! directory may belong to somebody who may do less than we: so it is held, the file is held, and nothing is
//! done by a path to what was found before. What is said on the socket is for its user.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::held::{self, Directory, FileId, Owner};

/// A path where no socket can be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    #[error("a process accepts connections on it")]
    Live,
    #[error("something that is no socket lies there")]
    NoSocket,
    #[error("the file that was made is another's now")]
    Exchanged,
    #[error("its file can't be given to {to}: a file is given away by root alone, and to a group by its members")]
    Give { to: String, source: io::Error },
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The file of a socket that we have bound, removed with this value, if it is still the one we made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    directory: Directory,
    name: OsString,
    /// The file itself (`O_PATH`), whatever has its name now.
    node: OwnedFd,
    /// Whose we have made it.
    given: Cell<Owner>,
}

impl SocketFile {
    /// Binds `socket` to `path`, with `mode` where one is given and as the umask has it where none is, and gives the
    /// file to `owner`. A file that a dead process has left there is replaced; whatever else lies there is left alone.
    /// Nobody can connect before the socket listens, which is for the caller.
    pub fn bind(socket: &Socket, path: &Path, mode: Option<u32>, owner: Owner) -> Result<Self, SocketFileError> {
        let (directory, name) = Directory::of(path)?;
        make_room(&directory, path)?;
        let mode = mode.map(Mode::from_bits_truncate);
        if let Some(mode) = mode {
            // What the file's mode is made of, less the umask (`unix_bind` in Linux): it never allows more. Those whose
            // it isn't yet have no rights.
            let first = if owner == Owner::default() { mode } else { mode & Mode::S_IRWXU };
            fchmod(socket, first).map_err(io::Error::from)?;
        }
        let address = Reachable::new(path)?;
        socket.bind(&address.address)?;
        let node = directory.hold(name)?;
        let file = Self { path: path.to_owned(), name: name.to_owned(), directory, node, given: Cell::default() };
        if mode.is_some() || owner != Owner::default() {
            file.set_rights(mode, owner)?;
        }
        Ok(file)
    }

    /// Who has it, and its mode: its user and group by their numbers.
    pub fn rights(&self) -> io::Result<(u32, u32, u32)> {
        let found = fstat(&self.node)?;
        Ok((found.st_uid, found.st_gid, held::permissions(&found).bits()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path leads to it.
    pub fn is_in_place(&self) -> bool {
        held::leads_to(&self.path, &self.node)
    }

    /// Sets mode and owner of the file that we have made, wherever it lies now. Without an owner it is ours again.
    pub fn change_rights(&self, mode: Option<u32>, owner: Owner) -> Result<(), SocketFileError> {
        self.set_rights(mode.map(Mode::from_bits_truncate), owner)
    }

    fn set_rights(&self, mode: Option<Mode>, owner: Owner) -> Result<(), SocketFileError> {
        let found = fstat(&self.node).map_err(io::Error::from)?;
        let (us, given) = (Uid::effective(), self.given.get());
        // Between `bind` and `hold` somebody may have put something in its place, and a link to a file of ours
        // has more than one name.
        let ours = held::kind(&found) == SFlag::S_IFSOCK
            && found.st_uid == given.uid.unwrap_or(us).as_raw()
            && found.st_nlink <= 1;
        if !ours {
            return Err(SocketFileError::Exchanged);
        }
        let give = |to: String, owner: Owner| {
            held::set_owner(&self.node, owner).map_err(|source| SocketFileError::Give { to, source })
        };
        let uid = owner.uid.unwrap_or(us);
        let gid = owner.gid.or(given.gid.map(|_| Gid::effective())).map_or(found.st_gid, Gid::as_raw);
        let now = held::permissions(&found);
        let mode = mode.unwrap_or(now);
        if (uid.as_raw(), gid, mode) == (found.st_uid, found.st_gid, now) {
            self.given.set(owner);
            return Ok(());
        }
        // Only whose it is may change its mode without a privilege, and in between nobody has rights that he has neither
        // before nor behind it.
        if found.st_uid != us.as_raw() {
            give(format!("user {us}"), Owner { uid: Some(us), gid: None })?;
            self.given.set(Owner { uid: None, gid: given.gid });
        }
        if gid != found.st_gid {
            if now.intersects(!Mode::S_IRWXU) {
                held::set_mode(&self.node, now & Mode::S_IRWXU)?;
            }
            let gid = Gid::from_raw(gid);
            give(format!("group {gid}"), Owner { uid: None, gid: Some(gid) })?;
        }
        // Changed above, or as it was found.
        if gid != found.st_gid || mode != now {
            held::set_mode(&self.node, mode)?;
        }
        if uid != us {
            give(format!("user {uid}"), Owner { uid: Some(uid), gid: None })?;
        }
        self.given.set(owner);
        Ok(())
    }
}

impl SocketFile {
    /// Removes the file, if it is still the one we made, so that another can be made in its place.
    pub fn give_up_name(&self) {
        // No other file has the number of one that is held.
        let ours = fstat(&self.node).is_ok_and(|made| {
            self.directory.look(&self.name).is_ok_and(|found| FileId::from(&found) == FileId::from(&made))
        });
        if ours && let Err(error) = self.directory.remove(&self.name) {
            tracing::warn!(path = %self.path.display(), error = %error, "socket file can't be removed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.give_up_name();
    }
}

/// The address of a path, of any length: `unix(7)` has room for 107 bytes, and a longer one is reached
/// through its directory, which is held open meanwhile.
#[derive(Debug)]
pub struct Reachable {
    pub address: SockAddr,
    _directory: Option<File>,
}

impl Reachable {
    pub fn new(path: &Path) -> io::Result<Self> {
        const MOST: usize = 107;
        let (Some(directory), Some(name), true) = (path.parent(), path.file_name(), path.as_os_str().len() > MOST)
        else {
            return Ok(Self { address: SockAddr::unix(path)?, _directory: None });
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(directory)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { address: SockAddr::unix(short)?, _directory: Some(directory) })
    }
}

/// Whether a process accepts connections on the socket at `path`.
fn is_live(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // With a full queue it would wait, but then somebody is there.
    socket.set_nonblocking(true)?;
    match socket.connect(&Reachable::new(path)?.address) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(false),
        _ => Ok(true),
    }
}

/// Removes a socket file that nobody accepts on; leaves everything else alone.
fn make_room(directory: &Directory, path: &Path) -> Result<(), SocketFileError> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let Ok(found) = directory.look(name) else { return Ok(()) };
    if held::kind(&found) != SFlag::S_IFSOCK {
        return Err(SocketFileError::NoSocket);
    }
    if is_live(path)? {
        return Err(SocketFileError::Live);
    }
    match directory.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_path_of_any_length_is_bound_reached_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(90)).join("e".repeat(90));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, &path, None, Owner::default()).unwrap();
        assert!(!is_live(&path).unwrap(), "nobody listens yet");
        socket.listen(1).unwrap();
        assert!(is_live(&path).unwrap());
        assert!(file.is_in_place());
        fs::rename(deep.parent().unwrap(), directory.path().join("x")).unwrap();
        assert!(!file.is_in_place());
        fs::rename(directory.path().join("x"), deep.parent().unwrap()).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_not_the_one_we_made_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, &path, None, Owner::default()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_mode_is_the_one_that_is_asked_for_whatever_the_umask_is() {
        let directory = tempfile::tempdir().unwrap();
        for (name, wanted) in [("closed", 0o600), ("open", 0o666), ("group", 0o660)] {
            let path = directory.path().join(name);
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            let file = SocketFile::bind(&socket, &path, Some(wanted), Owner::default()).unwrap();
            assert_eq!(mode(&path), wanted);
            file.change_rights(Some(0o640), Owner::default()).unwrap();
            assert_eq!(mode(&path), 0o640);
        }
    }

    #[test]
    fn a_link_in_the_place_of_the_socket_leads_neither_mode_nor_removal_to_what_it_names() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside, precious) =
            (directory.path().join("s"), directory.path().join("aside"), directory.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, &path, Some(0o600), Owner::default()).unwrap();
        fs::rename(&path, &aside).unwrap();
        symlink(&precious, &path).unwrap();
        file.change_rights(Some(0o666), Owner::default()).unwrap();
        assert_eq!((mode(&precious), mode(&aside)), (0o600, 0o666));
        // Another name of a file of ours is none that we have made.
        fs::hard_link(&aside, directory.path().join("second")).unwrap();
        assert!(matches!(file.change_rights(Some(0o777), Owner::default()), Err(SocketFileError::Exchanged)));
        drop(file);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && precious.exists());
    }

    #[test]
    fn a_directory_that_was_exchanged_loses_nothing_to_the_removal() {
        let directory = tempfile::tempdir().unwrap();
        let (real, moved, other) =
            (directory.path().join("real"), directory.path().join("moved"), directory.path().join("other"));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&other).unwrap();
        let theirs = UnixListener::bind(other.join("s")).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, &real.join("s"), None, Owner::default()).unwrap();
        fs::rename(&real, &moved).unwrap();
        symlink(&other, &real).unwrap();
        drop(file);
        assert!(other.join("s").exists() && !moved.join("s").exists());
        drop(theirs);
    }

    #[test]
    fn the_file_is_given_away_with_its_mode_and_taken_back_in_between() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let (uid, gid) = (Some(Uid::from_raw(12_345)), Some(Gid::from_raw(54_321)));
        if !Uid::effective().is_root() {
            let error = SocketFile::bind(&socket, &path, Some(0o660), Owner { uid, gid: None }).unwrap_err();
            assert!(error.to_string().starts_with("its file can't be given to user 12345"), "{error}");
            assert!(!path.exists(), "what can't be had as it is wanted isn't there");
            return;
        }
        let whose = || {
            let found = fs::symlink_metadata(&path).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o777)
        };
        let file = SocketFile::bind(&socket, &path, Some(0o660), Owner { uid: None, gid }).unwrap();
        assert_eq!(whose(), (0, 54_321, 0o660));
        file.change_rights(Some(0o600), Owner { uid, gid }).unwrap();
        assert_eq!(whose(), (12_345, 54_321, 0o600));
        assert_eq!(file.rights().unwrap(), whose());
        // Twice: the owner that is expected is the one that it was given.
        file.change_rights(Some(0o640), Owner { uid, gid: Some(Gid::from_raw(7)) }).unwrap();
        assert_eq!(whose(), (12_345, 7, 0o640));
        file.change_rights(None, Owner::default()).unwrap();
        assert_eq!(whose(), (0, Gid::effective().as_raw(), 0o640));
        std::os::unix::fs::lchown(&path, Some(4), None).unwrap();
        assert!(matches!(file.change_rights(Some(0o666), Owner::default()), Err(SocketFileError::Exchanged)));
    }
}
