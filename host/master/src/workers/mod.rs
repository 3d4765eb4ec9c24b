//! The worker processes of the master: spawned, talked to and watched.
//!
//! Owns each worker's pid, its sockets and its stats page. Which worker is to do what is the
//! machine's business; what they report goes into the loop's inbox, a worker's messages always
//! before its exit.

mod links;
mod logs;
mod supervise;
mod tickets;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use app_host_core::config::{AccessLog, Log, LogLevel, Restart};
use app_host_core::error::chain;
use app_host_core::ids::{Generation, Slot, WorkerId};
use app_host_core::message::{AccessPlace, AccessSetup, StateLimits, TlsByListener, ToWorker, WorkerSetup};
use app_host_core::restart::{Signs, look_interval};
use app_host_platform::channel::{self};
use app_host_platform::children::{Children, Role, Surroundings};
use app_host_platform::identity::Identity;
use app_host_platform::logging::{self, ChildTarget, Logging, LoggingError, Relay};
use app_host_platform::sys::process;
use app_host_platform::sys::stats::{StatsPage, StatsSnapshot};
use app_host_platform::usage;

use super::Input;
use super::dispatch::Dispatch;
use crate::locks::MagicLock;
use crate::preflight::Prepared;
use logs::StandardStreams;
use supervise::{EventSender, Instructions, LastWords, LiveSettings, WorkerOrder, supervise};
use tickets::TicketKeys;

/// How many orders may wait for one worker: an inheritance, a drain, and a second one when the service stops.
const ORDERS: usize = 4;

