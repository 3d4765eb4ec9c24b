//! The watcher: says what lies at a path, once it is whole, quiet and something else than before.
//!
//! Owns a thread that looks at the library, the configuration file and certificates, so that nobody waits for a disk
//! that doesn't answer. Knows no policy: whether what it has seen is worth a restart is decided in
//! `restart`.
//!
//! The kernel's events (crate notify, inotify) say when to look, and nothing more. They are not enough:
//! some file systems have none, a queue overflows, and a watch follows a directory that is moved away
//! instead of its path (<https://github.com/notify-rs/notify/issues/555>). So every directory on the
//! way to a file is watched, by its own path, symbolic links resolved one by one (see [`way`]); whatever
//! happens to one of them sets up all watches anew; and a slow poll compares the way and the files'
//! stamps with what is known, events or not.
//!
//! A file is read only when its stamp has changed or an event has named it, and not before it has been
//! left alone for [`QUIET`].

mod path_chain;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tracing::warn;

use app_host_core::ids::{ConfigId, VersionId};

use path_chain::PathChain;
use target::WatchedFile;

/// How long a file must have been left alone before it is read.
const QUIET: Duration = Duration::from_millis(50);

/// How often the thread looks without having been told to: some file systems have no events.
const POLL: Duration = Duration::from_secs(1);

/// How many events may wait for the thread; when more come, it looks at everything.
const EVENTS: usize = 256;

/// How many changes may wait for their reader; the thread waits then.
const QUEUE: usize = 4;

/// How often the way to a file may change while its watches are being set up; the poll sees the rest.
const TRIES: usize = 3;

/// What lies at a path now: `None` while there is nothing, or half of something, or it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSeen {
    Library(Option<VersionId>),
    Config(Option<ConfigId>),
    /// What lies in the certificate, key or other file of a listener's TLS that has this number among the targets.
    Certificate(usize, Option<[u8; 32]>),
}

/// What is looked at. The paths must be absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub library: Option<PathBuf>,
    pub config: PathBuf,
    /// The files of listeners' TLS.
    pub certificates: Vec<PathBuf>,
}

/// What the thread goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchMode {
    /// The kernel's events where there are any, and the poll besides.
    Events,
    PollAlone,
}

/// A watcher at work. It ends with this handle.
#[derive(Debug)]
pub struct Watcher(mpsc::Receiver<FileSeen>);

impl Watcher {
    /// Starts to watch. The first say what lies there already.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn start(targets: &Targets, mode: WatchMode) -> io::Result<Self> {
        let (sender, seen) = mpsc::channel(QUEUE);
        let library = targets.library.clone().map(WatchedFile::library);
        let certificates = targets.certificates.iter().cloned().enumerate();
        let certificates = certificates.map(|(number, path)| WatchedFile::certificate(number, path));
        let config = WatchedFile::config(targets.config.clone());
        let targets = library.into_iter().chain([config]).chain(certificates).collect();
        let watch = move || WatchThread::new(targets, mode, sender).run();
        std::thread::Builder::new().name("watcher".to_owned()).spawn(watch)?;
        Ok(Self(seen))
    }

    /// What is seen next; `None` when the thread has ended, which only a bug makes it do.
    pub async fn next(&mut self) -> Option<FileSeen> {
        self.0.recv().await
    }
}

/// What the kernel has told.
enum Notice {
    /// Something has happened to these paths.
    Paths(Vec<PathBuf>),
    /// Events were lost, or can't be had: anything may have happened.
    Anything,
}

/// What there is to do after a wait.
#[derive(Default)]
struct Noticed {
    names: BTreeSet<OsString>,
    anything: bool,
}

/// The thread's own.
struct WatchThread {
    targets: Vec<WatchedFile>,
    chains: Vec<PathChain>,
    notify: Option<RecommendedWatcher>,
    events: Receiver<Notice>,
    /// Held so that the channel outlives a watcher that can't be made.
    _to_us: SyncSender<Notice>,
    /// Events have found no room.
    missed: Arc<AtomicBool>,
    /// An operator was told that events can't be had.
    said: bool,
    seen: mpsc::Sender<FileSeen>,
}

impl WatchThread {
    fn new(targets: Vec<WatchedFile>, mode: WatchMode, seen: mpsc::Sender<FileSeen>) -> Self {
        let (to_us, events) = sync_channel(EVENTS);
        let missed = Arc::new(AtomicBool::new(false));
        let mut watching = Self {
            targets,
            chains: Vec::new(),
            notify: None,
            events,
            _to_us: to_us.clone(),
            missed: Arc::clone(&missed),
            said: false,
            seen,
        };
        if mode == WatchMode::Events {
            let tell = move |event: notify::Result<notify::Event>| {
                if let Some(told) = tell(event)
                    && to_us.try_send(told).is_err()
                {
                    missed.store(true, Ordering::Release);
                }
            };
            match notify::recommended_watcher(tell) {
                Ok(notify) => watching.notify = Some(notify),
                Err(error) => watching.say(&error),
            }
        }
        watching
    }

