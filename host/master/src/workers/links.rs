//! Links between workers, on which one gives its connections to another.

use std::io;
use std::os::fd::AsFd;

use tracing::warn;

use app_host_core::error::chain;
use app_host_core::ids::WorkerId;
use app_host_core::message::{TRANSFER_SOCKET_BYTES, ToTransfer};
use app_host_platform::channel;
use app_host_platform::channel::ChannelError;
use app_host_platform::sys::packet;
use app_host_platform::sys::packet::is_the_end;

use super::Workers;

impl Workers {
    /// Has a worker that is about to drain, or drains, give its connections to another, unless that one's
    /// configuration has it take none. What was said before is not repeated.
    pub(crate) fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
        if self.linked.contains(&(from, to)) || !self.processes.get(&to).is_some_and(|to| to.takes_over) {
            return;
        }
        match self.link(from, to, None) {
            Ok(()) => drop(self.linked.insert((from, to))),
            // One of the two is gone, which its exit says.
            Err(ChannelError::Socket(error)) if is_the_end(&error) => {}
            Err(error) => {
                let (from, to) = (self.pid(from), self.pid(to));
                warn!(from, to, error = chain(&error), "a worker can't give its connections to another");
            }
        }
    }

    /// Whether others take this worker's connections over.
    pub(crate) fn hands_over(&self, worker: WorkerId) -> bool {
        self.linked.iter().any(|(from, _)| *from == worker)
    }

    /// Has so many idle connections of a worker that serves go to another.
    pub(crate) fn shift(&self, from: WorkerId, to: WorkerId, connections: u64) {
        if let Err(error) = self.link(from, to, Some(connections)) {
            let (from, to) = (self.pid(from), self.pid(to));
            warn!(from, to, error = chain(&error), "a worker can't give its connections to another");
        }
    }

    /// Gives each of two workers an end of a link. Never waits.
    fn link(&self, from: WorkerId, to: WorkerId, invited: Option<u64>) -> Result<(), ChannelError> {
        let (Some(giver), Some(taker)) = (self.processes.get(&from), self.processes.get(&to)) else {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        };
        let (out, back) = packet::pair()?;
        for end in [&out, &back] {
            packet::make_room(end, TRANSFER_SOCKET_BYTES)?;
        }
        // Connections travel one way, and whoever takes may be run by somebody else.
        packet::refuse_descriptors(&out);
        // In this order, so that whoever gives finds somebody who takes.
        channel::send_now(taker.handover.as_fd(), &ToTransfer::Receive, &[back.as_fd()])?;
        channel::send_now(giver.handover.as_fd(), &ToTransfer::Send { invited }, &[out.as_fd()])
    }
}
