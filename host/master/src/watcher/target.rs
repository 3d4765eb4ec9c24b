//! A watched file: when it was disturbed, when it is quiet again, and what was said of it last.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use app_host_core::config::MAX_FILE_BYTES;
use app_host_core::ids::ConfigId;
use app_host_platform::artifact::{self, ArtifactError, Look};

use super::{FileSeen, POLL, QUIET};

/// What differs when a file has been written to or replaced: device, inode, size, and the times of the
/// last change of its bytes and of itself. The latter nobody can set back.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// A file can't be said anything about yet.
enum Unsaid {
    /// It has changed while it was read.
    Moving,
    /// It is there and can't be read.
    Unreadable,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Library,
    Config,
    /// With its number among those that are watched.
    Certificate(usize),
}

/// One watched file.
#[derive(Debug)]
pub(super) struct WatchedFile {
    path: PathBuf,
    kind: Kind,
    stamp: Option<Stamp>,
    /// When it is to be read, unless it changes before.
    due: Option<Instant>,
    said: Option<FileSeen>,
}

impl WatchedFile {
    pub(super) const fn library(path: PathBuf) -> Self {
        Self { path, kind: Kind::Library, stamp: None, due: None, said: None }
    }

    pub(super) const fn config(path: PathBuf) -> Self {
        Self { path, kind: Kind::Config, stamp: None, due: None, said: None }
    }

    pub(super) const fn certificate(number: usize, path: PathBuf) -> Self {
        Self { path, kind: Kind::Certificate(number), stamp: None, due: None, said: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// When [`look`](Self::look) has something to do.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something has happened to it: it is to be read again, whatever its stamp says. (A writer that
    /// has it mapped changes its bytes without changing its stamp each time.)
    pub(super) fn disturbed(&mut self, now: Instant) {
        self.stamp = stamp(&self.path);
        self.due = Some(now + QUIET);
    }

    /// Compares its stamp.
    pub(super) fn glance(&mut self, now: Instant) {
        if stamp(&self.path) != self.stamp {
            self.disturbed(now);
        }
    }

    /// What there is to say of it now.
    pub(super) fn look(&mut self, now: Instant) -> Option<FileSeen> {
        let due = self.due?;
        if due <= now {
            // No event needs to have come.
            self.glance(now);
        }
        if self.due == Some(due) && due <= now {
            self.due = None;
            match self.read() {
                Ok(seen) => return self.say(seen),
                Err(Unsaid::Moving) => self.disturbed(now),
                Err(Unsaid::Unreadable) => self.due = Some(now + POLL),
            }
        }
        self.say(self.nothing())
    }

    /// Says something once; and that there is nothing only of what was there.
    fn say(&mut self, seen: FileSeen) -> Option<FileSeen> {
        let is_known = match self.said {
            Some(said) => said == seen,
            None => seen == self.nothing(),
        };
        self.said = Some(seen);
        (!is_known).then_some(seen)
    }

    const fn nothing(&self) -> FileSeen {
        match self.kind {
            Kind::Library => FileSeen::Library(None),
            Kind::Config => FileSeen::Config(None),
            Kind::Certificate(number) => FileSeen::Certificate(number, None),
        }
    }

    fn read(&self) -> Result<FileSeen, Unsaid> {
        if self.stamp.is_none() {
            return Ok(self.nothing());
        }
        let seen = match self.kind {
            Kind::Library => read_library(&self.path)?,
            Kind::Config => FileSeen::Config(digest(&self.path)?.map(ConfigId::from_digest)),
            Kind::Certificate(number) => FileSeen::Certificate(number, digest(&self.path)?),
        };
        // Another file may have its path by now.
        if stamp(&self.path) == self.stamp { Ok(seen) } else { Err(Unsaid::Moving) }
    }
}

fn read_library(path: &Path) -> Result<FileSeen, Unsaid> {
    match artifact::look(path) {
        Ok(Look::Whole(version)) => Ok(FileSeen::Library(Some(version))),
        Err(ArtifactError::Moving { .. }) => Err(Unsaid::Moving),
        Err(ArtifactError::Read { .. }) => Err(Unsaid::Unreadable),
        // No restart can make anything of a directory, either.
        Ok(Look::Partial) | Err(_) => Ok(FileSeen::Library(None)),
    }
}

fn digest(path: &Path) -> Result<Option<[u8; 32]>, Unsaid> {
    let file = match artifact::open_regular(path) {
        Ok(file) => file,
        Err(ArtifactError::Read { .. }) => return Err(Unsaid::Unreadable),
        Err(_) => return Ok(None),
    };
    let mut hasher = Sha256::new();
    // One that is too large differs from every other one, which is enough to be refused.
    io::copy(&mut file.take(MAX_FILE_BYTES + 1), &mut Hash(&mut hasher)).map_err(|_| Unsaid::Unreadable)?;
    Ok(Some(hasher.finalize().into()))
}

/// A hash that is written to.
struct Hash<'a>(&'a mut Sha256);

impl io::Write for Hash<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    let times = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.dev(), found.ino(), found.size(), times.0, times.1))
}