    /// Looks until nobody listens any more.
    fn run(mut self) {
        self.set_up();
        self.targets.iter_mut().for_each(|target| target.disturbed(Instant::now()));
        let mut poll = Instant::now() + POLL;
        while !self.seen.is_closed() {
            if self.look().is_err() {
                return;
            }
            let next = self.targets.iter().filter_map(WatchedFile::due).chain([poll]).min().unwrap_or(poll);
            let noticed = self.wait(next);
            let polls = poll <= Instant::now();
            self.follow(&noticed, polls);
            if polls {
                poll = Instant::now() + POLL;
            }
        }
    }

    /// Says what there is to say of every target.
    fn look(&mut self) -> Result<(), mpsc::error::SendError<FileSeen>> {
        for target in &mut self.targets {
            if let Some(seen) = target.look(Instant::now()) {
                self.seen.blocking_send(seen)?;
            }
        }
        Ok(())
    }

    /// Waits for an event, at most until `deadline`, and takes all that there are.
    fn wait(&self, deadline: Instant) -> Noticed {
        let mut noticed = Noticed::default();
        let mut next = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        loop {
            match next {
                Ok(Notice::Paths(paths)) => {
                    noticed.names.extend(paths.iter().filter_map(|path| path.file_name()).map(ToOwned::to_owned));
                }
                Ok(Notice::Anything) => noticed.anything = true,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            next = self.events.recv_timeout(Duration::ZERO);
        }
        noticed.anything |= self.missed.swap(false, Ordering::AcqRel);
        noticed
    }

    /// Looks at what may have changed, and at the way there.
    fn follow(&mut self, noticed: &Noticed, polls: bool) {
        let now = Instant::now();
        let mut concerned = noticed.anything || polls;
        for (target, way) in self.targets.iter_mut().zip(&self.chains) {
            if noticed.anything || way.end().is_some_and(|name| noticed.names.contains(name)) {
                target.disturbed(now);
                concerned = true;
            }
        }
        // A watch may be lost with any of these, also where another directory has the path by now.
        let shaken = self.chains.iter().any(|way| way.bends().any(|name| noticed.names.contains(name)));
        if !concerned && !shaken {
            return;
        }
        if noticed.anything || shaken || self.find_ways() != self.chains {
            self.set_up();
        }
        self.targets.iter_mut().for_each(|target| target.glance(now));
    }

    fn find_ways(&self) -> Vec<PathChain> {
        self.targets.iter().map(|target| PathChain::to(target.path())).collect()
    }

    /// Watches every directory on the chains as they are now.
    fn set_up(&mut self) {
        for _ in 0..TRIES {
            let chains = self.find_ways();
            let old = std::mem::replace(&mut self.chains, chains);
            if let Some(notify) = &mut self.notify {
                for directory in directories(&old) {
                    // Whatever has happened to it, it isn't watched any more.
                    let _ = notify.unwatch(directory);
                }
                let watched = directories(&self.chains)
                    .into_iter()
                    .try_for_each(|directory| notify.watch(directory, RecursiveMode::NonRecursive));
                if let Err(error) = watched
                    && !matches!(error.kind, notify::ErrorKind::PathNotFound)
                {
                    self.say(&error);
                }
            }
            if self.find_ways() == self.chains {
                break;
            }
        }
    }

    fn say(&mut self, error: &notify::Error) {
        if !self.said {
            self.said = true;
            warn!(error = %error, poll = ?POLL, "the watcher polls where it gets no events");
        }
    }
}

fn directories(chains: &[PathChain]) -> BTreeSet<&Path> {
    chains.iter().flat_map(PathChain::directories).collect()
}

/// What the kernel's event is worth; nothing, when somebody has only read.
fn tell(event: notify::Result<notify::Event>) -> Option<Notice> {
    let Ok(event) = event else { return Some(Notice::Anything) };
    match event.kind {
        // Also because the watcher itself does it.
        EventKind::Access(AccessKind::Open(_) | AccessKind::Read | AccessKind::Close(AccessMode::Read)) => None,
        _ if event.need_rescan() || event.paths.is_empty() => Some(Notice::Anything),
        _ => Some(Notice::Paths(event.paths)),
    }
}
