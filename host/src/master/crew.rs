//! The worker processes of the master: spawned, talked to and watched.
//!
//! Owns each worker's pid, its sockets and its stats page. Which worker is to do what is the
//! machine's business; what they report goes into the loop's inbox, a worker's messages always
//! before its exit.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, fchown};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::Happening;
use super::dispatch::Dispatch;
use crate::causes::chain;
use crate::channel::{self, ChannelError, FromChild, Garbage, MasterEnd, ToChild};
use crate::children::{Child, Children, Role, Streams};
use crate::config::{AccessLog, Log, LogLevel};
use crate::control::Measured;
use crate::dispatch::{SOCKET_BYTES, is_the_end};
use crate::foreign;
use crate::handover;
use crate::identity::Identity;
use crate::ids::{Generation, Slot, WorkerId};
use crate::locks::MagicLock;
use crate::logging::{self, AppLines, Logging, LoggingError};
use crate::message::{AccessPlace, AccessSetup, FromWorker, ToRoad, ToWorker, WorkerSetup};
use crate::output::{Output, Took};
use crate::preflight::Prepared;
use crate::restart::{Event, Signs, look_interval};
use crate::sys::packet;
use crate::sys::ready::Readable;
use crate::sys::stats::{StatsPage, StatsSnapshot};

/// How long a dead worker's last words may take to arrive: they are in the socket already, unless
/// a child of the app's holds it open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How much of what a dead worker's children print is logged; then their pipe is closed.
const ORPHANS_BYTES: usize = 1 << 20;

/// How many orders may wait for one worker: a drain, and a second one when the service stops.
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
    orders: mpsc::Sender<ToWorker>,
    stats: StatsPage,
    /// The CPU time that it has used in all, once it has been reaped.
    cpu: Rc<Cell<Duration>>,
    since: Instant,
    /// What its generation's configuration says of the log.
    log: Log,
    /// The access log's own file.
    access_file: Option<PathBuf>,
    /// Apart from the orders, so that no number of them keeps a drain from being ordered.
    logs_to: watch::Sender<LogsTo>,
    /// Links to other workers are sent on it.
    handover: OwnedFd,
    /// Whether its configuration has it take connections over.
    takes_over: bool,
}