/// A worker that could not be spawned.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error("its stats page or sockets can't be made")]
    Equipment(#[source] io::Error),
    #[error("its log can't be opened")]
    Log(#[from] LoggingError),
    #[error("its process can't be made")]
    Process(#[source] io::Error),
}

/// One living worker process.
#[derive(Debug)]
struct Process {
    pid: Pid,
    slot: Slot,
    orders: mpsc::Sender<WorkerOrder>,
    stats: StatsPage,
    /// By which its successor opens it, too.
    stats_file: OwnedFd,
    /// The CPU time that it has used in all, once it has been reaped.
    cpu: Rc<Cell<Duration>>,
    since: Instant,
    /// What its generation's configuration says of the log.
    log: Log,
    log_file: LogFile,
    /// The access log's own file.
    access_file: Option<PathBuf>,
    /// Apart from the orders, so that no number of them keeps a drain from being ordered.
    live: watch::Sender<LiveSettings>,
    /// Links to other workers are sent on it.
    handover: OwnedFd,
    /// Whether its configuration has it take connections over.
    takes_over: bool,
    /// What its configuration lets it inherit.
    inherits: StateLimits,
}

/// How a worker's lines reach its log.
#[derive(Debug)]
struct LogFile {
    target: ChildTarget,
    /// Through a pipe that the master reads.
    relayed: bool,
}

/// What can be said of a living process.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) pid: i32,
    pub(super) uptime: Duration,
    pub(super) stats: StatsSnapshot,
}

/// All worker processes whose exit hasn't been seen yet.
#[derive(Debug)]
pub(super) struct Workers {
    children: Children,
    identity: Option<Identity>,
    lock: MagicLock,
    inbox: mpsc::Sender<Input>,
    dispatch: Dispatch,
    processes: HashMap<WorkerId, Process>,
    /// The access log's file that was opened last, and its path.
    access_log: Option<(PathBuf, File)>,
    /// The operator's word, which counts more than a configuration's.
    log_level: Option<LogLevel>,
    /// Whether workers tell their clients that connections aren't kept.
    announce_close: bool,
    /// The keys of session tickets, once a listener has TLS.
    tickets: Option<TicketKeys>,
    /// Who can give its connections to whom.
    linked: HashSet<(WorkerId, WorkerId)>,
}

impl Workers {
    pub(super) fn new(
        children: Children,
        identity: Option<Identity>,
        lock: MagicLock,
        inbox: mpsc::Sender<Input>,
        dispatch: Dispatch,
    ) -> Self {
        Self {
            children,
            identity,
            lock,
            inbox,
            dispatch,
            processes: HashMap::new(),
            access_log: None,
            log_level: None,
            announce_close: false,
            tickets: None,
            linked: HashSet::new(),
        }
    }

    /// Spawns a worker from `prepared` and hands it what it needs.
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
        prepared: &Prepared,
        logging: &Logging,
    ) -> Result<(), SpawnError> {
        let config = &prepared.config;
        let (stats, stats_fd) = StatsPage::create().map_err(SpawnError::Equipment)?;
        if config.admin.is_some() {
            stats.time_requests(config.threads);
        }
        let (dispatch, their_dispatch) = links::dispatch().map_err(SpawnError::Equipment)?;
        let (handover, their_handover) = channel::one_way().map_err(SpawnError::Equipment)?;
        let lock = self.lock.for_worker().map_err(SpawnError::Equipment)?;
        let StandardStreams { printed, theirs, streams } = self.printed().map_err(SpawnError::Equipment)?;
        let log_setup = logging::for_child(&self.log_settings(&config.log));
        let target = logging::target_for(&config.log)?;
        // Who runs as somebody else writes into a pipe: with the log itself it could be truncated, or typed into.
        let relay = self.identity.as_ref().map(|_| Relay::open()).transpose().map_err(SpawnError::Equipment)?;
        let log = match &relay {
            Some(relay) => relay.for_child().map_err(SpawnError::Equipment)?,
            None => logging.descriptor(&config.log)?,
        };
        let stats_file = stats_fd.try_clone().map_err(SpawnError::Equipment)?;
        let mut descriptors = vec![log, their_dispatch, their_handover, stats_fd, lock];
        descriptors.extend(theirs);
        descriptors.push(prepared.version.file.try_clone().map_err(SpawnError::Equipment)?.into());
        let access_file = config.access_log.as_ref().and_then(|access_log| access_log.file.clone());
        if let Some(path) = &access_file {
            descriptors.push(self.access_log(path)?);
        }
        if !prepared.tls.is_empty() {
            let keys = self.ticket_keys().map_err(SpawnError::Equipment)?;
            descriptors.push(keys.file().try_clone().map_err(SpawnError::Equipment)?);
        }
        let predecessor = self.predecessor(slot, &config.restart, &mut descriptors).map_err(SpawnError::Equipment)?;
        for listener in prepared.listeners.descriptors() {
            // Duplicates, so that the generation may go before they have been sent.
            descriptors.push(listener.try_clone_to_owned().map_err(SpawnError::Equipment)?);
        }
        let setup = WorkerSetup {
            slot,
            generation,
            library: prepared.library(),
            app_config: prepared.app_config.as_ref().clone(),
            databank: prepared.databank.as_ref().clone(),
            core_dumps: config.core_dumps,
            threads: config.threads,
            connections: self.processes.values().map(|it| it.stats.connections()).fold(0, u64::saturating_add),
            predecessor,
            listeners: prepared.listener_infos(),
            idle_linger: config.restart.idle_linger,
            limits: config.client_limits(),
            announce_close: self.announce_close,
            shutdown_timeout: config.restart.shutdown_timeout,
            heartbeat: look_interval(config.hang_timeout),
            log: log_setup,
            access_log: config.access_log.as_ref().map(access_setup),
        };
        // Looked at anew: who runs the master may have given it others.
        let cpus = config.cpus.of(slot.0, config.threads, &process::cpus().unwrap_or_default());
        let surroundings = Surroundings {
            environment: &prepared.environment,
            limits: config.limits,
            cpus: &cpus,
            directory: Some(&prepared.home),
        };
        let spawned = self.children.spawn(Role::Worker, streams, self.identity.as_ref(), surroundings);
        let child = spawned.map_err(SpawnError::Process)?;
        let its_lines = || logging::app_lines(target.writer.clone(), log_setup, child.pid.as_raw().unsigned_abs());
        let log_file = LogFile { relayed: relay.is_some(), target: target.clone() };
        let relay = relay.map(|relay| relay.follow(its_lines())).transpose().map_err(|error| {
            self.children.kill(child.pid);
            SpawnError::Equipment(error)
        })?;
        let last_words = LastWords { printed, lines: Arc::new(its_lines()), relay };
        let (orders, queue) = mpsc::channel(ORDERS);
        let pid = child.pid;
        let (live, live_orders) = watch::channel(LiveSettings::of(&setup));
        let wants = Instructions { orders: queue, live: live_orders };
        let cpu = Rc::new(Cell::default());
        let says = EventSender {
            worker,
            pid,
            children: self.children.clone(),
            inbox: self.inbox.clone(),
            cpu: Rc::clone(&cpu),
        };
        tokio::task::spawn_local(supervise(says, child, setup, descriptors, last_words, wants));
        self.dispatch.join(worker, slot, generation, dispatch);
        let (log, takes_over, since) = (config.log.clone(), config.restart.handover, Instant::now());
        let process = Process {
            pid,
            slot,
            orders,
            stats,
            stats_file,
            cpu,
            since,
            log,
            log_file,
            access_file,
            live,
            handover,
            takes_over,
            inherits: inherits(&config.restart),
        };
        self.processes.insert(worker, process);
        Ok(())
    }

    /// The service stops: what a worker gives back goes to nobody, who would begin for an instant.
    pub(super) fn grant_no_locks(&self) {
        self.dispatch.grant_no_locks();
    }

    /// Gives an order. A worker that is gone or takes no orders is noticed elsewhere: by its exit,
    /// or by the machine's deadline.
    pub(super) fn order(&self, worker: WorkerId, message: ToWorker, descriptor: Option<OwnedFd>) {
        if let Some(process) = self.processes.get(&worker)
            && process.orders.try_send(WorkerOrder { message, descriptor }).is_err()
        {
            warn!(worker_pid = process.pid.as_raw(), "worker takes no orders");
        }
    }

    /// Has all workers tell their clients that connections aren't kept, or no longer, those spawned later included.
    pub(super) fn announce_close(&mut self, on: bool) {
        self.announce_close = on;
        for process in self.processes.values() {
            process.live.send_modify(|live| live.announce_close = on);
        }
    }

    /// The keys of session tickets, which are made when the first worker needs one.
    fn ticket_keys(&mut self) -> io::Result<&TicketKeys> {
        match &mut self.tickets {
            Some(keys) => Ok(keys),
            none => Ok(none.insert(TicketKeys::new(Instant::now())?)),
        }
    }

    /// Has all workers shake hands with these certificates.
    pub(super) fn set_certificates(&self, tls: &Arc<TlsByListener>) {
        for process in self.processes.values() {
            process.live.send_modify(|live| live.certificates = Some(Arc::clone(tls)));
        }
    }

    /// When the keys of session tickets are to be rotated.
    pub(super) fn tickets_due(&self) -> Option<Instant> {
        self.tickets.as_ref().map(TicketKeys::due)
    }

    /// Gives all workers a new key of session tickets.
    pub(super) fn rotate_tickets(&mut self) {
        let Some(keys) = &mut self.tickets else { return };
        if let Err(error) = keys.rotate(Instant::now()) {
            warn!(error = chain(&error), "session tickets are sealed with an old key: a new one can't be made");
            return;
        }
        for process in self.processes.values() {
            process.live.send_modify(|live| live.ticket_keys = Some(Arc::clone(keys.file())));
        }
    }

    pub(super) fn kill(&self, worker: WorkerId) {
        if let Some(process) = self.processes.get(&worker) {
            self.children.kill(process.pid);
        }
    }

    /// Sends SIGABRT.
    pub(super) fn abort(&self, worker: WorkerId) {
        if let Some(process) = self.processes.get(&worker) {
            self.children.abort(process.pid);
        }
    }

    /// What there is to see of every worker, its memory only where it `weighs` anything.
    pub(super) fn look(&self, weighs: bool) -> Vec<(WorkerId, Signs)> {
        let look = |(&worker, process): (&WorkerId, &Process)| {
            let (beat, requests) = process.stats.signs();
            let memory = weighs.then(|| usage::of(process.pid.as_raw()).memory_bytes).flatten();
            (worker, Signs { beat, requests, memory })
        };
        self.processes.iter().map(look).collect()
    }

    /// Forgets a worker that has exited.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        if let Some(process) = self.processes.remove(&worker) {
            // Its successor leaves room for what it had, also where it was killed with that.
            process.stats.has_ended();
        }
        self.linked.retain(|(from, to)| *from != worker && *to != worker);
        self.dispatch.leave(worker);
    }

    /// The process id for a log line; 0 for a worker that has none.
    pub(super) fn pid(&self, worker: WorkerId) -> i32 {
        self.processes.get(&worker).map_or(0, |process| process.pid.as_raw())
    }

    /// What can be said of a worker; `None` for one without a process.
    pub(super) fn figures(&self, worker: WorkerId) -> Option<Figures> {
        self.processes.get(&worker).map(|process| Figures {
            pid: process.pid.as_raw(),
            uptime: process.since.elapsed(),
            stats: process.stats.snapshot(),
        })
    }

    /// The CPU time that a worker has used in all, once its exit has been reported.
    pub(super) fn cpu(&self, worker: WorkerId) -> Duration {
        self.processes.get(&worker).map_or(Duration::ZERO, |process| process.cpu.get())
    }

    /// What each living worker has done so far.
    pub(super) fn all_stats(&self) -> impl Iterator<Item = StatsSnapshot> {
        self.processes.values().map(|process| process.stats.snapshot())
    }

    /// What the worker has done so far; it outlives the worker until [`remove`](Self::remove).
    pub(super) fn stats(&self, worker: WorkerId) -> Option<StatsSnapshot> {
        self.processes.get(&worker).map(|process| process.stats.snapshot())
    }
}

/// What bounds what a worker's app inherits.
const fn inherits(restart: &Restart) -> StateLimits {
    StateLimits { bytes: restart.state_limit, timeout: restart.state_timeout }
}

/// What a worker is told of its access log, whose file is opened for it.
fn access_setup(access_log: &AccessLog) -> AccessSetup {
    let place = if access_log.file.is_some() { AccessPlace::File } else { AccessPlace::Log };
    AccessSetup { place, trusted_peers: access_log.trusted_peers.clone() }
}
