//! The way to a file: every directory in which a name decides where its path leads.
//!
//! A path is walked as the kernel does it (`path_resolution(7)`), so that a symbolic link that is
//! swapped is seen where it lies, and a directory that is replaced in its parent.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// How many symbolic links the kernel follows (`path_resolution(7)`).
const LINKS: usize = 40;

/// How many names a way may have; a longer path than the kernel takes has no more.
const NAMES: usize = 512;

/// A name that is looked up in a directory, which lies at this path and is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    directory: PathBuf,
    device: u64,
    inode: u64,
    name: OsString,
}

/// As far as it leads now. Two that are equal lead through the same directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathChain(Vec<Step>);

impl PathChain {
    /// The way to `path`, which must be absolute.
    pub(super) fn to(path: &Path) -> Self {
        let mut steps = Vec::new();
        let mut links = 0;
        let mut here = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = names(path);
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                // Links are resolved by now, so this is the parent that the kernel would go to.
                here.pop();
                continue;
            }
            let Ok(directory) = fs::metadata(&here) else { break };
            let there = here.join(&name);
            steps.push(Step { directory: here.clone(), device: directory.dev(), inode: directory.ino(), name });
            let Ok(found) = fs::symlink_metadata(&there) else { break };
            if found.is_symlink() {
                links += 1;
                let Ok(target) = fs::read_link(&there) else { break };
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for name in names(&target).into_iter().rev() {
                    rest.push_front(name);
                }
            } else {
                here = there;
            }
            if links > LINKS || steps.len() > NAMES {
                break;
            }
        }
        Self(steps)
    }

    /// The directories in which names are looked up.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|step| step.directory.as_path())
    }

    /// The name of the file itself, or of the first on the way that isn't there.
    pub(super) fn end(&self) -> Option<&OsStr> {
        self.0.last().map(|step| step.name.as_os_str())
    }

    /// The names of the directories and symbolic links before that.
    pub(super) fn bends(&self) -> impl Iterator<Item = &OsStr> {
        self.0.iter().rev().skip(1).map(|step| step.name.as_os_str())
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}
