//! The file of a Unix socket: made where nothing of anybody's is lost, and removed by who made it.
//!
//! Owns the questions whether a path is free, stale or live, and whether a file is still ours. What is
//! said on the socket is for its user.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// A path where no socket can be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    #[error("a process accepts connections on it")]
    Live,
    #[error("something that is no socket lies there")]
    NoSocket,
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The file of a socket that we have bound, removed with this value, if it is still the one we made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds `socket` to `path`. A file that a dead process has left there is replaced; whatever else
    /// lies there is left alone.
    pub fn bind(socket: &Socket, path: &Path) -> Result<Self, SocketFileError> {
        make_room(path)?;
        let address = Reachable::new(path)?;
        socket.bind(&address.address)?;
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %error, "socket file can't be removed");
        }
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
fn make_room(path: &Path) -> Result<(), SocketFileError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(SocketFileError::NoSocket);
    }
    if is_live(path)? {
        return Err(SocketFileError::Live);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_is_bound_reached_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(90)).join("e".repeat(90));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, &path).unwrap();
        assert!(!is_live(&path).unwrap(), "nobody listens yet");
        socket.listen(1).unwrap();
        assert!(is_live(&path).unwrap());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_not_the_one_we_made_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, &path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