/// What a worker logs, and where to. Only the last word counts.
#[derive(Clone, Debug)]
struct LogsTo {
    level: LogLevel,
    /// A file that has taken the place of the one it was spawned with.
    file: Option<Arc<OwnedFd>>,
    /// The same for the access log's own.
    access_file: Option<Arc<OwnedFd>>,
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
pub(super) struct Crew {
    children: Children,
    identity: Option<Identity>,
    lock: MagicLock,
    inbox: mpsc::Sender<Happening>,
    dispatch: Dispatch,
    processes: HashMap<WorkerId, Process>,
    /// The operator's word, which counts more than a configuration's.
    log_level: Option<LogLevel>,
    /// Who can give its connections to whom.
    linked: HashSet<(WorkerId, WorkerId)>,
}

impl Crew {
    pub(super) fn new(
        children: Children,
        identity: Option<Identity>,
        lock: MagicLock,
        inbox: mpsc::Sender<Happening>,
        dispatch: Dispatch,
    ) -> Self {
        Self {
            children,
            identity,
            lock,
            inbox,
            dispatch,
            processes: HashMap::new(),
            log_level: None,
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
        let (dispatch, their_dispatch) = packet::pair().map_err(SpawnError::Equipment)?;
        for end in [&dispatch, &their_dispatch] {
            packet::make_room(end, SOCKET_BYTES).map_err(SpawnError::Equipment)?;
        }
        let (handover, their_handover) = channel::one_way().map_err(SpawnError::Equipment)?;
        let lock = self.lock.as_fd().try_clone_to_owned().map_err(SpawnError::Equipment)?;
        let (printed, stdout) = io::pipe().map_err(SpawnError::Equipment)?;
        let (printed, stdout) = (OwnedFd::from(printed), OwnedFd::from(stdout));
        if let Some(identity) = self.identity {
            // The app's children may open it anew, by its name `/dev/stdout`.
            let owned = fchown(&stdout, Some(identity.uid), Some(identity.gid));
            owned.map_err(|error| SpawnError::Equipment(error.into()))?;
        }
        let their_printed = printed.try_clone().map_err(SpawnError::Equipment)?;
        let mut descriptors = vec![their_dispatch, their_handover, stats_fd, lock, their_printed];
        let access_file = config.access_log.as_ref().and_then(|access_log| access_log.file.clone());
        if let Some(path) = &access_file {
            descriptors.push(logging::open_file(path)?.into());
        }
        for listener in prepared.listeners.descriptors() {
            // Duplicates, so that the generation may go before they have been sent.
            descriptors.push(listener.try_clone_to_owned().map_err(SpawnError::Equipment)?);
        }
        let setup = WorkerSetup {
            slot,
            generation,
            library: prepared.library(),
            app_config: config.app.config.get().to_owned(),
            databank: prepared.databank.as_ref().clone(),
            threads: config.threads,
            connections: self.processes.values().map(|it| it.stats.connections()).fold(0, u64::saturating_add),
            listeners: prepared.listeners.infos(),
            idle_linger: config.restart.idle_linger,
            shutdown_timeout: config.restart.shutdown_timeout,
            heartbeat: look_interval(config.hang_timeout),
            log: logging::for_child(&self.log_settings(&config.log)),
            access_log: config.access_log.as_ref().map(access_setup),
        };
        let stderr = logging.stderr_for(&config.log)?;
        let log = stderr.as_ref().map(OwnedFd::try_clone).transpose().map_err(SpawnError::Equipment)?;
        let lines = logging::app_lines(log, setup.log, 0);
        let streams = Streams { stdout: Some(stdout), stderr };
        let child = self.children.spawn(Role::Worker, streams, self.identity).map_err(SpawnError::Process)?;
        let last_words = LastWords { printed, lines: lines.of_process(child.pid.as_raw().unsigned_abs()) };
        let (orders, queue) = mpsc::channel(ORDERS);
        let pid = child.pid;
        let (logs_to, log_orders) = watch::channel(LogsTo { level: setup.log.level, file: None, access_file: None });
        let wants = Wants { orders: queue, logs_to: log_orders };
        let cpu = Rc::new(Cell::default());
        let says =
            Says { worker, pid, children: self.children.clone(), inbox: self.inbox.clone(), cpu: Rc::clone(&cpu) };
        tokio::task::spawn_local(attend(says, child, setup, descriptors, last_words, wants));
        self.dispatch.join(worker, slot, generation, dispatch);
        let (log, takes_over) = (config.log.clone(), config.restart.handover);
        let since = Instant::now();
        let process = Process { pid, orders, stats, cpu, since, log, access_file, logs_to, handover, takes_over };
        self.processes.insert(worker, process);
        Ok(())
    }

    /// Gives an order. A worker that is gone or takes no orders is noticed elsewhere: by its exit,
    /// or by the machine's deadline.
    pub(super) fn order(&self, worker: WorkerId, order: ToWorker) {
        if let Some(process) = self.processes.get(&worker)
            && process.orders.try_send(order).is_err()
        {
            warn!(worker_pid = process.pid.as_raw(), "worker takes no orders");
        }
    }

    /// Has a worker that is about to drain, or drains, give its connections to another, unless that one's
    /// configuration has it take none. What was said before is not repeated.
    pub(super) fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
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
    pub(super) fn hands_over(&self, worker: WorkerId) -> bool {
        self.linked.iter().any(|(from, _)| *from == worker)
    }

    /// Has so many idle connections of a worker that serves go to another.
    pub(super) fn shift(&self, from: WorkerId, to: WorkerId, connections: u64) {
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
            packet::make_room(end, handover::SOCKET_BYTES)?;
        }
        // Connections travel one way, and whoever takes may be run by somebody else.
        packet::refuse_descriptors(&out);
        // In this order, so that whoever gives finds somebody who takes.
        channel::send_now(taker.handover.as_fd(), &ToRoad::Take, &[back.as_fd()])?;
        channel::send_now(giver.handover.as_fd(), &ToRoad::Give { invited }, &[out.as_fd()])
    }

    fn log_settings(&self, configured: &Log) -> Log {
        Log { level: self.log_level.unwrap_or(configured.level), ..configured.clone() }
    }

    /// Has all workers log what is urgent up to `level`, those spawned later included; what their
    /// configurations say, when absent.
    pub(super) fn set_log_level(&mut self, level: Option<LogLevel>) {
        self.log_level = level;
        for process in self.processes.values() {
            let level = level.unwrap_or(process.log.level);
            process.logs_to.send_modify(|logs_to| logs_to.level = level);
        }
    }

