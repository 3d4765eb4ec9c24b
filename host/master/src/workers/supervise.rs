//! Talking to one worker, from its setup to its last words.
//!
//! Owns the sockets of a worker that lives, and what of a dead one must still be logged. What it says reaches the
//! loop's inbox in its order, and always before its exit. One that says what no worker says is killed.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use app_host_core::config::LogLevel;
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::ids::WorkerId;
use app_host_core::message::{FromWorker, TlsByListener, ToWorker, WorkerSetup};
use app_host_core::restart::Event;
use app_host_platform::channel::{ChannelError, FromChild, Garbage, MasterEnd, ToChild};
use app_host_platform::children::{Child, Children};
use app_host_platform::logging::{AppLines, RelayGuard};
use app_host_platform::output::{Output, Stream, Took};
use app_host_platform::sys::ready::Readable;

use crate::Input;

/// How long a dead worker's last words may take to arrive: they are in the socket already, unless
/// a child of the app's holds it open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How many pipes of dead workers are listened to at the same time: each costs four descriptors for as long as a child
/// of the worker's holds it.
const ORPHANS: usize = 64;

thread_local! {
    /// How many are.
    static LISTENING: Cell<usize> = const { Cell::new(0) };
}

/// How much of what a dead worker's children print is logged; then their pipe is closed.
const ORPHANS_BYTES: usize = 1 << 20;

/// What may change while a worker runs: what it logs and where to, and what it tells its clients. Only the last word
/// counts.
#[derive(Clone, Debug)]
pub(super) struct LiveSettings {
    pub(super) level: LogLevel,
    /// A file that has taken the place of the one it was spawned with.
    pub(super) file: Option<Arc<OwnedFd>>,
    /// The same for the access log's own.
    pub(super) access_file: Option<Arc<OwnedFd>>,
    /// Whether clients are told that their connections aren't kept.
    pub(super) announce_close: bool,
    /// Keys of session tickets that have taken the place of those it was spawned with.
    pub(super) ticket_keys: Option<Arc<OwnedFd>>,
    /// The same for certificates.
    pub(super) certificates: Option<Arc<TlsByListener>>,
}

impl LiveSettings {
    /// What a worker is set up with.
    pub(super) const fn of(setup: &WorkerSetup) -> Self {
        Self {
            level: setup.log.level,
            file: None,
            access_file: None,
            announce_close: setup.announce_close,
            ticket_keys: None,
            certificates: None,
        }
    }
}

/// An order, and the descriptor that comes with it.
#[derive(Debug)]
pub(super) struct WorkerOrder {
    pub(super) message: ToWorker,
    pub(super) descriptor: Option<OwnedFd>,
}

/// What is wanted of a worker.
pub(super) struct Instructions {
    pub(super) orders: mpsc::Receiver<WorkerOrder>,
    pub(super) live: watch::Receiver<LiveSettings>,
}

/// Where what is known of a worker goes.
pub(super) struct EventSender {
    pub(super) worker: WorkerId,
    pub(super) pid: Pid,
    pub(super) children: Children,
    pub(super) inbox: mpsc::Sender<Input>,
    /// Set before its exit is reported.
    pub(super) cpu: Rc<Cell<Duration>>,
}

/// Talks to one worker until it has exited and has said everything.
pub(super) async fn supervise(
    says: EventSender,
    child: Child,
    setup: WorkerSetup,
    descriptors: Vec<OwnedFd>,
    last_words: LastWords,
    wants: Instructions,
) {
    let Child { pid, channel: MasterEnd { to, from }, mut ended } = child;
    let mut hears = Messages { from, left: MESSAGES, held: None };
    let how = tokio::select! {
        biased;
        // Also where the worker doesn't read what it is sent, and a child of the app's keeps its socket open.
        how = &mut ended => how,
        never = talk(&says, &to, &mut hears, setup, descriptors, wants) => match never {},
    };
    let rest = async { while says.forward(&mut hears).await {} };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    last_words.log(pid);
    // The reaper drops its sender only with the whole master.
    let Ok(reaped) = how else { return };
    says.cpu.set(reaped.cpu);
    says.report(Event::Exited { worker: says.worker, how: reaped.how }).await;
}

/// Sends a worker its setup and its orders, and hears it, for as long as it lives.
async fn talk(
    says: &EventSender,
    to: &ToChild,
    hears: &mut Messages,
    setup: WorkerSetup,
    descriptors: Vec<OwnedFd>,
    mut wants: Instructions,
) -> Infallible {
    let worker_pid = says.pid.as_raw();
    let mut live = LiveSettings::of(&setup);
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    if let Err(error) = to.send_with(&setup, &borrowed).await {
        warn!(worker_pid, error = chain(&error), "setup can't be sent, and the worker is killed");
        // Unless it has died already. Its exit is what the machine is told.
        says.children.kill(says.pid);
    }
    drop(borrowed);
    drop((setup, descriptors));
    let mut talking = true;
    loop {
        tokio::select! {
            more = says.forward(hears), if talking => talking = more,
            Some(WorkerOrder { message, descriptor }) = wants.orders.recv() => {
                if let ToWorker::Leave { .. } = message {
                    hears.left = hears.left.saturating_add(1);
                }
                let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
                if let Err(error) = to.send_with(&message, &descriptors).await {
                    warn!(worker_pid, error = chain(&error), "order can't be sent");
                }
            }
            Ok(()) = wants.live.changed() => {
                let wanted = wants.live.borrow_and_update().clone();
                if let Err(error) = apply_live(to, &live, &wanted).await {
                    warn!(worker_pid, error = chain(&error), "order can't be sent");
                }
                live = wanted;
            }
            else => std::future::pending().await,
        }
    }
}

