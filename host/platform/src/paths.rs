//! Relative paths, as the shell that they were typed in has them.
//!
//! Whoever deploys by a link (`current -> releases/7`) starts the service inside of it and switches the link later.
//! The kernel knows only where that directory *is*, `releases/7`; the shell knows by which way it was entered. So
//! relative paths go by the logical directory, as those of `pwd -L` do (POSIX, `pwd`).

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::{env, fs, io};

/// Makes a path absolute, by the logical working directory. Resolves no link and no `..` of it.
///
/// # Errors
/// When it is relative and the working directory has no path, because it was deleted, or when it is empty.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let logical = env::var_os("PWD").map(PathBuf::from).filter(|_| path.is_relative());
    match logical.filter(|logical| is_here(logical)) {
        Some(logical) if !path.as_os_str().is_empty() => std::path::absolute(logical.join(path)),
        _ => std::path::absolute(path),
    }
}

/// Whether a path names the working directory in the way that a shell does: from the root, without `.` and `..`.
fn is_here(path: &Path) -> bool {
    // `components` swallows a dot in the middle, which does no harm.
    let plain = path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    let id = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    path.is_absolute() && plain && id(path).is_some_and(|there| id(Path::new(".")) == Some(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_absolute_path_of_the_working_directory_counts() {
        let here = env::current_dir().unwrap();
        let link = tempfile::tempdir().unwrap().keep().join("link");
        std::os::unix::fs::symlink(&here, &link).unwrap();
        assert!(is_here(&here) && is_here(&link));
        let other = link.parent().unwrap();
        for path in [other, Path::new("."), Path::new(""), &link.join(".."), &link.join("../link"), &other.join("none")]
        {
            assert!(!is_here(path), "{}", path.display());
        }
        fs::remove_dir_all(other).unwrap();
    }

    #[test]
    fn an_absolute_path_stays_what_it_is_and_an_empty_one_is_none() {
        assert_eq!(absolute(Path::new("/a/../b")).unwrap(), Path::new("/a/../b"));
        assert!(absolute(Path::new("")).is_err());
    }
}
