//! Links between workers, on which one gives its connections to another, and what its app keeps in memory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tracing::warn;

use app_host_core::config::Restart;
use app_host_core::dispatch::SOCKET_BYTES;
use app_host_core::error::chain;
use app_host_core::ids::{Slot, WorkerId};
use app_host_core::message::{Predecessor, TRANSFER_SOCKET_BYTES, ToTransfer, ToWorker};
use app_host_platform::channel;
use app_host_platform::channel::ChannelError;
use app_host_platform::sys::packet;
use app_host_platform::sys::packet::is_the_end;
use app_host_platform::sys::stats::StatsPage;

use super::Workers;

/// A pair of sockets on which messages of a worker travel.
pub(super) fn dispatch() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = packet::pair()?;
    for end in [&ours, &theirs] {
        packet::make_room(end, SOCKET_BYTES)?;
    }
    Ok((ours, theirs))
}

impl Workers {
    /// Has a worker that is about to drain, or drains, give its connections to another, unless that one's
    /// configuration has it take none. What was said before is not repeated.
    pub(crate) fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
        if self.linked.contains(&(from, to)) || !self.processes.get(&to).is_some_and(|to| to.takes_over) {
            return;
        }
        match self.link(from, to, None) {
            Ok(()) => drop(self.linked.insert((from, to))),
            // One of the two is gone, which its exit says. If it is who was to take, another will: connections wait for that
            // one, as they do where it goes a moment later.
            Err(ChannelError::Socket(error)) if is_the_end(&error) => drop(self.linked.insert((from, to))),
            Err(error) => {
                let (from, to) = (self.pid(from), self.pid(to));
                warn!(from, to, error = chain(&error), "a worker can't give its connections to another");
            }
        }
    }

    /// What a worker that comes to a slot is told of the one that is there and will give it its connections. The stats page
    /// of that one is added to the `descriptors`.
    pub(super) fn predecessor(
        &self,
        slot: Slot,
        restart: &Restart,
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<Option<Predecessor>> {
        let here = self.processes.values().filter(|it| it.slot == slot && restart.handover);
        let Some(newest) = here.max_by_key(|it| it.since) else { return Ok(None) };
        // Not to write: what one worker does to another's page would be the master's to believe.
        descriptors.push(StatsPage::to_read(&newest.stats_file)?);
        let until_it_drains =
            restart.start_timeout.saturating_add(restart.probation).saturating_add(restart.state_timeout);
        Ok(Some(Predecessor { gone_after: until_it_drains.saturating_add(restart.shutdown_timeout) }))
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

    /// Has a worker's app leave what it keeps in memory to that of another. Says whether they were told.
    pub(crate) fn hand_state_on(&self, from: WorkerId, to: WorkerId) -> bool {
        let Some(limits) = self.processes.get(&to).map(|heir| heir.inherits) else { return false };
        match packet::pair() {
            Ok((out, back)) => {
                // The state travels one way.
                packet::refuse_descriptors(&out);
                self.order(to, ToWorker::Inherit { limits }, Some(back));
                self.order(from, ToWorker::Leave { heir: to, limits }, Some(out));
                true
            }
            Err(error) => {
                let (from, to) = (self.pid(from), self.pid(to));
                warn!(from, to, error = chain(&error), "a worker can't leave its app's state to another");
                false
            }
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
