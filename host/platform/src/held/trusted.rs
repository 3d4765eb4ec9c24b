//! Paths whose every directory belongs to root or to us.
//!
//! Root uses paths from the configuration, and whoever owns a directory on a path decides where it leads. So
//! every directory on it, and every link to one, belongs to root or to us, and isn't writable by all unless it
//! is sticky (`/tmp`). A group may write to it, because `/var/log` is `root:syslog 775` on Ubuntu, but not one of the workers':
//! it could rename what root has made.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid};

use super::{Directory, kind, permissions};

/// As many links as the kernel follows in one path (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;

/// A path that somebody else can lead elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum UntrustedPath {
    #[error("{} belongs to user {owner}, who decides what lies there; make it root's, or choose another place", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("a group of the workers may write to {}; take that right away, or choose another place", path.display())]
    Group { path: PathBuf },
    #[error("everybody may write to {}; take that right away, or choose another place", path.display())]
    Mode { path: PathBuf },
    #[error("{} can't be looked at", path.display())]
    System { path: PathBuf, source: io::Error },
}

/// The groups that workers run with, where those aren't ours.
static WORKERS_GROUPS: OnceLock<Vec<Gid>> = OnceLock::new();

/// From now on no path is trusted on which one of these groups may write to a directory. They are the same for all of a
/// master's life.
pub fn distrust_groups(workers: Vec<Gid>) {
    let _ = WORKERS_GROUPS.set(workers);
}

/// Whose directories are walked through.
struct Trust {
    us: u32,
    /// Who owns `/`: root, who has another number where this process's user namespace doesn't know it.
    root: u32,
    /// The workers' groups.
    workers: Vec<u32>,
}

impl Trust {
    fn ours() -> io::Result<Self> {
        Ok(Self {
            us: Uid::effective().as_raw(),
            root: Directory::open(Path::new("/"))?.stat()?.st_uid,
            workers: WORKERS_GROUPS.get().into_iter().flatten().map(|group| group.as_raw()).collect(),
        })
    }

    fn owner(&self, found: &FileStat, path: &Path) -> Result<(), UntrustedPath> {
        let owner = found.st_uid;
        if [0, self.us, self.root].contains(&owner) {
            Ok(())
        } else {
            Err(UntrustedPath::Owner { path: path.to_owned(), owner })
        }
    }

    fn directory(&self, directory: &Directory, path: &Path) -> Result<(), UntrustedPath> {
        let found = directory.stat().map_err(|source| UntrustedPath::System { path: path.to_owned(), source })?;
        self.owner(&found, path)?;
        let mode = permissions(&found);
        if mode.contains(Mode::S_IWOTH) && !mode.contains(Mode::S_ISVTX) {
            return Err(UntrustedPath::Mode { path: path.to_owned() });
        }
        if self.workers.contains(&found.st_gid) && mode.contains(Mode::S_IWGRP) && !mode.contains(Mode::S_ISVTX) {
            return Err(UntrustedPath::Group { path: path.to_owned() });
        }
        Ok(())
    }
}

/// Holds the directory at `path`, which must be absolute, if nobody but root and we can lead that path elsewhere.
pub fn open_trusted(path: &Path) -> Result<Directory, UntrustedPath> {
    let root = Path::new("/");
    let trust = Trust::ours().map_err(|source| UntrustedPath::System { path: root.to_owned(), source })?;
    let steps = |path: &Path| path.components().filter_map(step).collect::<Vec<_>>();
    let mut ahead: VecDeque<Step> = steps(path).into();
    let mut here = root.to_owned();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| UntrustedPath::System { path, source }
    };
    let mut directory = Directory::open(&here).map_err(failed(&here))?;
    let mut links = 0;
    while let Some(step) = ahead.pop_front() {
        let Step::Into(next) = step else {
            root.clone_into(&mut here);
            directory = Directory::open(&here).map_err(failed(&here))?;
            continue;
        };
        trust.directory(&directory, &here)?;
        let there = if next == ".." { here.parent().unwrap_or(root).to_owned() } else { here.join(&next) };
        let found = directory.look(&next).map_err(failed(&there))?;
        if kind(&found) == SFlag::S_IFLNK {
            trust.owner(&found, &there)?;
            links += 1;
            if links > MOST_LINKS {
                return Err(failed(&there)(io::Error::from_raw_os_error(libc::ELOOP)));
            }
            let target = readlinkat(&directory, next.as_os_str()).map_err(|error| failed(&there)(error.into()))?;
            for step in steps(Path::new(&target)).into_iter().rev() {
                ahead.push_front(step);
            }
            continue;
        }
        directory = directory.pass(&next).map_err(failed(&there))?;
        here = there;
    }
    trust.directory(&directory, &here)?;
    Ok(directory)
}

enum Step {
    Root,
    Into(OsString),
}

fn step(component: Component<'_>) -> Option<Step> {
    match component {
        Component::RootDir => Some(Step::Root),
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
        Component::ParentDir => Some(Step::Into("..".into())),
        Component::CurDir | Component::Prefix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_the_workers_group_may_write_to_is_not_trusted_and_one_of_another_groups_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        set_permissions(path, Permissions::from_mode(0o775)).unwrap();
        let held = Directory::open(path).unwrap();
        let group = held.stat().unwrap().st_gid;
        let trust = |workers| Trust { workers: vec![4_000_000, workers], ..Trust::ours().unwrap() };
        assert!(matches!(trust(group).directory(&held, path), Err(UntrustedPath::Group { .. })));
        trust(group + 1).directory(&held, path).unwrap();
        set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        trust(group).directory(&held, path).unwrap();
    }
}
