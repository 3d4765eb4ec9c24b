//! A serving thread: one runtime, its accept loops and its connections.
//!
//! Thread 0 also starts and stops the app. What a thread has come to it says to the control thread,
//! which never waits for it without a deadline.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::accept::{self, Intake, LeftOver, Open};
use super::arrivals::{self, Berth, Inbox};
use super::detached::Detached;
use super::gate::Gate;
use super::rest::Dormitory;
use super::{Listener, WorkerError};
use crate::access::AccessLog;
use crate::handover::Road;
use crate::http::{Application, DrainSignal, Upload};
use app_host_core::error::chain;
use app_host_core::message;
use app_host_core::message::Library;
use app_host_platform::artifact::Loadable;
use app_host_platform::sys;
use app_host_platform::sys::stats::Lane;
use app_host_services::loader::{self, AppBody, AppResponseError, Connection, HostInfo, LoadedApp};

/// What a thread says to the control thread.
#[derive(Debug)]
pub(super) enum Word {
    /// The app can't be loaded or started.
    CannotStart(String),
    /// A listener can't be taken over, by the worker or by its app.
    CannotListen(String),
    /// It accepts on every listener.
    Accepting,
    /// It accepts no more.
    Closed,
    /// Its last connection has ended.
    Drained,
    /// The app has stopped.
    Stopped,
    /// It is gone, which only a bug in the host makes it.
    Gone,
}

/// The way to the control thread.
#[derive(Clone, Debug)]
pub(super) struct Says(pub(super) mpsc::UnboundedSender<Word>);

impl Says {
    fn say(&self, word: Word) {
        // The control thread takes words until the process ends.
        let _ = self.0.send(word);
    }
}

/// Says that a thread is gone, also when it panics.
struct Farewell(Says);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.say(Word::Gone);
    }
}

/// What thread 0 starts.
pub(super) struct Start {
    pub(super) library: Library,
    /// Its file.
    pub(super) file: OwnedFd,
    pub(super) host: HostInfo,
    pub(super) app: watch::Sender<Option<LoadedApp>>,
}

/// What every thread needs.
#[derive(Clone)]
pub(super) struct Orders {
    pub(super) access: Option<Arc<AccessLog>>,
    pub(super) listeners: Arc<[Listener]>,
    pub(super) app: watch::Receiver<Option<LoadedApp>>,
    pub(super) intake: watch::Receiver<Intake>,
    pub(super) left_over: Arc<LeftOvers>,
    pub(super) drain: DrainSignal,
    pub(super) road: Road<Detached>,
    /// Becomes true when thread 0 is to stop the app.
    pub(super) stop: watch::Receiver<bool>,
    pub(super) says: Says,
    /// How often the thread says that it is alive.
    pub(super) heartbeat: Duration,
}

/// What the control thread took at its last call. Each is for the thread that is free first.
#[derive(Default)]
pub(super) struct LeftOvers(Mutex<Vec<LeftOver>>);

impl LeftOvers {
    pub(super) fn put(&self, connection: LeftOver) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    pub(super) fn take(&self) -> Option<LeftOver> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// What a thread's connections come by, and hold until their end.
struct Seats {
    inbox: Inbox,
    gate: Arc<Gate>,
    held: mpsc::Sender<Infallible>,
    /// Ends with the last of those that hold.
    connections: mpsc::Receiver<Infallible>,
}

/// Makes the serving thread `index`, and gives the way for connections of other workers to it. The thread that gets
/// a `start` is thread 0.
pub(super) fn spawn(
    index: usize,
    lane: &'static Lane,
    start: Option<Start>,
    orders: Orders,
) -> Result<Berth, WorkerError> {
    let (held, connections) = mpsc::channel(1);
    let (berth, beds, inbox) = arrivals::berth(lane, &held);
    let gate = Arc::new(Gate::new(orders.road.clone(), beds, index));
    let seats = Seats { inbox, gate, held, connections };
    let name = format!("serve-{index}");
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let farewell = Farewell(orders.says.clone());
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => match runtime.block_on(serve(lane, start, orders, seats)) {},
            Err(error) => farewell.0.say(Word::CannotStart(chain(&error))),
        }
    });
    spawned.map_err(|source| WorkerError::Thread { name, source })?;
    Ok(berth)
}

