//! A version's file as a child has it: held, checked, and loaded by its name where that is still its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use app_host_core::ids::VersionId;

use super::{ArtifactError, has_hash};
use crate::held;

/// A version's file as a child has it: the copy itself, and the path where it was made.
#[derive(Debug)]
pub struct Loadable {
    file: File,
    /// Where it is loaded from.
    path: PathBuf,
    by_name: bool,
}

impl Loadable {
    /// By its name where that is still the file's: by the descriptor, `/proc/self/fd/N`, debuggers don't find it, nor it
    /// its neighbours (`$ORIGIN`, `ld.so(8)`). But the name may be gone with the directory that it was in.
    pub fn new(file: OwnedFd, path: &Path) -> Self {
        let file = File::from(file);
        let by_name = is_named(&file, path).unwrap_or_default();
        let path = if by_name { path.to_owned() } else { held::path_of(&file) };
        Self { file, path, by_name }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that it still has the hash that it is named by.
    pub fn verify(&self, expected: VersionId) -> Result<(), ArtifactError> {
        let failed = |source| ArtifactError::Read { path: self.path.clone(), source };
        // The position is shared with all who have this descriptor.
        let mut own = File::open(held::path_of(&self.file)).map_err(failed)?;
        has_hash(&mut own, &self.path, expected)
    }

    /// Checks that what was loaded from [`Self::path`] is this file: the name may have become another's meanwhile.
    pub fn is_at_its_path(&self) -> Result<(), ArtifactError> {
        let same = !self.by_name
            || is_named(&self.file, &self.path)
                .map_err(|source| ArtifactError::Read { path: self.path.clone(), source })?;
        if same { Ok(()) } else { Err(ArtifactError::Replaced { path: self.path.clone() }) }
    }
}

/// Whether `path` is a name of this file, and no link to one.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let (held, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loadable(path: &Path) -> Loadable {
        Loadable::new(File::open(path).unwrap().into(), path)
    }

    #[test]
    fn a_version_that_was_tampered_with_is_noticed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let id = VersionId::parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        let held = loadable(file.path());
        // Twice: what one has read, the next one reads again.
        held.verify(id).unwrap();
        held.verify(id).unwrap();
        fs::write(file.path(), "abd").unwrap();
        assert!(matches!(held.verify(id), Err(ArtifactError::Changed { .. })));
    }

    #[test]
    fn a_version_whose_name_is_gone_is_loaded_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("version");
        fs::write(&path, "abc").unwrap();
        let id = VersionId::parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert_eq!(loadable(&path).path(), path);
        let held = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        let gone = Loadable::new(held.into(), &path);
        gone.verify(id).unwrap();
        assert_eq!(fs::read(gone.path()).unwrap(), b"abc");
        gone.is_at_its_path().unwrap();
    }

    #[test]
    fn a_version_that_is_exchanged_after_it_was_hashed_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("version"), directory.path().join("other"));
        fs::write(&path, "abc").unwrap();
        fs::write(&other, "abc").unwrap();
        let id = VersionId::parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        let held = loadable(&path);
        held.verify(id).unwrap();
        held.is_at_its_path().unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(matches!(held.is_at_its_path(), Err(ArtifactError::Replaced { .. })));
        fs::remove_file(&path).unwrap();
        assert!(held.is_at_its_path().is_err());
    }
}
