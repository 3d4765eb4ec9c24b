//! What the control thread hears: the master, the signals, and the serving threads.
//!
//! Owns what each word means to a worker that serves or drains: most are seen to here, and what remains is an order to
//! end, or a word of a thread. What follows from that is for `control`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::serving::Word;
use crate::access::AccessLog;
use crate::http::DrainControl;
use app_host_core::error::chain;
use app_host_core::message::{Connections, FromWorker, ToWorker};
use app_host_platform::channel::{Channel, ChannelError};
use app_host_platform::logging::ChildLog;

/// How long a word to the master may wait for room in its socket, which only a stuck master fills.
const ASKING: Duration = Duration::from_millis(100);

/// Why a file that the master has sent can't be taken.
fn no_descriptor() -> io::Error {
    io::Error::other("there was no descriptor free for it")
}

/// What ends the serving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ordered {
    /// Whether others go on accepting on the listeners.
    pub(super) successor: bool,
    pub(super) timeout: Duration,
    pub(super) connections: Connections,
}

impl Ordered {
    /// An order that the master did not give.
    const fn alone(successor: bool, timeout: Duration) -> Self {
        Self { successor, timeout, connections: Connections::Closed }
    }
}

/// What the control thread hears.
pub(super) enum Heard {
    Order(Ordered),
    Thread(Word),
}

/// What is known of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Master {
    /// Its orders are heard.
    Heard,
    /// It can't be heard any more, though it may live.
    Unheard,
    /// It is dead, so nobody else orders the drain of the other workers.
    Gone,
}

/// Everything that is listened to.
pub(super) struct Ears<'a> {
    pub(super) channel: &'a Channel,
    pub(super) master: Master,
    pub(super) terminate: Signal,
    /// SIGTERM has come, and the master has been told.
    pub(super) terminated: bool,
    pub(super) words: mpsc::UnboundedReceiver<Word>,
    pub(super) log: ChildLog,
    pub(super) access: Option<Arc<AccessLog>>,
    pub(super) drain: DrainControl,
    pub(super) shutdown_timeout: Duration,
}

impl Ears<'_> {
    /// Waits for the next word from anybody. The master's end is an order to drain.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            tokio::select! {
                received = self.channel.receive::<ToWorker>(), if self.master == Master::Heard => match received {
                    Ok(Some((ToWorker::Drain { successor, timeout, connections }, _))) => {
                        return Heard::Order(Ordered { successor, timeout, connections });
                    }
                    Ok(Some((ToWorker::AnnounceClose { on }, _))) => self.drain.announce_close(on),
                    Ok(Some((ToWorker::LogLevel { level }, _))) => {
                        self.log.set_level(level);
                    }
                    Ok(Some((ToWorker::LogFile, descriptors))) => {
                        match descriptors.into_iter().next().ok_or_else(no_descriptor) {
                            Ok(file) => self.log.redirect(file),
                            Err(error) => tracing::error!(error = chain(&error), "the log file stays as it was"),
                        }
                    }
                    Ok(Some((ToWorker::AccessFile, descriptors))) => {
                        match (&self.access, descriptors.into_iter().next()) {
                            (Some(access), Some(file)) => access.reopen(file),
                            (Some(_), None) => {
                                let error = chain(&no_descriptor());
                                tracing::error!(error, "the access log's file stays as it was");
                            }
                            (None, _) => {}
                        }
                    }
                    Ok(None) => {
                        tracing::warn!("the master has gone");
                        self.master = Master::Gone;
                        return Heard::Order(Ordered::alone(false, self.shutdown_timeout));
                    }
                    Err(ChannelError::Socket(error)) => {
                        let error = chain(&error);
                        tracing::error!(error, "control socket failed; the worker ends");
                        self.master = Master::Unheard;
                        return Heard::Order(Ordered::alone(true, self.shutdown_timeout));
                    }
                    Err(error) => {
                        let error = chain(&error);
                        tracing::error!(error, "an order is not understood");
                    }
                },
                _ = self.terminate.recv() => {
                    // The master knows whether this worker alone is meant or the whole service, and
                    // sees to a successor. The second time, or without it, the others serve on.
                    let asked = !std::mem::replace(&mut self.terminated, true)
                        && self.master == Master::Heard
                        && matches!(timeout(ASKING, self.channel.send(&FromWorker::Terminated)).await, Ok(Ok(())));
                    if !asked {
                        return Heard::Order(Ordered::alone(true, self.shutdown_timeout));
                    }
                }
                Some(word) = self.words.recv() => return Heard::Thread(word),
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::signals;
    use app_host_platform::channel::{PIPE, one_way};
    use app_host_platform::sys::packet;

    /// The master's socket, and a child's end whose words are never read.
    pub fn child() -> (OwnedFd, Channel) {
        let (ours, theirs) = one_way().unwrap();
        let (_, writer) = io::pipe().unwrap();
        packet::send(ours.as_fd(), &[PIPE], &[writer.as_fd()]).unwrap();
        (ours, Channel::from_owned_fd(theirs).unwrap())
    }

    #[tokio::test]
    async fn only_the_masters_end_closes_the_listeners_for_all() {
        let (master, channel) = child();
        let mut ears = Ears {
            channel: &channel,
            master: Master::Heard,
            terminate: signals::terminate().unwrap(),
            terminated: false,
            words: mpsc::unbounded_channel().1,
            log: ChildLog::nowhere(),
            access: None,
            drain: crate::http::drain_signal().0,
            shutdown_timeout: Duration::from_secs(30),
        };
        // Longer than any packet of the master's.
        packet::send(master.as_fd(), &vec![b'i'; 100_000], &[]).unwrap();
        let Heard::Order(ordered) = ears.hear().await else { panic!("a word") };
        assert!(ordered.successor && ears.master == Master::Unheard);

        ears.master = Master::Heard;
        drop(master);
        let Heard::Order(ordered) = ears.hear().await else { panic!("a word") };
        assert!(!ordered.successor && ears.master == Master::Gone);
    }
}
