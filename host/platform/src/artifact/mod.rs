//! Artifacts and versions: from the file that a build leaves to the master's own immutable copy.
//!
//! Owns the store of versions and what can be known of a library without running it. Nothing here
//! executes a byte of it: the first `dlopen` is the probe's.
//!
//! A library is copied first and looked at then, because the file at the configured path may change
//! under a reader at any moment, and only the copy is ever loaded.

pub mod elf;
mod loadable;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use app_abi::Magic;
use app_abi::manifest::Manifest;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use app_host_core::ids::VersionId;

use crate::held::{self, Directory};
use crate::sys;

pub use elf::ElfError;
pub use loadable::Loadable;

/// The largest library that is taken, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// How a version's file ends, and that of a copy that isn't finished.
const SUFFIX: &str = ".so";
const PARTIAL_PREFIX: &str = ".partial-";

/// A library that can't be taken, or a version that isn't what it was.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("{} can't be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is {found}, expected a regular file", path.display())]
    NoFile { path: PathBuf, found: &'static str },
    #[error("{} has {size} bytes, expected at most {MAX_BYTES}", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("{} has changed while it was copied; put it in place by a rename, or wait and try again", path.display())]
    Moving { path: PathBuf },
    #[error("{} can't be copied to {}", path.display(), directory.display())]
    Copy { path: PathBuf, directory: PathBuf, source: io::Error },
    #[error("{} was removed under the master that uses it; restart the master, which makes it anew", directory.display())]
    NoStore { directory: PathBuf },
    #[error("{} can't be made to outlive a loss of power", path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error("{} can't be loaded", path.display())]
    Elf { path: PathBuf, version: VersionId, source: ElfError },
    #[error("{} was replaced while it was loaded", path.display())]
    Replaced { path: PathBuf },
    #[error("{} has changed: its hash is {found}, expected {expected}", path.display())]
    Changed { path: PathBuf, found: VersionId, expected: VersionId },
}

/// The master's own, immutable copy of an artifact.
#[derive(Clone, Debug)]
pub struct Version {
    pub id: VersionId,
    pub path: PathBuf,
    /// The copy itself, whatever becomes of its path.
    pub file: Arc<File>,
    /// What it is a copy of, as people know it.
    pub library: PathBuf,
    /// Whether that file has no name any more where it comes from, and is here by a mount of its own.
    pub is_unlinked: bool,
    pub manifest: Manifest,
}

/// What is to be done about a library that is there by a mount of its own and has lost its name.
pub const UNLINKED: &str = "its file was replaced or removed where it is mounted from, and a mount of a single file goes \
                            on showing the old one: mount its directory instead";

impl Version {
    pub fn magic(&self) -> Magic {
        self.manifest.magic
    }
}

/// The directory of versions, each named by its hash.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    /// The directory itself, wherever its path leads now. What is read here is read there.
    held: Arc<Directory>,
    copies: Copies,
}

/// What becomes of the copies that a store makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// They are kept under their hashes.
    Named,
    /// Each is gone with who holds it, and nobody else ever sees it.
    Nameless,
}

