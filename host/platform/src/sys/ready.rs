//! Waiting for something to read, without reading it.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that can be waited for, known to the runtime that it was made in.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Takes over a descriptor, of a pipe for instance. Must be called inside a runtime.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "tokio can't see that a descriptor stays the same")]
        // SAFETY: an `OwnedFd` is open, always names the same descriptor, and nothing takes it out.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? };
        Ok(Self(registered))
    }

    /// Waits, then calls `read_all`, which reads until nothing is left.
    pub async fn then<T>(&self, read_all: impl FnOnce() -> T) -> io::Result<T> {
        let mut ready = self.0.readable().await?;
        // Before, so that what comes while it reads is news.
        ready.clear_ready();
        Ok(read_all())
    }
}