    /// Gives each worker the file that has its log's name now.
    pub(super) fn reopen_logs(&self, logging: &Logging) {
        for process in self.processes.values() {
            match logging.stderr_for(&process.log) {
                Ok(None) => {}
                Ok(Some(file)) => process.logs_to.send_modify(|logs_to| logs_to.file = Some(Arc::new(file))),
                Err(error) => {
                    let worker_pid = process.pid.as_raw();
                    warn!(worker_pid, error = chain(&error), "a worker's log stays as it was");
                }
            }
            match process.access_file.as_deref().map(logging::open_file) {
                None => {}
                Some(Ok(file)) => {
                    process.logs_to.send_modify(|logs_to| logs_to.access_file = Some(Arc::new(file.into())));
                }
                Some(Err(error)) => {
                    let worker_pid = process.pid.as_raw();
                    warn!(worker_pid, error = chain(&error), "a worker's access log stays as it was");
                }
            }
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
            let memory = weighs.then(|| Measured::of(process.pid.as_raw()).memory_bytes).flatten();
            (worker, Signs { beat, requests, memory })
        };
        self.processes.iter().map(look).collect()
    }

    /// Forgets a worker that has exited.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        self.processes.remove(&worker);
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

/// What a worker has printed and hasn't logged when it dies.
struct LastWords {
    printed: OwnedFd,
    lines: AppLines,
}

impl LastWords {
    /// Has them logged where the worker logs now.
    fn follow(self, known: &LogsTo, wanted: &LogsTo) -> Self {
        match new_file(known.file.as_ref(), wanted.file.as_ref()).map(|file| file.try_clone()) {
            Some(Ok(file)) => Self { lines: self.lines.into_log(file), ..self },
            // Without a descriptor to spare they go where they went.
            Some(Err(_)) | None => self,
        }
    }

    /// Logs it, for a worker that has died. What its children print from now on comes into the log as
    /// long as they live, up to a bound: nobody would hear of their pipe's end.
    fn log(self, pid: Pid) {
        let output = match Output::new(self.printed, Arc::new(self.lines), Duration::ZERO) {
            Ok(output) => output,
            Err(error) => {
                warn!(worker_pid = pid.as_raw(), error = chain(&error), "what the worker printed last is lost");
                return;
            }
        };
        if output.drain() != Took::End {
            tokio::task::spawn_local(async move {
                if let Err(error) = listen_to_orphans(&output).await {
                    warn!(worker_pid = pid.as_raw(), error = chain(&error), "what orphans print is lost");
                }
            });
        }
    }
}

/// The file that has taken the place of the one that is known.
fn new_file<'a>(known: Option<&Arc<OwnedFd>>, wanted: Option<&'a Arc<OwnedFd>>) -> Option<&'a Arc<OwnedFd>> {
    wanted.filter(|file| known.is_none_or(|known| !Arc::ptr_eq(known, file)))
}

/// What a worker is told of its access log, whose file is opened for it.
fn access_setup(access_log: &AccessLog) -> AccessSetup {
    let place = if access_log.file.is_some() { AccessPlace::File } else { AccessPlace::Log };
    AccessSetup { place, trusted_peers: access_log.trusted_peers.clone() }
}

/// Tells a worker what of `wanted` it doesn't know.
async fn log_otherwise(channel: &ToChild, known: &LogsTo, wanted: &LogsTo) -> Result<(), ChannelError> {
    for (order, known, wanted) in [
        (ToWorker::LogFile, &known.file, &wanted.file),
        (ToWorker::AccessFile, &known.access_file, &wanted.access_file),
    ] {
        if let Some(file) = new_file(known.as_ref(), wanted.as_ref()) {
            channel.send_with(&order, &[file.as_fd()]).await?;
        }
    }
    if wanted.level != known.level {
        channel.send(&ToWorker::LogLevel { level: wanted.level }).await?;
    }
    Ok(())
}

/// Logs what the children of a dead worker print.
async fn listen_to_orphans(output: &Output) -> io::Result<()> {
    let readable = Readable::new(output.as_fd().try_clone_to_owned()?)?;
    let mut heard = 0;
    while heard < ORPHANS_BYTES {
        match readable.then(|| output.drain()).await? {
            Took::End => return Ok(()),
            Took::Bytes(more) => heard += more,
            Took::Beginning | Took::Nothing => {}
        }
    }
    Ok(())
}

/// What is wanted of a worker.
struct Wants {
    orders: mpsc::Receiver<ToWorker>,
    logs_to: watch::Receiver<LogsTo>,
}

/// Where what is known of a worker goes.
struct Says {
    worker: WorkerId,
    pid: Pid,
    children: Children,
    inbox: mpsc::Sender<Happening>,
    /// Set before its exit is reported.
    cpu: Rc<Cell<Duration>>,
}

