//! The state directory: what a master keeps there, held from its start to its end.
//!
//! Owns what a directory must be to be one, and whether a path still leads to the one that is held. Whoever renames it,
//! deletes it or puts a link in its place changes nothing for the master that holds it. What lies in it is for
//! `artifact`, `locks` and `history_file`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::stat::Mode;

use app_host_core::config::Config;

use crate::held::{self, Directory, FileId, OwnError, PathTrust};

/// Readable by the workers' user, writable by us alone, whatever the umask is.
const MODE: Mode = Mode::S_IRWXU.union(Mode::S_IRGRP).union(Mode::S_IXGRP).union(Mode::S_IROTH).union(Mode::S_IXOTH);

/// A state directory that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("state_dir: the directory {} can't be used", path.display())]
    Unfit { path: PathBuf, source: OwnError },
    #[error(
        "state_dir: {} lies on a file system that is mounted noexec, and no library can be loaded from there, \
         whichever it is; mount it with exec, or choose another state_dir",
        path.display()
    )]
    NoExec { path: PathBuf },
    #[error(
        "state_dir: {} is no longer the directory that this master uses: {found}; keep it outside of the release, \
         where no deploy moves it, and restart the master to use another",
        path.display()
    )]
    Moved { path: PathBuf, found: String },
}

/// What is held.
#[derive(Debug)]
pub struct StateDir {
    pub directory: Arc<Directory>,
    pub versions: Directory,
    pub locks: Directory,
}

impl StateDir {
    /// Holds the state directory of `config`, and makes what is missing of it.
    pub fn open(config: &Config, trust: PathTrust) -> Result<Self, StateDirError> {
        let unfit = |path: PathBuf| move |source| StateDirError::Unfit { path, source };
        let directory = held::own(&config.state_dir, MODE, trust).map_err(unfit(config.state_dir.clone()))?;
        let versions = directory.own("versions", MODE).map_err(unfit(config.versions_dir()))?;
        let locks = directory.own("locks", MODE).map_err(unfit(config.locks_dir()))?;
        can_load_from(&versions, config.versions_dir())?;
        Ok(Self { directory: Arc::new(directory), versions, locks })
    }

    /// Holds the directory in which a master with `config` would keep its versions, or the one in which it would make
    /// that: whatever is on its path already. Makes nothing.
    pub fn look(config: &Config, trust: PathTrust) -> Result<Directory, StateDirError> {
        let path = config.versions_dir();
        let failed = |source| StateDirError::Unfit { path: path.clone(), source };
        let mut there = held::look(&config.state_dir, trust).map_err(failed)?;
        if there.is_whole {
            match there.directory.owned("versions") {
                Ok(versions) => there.directory = versions,
                Err(OwnError::System(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        can_load_from(&there.directory, path)?;
        Ok(there.directory)
    }
}

/// Checks that a library that lies in this directory, which is called `path`, can be mapped as code.
pub fn can_load_from(directory: &Directory, path: PathBuf) -> Result<(), StateDirError> {
    if directory.is_noexec().unwrap_or_default() { Err(StateDirError::NoExec { path }) } else { Ok(()) }
}

/// Checks that `path` still leads to the directory that is held: where it doesn't, another master would use another one,
/// and nothing that this one keeps would be found there.
pub fn is_still_at(held: &Directory, path: &Path) -> Result<(), StateDirError> {
    let moved = |found: String| StateDirError::Moved { path: path.to_owned(), found };
    let id = |directory: &Directory| directory.stat().map(|found| FileId::from(&found));
    match Directory::open(path).and_then(|found| Ok(id(&found)? == id(held)?)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(moved("it is another one now, because it was replaced or a link on its path was".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(moved("it isn't there any more, because it was moved or deleted or a link on its path was".to_owned()))
        }
        Err(error) => Err(moved(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn config(directory: &Path) -> Config {
        Config::parse(br#"{"app": {"library": "a"}, "state_dir": "a/b/state"}"#, &directory.join("c.json")).unwrap()
    }

    #[test]
    fn a_look_makes_nothing_and_refuses_what_an_open_would() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let id = |held: &Directory| FileId::from(&held.stat().unwrap());
        let at = |path: &Path| id(&Directory::open(path).unwrap());
        let look = || StateDir::look(&config, PathTrust::Any);
        assert_eq!(id(&look().unwrap()), at(directory.path()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        StateDir::open(&config, PathTrust::Any).unwrap();
        assert_eq!(id(&look().unwrap()), at(&config.versions_dir()));
        fs::remove_dir(config.versions_dir()).unwrap();
        assert_eq!(id(&look().unwrap()), at(&config.state_dir));
        for path in [config.versions_dir(), config.state_dir.clone()] {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            assert!(look().unwrap_err().to_string().contains("can't be used"));
            assert!(StateDir::open(&config, PathTrust::Any).is_err());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::remove_dir_all(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a"), "").unwrap();
        assert!(look().is_err() && StateDir::open(&config, PathTrust::Any).is_err());
    }

    #[test]
    fn a_directory_that_was_moved_deleted_or_replaced_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("releases/1")).unwrap();
        fs::create_dir_all(path("releases/2")).unwrap();
        symlink("releases/1", path("current")).unwrap();
        let held = Directory::open(&path("current")).unwrap();
        is_still_at(&held, &path("current")).unwrap();
        fs::remove_file(path("current")).unwrap();
        symlink("releases/2", path("current")).unwrap();
        let error = is_still_at(&held, &path("current")).unwrap_err().to_string();
        assert!(error.starts_with("state_dir: ") && error.contains("outside of the release"), "{error}");
        is_still_at(&held, &path("releases/1")).unwrap();
        fs::remove_dir(path("releases/1")).unwrap();
        assert!(is_still_at(&held, &path("releases/1")).unwrap_err().to_string().contains("isn't there any more"));
    }
}
