//! The inputs of the control thread: messages of the master, SIGTERM, and events of the serving threads.
//!
//! Owns what each input means to a worker that serves or drains. Most are handled here; an order to drain and an event of
//! a thread are returned, for `control` to handle.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::timeout;

use app_host_core::error::chain;
use app_host_core::ids::WorkerId;
use app_host_core::message::{Connections, FromWorker, ToWorker};
use app_host_platform::channel::{Channel, ChannelError};
use app_host_platform::logging::ChildLog;
use app_host_tls::{Tickets, TlsServer};

use crate::access::AccessLog;
use crate::connection::DrainControl;
use crate::inheritance::AppState;
use crate::serving::ThreadEvent;
use crate::tls;

/// How long a message to the master may wait for room in its socket, which only a stuck master lets fill up.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Why a log file that the master has sent can't be used.
fn no_descriptor() -> io::Error {
    io::Error::other("no descriptor was free for it")
}

/// The order to drain.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainOrder {
    /// Whether other workers go on accepting on the listeners.
    pub(super) successor: bool,
    pub(super) timeout: Duration,
    pub(super) connections: Connections,
}

impl DrainOrder {
    /// An order that the worker gives itself.
    const fn own(successor: bool, timeout: Duration) -> Self {
        Self { successor, timeout, connections: Connections::Closed }
    }
}

/// An input that `control` handles.
pub(super) enum Input {
    Drain(DrainOrder),
    Thread(ThreadEvent),
}

/// The connection to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Master {
    /// Its messages are received.
    Connected,
    /// Its messages can't be received any more, although it may live.
    Lost,
    /// It is dead, so no master orders the drain of the other workers.
    Gone,
}

/// Where the control thread's inputs come from, and what those act on that are handled here.
pub(super) struct ControlInputs<'a> {
    pub(super) channel: &'a Channel,
    pub(super) master: Master,
    pub(super) terminate: Signal,
    /// SIGTERM has come, and the master has been told.
    pub(super) terminated: bool,
    pub(super) events: mpsc::UnboundedReceiver<ThreadEvent>,
    pub(super) log: ChildLog,
    pub(super) access: Option<Arc<AccessLog>>,
    pub(super) tickets: Arc<Tickets>,
    /// What handshakes are made with, by listener.
    pub(super) servers: Vec<(&'static str, TlsServer)>,
    pub(super) drain: DrainControl,
    pub(super) shutdown_timeout: Duration,
    pub(super) app_state: AppState,
    /// To which heirs nothing more will be left.
    pub(super) handed_on: mpsc::UnboundedReceiver<WorkerId>,
}

impl ControlInputs<'_> {
    /// Waits for the next input that is not handled here. The master's end is an order to drain.
    pub(super) async fn recv(&mut self) -> Input {
        loop {
            tokio::select! {
                received = self.channel.receive::<ToWorker>(), if self.master == Master::Connected => match received {
                    Ok(Some((ToWorker::Drain { successor, timeout, connections }, _))) => {
                        return Input::Drain(DrainOrder { successor, timeout, connections });
                    }
                    Ok(Some((ToWorker::Leave { heir, limits }, descriptors))) => {
                        match descriptors.into_iter().next().ok_or_else(no_descriptor) {
                            Ok(link) => self.app_state.leave(heir, link, limits),
                            Err(error) => {
                                tracing::warn!(error = chain(&error), "the app's state is not handed on");
                                self.say(&FromWorker::HandedOn { heir }).await;
                            }
                        }
                    }
                    Ok(Some((ToWorker::Inherit { limits }, descriptors))) => {
                        match descriptors.into_iter().next().ok_or_else(no_descriptor) {
                            Ok(link) => self.app_state.inherit(link, limits),
                            Err(error) => {
                                let error = chain(&error);
                                tracing::warn!(error, "the app starts cold: it has inherited no state");
                            }
                        }
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
                    Ok(Some((ToWorker::Certificates { listeners }, _))) => tls::replace(&self.servers, &listeners),
                    Ok(Some((ToWorker::TicketKeys, descriptors))) => {
                        let file = descriptors.into_iter().next().ok_or_else(no_descriptor);
                        if let Err(error) = file.and_then(|file| tls::set_ticket_keys(&self.tickets, file)) {
                            let error = chain(&error);
                            tracing::error!(error, "the keys of session tickets stay as they were");
                        }
                    }
                    Ok(None) => {
                        tracing::warn!("the master has gone");
                        self.master = Master::Gone;
                        return Input::Drain(DrainOrder::own(false, self.shutdown_timeout));
                    }
                    Err(ChannelError::Socket(error)) => {
                        let error = chain(&error);
                        tracing::error!(error, "control socket failed; the worker ends");
                        self.master = Master::Lost;
                        return Input::Drain(DrainOrder::own(true, self.shutdown_timeout));
                    }
                    Err(error) => {
                        let error = chain(&error);
                        tracing::error!(error, "unreadable message from the master");
                    }
                },
                _ = self.terminate.recv() => {
                    // The master knows whether this worker alone is meant or the whole service, and starts a successor.
                    // The second time, or without the master, this worker alone drains and the others serve on.
                    let asked = !std::mem::replace(&mut self.terminated, true)
                        && self.master == Master::Connected
                        && self.say(&FromWorker::Terminated).await;
                    if !asked {
                        return Input::Drain(DrainOrder::own(true, self.shutdown_timeout));
                    }
                }
                Some(heir) = self.handed_on.recv() => drop(self.say(&FromWorker::HandedOn { heir }).await),
                Some(event) = self.events.recv() => return Input::Thread(event),
            }
        }
    }

    /// Says something to the master, which may have gone; returns whether it was said.
    async fn say(&self, message: &FromWorker) -> bool {
        matches!(timeout(SEND_TIMEOUT, self.channel.send(message)).await, Ok(Ok(())))
    }
}
