//! What the master and its children say to each other over a worker's control socket.
//!
//! Pure: types only. How a message travels (and the descriptors beside it) is `channel`'s business.
//! Both ends are always the same binary (`/proc/self/exe`), so the format needs no version.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{AppConfig, ClientLimits, Front, LogFormat, LogLevel, Peers, Trusted, databank};
use crate::ids::{Generation, Slot, VersionId, WorkerId};
use crate::tls::{CertificateInfo, TlsFile, TlsSettings};

/// Room in the socket between a worker's connections and those of its peers: the longest state of a connection, and many
/// short ones.
pub const TRANSFER_SOCKET_BYTES: usize = 512 * 1024;

/// The first message to a worker. Its descriptors come in this order: the log, the dispatch socket, the
/// handover socket, the stats page, the lock that names the magic, the reading ends of its standard
/// output and its standard error, the version's file, the access log if it is a file of its own, the keys of session
/// tickets if a listener has TLS, the stats page of the worker that it replaces if there is one, and one a listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerSetup {
    pub slot: Slot,
    pub generation: Generation,
    pub library: Library,
    pub app_config: AppConfig,
    pub databank: databank::Setup,
    pub core_dumps: bool,
    pub threads: u16,
    /// How many connections all workers have now: it may come to have as many.
    pub connections: u64,
    /// Whether it takes over the connections of a worker that it replaces, whose stats page comes along.
    pub predecessor: Option<Predecessor>,
    pub listeners: Vec<ListenerInfo>,
    pub idle_linger: Duration,
    /// What clients are bounded by.
    pub limits: ClientLimits,
    /// Whether clients are told that their connections aren't kept.
    pub announce_close: bool,
    /// What bounds a drain that nobody orders because the master has died.
    pub shutdown_timeout: Duration,
    /// How often each serving thread says on the stats page that it is alive.
    pub heartbeat: Duration,
    pub log: LogSetup,
    pub access_log: Option<AccessSetup>,
}

/// A worker that is about to hand its connections over to the one that replaces it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Predecessor {
    /// After what time it has gone at the latest.
    pub gone_after: Duration,
}

/// How a worker logs each request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessSetup {
    pub place: AccessPlace,
    /// Whose request ids are taken over.
    pub trusted_peers: Vec<Trusted>,
}

/// Where the lines of an access log go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessPlace {
    /// The log, as all others.
    Log,
    /// The file whose descriptor comes with the setup.
    File,
}

/// The only message to a probe, with the version's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeSetup {
    pub library: Library,
    /// Where workers are to be, if the configuration says so.
    pub directory: Option<PathBuf>,
    /// Where they are because it says nothing, if they are of another user.
    pub home: Option<PathBuf>,
    pub log: LogSetup,
}

/// The only message to a databank check; no descriptors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatabankSetup {
    pub databank: databank::Setup,
    /// Whether a store on this machine is made where there is none.
    pub making: databank::Making,
    pub core_dumps: bool,
    pub log: LogSetup,
}

/// The only message to a check of certificates; no descriptors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TlsSetup {
    /// By the names of the listeners.
    pub listeners: TlsByListener,
    pub core_dumps: bool,
    pub log: LogSetup,
}

/// The first message to the process that serves metrics and page; the listener's descriptor comes with it.
/// Each later one is the snapshot that it has asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdminSetup {
    pub listens: AdminListens,
    pub log: LogSetup,
}

/// Where metrics and page are served, as far as it decides who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminListens {
    /// To this machine. A browser on it may be made to ask in the name of a foreign page.
    Loopback,
    /// To whoever reaches the address.
    Network,
    /// On a Unix socket, whose mode says who may.
    Unix,
}

/// From the process that serves metrics and page to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAdmin {
    /// A snapshot is wanted. No further one is asked for before it has come.
    Ask,
}

/// The version copy to load; its descriptor comes with the message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Library {
    pub path: PathBuf,
    /// What it is a copy of, and is called in errors.
    pub name: PathBuf,
    /// The hash that its bytes must have.
    pub version: VersionId,
    /// The magic that the master read from it, which the loaded library must repeat.
    pub magic: u64,
    /// The app's version, as the library says.
    pub app_version: String,
}

/// What a child's log looks like. A worker gets the log's descriptor with its setup; for all others it is
/// standard error.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LogSetup {
    pub format: LogFormat,
    pub level: LogLevel,
    /// What a log is that is the journal.
    pub journal: Option<JournalStream>,
}

