//! What the app keeps in memory, on its way from a worker that goes to the one that comes after it.
//!
//! Owns the link's two packets, the threads on which apps write and take it, and what is said of that. Who leaves what to
//! whom, and that a drain waits for it, is the master's decision.
//!
//! ```text
//! worker that goes                               worker that comes
//! app's leave ─▶ memory file, sealed ══════════▶ mapped ─▶ app's inherit
//!                                  ◀═══ taken or not
//! ```
//! Both go on serving meanwhile. Neither trusts the other: the file can't change, its length is bounded on both sides, and
//! each waits for a bounded time. An order to drain ends it, on either side.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use app_host_core::config::AppConfig;
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::ids::WorkerId;
use app_host_core::message::StateLimits;
use app_host_core::status::millis;
use app_host_platform::sys::packet::{self, Socket};
use app_host_platform::sys::sealed::{SealedBytes, Writing};
use app_host_services::loader::{LoadedApp, StateSink};

/// What the memory file is called in `/proc/PID/fd`.
const FILE: &std::ffi::CStr = c"app-host app state";

/// The most bytes of the packet that the file comes with.
const MAX_HEADER: usize = 4096;

/// How much longer than who leaves, who inherits waits: the other one says why nothing comes.
const LATER: Duration = Duration::from_millis(100);

/// How long after the other end of a link has gone its master has heard of that, if its process has.
const HEARD: Duration = Duration::from_secs(1);

/// How long a worker whose drain is over waits for an app that is still writing or taking something.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What comes with the file; nothing comes where the app leaves nothing.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StateHeader {
    version: String,
    generation: u64,
}

/// What has come.
#[derive(Debug)]
struct Received {
    header: StateHeader,
    bytes: SealedBytes,
}

/// The answer, one byte.
const TAKEN: u8 = 1;
const NOT_TAKEN: u8 = 0;

