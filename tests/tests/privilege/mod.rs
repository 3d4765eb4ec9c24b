//! The second ring: a master that is root does nothing for its workers' user that this user could not do.
//!
//! Run with `-- --ignored` as root. Each test lays a trap as the user `nobody` could, and looks at what the
//! master has done there.

mod files;
mod listeners;
mod mounts;
mod processes;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{User, getuid};

fn nobody() -> User {
    assert!(getuid().is_root(), "only root can start workers as another user");
    User::from_name("nobody").unwrap().expect("there is a user nobody")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}
