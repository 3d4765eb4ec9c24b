//! Watching many descriptors at the price of one: an epoll instance (`epoll(7)`) that a runtime knows as a whole.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many are told of at once.
const AT_ONCE: usize = 64;

/// Sockets of which it is told once when there is something to read, or their other side has ended.
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// One that watches nothing yet. Must be called inside a runtime.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        #[expect(unsafe_code, reason = "tokio can't see that a descriptor stays the same")]
        // SAFETY: an `OwnedFd` is open, always names the same descriptor, and nothing takes it out.
        let registered = unsafe { AsyncFd::register(epoll)? };
        Ok(Self(registered))
    }

    /// Watches a socket, which is told of by this number, once.
    pub fn add(&self, socket: &impl AsFd, number: u64) -> io::Result<()> {
        let wanted = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        Ok(epoll::add(&self.0, socket, EventData::new_u64(number), wanted)?)
    }

    /// Watches a socket no longer. One that another process has, too, is to be taken out before it is closed, or may
    /// still be told of.
    pub fn remove(&self, socket: &impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, socket)?)
    }

    /// Waits until some are to be told of; gives their numbers. Cancel-safe.
    pub async fn told(&self) -> io::Result<Vec<u64>> {
        self.0
            .async_io(Interest::READABLE, |epoll| {
                let mut events: Vec<Event> = Vec::with_capacity(AT_ONCE);
                match epoll::wait(epoll, spare_capacity(&mut events), Some(&Timespec::default()))? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(events.into_iter().map(|event| event.data.u64()).collect()),
                }
            })
            .await
    }
}
