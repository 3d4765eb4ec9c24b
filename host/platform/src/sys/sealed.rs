//! Memory files that nobody can change any more (`memfd_create(2)`, `F_ADD_SEALS` of `fcntl(2)`): how many bytes go from one
//! process to another without being copied, and without either having to trust the other.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use memmap2::{Mmap, MmapOptions};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// What a file is sealed against: all but being read.
fn all_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL
}

/// A memory file that is being written, and has no more than a bound.
#[derive(Debug)]
pub struct Writing {
    name: &'static CStr,
    /// Made when something comes.
    file: Option<File>,
    length: u64,
    limit: u64,
}

impl Writing {
    /// Nothing yet, of a file with this name, which `/proc/PID/fd` shows.
    pub const fn new(name: &'static CStr, limit: u64) -> Self {
        Self { name, file: None, length: 0, limit }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// `FileTooLarge`, and nothing is added, when they would be more than the bound.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = self.length.saturating_add(bytes.len() as u64);
        if length > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
                none.insert(File::from(memfd_create(self.name, flags)?))
            }
        };
        file.write_all(bytes)?;
        self.length = length;
        Ok(())
    }

    /// The file, which doesn't change any more, and its length; `None` if nothing was added.
    pub fn seal(self) -> io::Result<Option<(OwnedFd, u64)>> {
        let Some(file) = self.file else { return Ok(None) };
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(all_seals()))?;
        Ok(Some((file.into(), self.length)))
    }
}

/// Whether this is a memory file that can't change any more. Only those have seals.
pub fn is_sealed(file: &File) -> bool {
    let found = fcntl(file.as_fd(), FcntlArg::F_GET_SEALS);
    found.is_ok_and(|found| SealFlag::from_bits_retain(found).contains(all_seals()))
}

/// What is in a sealed memory file, mapped.
#[derive(Debug)]
pub struct SealedBytes(Mmap);

impl SealedBytes {
    /// Maps a file of another process.
    ///
    /// # Errors
    /// `InvalidData` for what is no sealed memory file, or has more bytes than `limit`.
    pub fn map(file: OwnedFd, limit: u64) -> io::Result<Self> {
        let file = File::from(file);
        if !is_sealed(&file) || file.metadata()?.len() > limit {
            return Err(io::ErrorKind::InvalidData.into());
        }
        #[expect(unsafe_code, reason = "a mapping of a file that could change would not be a slice")]
        // Private, which copies nothing as nobody writes: before Linux 6.7 a file that is sealed against writing can't be
        // mapped shared, even for reading (`mmap(2)`, EPERM).
        // SAFETY: the file is sealed: nobody writes to it, and it doesn't become shorter.
        let map = unsafe { MmapOptions::new().map_copy_read_only(&file)? };
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for SealedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_up_to_the_bound_is_read_and_can_never_change() {
        let mut writing = Writing::new(c"test", 10);
        writing.add(b"12345").unwrap();
        assert_eq!(writing.add(b"678901").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        writing.add(b"67890").unwrap();
        let (file, length) = writing.seal().unwrap().unwrap();
        assert_eq!(length, 10);
        let mut other = File::from(file.try_clone().unwrap());
        assert!(other.write_all(b"x").is_err() && other.set_len(3).is_err());
        assert_eq!(SealedBytes::map(file.try_clone().unwrap(), 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(SealedBytes::map(file, 10).unwrap().as_ref(), b"1234567890");
        assert!(Writing::new(c"test", 10).seal().unwrap().is_none(), "nothing is no file");
    }

    #[test]
    fn what_could_change_is_not_mapped() {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let unsealed = memfd_create(c"test", flags).unwrap();
        fcntl(unsealed.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        let file = tempfile::tempfile().unwrap();
        for other in [unsealed, file.into()] {
            assert_eq!(SealedBytes::map(other, 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