impl Store {
    /// Opens the store in the directory that is `held`, and that children know as `directory`, and removes what an earlier master left
    /// half-copied. Only one master may use a store: it must hold the lock on the state directory.
    pub fn open(directory: PathBuf, held: Directory) -> io::Result<Self> {
        for entry in fs::read_dir(held::path_of(&held))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(PARTIAL_PREFIX) {
                held.remove(&name)?;
            }
        }
        Ok(Self { directory, held: Arc::new(held), copies: Copies::Named })
    }

    /// One that leaves nothing behind, for who only wants to know. The directory that is `held` may be another master's;
    /// errors call it `directory`.
    pub fn without_names(directory: PathBuf, held: Directory) -> Self {
        Self { directory, held: Arc::new(held), copies: Copies::Nameless }
    }

    /// Where the versions lie.
    pub fn directory(&self) -> &Directory {
        &self.held
    }

    /// Copies the artifact at `path` and reads what it says of itself. Blocks on the disk.
    ///
    /// # Errors
    /// When it is no complete library for this machine, or can't be copied; no copy remains then.
    pub fn admit(&self, path: &Path) -> Result<Version, ArtifactError> {
        match self.copy(path) {
            // One that was admitted before needs no room.
            Err(ArtifactError::Copy { source, path, directory }) if is_full(&source) => {
                self.known(&path)?.ok_or(ArtifactError::Copy { source, path, directory })
            }
            outcome => outcome,
        }
    }

    /// The version at `path`, if its copy is here already.
    fn known(&self, path: &Path) -> Result<Option<Version>, ArtifactError> {
        let is_unlinked = is_unlinked(&open_regular(path)?);
        let Look::Whole(id) = look(path)? else { return Ok(None) };
        Ok(self.reopen(id, path).ok().map(|known| Version { is_unlinked, ..known }))
    }

    fn copy(&self, path: &Path) -> Result<Version, ArtifactError> {
        let mut source = open_regular(path)?;
        let copy_failed =
            |source| ArtifactError::Copy { path: path.to_owned(), directory: self.directory.clone(), source };
        let mut copy = Unfinished::new(&held::path_of(&*self.held), self.copies).map_err(|source| {
            // A directory that was removed has no place for a file, and its path here is one of ours (`proc(5)`).
            if source.kind() == io::ErrorKind::NotFound {
                ArtifactError::NoStore { directory: self.directory.clone() }
            } else {
                copy_failed(source)
            }
        })?;
        let read_failed = |source| ArtifactError::Read { path: path.to_owned(), source };
        let before = stamp(&source).map_err(read_failed)?;
        let id = copy_hashed(&mut source, copy.file_mut(), path, copy_failed)?;
        // An old head with a new tail may look whole.
        if stamp(&source).map_err(read_failed)? != before {
            return Err(ArtifactError::Moving { path: path.to_owned() });
        }
        let manifest = elf::read(copy.file_mut(), sys::has_symbol).map_err(|source| {
            let path = path.to_owned();
            ArtifactError::Elf { path, version: id, source }
        })?;
        // The umask may have taken read permission from the workers' user.
        copy.file_mut().set_permissions(Permissions::from_mode(0o444)).map_err(copy_failed)?;
        let file = match copy {
            Unfinished::Nameless(file) => File::open(held::path_of(&file)).map_err(copy_failed)?,
            Unfinished::Named(copy) => {
                if let Ok(file) = self.open_copy(id) {
                    file
                } else {
                    copy.persist(self.held.at(Self::name(id))).map_err(|error| copy_failed(error.error))?;
                    // Anew, because nobody who gets it is to write to it.
                    self.open_named(id)?
                }
            }
        };
        let is_unlinked = is_unlinked(&source);
        Ok(Version { id, path: self.path(id), file: Arc::new(file), library: path.to_owned(), is_unlinked, manifest })
    }

    /// Makes sure that a version outlives a loss of power. Blocks on the disk.
    ///
    /// Apart from [`admit`](Self::admit), so that it can run while the probe does. A copy that a loss
    /// of power has left without its bytes is harmless: its name is a hash that it no longer has.
    pub fn sync(&self, version: &Version) -> Result<(), ArtifactError> {
        version
            .file
            .sync_all()
            .and_then(|()| File::open(held::path_of(&*self.held))?.sync_all())
            .map_err(|source| ArtifactError::Sync { path: version.path.clone(), source })
    }

    /// A version that was admitted before, maybe by an earlier master, of the library at the path `library`. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// When its copy has gone or isn't what it was.
    pub fn reopen(&self, id: VersionId, library: &Path) -> Result<Version, ArtifactError> {
        let path = self.path(id);
        let file = self.open_copy(id)?;
        let manifest = elf::read(&file, sys::has_symbol).map_err(|source| ArtifactError::Elf {
            path: path.clone(),
            version: id,
            source,
        })?;
        Ok(Version { id, path, file: Arc::new(file), library: library.to_owned(), is_unlinked: false, manifest })
    }

    /// Removes all versions but those to `keep`.
    pub fn prune(&self, keep: &HashSet<VersionId>) -> io::Result<()> {
        for entry in fs::read_dir(held::path_of(&*self.held))? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(VersionId::parse);
            if let Some(id) = id
                && !keep.contains(&id)
            {
                // A process that has it mapped keeps it: only the name goes.
                self.held.remove(&name)?;
            }
        }
        Ok(())
    }

    /// What children load. It is the file that was hashed: nobody but us writes to the directory.
    fn path(&self, id: VersionId) -> PathBuf {
        self.directory.join(Self::name(id))
    }

    fn name(id: VersionId) -> String {
        format!("{id}{SUFFIX}")
    }

    /// Opens a copy that still has the hash that it is named by.
    fn open_copy(&self, id: VersionId) -> Result<File, ArtifactError> {
        let mut file = self.open_named(id)?;
        has_hash(&mut file, &self.path(id), id)?;
        Ok(file)
    }

    fn open_named(&self, id: VersionId) -> Result<File, ArtifactError> {
        let (path, name) = (self.path(id), Self::name(id));
        match self.held.open_file(OsStr::new(&name), OFlag::O_RDONLY, Mode::empty()) {
            Ok(file) => regular(file.into(), &path),
            Err(source) => Err(ArtifactError::Read { path, source }),
        }
    }
}

