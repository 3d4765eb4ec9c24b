//! What serves a connection: what all connections of a thread share, what those of a listener share, and what each has by
//! itself.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc;

use app_host_core::config::Peers;
use app_host_core::refused::Refused;
use app_host_platform::sys::stats::ThreadStats;
use app_host_services::loader::{Address, LoadedApp};
use app_host_tls::TlsServer;

use crate::access::AccessLog;
use crate::addresses::Addresses;
use crate::capacity::Room;
use crate::connection::{DrainSignal, Limits};
use crate::detach_queue::DetachQueue;
use crate::front::OwnAnswers;

/// What holds for all connections of a listener.
#[derive(Debug)]
pub(super) struct ListenerRules {
    /// Lives as long as the process, as the ABI promises the app.
    pub(super) name: &'static str,
    /// Whether it is a Unix socket.
    pub(super) unix: bool,
    /// What handshakes are made with, if clients speak TLS.
    pub(super) tls: Option<TlsServer>,
    /// Whom it believes what it is told of a client.
    pub(super) peers: Peers,
    /// What it answers by itself, if anything.
    pub(super) own: Option<OwnAnswers>,
}

/// What all connections of a serving thread share.
pub(super) struct ThreadContext {
    /// The number of the thread.
    pub(super) index: usize,
    pub(super) app: LoadedApp,
    pub(super) stats: &'static ThreadStats,
    pub(super) listeners: Vec<Arc<ListenerRules>>,
    /// Where requests are logged, if they are.
    pub(super) access: Option<Arc<AccessLog>>,
    /// The way to other workers and into the pool of idle connections.
    pub(super) detach_queue: Arc<DetachQueue>,
    pub(super) limits: &'static Limits,
    /// How many connections it may accept.
    pub(super) room: Room,
    /// How many connections clients have, if that is bounded.
    pub(super) addresses: Option<Arc<Addresses>>,
}

/// What the task of a connection needs besides the connection.
#[derive(Clone)]
pub(super) struct ConnectionContext {
    pub(super) thread: Arc<ThreadContext>,
    pub(super) listener: Arc<ListenerRules>,
    pub(super) drain: DrainSignal,
    /// Held by each connection until its end.
    pub(super) held: mpsc::Sender<Infallible>,
}

impl ConnectionContext {
    /// Counts a client that is refused before HTTP, and writes its line of the access log.
    pub(super) fn refuse(&self, peer: Address, why: Refused, detail: &str) {
        self.thread.stats.refused(why);
        if let Some(access) = &self.thread.access {
            access.refused(peer, self.listener.name, why, detail);
        }
    }
}

/// Counts a connection as open until this is dropped, which must be on the thread that it is counted for.
#[derive(Debug)]
pub(super) struct Opened(&'static ThreadStats);

impl Opened {
    pub(super) fn new(stats: &'static ThreadStats) -> Self {
        stats.opened();
        Self(stats)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.closed();
    }
}
