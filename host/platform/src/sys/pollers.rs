//! Whether the app has closed what this process waits with.
//!
//! An app may close descriptors by number that it doesn't own: all of them, as daemons of old did, or one of them twice.
//! The host finds out by panics far away from there. What every thread waits with (`epoll(7)`, `eventfd(2)`) is the
//! host's from before the app is loaded until the process ends, and is closed by nobody who owns it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

const DIRECTORY: &str = "/proc/self/fd";
const KINDS: [&str; 2] = ["anon_inode:[eventpoll]", "anon_inode:[eventfd]"];

/// One of them: its name in `/proc`, and what it is.
type Poller = (OsString, PathBuf);

static OURS: OnceLock<Vec<Poller>> = OnceLock::new();

/// Takes note of those that are there. To be called once, before there is an app.
pub fn remember() {
    let _ = OURS.set(open());
}

/// Whether one of them has been closed since.
pub fn was_one_closed() -> bool {
    OURS.get().is_some_and(|ours| ours.iter().any(is_closed))
}

fn open() -> Vec<Poller> {
    let found = fs::read_dir(DIRECTORY).into_iter().flatten().flatten().filter_map(|entry| {
        let kind = fs::read_link(entry.path()).ok()?;
        KINDS.iter().any(|known| kind == Path::new(known)).then(|| (entry.file_name(), kind))
    });
    found.collect()
}

fn is_closed((name, kind): &Poller) -> bool {
    // What can't be looked at for another reason says nothing.
    let found = fs::symlink_metadata(DIRECTORY).and_then(|_| fs::read_link(Path::new(DIRECTORY).join(name)));
    found.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |found| found != *kind)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use super::*;

    #[test]
    fn one_that_is_closed_is_missed_also_when_something_else_has_its_number() {
        #[expect(unsafe_code, reason = "no crate here wraps it")]
        // SAFETY: what is returned is a new descriptor that nobody else owns.
        let poller = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        // A number that no other test comes to.
        let high = rustix::io::fcntl_dupfd_cloexec(&poller, 800).unwrap();
        let number = high.as_raw_fd();
        let ours = open().into_iter().find(|(name, _)| *name == *number.to_string()).unwrap();
        assert!(!is_closed(&ours));
        drop(high);
        assert!(is_closed(&ours));
        let other = rustix::io::fcntl_dupfd_cloexec(io::stderr(), number).unwrap();
        assert_eq!(other.as_raw_fd(), number);
        assert!(is_closed(&ours));
    }
}