/// The socket that systemd's journal reads, as `fstat(2)` knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStream {
    pub device: u64,
    pub inode: u64,
}

/// What a worker must know of a listener besides its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerInfo {
    pub name: String,
    pub unix: bool,
    pub server: Server,
    pub origin: Origin,
    /// What its handshakes are made with, if clients speak TLS.
    pub tls: Option<Arc<TlsSettings>>,
    /// Whom it believes what it is told of a client.
    pub peers: Peers,
    /// What it answers by itself.
    pub front: Front,
}

/// What the handshakes of listeners are made with, by their names.
pub type TlsByListener = Vec<(String, Arc<TlsSettings>)>;

/// Whose a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The master has bound it; when the service stops it is shut down.
    Bound,
    /// A service manager has, and goes on listening when the service has stopped: it is only closed, and
    /// clients wait.
    Passed,
}

/// Who accepts on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Server {
    /// The worker, for HTTP.
    Worker,
    /// The app itself, which takes the listener by its name.
    App,
}

/// From the master to a worker, after its setup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Stop accepting, finish what is in flight, exit with 0.
    Drain {
        /// Whether other workers go on serving the listeners. If not, they are shut down.
        successor: bool,
        /// After this the worker is killed; it cuts what is left a little earlier.
        timeout: Duration,
        /// What becomes of its connections.
        connections: Connections,
    },
    /// Its app is to leave what it keeps in memory to this worker, which has the other end of the link whose descriptor comes
    /// with this; answered by [`FromWorker::HandedOn`].
    Leave { heir: WorkerId, limits: StateLimits },
    /// Its app inherits what the worker leaves that has the other end of the link whose descriptor comes with this.
    Inherit { limits: StateLimits },
    /// Tell clients that their connections aren't kept, and go on serving them; or do so no longer.
    AnnounceClose { on: bool },
    /// Log what is urgent up to this level.
    LogLevel { level: LogLevel },
    /// Log to the file whose descriptor comes with this, from now on.
    LogFile,
    /// Log requests to the file whose descriptor comes with this, from now on.
    AccessFile,
    /// Shake hands with these from now on, by listener.
    Certificates { listeners: TlsByListener },
    /// Seal session tickets with the first key in the file whose descriptor comes with this, and open them with all.
    TicketKeys,
}

/// What bounds the handing on of what an app keeps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLimits {
    pub bytes: u64,
    /// Leaving and inheriting together.
    pub timeout: Duration,
}

/// What becomes of the connections of a worker that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connections {
    /// Other workers take over those that can be handed over; the links are on their way.
    HandedOver,
    /// They are closed.
    Closed,
}

/// From the master to a worker, on its handover socket. One end of a link to another worker comes with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToTransfer {
    /// The other worker takes connections from this one.
    Send {
        /// So many idle connections are to go there from a worker that serves on; none is chosen if absent.
        invited: Option<u64>,
    },
    /// The other worker gives its connections to this one.
    Receive,
}

/// From a worker to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The app is loaded and started, and every listener is accepted on.
    Ready {
        /// Whether the app can leave what it keeps in memory, and inherit.
        keeps_state: bool,
    },
    /// Nothing more will be left to this worker.
    HandedOn { heir: WorkerId },
    /// Somebody else has told it to end (SIGTERM); it waits for the order to drain.
    Terminated,
    /// The listeners can't be taken over; the worker exits.
    CannotListen { error: String },
    /// The library can't be loaded or the app's `start` failed; the worker exits.
    StartFailed { error: String },
}

/// From a probe to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromProbe {
    /// The library loads here, and its layout and its demands fit this host.
    Fits,
    /// It loads, but its layout, magic or demands don't fit.
    Incompatible { error: String },
    /// It doesn't load.
    Bad { error: String },
    /// Nothing of it was looked at: this user may not enter the workers' directory, because of this one on its path.
    NoWay { obstacle: PathBuf },
}

/// From a databank check to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDatabankCheck {
    /// The store answers and has what the workers need.
    Reached,
    /// It doesn't, or can't be given what they need.
    Unreachable { error: String },
}

/// From a check of certificates to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromTlsCheck {
    /// All can be used; of each listener's, in their order.
    Usable { certificates: Vec<Vec<CertificateInfo>> },
    /// One can't.
    Unusable {
        /// Of which listener, by its place in the question.
        listener: usize,
        /// Which file.
        file: TlsFile,
        /// What is wrong with it, to be said behind its name.
        error: String,
    },
}
