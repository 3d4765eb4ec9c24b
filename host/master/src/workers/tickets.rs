//! The keys of session tickets: made here, rotated, and given to all workers of all generations.
//!
//! A key seals for [`TICKET_LIFETIME`] and is known for as long again, so that each ticket lives for as long as its client was
//! told. Nothing of it is written down, and it leaves this process only as a memory file that workers read.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use zeroize::Zeroizing;

use app_host_core::tls::{TICKET_KEY_BYTES, TICKET_KEYS, TICKET_LIFETIME};

/// The keys that are known, the newest first.
pub(super) struct TicketKeys {
    keys: Zeroizing<[u8; TICKET_KEY_BYTES * TICKET_KEYS]>,
    /// How many of them there are.
    count: usize,
    file: Arc<OwnedFd>,
    rotated: Instant,
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKeys(…)")
    }
}

impl TicketKeys {
    /// One new key.
    pub(super) fn new(now: Instant) -> io::Result<Self> {
        let mut keys = Zeroizing::new([0; TICKET_KEY_BYTES * TICKET_KEYS]);
        getrandom::fill(&mut keys[..TICKET_KEY_BYTES]).map_err(io::Error::other)?;
        let file = Arc::new(file(&keys[..TICKET_KEY_BYTES])?);
        Ok(Self { keys, count: 1, file, rotated: now })
    }

    /// The file that a worker reads.
    pub(super) const fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// When a new key is due.
    pub(super) fn due(&self) -> Instant {
        self.rotated + Duration::from_secs(TICKET_LIFETIME.into())
    }

    /// Makes a new key; the oldest is forgotten.
    pub(super) fn rotate(&mut self, now: Instant) -> io::Result<()> {
        // If it fails, the old ones are tried again later.
        self.rotated = now;
        let mut key = Zeroizing::new([0; TICKET_KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(io::Error::other)?;
        let kept = TICKET_KEY_BYTES * (TICKET_KEYS - 1);
        self.keys.copy_within(..kept, TICKET_KEY_BYTES);
        self.keys[..TICKET_KEY_BYTES].copy_from_slice(&*key);
        self.count = TICKET_KEYS.min(self.count + 1);
        self.file = Arc::new(file(&self.keys[..self.count * TICKET_KEY_BYTES])?);
        Ok(())
    }
}

fn file(keys: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"app-host ticket keys", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(keys)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn read(keys: &TicketKeys) -> Vec<u8> {
        let file = File::from(keys.file().try_clone().unwrap());
        let mut bytes = vec![0; TICKET_KEY_BYTES * TICKET_KEYS + 1];
        let length = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn a_key_is_known_for_as_long_again_as_it_seals_and_then_gone() {
        let begin = Instant::now();
        let mut keys = TicketKeys::new(begin).unwrap();
        let mut before = read(&keys);
        assert_eq!(before.len(), TICKET_KEY_BYTES);
        for round in 1..4 {
            let now = keys.due();
            assert_eq!(now - begin, Duration::from_secs(u64::from(TICKET_LIFETIME)) * round);
            keys.rotate(now).unwrap();
            let after = read(&keys);
            assert_eq!(after.len(), TICKET_KEY_BYTES * TICKET_KEYS);
            assert_eq!(after[TICKET_KEY_BYTES..], before[..TICKET_KEY_BYTES], "the old one opens");
            assert!(
                !before.windows(TICKET_KEY_BYTES).any(|key| key == &after[..TICKET_KEY_BYTES]),
                "the new one is new"
            );
            before = after;
        }
        assert_eq!(format!("{keys:?}"), "TicketKeys(…)");
    }
}