/// The life of a serving thread. Its end is the end of the process, which the control thread decides.
async fn serve(lane: &'static Lane, start: Option<Start>, mut orders: Orders, seats: Seats) -> Infallible {
    // Now, so that the master knows of the thread before it serves, and may hang.
    lane.beat();
    tokio::spawn(beat(lane, orders.heartbeat));
    let starts = start.is_some();
    if let Some(start) = start {
        let listeners = start.host.listeners.clone();
        sys::pollers::remember();
        match load(&start.library, start.file, start.host).await {
            Ok(app) => drop(start.app.send_replace(Some(app))),
            Err(error) => {
                // An app that can't have its listener gives up: that is why, whatever it says itself.
                let word = match listeners.refused() {
                    Some(refused) => Word::CannotListen(refused),
                    None => Word::CannotStart(error),
                };
                return last_word(&orders.says, word).await;
            }
        }
        for listener in listeners.untaken() {
            tracing::warn!(listener, "the app has not taken a listener: its clients wait in vain");
        }
    }
    let Some(app) = orders.app.wait_for(Option::is_some).await.ok().and_then(|app| *app) else {
        // Thread 0 has failed and has said so.
        return std::future::pending().await;
    };

    let mut open = Vec::with_capacity(orders.listeners.len());
    for listener in orders.listeners.iter() {
        match Open::take_over(listener) {
            Ok(taken) => open.push(Arc::new(taken)),
            Err(error) => {
                let error = format!("listener \"{}\": {}", listener.name, chain(&error));
                return last_word(&orders.says, Word::CannotListen(error)).await;
            }
        }
    }
    drop(orders.listeners);
    let dormitory = match Dormitory::new(lane) {
        Ok(dormitory) => dormitory,
        Err(error) => return last_word(&orders.says, Word::CannotStart(chain(&error))).await,
    };
    let Seats { inbox, gate, held, mut connections } = seats;
    let (drain, relay) = orders.drain.here();
    tokio::spawn(relay);
    tokio::spawn(Arc::clone(&gate).run());
    let seat = accept::Seat { app, lane, drain, access: orders.access, gate, held };
    let accept::Seat { drain, access, gate, .. } = seat.clone();
    let news = drain.clone();
    tokio::spawn(arrivals::adopt(inbox, dormitory, news, Arc::clone(&gate), move |held| accept::Seat {
        app,
        lane,
        drain: drain.clone(),
        access: access.clone(),
        gate: Arc::clone(&gate),
        held,
    }));
    let mut accepting = JoinSet::new();
    for listener in &open {
        accepting.spawn(accept::run(Arc::clone(listener), seat.clone(), orders.intake.clone()));
    }
    orders.says.say(Word::Accepting);

    // A loop ends when the control thread says so; one whose listener was shut down from elsewhere
    // ends before, and then the word is still to come.
    while accepting.join_next().await.is_some() {}
    let _ = orders.intake.wait_for(|intake| *intake != Intake::Open).await;
    orders.says.say(Word::Closed);
    if starts {
        app.drain();
    }
    let _ = orders.intake.wait_for(|intake| *intake == Intake::Closed).await;
    while let Some(LeftOver { listener, socket, peer }) = orders.left_over.take() {
        open[listener].adopt(socket, &peer, &seat);
    }
    drop((open, seat));
    let _ = connections.recv().await;
    orders.says.say(Word::Drained);
    if starts {
        let _ = orders.stop.wait_for(|stop| *stop).await;
        app.stop().await;
        orders.says.say(Word::Stopped);
    }
    std::future::pending().await
}

async fn last_word(says: &Says, word: Word) -> Infallible {
    says.say(word);
    std::future::pending().await
}

async fn beat(lane: &'static Lane, every: Duration) -> Infallible {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        lane.beat();
    }
}

/// Makes sure that the version is what it was, loads it and starts the app.
async fn load(library: &message::Library, file: OwnedFd, host: HostInfo) -> Result<LoadedApp, String> {
    let file = Loadable::new(file, &library.path);
    file.verify(library.version).map_err(|error| chain(&error))?;
    let magic = app_abi::Magic(library.magic);
    let loaded = loader::open(file.path(), &library.name, magic).map_err(|error| chain(&error))?;
    file.is_at_its_path().map_err(|error| chain(&error))?;
    let databank = host.databank.clone();
    let app = loaded.start(host).await.map_err(|error| chain(&error))?;
    match databank.file_in_foreign_use() {
        None => Ok(app),
        Some(file) => Err(format!(
            "the app has opened {}, the databank's own file, with a SQLite of its own: when it closes it, this process \
             loses its locks, and rows that were committed are lost; give the app a file of its own",
            file.display()
        )),
    }
}

/// The app, as a connection reaches it.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) app: LoadedApp,
    pub(super) connection: Arc<Connection>,
}

impl Application for Connected {
    type Body = AppBody;
    type Error = AppResponseError;

    fn call(
        self,
        mut request: Request<Upload>,
    ) -> impl Future<Output = Result<Response<AppBody>, AppResponseError>> + Send {
        let upgrade = request.body_mut().upgrade();
        let upgrade = upgrade.map(|upgrade| {
            let protocol = upgrade.protocol().to_owned();
            loader::Upgrade::new(protocol, upgrade.tunnel())
        });
        self.app.call(request, self.connection, upgrade)
    }

    fn is_whole(body: &AppBody) -> bool {
        body.is_whole()
    }
}