/// Why nothing is handed on.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("it took longer than {0:?}")]
    Late(Duration),
    #[error("{0}")]
    App(String),
    #[error("the memory file can't be made or read")]
    File(#[source] io::Error),
    #[error("the link to the other worker broke")]
    Link(#[source] io::Error),
    #[error("the other worker says what no worker says")]
    Garbage,
    #[error("the worker that comes after this one has not taken it")]
    NotTaken,
    #[error("the worker that comes after this one has gone")]
    Gone,
    #[error("this worker is to drain")]
    Draining,
    #[error("a thread for it can't be made")]
    Thread(#[source] io::Error),
}

/// The app of this worker, as far as it hands something on.
#[derive(Clone)]
pub(super) struct AppState {
    app: watch::Receiver<Option<LoadedApp>>,
    version: Arc<str>,
    generation: u64,
    /// Its secrets must not be repeated in messages.
    config: AppConfig,
    /// Whether the worker drains.
    drains: watch::Sender<bool>,
    /// Whether the app is inheriting and that hasn't been given up.
    takes: watch::Sender<usize>,
    /// How many threads the app is at.
    threads: watch::Sender<usize>,
    /// Told when nothing more will be left to this heir.
    handed_on: mpsc::UnboundedSender<WorkerId>,
}

/// Counts something that the app is at, until it is dropped.
struct Busy(watch::Sender<usize>);

impl Busy {
    fn with(what: &watch::Sender<usize>) -> Self {
        what.send_modify(|count| *count += 1);
        Self(what.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Says that nothing more will be left to this heir, when it is dropped.
struct HandedOnGuard {
    heir: WorkerId,
    to: mpsc::UnboundedSender<WorkerId>,
}

impl Drop for HandedOnGuard {
    fn drop(&mut self) {
        // The control thread receives until the process ends.
        let _ = self.to.send(self.heir);
    }
}

impl AppState {
    /// Also returns where is said which heirs nothing more will be left to.
    pub(super) fn new(
        app: watch::Receiver<Option<LoadedApp>>,
        version: &str,
        generation: u64,
        config: AppConfig,
    ) -> (Self, mpsc::UnboundedReceiver<WorkerId>) {
        let (handed_on, done) = mpsc::unbounded_channel();
        let version = foreign::line(version, foreign::MAX_NAME).into();
        let (drains, takes, threads) = (watch::Sender::new(false), watch::Sender::new(0), watch::Sender::new(0));
        (Self { app, version, generation, config, drains, takes, threads, handed_on }, done)
    }

    /// Whether the app, once it is loaded, can leave something and inherit.
    pub(super) fn is_kept(&self) -> bool {
        self.app().is_some()
    }

    fn app(&self) -> Option<LoadedApp> {
        self.app.borrow().filter(LoadedApp::keeps_state)
    }

    /// The worker drains: what the app is at is given up.
    pub(super) fn end(&self) {
        self.drains.send_replace(true);
    }

    /// Waits until the app is done with what was given up, unless it blocks.
    pub(super) async fn rests(&self, end: Instant) {
        let now = Instant::now();
        let deadline = now + LAST_WAIT.min(end.saturating_duration_since(now) / 2);
        let _ = timeout_at(deadline, self.threads.subscribe().wait_for(|count| *count == 0)).await;
    }

    /// What `work` comes to, unless the worker drains before, or the time is over.
    async fn bounded<T>(
        &self,
        limit: Duration,
        deadline: Instant,
        work: impl Future<Output = Result<T, StateError>>,
    ) -> Result<T, StateError> {
        let mut drains = self.drains.subscribe();
        tokio::select! {
            done = timeout_at(deadline, work) => done.unwrap_or(Err(StateError::Late(limit))),
            _ = drains.wait_for(|drains| *drains) => Err(StateError::Draining),
        }
    }

    /// Has the app leave what it keeps in memory to the worker at the other end of the link.
    pub(super) fn leave(&self, heir: WorkerId, link: OwnedFd, limits: StateLimits) {
        let answer = HandedOnGuard { heir, to: self.handed_on.clone() };
        let Some(app) = self.app() else { return };
        let (busy, state, began) = (Busy::with(&self.threads), self.clone(), Instant::now());
        let started = on_its_thread("leave", async move {
            let _answer = answer;
            let give = async {
                // What it is about to leave may be what it is about to inherit.
                let _ = state.takes.subscribe().wait_for(|count| *count == 0).await;
                state.give(app, link, limits.bytes).await
            };
            match state.bounded(limits.timeout, began + limits.timeout, give).await {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    let took_ms = millis(began.elapsed());
                    tracing::info!(bytes, took_ms, "the app's state is handed on");
                }
                Err(error) => {
                    state.say_not_left(&error);
                    if let StateError::Gone = error {
                        // That nobody is there any more is no reason to drain: the master hears of it before this.
                        drop(busy);
                        tokio::time::sleep(HEARD).await;
                    }
                }
            }
        });
        if let Err(error) = started {
            self.say_not_left(&StateError::Thread(error));
        }
    }

    fn say_not_left(&self, error: &StateError) {
        let error = self.said(error);
        tracing::warn!(error, "the app's state is not handed on");
    }

    /// Says how many bytes were handed on; none, if the app has written none.
    async fn give(&self, app: LoadedApp, link: OwnedFd, limit: u64) -> Result<Option<u64>, StateError> {
        let written = Arc::new(Mutex::new(Written::Whole(Writing::new(FILE, limit))));
        let link = Socket::new(link).map_err(StateError::Link)?;
        let ended = |error| if packet::is_the_end(&error) { StateError::Gone } else { StateError::Link(error) };
        let mut answer = [NOT_TAKEN];
        tokio::select! {
            left = app.leave(Box::new(Sink { written: Arc::clone(&written), limit })) => left.map_err(StateError::App)?,
            // Nobody is there any more, or takes anything.
            early = link.receive_plain(&mut answer) => return Err(match early.map_err(ended)? {
                0 => StateError::Gone,
                _ => StateError::NotTaken,
            }),
        }
        let taken = std::mem::replace(&mut *lock(&written), Written::Broken(String::new()));
        let sealed = match taken {
            Written::Whole(writing) => writing.seal().map_err(StateError::File)?,
            // The app has not passed it on.
            Written::Broken(error) => return Err(StateError::App(error)),
        };
        let header = StateHeader { version: self.version.as_ref().to_owned(), generation: self.generation };
        let header = postcard::to_stdvec(&sealed.as_ref().map(|_| header)).expect("texts and numbers can be written");
        let files: Vec<_> = sealed.iter().map(|(file, _)| file.as_fd()).collect();
        // Also where there is nothing: a worker drains once the one after it has answered, and so lives.
        link.send(&header, &files).await.map_err(ended)?;
        match link.receive_plain(&mut answer).await.map_err(ended)? {
            0 => Err(StateError::Gone),
            1 if answer == [TAKEN] => Ok(sealed.map(|(_, bytes)| bytes)),
            _ => Err(StateError::NotTaken),
        }
    }

    /// Has the app take what the worker at the other end of the link leaves, if it does. Must be called inside a runtime.
    pub(super) fn inherit(&self, link: OwnedFd, limits: StateLimits) {
        let Some(app) = self.app() else { return };
        // From now on, so that what is to be left waits for it.
        let (taking, state) = (Busy::with(&self.takes), self.clone());
        let deadline = Instant::now() + limits.timeout + LATER;
        tokio::spawn(async move {
            let link = match Socket::new(link) {
                Ok(link) => link,
                Err(error) => return state.say_not_inherited(&StateError::Link(error)),
            };
            let taken = state.bounded(limits.timeout, deadline, state.take(app, &link, limits)).await;
            if let Err(error) = &taken {
                state.say_not_inherited(error);
            }
            drop(taking);
            // The other one may have gone: it has waited for as long as it had to.
            let _ = link.send(&[if taken.is_ok() { TAKEN } else { NOT_TAKEN }], &[]).await;
        });
    }

    fn say_not_inherited(&self, error: &StateError) {
        let error = self.said(error);
        tracing::warn!(error, "the app starts cold: it has inherited no state");
    }

    async fn take(&self, app: LoadedApp, link: &Socket, limits: StateLimits) -> Result<(), StateError> {
        let Some(Received { header, bytes }) = receive(link, limits.bytes).await? else { return Ok(()) };
        let StateHeader { version, generation } = header;
        let (began, length) = (Instant::now(), bytes.as_ref().len());
        let (mut finished, taken) = oneshot::channel();
        let (from, busy) = (version.clone(), Busy::with(&self.threads));
        on_its_thread("inherit", async move {
            let _busy = busy;
            tokio::select! {
                taken = app.inherit(Bytes::from_owner(bytes), from, generation) => drop(finished.send(taken)),
                // Given up.
                () = finished.closed() => {}
            }
        })
        .map_err(StateError::Thread)?;
        taken.await.unwrap_or_else(|_| Err("its thread has ended".to_owned())).map_err(StateError::App)?;
        let took_ms = millis(began.elapsed());
        tracing::info!(
            from_version = version,
            from_generation = generation,
            bytes = length,
            took_ms,
            "the app has inherited state"
        );
        Ok(())
    }

    /// An error, which may be an app's own text of any length, and may quote what it was given.
    fn said(&self, error: &StateError) -> String {
        foreign::line(&self.config.hide(&chain(error)), foreign::MAX_TEXT)
    }
}

/// What the worker at the other end leaves; `None` if it leaves nothing.
async fn receive(link: &Socket, limit: u64) -> Result<Option<Received>, StateError> {
    let mut buffer = [0; MAX_HEADER];
    let (length, descriptors) = match link.receive(&mut buffer).await {
        Err(error) if packet::is_the_end(&error) => return Ok(None),
        received => received.map_err(StateError::Link)?,
    };
    if length == 0 {
        return Ok(None);
    }
    let header = postcard::from_bytes::<Option<StateHeader>>(&buffer[..length]).map_err(|_| StateError::Garbage)?;
    let Some(header) = header else { return Ok(None) };
    let header = StateHeader { version: foreign::line(&header.version, foreign::MAX_NAME), ..header };
    let file = descriptors.into_iter().next().ok_or(StateError::Garbage)?;
    let bytes = SealedBytes::map(file, limit).map_err(StateError::File)?;
    Ok(Some(Received { header, bytes }))
}

/// What an app has written so far.
enum Written {
    Whole(Writing),
    /// A write has failed, so that something is missing, and every further one fails.
    Broken(String),
}

fn lock(written: &Mutex<Written>) -> std::sync::MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an app's `leave` writes.
struct Sink {
    written: Arc<Mutex<Written>>,
    limit: u64,
}

impl StateSink for Sink {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = lock(&self.written);
        let Written::Whole(writing) = &mut *written else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let added = writing.add(bytes).map_err(|error| {
            // Not the one of `RLIMIT_FSIZE`.
            let is_ours = error.kind() == io::ErrorKind::FileTooLarge && error.raw_os_error().is_none();
            let text = || format!("more than {} bytes (restart.state_limit)", self.limit);
            if is_ours { io::Error::new(error.kind(), text()) } else { error }
        });
        if let Err(error) = &added {
            *written = Written::Broken(error.to_string());
        }
        added
    }
}

/// Runs the app's code on a thread that serves nobody, so that it may block.
///
/// Where it has no runtime, `work` is dropped there. Not made here: a runtime can't be dropped within another.
fn on_its_thread(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => tracing::error!(error = chain(&error), "a thread of the app's has no runtime"),
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

#[cfg(test)]
mod tests;