/// Talks to one worker until it has exited and has said everything.
async fn attend(
    says: Says,
    child: Child,
    setup: WorkerSetup,
    descriptors: Vec<OwnedFd>,
    last_words: LastWords,
    wants: Wants,
) {
    let Child { pid, channel: MasterEnd { to, from }, mut ended } = child;
    let mut hears = Hears { from, left: MESSAGES, held: None };
    let known = LogsTo { level: setup.log.level, file: None, access_file: None };
    let mut logs = Logs { last_words: Some(last_words), known };
    let how = tokio::select! {
        biased;
        // Also where the worker doesn't read what it is sent, and a child of the app's keeps its socket open.
        how = &mut ended => how,
        never = talk(&says, &to, &mut hears, &mut logs, setup, descriptors, wants) => match never {},
    };
    let rest = async { while says.forward(&mut hears).await {} };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    if let Some(last_words) = logs.last_words {
        last_words.log(pid);
    }
    // The reaper drops its sender only with the whole master.
    let Ok(reaped) = how else { return };
    says.cpu.set(reaped.cpu);
    says.report(Event::Exited { worker: says.worker, how: reaped.how }).await;
}

/// Where a worker logs, as far as it has been told.
struct Logs {
    /// Always there.
    last_words: Option<LastWords>,
    known: LogsTo,
}

/// Sends a worker its setup and its orders, and hears it, for as long as it lives.
async fn talk(
    says: &Says,
    to: &ToChild,
    hears: &mut Hears,
    logs: &mut Logs,
    setup: WorkerSetup,
    descriptors: Vec<OwnedFd>,
    mut wants: Wants,
) -> Infallible {
    let worker_pid = says.pid.as_raw();
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    if let Err(error) = to.send_with(&setup, &borrowed).await {
        // It has died already: its exit says so.
        warn!(worker_pid, error = chain(&error), "setup can't be sent");
    }
    drop(borrowed);
    drop((setup, descriptors));
    let mut talking = true;
    loop {
        tokio::select! {
            more = says.forward(hears), if talking => talking = more,
            Some(order) = wants.orders.recv() => {
                if let Err(error) = to.send(&order).await {
                    warn!(worker_pid, error = chain(&error), "order can't be sent");
                }
            }
            Ok(()) = wants.logs_to.changed() => {
                let wanted = wants.logs_to.borrow_and_update().clone();
                logs.last_words = logs.last_words.take().map(|words| words.follow(&logs.known, &wanted));
                if let Err(error) = log_otherwise(to, &logs.known, &wanted).await {
                    warn!(worker_pid, error = chain(&error), "order can't be sent");
                }
                logs.known = wanted;
            }
            else => std::future::pending().await,
        }
    }
}

/// How many messages a worker has for its master at most: each kind once.
const MESSAGES: u8 = 4;

/// What a worker says, which is not much.
struct Hears {
    from: FromChild,
    left: u8,
    /// What was heard and hasn't been passed on.
    held: Option<FromWorker>,
}

/// Something that no worker of ours says.
#[derive(Debug, thiserror::Error)]
enum Misbehaviour {
    #[error(transparent)]
    Garbage(#[from] Garbage),
    #[error("more than {MESSAGES} messages")]
    TooMany,
}

impl Hears {
    /// Hears the next message, if none is held; says whether there is one now. Cancel-safe.
    async fn hear(&mut self) -> Result<bool, Misbehaviour> {
        if self.held.is_none() {
            let message = self.from.receive().await?;
            if message.is_some() {
                self.left = self.left.checked_sub(1).ok_or(Misbehaviour::TooMany)?;
            }
            self.held = message;
        }
        Ok(self.held.is_some())
    }
}

impl Says {
    /// Passes the next message on; says whether another may follow. Cancel-safe: no message is lost.
    ///
    /// A worker that breaks its protocol is run by somebody else: it is killed, and replaced as one that has crashed.
    async fn forward(&self, hears: &mut Hears) -> bool {
        match hears.hear().await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(misbehaviour) => {
                let detail = chain(&misbehaviour);
                warn!(worker_pid = self.pid.as_raw(), detail, "worker breaks its protocol, and is killed");
                self.children.kill(self.pid);
                return false;
            }
        }
        // The loop has ended otherwise, as in `report`. Nothing waits between the two.
        let (Ok(permit), Some(message)) = (self.inbox.reserve().await, hears.held.take()) else { return false };
        let worker = self.worker;
        let bounded = |error: &str| foreign::line(error, foreign::MAX_TEXT);
        permit.send(Happening::Event(match message {
            FromWorker::Ready => Event::Ready { worker },
            FromWorker::Terminated => Event::Terminated { worker },
            FromWorker::CannotListen { error } => Event::CannotListen { worker, error: bounded(&error) },
            FromWorker::StartFailed { error } => Event::StartFailed { worker, error: bounded(&error) },
        }));
        true
    }

    async fn report(&self, event: Event) {
        // The loop has ended: nobody is interested any more.
        let _ = self.inbox.send(Happening::Event(event)).await;
    }
}
