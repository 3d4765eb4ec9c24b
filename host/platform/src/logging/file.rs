//! Files for lines: opened by a process that may do more than those who could lay traps for it.
//!
//! Root opens them at its start, at each spawn and when logs are rotated, by a path, and whoever owns a directory
//! on it decides what that names: `/etc/passwd`, or a new file in `/etc/cron.d`. So the rule is:
//! - Nobody but root and we can lead the path elsewhere ([`held::open_trusted`]).
//! - The file is no link. It is a regular file or a FIFO of ours, or of root's, with one name; or a device, which
//!   only root can make. A file that isn't there is made, with mode 640.
//! - `/dev/stdout` and `/dev/stderr` are our own streams, whatever they are; who has started us has chosen them.
//!
//! Without root's rights nobody can be hurt but us, and workers are the same user: then the directories don't
//! matter. What a file is, is asked of it before it is opened.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::Uid;

use crate::held::{self, Directory, UntrustedPath};

/// How often a name may change between two calls.
const TRIES: u32 = 8;

/// A file that lines are not written to.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("it is a link; name the file itself")]
    Link,
    #[error("it is neither a regular file nor a FIFO or a device")]
    Kind,
    #[error("it belongs to user {0}; make it root's, or the master's, or remove it")]
    Owner(u32),
    #[error("it has {0} names, and may be another's file; remove it")]
    Names(u64),
    #[error(transparent)]
    Path(#[from] UntrustedPath),
}

/// Opens the file for lines at `path`, and makes it where there is none. Never waits for the reader of a FIFO.
pub(super) fn open(path: &Path) -> Result<File, FileError> {
    match path.to_str() {
        Some("/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => return own_stream(&io::stdout()),
        Some("/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2") => return own_stream(&io::stderr()),
        _ => {}
    }
    if Uid::effective().is_root() {
        let name = path.file_name().ok_or(FileError::Kind)?;
        let whole = std::path::absolute(path)?;
        open_in(&held::open_trusted(whole.parent().unwrap_or(Path::new("/")))?, name)
    } else {
        let (directory, name) = Directory::of(path)?;
        open_in(&directory, name)
    }
}

/// Whether the name of a file that is written to is another's now, or nobody's. What is no regular file isn't rotated.
pub(super) fn has_moved(path: &Path, file: &File) -> bool {
    file.metadata().is_ok_and(|ours| ours.is_file()) && !held::leads_to(path, file)
}

/// What one of our streams is, with an open file description of our own where that can be had. Of a socket it
/// can't.
fn own_stream(stream: &impl AsFd) -> Result<File, FileError> {
    let again = reopen(stream);
    Ok(again.or_else(|_| stream.as_fd().try_clone_to_owned().map(File::from))?)
}

fn reopen(held: &impl AsFd) -> io::Result<File> {
    // Non-blocking, so that a FIFO without a reader is an error and not a hang.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().append(true).custom_flags(flags).open(held::path_of(held))
}

fn open_in(directory: &Directory, name: &OsStr) -> Result<File, FileError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let again = |error: &io::Error, kind| error.kind() == kind && tries < TRIES;
        match directory.hold(name) {
            Ok(held) => {
                check(&fstat(&held).map_err(io::Error::from)?)?;
                return Ok(reopen(&held)?);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_APPEND;
        match directory.open_file(name, flags, Mode::from_bits_truncate(0o640)) {
            Ok(made) => return Ok(File::from(made)),
            Err(error) if again(&error, io::ErrorKind::AlreadyExists) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether lines may be written to what is held.
fn check(found: &FileStat) -> Result<(), FileError> {
    let kind = held::kind(found);
    if kind == SFlag::S_IFLNK {
        return Err(FileError::Link);
    }
    if kind == SFlag::S_IFCHR {
        return Ok(());
    }
    if kind != SFlag::S_IFREG && kind != SFlag::S_IFIFO {
        return Err(FileError::Kind);
    }
    if found.st_uid != 0 && found.st_uid != Uid::effective().as_raw() {
        return Err(FileError::Owner(found.st_uid));
    }
    if found.st_nlink != 1 {
        return Err(FileError::Names(found.st_nlink));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    const SOMEBODY: u32 = 12345;

    fn refused(path: &Path) -> String {
        open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_made_appended_to_and_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for text in ["a", "b"] {
            open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "ab");
        open(Path::new("/dev/null")).unwrap().write_all(b"x").unwrap();
        open(Path::new("/dev/stderr")).unwrap();
    }

    #[test]
    fn links_and_second_names_and_what_is_no_file_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("precious"), "precious").unwrap();
        symlink(path("precious"), path("link")).unwrap();
        symlink(path("new"), path("dead")).unwrap();
        fs::hard_link(path("precious"), path("second")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        for (name, expected) in
            [("link", "it is a link"), ("dead", "it is a link"), ("second", "2 names"), ("directory", "neither")]
        {
            let error = refused(&path(name));
            assert!(error.contains(expected), "{name}: {error}");
        }
        assert!(!path("new").exists());
        assert_eq!(fs::read_to_string(path("precious")).unwrap(), "precious");
    }

    #[test]
    fn a_fifo_of_ours_is_taken_when_somebody_reads_it_and_never_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(matches!(open(&path), Err(FileError::System(_))));
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        open(&path).unwrap();
    }

    #[test]
    fn root_opens_nothing_where_somebody_else_decides_what_lies_there() {
        if !Uid::effective().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["theirs", "ours", "open", "group"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::set_permissions(path("open"), Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(path("group"), Permissions::from_mode(0o775)).unwrap();
        chown(path("theirs"), Some(SOMEBODY), None).unwrap();
        fs::write(path("ours/theirs"), "").unwrap();
        chown(path("ours/theirs"), Some(SOMEBODY), None).unwrap();
        // What they would lead us to.
        symlink(path("ours"), path("theirs/way")).unwrap();
        symlink(path("ours"), path("their-way")).unwrap();
        std::os::unix::fs::lchown(path("their-way"), Some(SOMEBODY), None).unwrap();
        symlink(path("ours"), path("our-way")).unwrap();
        for (name, expected) in [
            ("theirs/log", "belongs to user 12345, who decides"),
            ("theirs/way/log", "belongs to user 12345, who decides"),
            ("their-way/log", "belongs to user 12345, who decides"),
            ("open/log", "everybody may write"),
            ("ours/theirs", "belongs to user 12345; make it root's"),
        ] {
            let error = refused(&path(name));
            assert!(error.contains(expected), "{name}: {error}");
        }
        for name in ["ours/log", "our-way/log", "group/log", "ours/../ours/log"] {
            open(&path(name)).unwrap();
        }
        assert_eq!(fs::metadata(path("ours/log")).unwrap().mode() & 0o777, 0o640);
        // A sticky directory is everybody's, and what lies there its owner's alone.
        fs::set_permissions(path("open"), Permissions::from_mode(0o1777)).unwrap();
        open(&path("open/log")).unwrap();
    }
}