/// How many messages a worker has for its master at most: each kind once, and one more for each state that it is to leave.
const MESSAGES: u8 = 4;

/// What a worker says, which is not much.
struct Messages {
    from: FromChild,
    left: u8,
    /// What was heard and hasn't been passed on.
    held: Option<FromWorker>,
}

/// Something that no worker of ours says.
#[derive(Debug, thiserror::Error)]
enum ProtocolViolation {
    #[error(transparent)]
    Garbage(#[from] Garbage),
    #[error("more messages than it has been asked for")]
    TooMany,
}

impl Messages {
    /// Receives the next message, if none is held; says whether there is one now. Cancel-safe.
    async fn hear(&mut self) -> Result<bool, ProtocolViolation> {
        if self.held.is_none() {
            let message = self.from.receive().await?;
            if message.is_some() {
                self.left = self.left.checked_sub(1).ok_or(ProtocolViolation::TooMany)?;
            }
            self.held = message;
        }
        Ok(self.held.is_some())
    }
}

impl EventSender {
    /// Passes the next message on; says whether another may follow. Cancel-safe: no message is lost.
    ///
    /// A worker that breaks its protocol is run by somebody else: it is killed, and replaced as one that has crashed.
    async fn forward(&self, hears: &mut Messages) -> bool {
        match hears.hear().await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(violation) => {
                let detail = chain(&violation);
                warn!(worker_pid = self.pid.as_raw(), detail, "worker breaks its protocol, and is killed");
                self.children.kill(self.pid);
                return false;
            }
        }
        // The loop has ended otherwise, as in `report`. Nothing waits between the two.
        let (Ok(permit), Some(message)) = (self.inbox.reserve().await, hears.held.take()) else { return false };
        let worker = self.worker;
        let bounded = |error: &str| foreign::line(error, foreign::MAX_TEXT);
        permit.send(Input::Event(match message {
            FromWorker::Ready { keeps_state } => Event::Ready { worker, keeps_state },
            FromWorker::HandedOn { heir } => Event::HandedOn { worker, heir },
            FromWorker::Terminated => Event::Terminated { worker },
            FromWorker::CannotListen { error } => Event::CannotListen { worker, error: bounded(&error) },
            FromWorker::StartFailed { error } => Event::StartFailed { worker, error: bounded(&error) },
        }));
        true
    }

    async fn report(&self, event: Event) {
        // The loop has ended: nobody is interested any more.
        let _ = self.inbox.send(Input::Event(event)).await;
    }
}

/// What a worker has printed and hasn't logged when it dies.
pub(super) struct LastWords {
    pub(super) printed: Vec<(Stream, OwnedFd)>,
    pub(super) lines: Arc<AppLines>,
    /// What passes its own lines on, if it has no descriptor of the log. Ends with this.
    pub(super) relay: Option<RelayGuard>,
}

impl LastWords {
    /// Logs it, for a worker that has died. What its children print from now on comes into the log as
    /// long as they live, up to a bound: nobody would hear of their pipe's end.
    fn log(self, pid: Pid) {
        let Self { printed, lines, relay } = self;
        for (stream, printed) in printed {
            let output = match Output::new(printed, stream, Arc::clone(&lines), Duration::ZERO) {
                Ok(output) => output,
                Err(error) => {
                    warn!(worker_pid = pid.as_raw(), error = chain(&error), "what the worker printed last is lost");
                    continue;
                }
            };
            if output.drain() != Took::End && LISTENING.get() < ORPHANS {
                LISTENING.set(LISTENING.get() + 1);
                tokio::task::spawn_local(async move {
                    let _listening = Listening;
                    if let Err(error) = listen_to_orphans(&output).await {
                        warn!(worker_pid = pid.as_raw(), error = chain(&error), "what orphans print is lost");
                    }
                });
            }
        }
        // All that it has written is in the pipe.
        drop(relay);
    }
}

/// The file that has taken the place of the one that is known.
fn new_file<'a>(known: Option<&Arc<OwnedFd>>, wanted: Option<&'a Arc<OwnedFd>>) -> Option<&'a Arc<OwnedFd>> {
    wanted.filter(|file| known.is_none_or(|known| !Arc::ptr_eq(known, file)))
}

/// Tells a worker what of `wanted` it doesn't know.
async fn apply_live(channel: &ToChild, known: &LiveSettings, wanted: &LiveSettings) -> Result<(), ChannelError> {
    for (order, known, wanted) in [
        (ToWorker::LogFile, &known.file, &wanted.file),
        (ToWorker::AccessFile, &known.access_file, &wanted.access_file),
        (ToWorker::TicketKeys, &known.ticket_keys, &wanted.ticket_keys),
    ] {
        if let Some(file) = new_file(known.as_ref(), wanted.as_ref()) {
            channel.send_with(&order, &[file.as_fd()]).await?;
        }
    }
    if let Some(certificates) = &wanted.certificates
        && known.certificates.as_ref().is_none_or(|known| !Arc::ptr_eq(known, certificates))
    {
        channel.send(&ToWorker::Certificates { listeners: certificates.to_vec() }).await?;
    }
    if wanted.announce_close != known.announce_close {
        channel.send(&ToWorker::AnnounceClose { on: wanted.announce_close }).await?;
    }
    if wanted.level != known.level {
        channel.send(&ToWorker::LogLevel { level: wanted.level }).await?;
    }
    Ok(())
}

/// Counts a pipe that isn't listened to any more.
struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENING.set(LISTENING.get() - 1);
    }
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