/// A copy that is being made; it is gone when it is dropped before it has got its name.
enum Unfinished {
    Named(NamedTempFile),
    Nameless(File),
}

impl Unfinished {
    fn new(directory: &Path, copies: Copies) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(PARTIAL_PREFIX).permissions(Permissions::from_mode(0o444));
        match copies {
            Copies::Named => builder.tempfile_in(directory).map(Self::Named),
            // Without a name from the beginning where the file system can do that (`O_TMPFILE`, `open(2)`).
            Copies::Nameless => tempfile::tempfile_in(directory).map(Self::Nameless),
        }
    }

    fn file_mut(&mut self) -> &mut File {
        match self {
            Self::Named(copy) => copy.as_file_mut(),
            Self::Nameless(file) => file,
        }
    }
}

/// What lies at an artifact's path, for whoever waits for a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Something that is still being written, or was left half-written.
    Partial,
    /// Something whole, which need not be a library.
    Whole(VersionId),
}

/// Looks at the artifact at `path` without taking it. Blocks on the disk, and reads all of the file.
pub fn look(path: &Path) -> Result<Look, ArtifactError> {
    let mut file = open_regular(path)?;
    let read_failed = |source| ArtifactError::Read { path: path.to_owned(), source };
    let before = stamp(&file).map_err(read_failed)?;
    if elf::is_partial(&file).map_err(read_failed)? {
        return Ok(Look::Partial);
    }
    file.rewind().map_err(read_failed)?;
    let id = copy_hashed(&mut file, &mut io::sink(), path, read_failed)?;
    if stamp(&file).map_err(read_failed)? != before {
        return Err(ArtifactError::Moving { path: path.to_owned() });
    }
    Ok(Look::Whole(id))
}

fn has_hash(file: &mut File, path: &Path, expected: VersionId) -> Result<(), ArtifactError> {
    let read_failed = |source| ArtifactError::Read { path: path.to_owned(), source };
    let found = copy_hashed(file, &mut io::sink(), path, read_failed)?;
    if found == expected { Ok(()) } else { Err(ArtifactError::Changed { path: path.to_owned(), found, expected }) }
}

/// Whether a file that was just opened by its path has no name (`st_nlink` in `inode(7)`): it is mounted there.
fn is_unlinked(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.nlink() == 0)
}

/// Whether there is no room for more.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What changes when somebody writes to a file.
fn stamp(file: &File) -> io::Result<(u64, i64, i64, i64, i64)> {
    let found = file.metadata()?;
    Ok((found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
}

/// Opens a regular file; never waits for the writer of a FIFO.
pub fn open_regular(path: &Path) -> Result<File, ArtifactError> {
    let read_failed = |source| ArtifactError::Read { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(read_failed)?;
    regular(file, path)
}

fn regular(file: File, path: &Path) -> Result<File, ArtifactError> {
    let read_failed = |source| ArtifactError::Read { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(read_failed)?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        let found = if kind.is_dir() { "a directory" } else { "a special file" };
        return Err(ArtifactError::NoFile { path: path.to_owned(), found });
    }
    if metadata.len() > MAX_BYTES {
        return Err(ArtifactError::TooLarge { path: path.to_owned(), size: metadata.len() });
    }
    Ok(file)
}

fn copy_hashed(
    source: &mut File,
    target: &mut impl Write,
    path: &Path,
    write_failed: impl FnOnce(io::Error) -> ArtifactError,
) -> Result<VersionId, ArtifactError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ArtifactError::Read { path: path.to_owned(), source }),
        };
        total += length as u64;
        if total > MAX_BYTES {
            return Err(ArtifactError::TooLarge { path: path.to_owned(), size: total });
        }
        hasher.update(&buffer[..length]);
        if let Err(error) = target.write_all(&buffer[..length]) {
            return Err(write_failed(error));
        }
    }
    Ok(VersionId::from_digest(hasher.finalize().into()))
}

#[cfg(test)]
mod tests;
