//! A serving thread: one runtime, its accept loops and its connections.
//!
//! Thread 0 also starts and stops the app. Each thread reports its progress to the control thread as [`ThreadEvent`]s, and
//! the control thread never waits for one without a deadline.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, Request, Response};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use app_host_core::error::chain;
use app_host_core::message;
use app_host_core::message::Library;
use app_host_platform::artifact::Loadable;
use app_host_platform::sys;
use app_host_platform::sys::stats::ThreadStats;
use app_host_services::loader::{self, AppBody, AppResponseError, Client, Connection, HostInfo, LoadedApp};

use crate::accept::{self, Intake, OpenListener, UnservedConnection};
use crate::access::AccessLog;
use crate::addresses::Addresses;
use crate::arrivals::{self, Inbox, ThreadHandle};
use crate::capacity::{Capacity, Room};
use crate::connection::{Application, DrainSignal, Interim, Keepsake, Limits, RequestBody};
use crate::context::{ConnectionContext, ListenerRules, ThreadContext};
use crate::detach_queue::DetachQueue;
use crate::detached::Detached;
use crate::forwarded;
use crate::front::{self, Step};
use crate::idle_pool::IdlePool;
use crate::transfer::TransferHandle;
use crate::{Listener, WorkerError};

/// What a serving thread reports to the control thread.
#[derive(Debug)]
pub(super) enum ThreadEvent {
    /// The app can't be loaded or started.
    CannotStart(String),
    /// A listener can't be taken over, by the worker or by its app.
    CannotListen(String),
    /// It can accept on every listener, and does once it is told to.
    Prepared,
    /// It accepts no more.
    Closed,
    /// Its last connection has ended.
    Drained,
    /// The app has stopped.
    Stopped,
    /// The thread has ended, which only a bug in the host makes it do.
    Gone,
}

/// Sends the events of serving threads to the control thread.
#[derive(Clone, Debug)]
pub(super) struct EventSender(pub(super) mpsc::UnboundedSender<ThreadEvent>);

impl EventSender {
    fn send(&self, event: ThreadEvent) {
        // The control thread receives until the process ends.
        let _ = self.0.send(event);
    }
}

/// Reports the end of a thread, also when it panics.
struct GoneGuard(EventSender);

impl Drop for GoneGuard {
    fn drop(&mut self) {
        self.0.send(ThreadEvent::Gone);
    }
}

/// The app that thread 0 loads and starts.
pub(super) struct Start {
    pub(super) library: Library,
    /// The library's file.
    pub(super) file: OwnedFd,
    pub(super) host: HostInfo,
    pub(super) app: watch::Sender<Option<LoadedApp>>,
}

/// What every serving thread shares with the control thread.
#[derive(Clone)]
pub(super) struct ThreadSetup {
    pub(super) access: Option<Arc<AccessLog>>,
    pub(super) limits: &'static Limits,
    pub(super) capacity: Arc<Capacity>,
    /// How many connections clients have, if that is bounded.
    pub(super) addresses: Option<Arc<Addresses>>,
    pub(super) listeners: Arc<[Listener]>,
    pub(super) app: watch::Receiver<Option<LoadedApp>>,
    pub(super) intake: watch::Receiver<Intake>,
    pub(super) unserved: Arc<Unserved>,
    pub(super) drain: DrainSignal,
    pub(super) transfer: TransferHandle<Detached>,
    /// Becomes true when thread 0 is to stop the app.
    pub(super) stop: watch::Receiver<bool>,
    pub(super) events: EventSender,
    /// How often the thread shows that it is alive.
    pub(super) heartbeat: Duration,
}

/// The connections that the control thread took at the last call. Each goes to the first thread that is free.
#[derive(Default)]
pub(super) struct Unserved(Mutex<Vec<UnservedConnection>>);

impl Unserved {
    pub(super) fn put(&self, connection: UnservedConnection) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    pub(super) fn take(&self) -> Option<UnservedConnection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// The channels by which connections come to a thread and leave it, and by which it learns that all have ended.
struct ThreadChannels {
    inbox: Inbox,
    detach_queue: Arc<DetachQueue>,
    /// A clone is held by each connection until it ends.
    held: mpsc::Sender<Infallible>,
    /// Closed when no clone of `held` is left.
    all_ended: mpsc::Receiver<Infallible>,
    room: Room,
}

/// Starts the serving thread `index`. Returns the handle by which connections of other workers reach it. Thread 0 is the
/// one that gets a `start`.
pub(super) fn spawn(
    index: usize,
    stats: &'static ThreadStats,
    start: Option<Start>,
    setup: ThreadSetup,
) -> Result<ThreadHandle, WorkerError> {
    let (held, all_ended) = mpsc::channel(1);
    let (handle, idle, inbox) = arrivals::channel(stats, &held);
    let detach_queue = Arc::new(DetachQueue::new(setup.transfer.clone(), idle, stats));
    let room = Room { capacity: Arc::clone(&setup.capacity), thread: index, stats, coming: inbox.coming() };
    let channels = ThreadChannels { inbox, detach_queue, held, all_ended, room };
    let name = format!("serve-{index}");
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let guard = GoneGuard(setup.events.clone());
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => match runtime.block_on(serve(index, stats, start, setup, channels)) {},
            Err(error) => guard.0.send(ThreadEvent::CannotStart(chain(&error))),
        }
    });
    spawned.map_err(|source| WorkerError::Thread { name, source })?;
    Ok(handle)
}

/// The life of a serving thread. It ends with the process, and the control thread decides when.
async fn serve(
    index: usize,
    stats: &'static ThreadStats,
    start: Option<Start>,
    mut setup: ThreadSetup,
    channels: ThreadChannels,
) -> Infallible {
    // At once, so that the master knows of the thread before the app's start, which may hang it.
    stats.beat();
    tokio::spawn(beat(stats, setup.heartbeat));
    let has_app = start.is_some();
    if let Some(start) = start {
        let listeners = start.host.listeners.clone();
        sys::pollers::remember();
        match load(&start.library, start.file, start.host).await {
            Ok(app) => drop(start.app.send_replace(Some(app))),
            Err(error) => {
                // An app that can't have its listener gives up. That is the reason then, whatever the app says.
                let event = match listeners.refused() {
                    Some(refused) => ThreadEvent::CannotListen(refused),
                    None => ThreadEvent::CannotStart(error),
                };
                return send_last(&setup.events, event).await;
            }
        }
        for listener in listeners.untaken() {
            tracing::warn!(listener, "the app has not taken a listener: its clients get no answer");
        }
    }
    let Some(app) = setup.app.wait_for(Option::is_some).await.ok().and_then(|app| *app) else {
        // Thread 0 has failed, and has reported that.
        return std::future::pending().await;
    };

    let mut open = Vec::with_capacity(setup.listeners.len());
    for listener in setup.listeners.iter() {
        match OpenListener::take_over(listener) {
            Ok(taken) => open.push(Arc::new(taken)),
            Err(error) => {
                let error = format!("listener \"{}\": {}", listener.rules.name, chain(&error));
                return send_last(&setup.events, ThreadEvent::CannotListen(error)).await;
            }
        }
    }
    let pool = match IdlePool::new(stats, setup.limits) {
        Ok(pool) => pool,
        Err(error) => return send_last(&setup.events, ThreadEvent::CannotStart(chain(&error))).await,
    };
    let ThreadChannels { inbox, detach_queue, held, mut all_ended, room } = channels;
    let (drain, relay) = setup.drain.relayed();
    tokio::spawn(relay);
    tokio::spawn(Arc::clone(&detach_queue).run());
    let thread = Arc::new(ThreadContext {
        index,
        app,
        stats,
        listeners: open.iter().map(|listener| Arc::clone(listener.rules())).collect(),
        access: setup.access,
        detach_queue,
        limits: setup.limits,
        room,
        addresses: setup.addresses,
    });
    drop(setup.listeners);
    tokio::spawn(arrivals::run(inbox, pool, drain.clone(), Arc::clone(&thread)));
    let context = |listener: &OpenListener| ConnectionContext {
        thread: Arc::clone(&thread),
        listener: Arc::clone(listener.rules()),
        drain: drain.clone(),
        held: held.clone(),
    };
    setup.events.send(ThreadEvent::Prepared);
    // Not before all threads are prepared: a worker that ends until then must have no connection to take with it.
    let _ = setup.intake.wait_for(|intake| *intake != Intake::Waiting).await;
    let mut accepting = JoinSet::new();
    for listener in &open {
        accepting.spawn(accept::run(Arc::clone(listener), context(listener), setup.intake.clone()));
    }

    // An accept loop ends when the control thread closes the intake. One whose listener was shut down by another process
    // may end before, and the intake is still to be closed.
    while accepting.join_next().await.is_some() {}
    let _ = setup.intake.wait_for(|intake| *intake != Intake::Open).await;
    setup.events.send(ThreadEvent::Closed);
    if has_app {
        app.drain();
    }
    let _ = setup.intake.wait_for(|intake| *intake == Intake::Closed).await;
    while let Some(UnservedConnection { listener, socket, peer }) = setup.unserved.take() {
        open[listener].spawn_unserved(socket, &peer, &context(&open[listener]));
    }
    drop((open, held));
    let _ = all_ended.recv().await;
    setup.events.send(ThreadEvent::Drained);
    if has_app {
        let _ = setup.stop.wait_for(|stop| *stop).await;
        app.stop().await;
        setup.events.send(ThreadEvent::Stopped);
    }
    std::future::pending().await
}

async fn send_last(events: &EventSender, event: ThreadEvent) -> Infallible {
    events.send(event);
    std::future::pending().await
}

async fn beat(stats: &'static ThreadStats, every: Duration) -> Infallible {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        stats.beat();
    }
}

/// Verifies that the library's file is the version that it was, loads it and starts the app.
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

/// The app, as the requests of one connection reach it.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) app: LoadedApp,
    pub(super) connection: Arc<Connection>,
    pub(super) listener: Arc<ListenerRules>,
}

impl Connected {
    /// What the listener itself answers to a request.
    fn own_answer(&self, request: &Request<RequestBody>) -> Option<Box<Step>> {
        let own = self.listener.own.as_ref()?;
        let client = request.extensions().get::<Arc<Client>>().or(self.connection.client.as_ref());
        let encrypted = client.map_or(self.connection.tls.is_some(), |client| client.encrypted);
        // Boxed, because it is mostly absent.
        own.step(request, encrypted).map(Box::new)
    }
}

impl loader::HintSink for Interim {
    fn send(&self, request: u64, fields: &HeaderMap) -> bool {
        self.hint(request, fields)
    }
}

impl loader::Keep for Keepsake {
    fn found(&self) -> Option<Arc<[u8]>> {
        self.found()
    }

    fn leave(&self, bytes: &[u8]) -> bool {
        self.leave(bytes)
    }
}

impl Application for Connected {
    type Body = AppBody;
    type Error = AppResponseError;

    fn receive<B>(&self, request: &mut Request<B>) {
        if let Some(client) = forwarded::settle(&self.listener.peers, &self.connection, request.headers_mut()) {
            request.extensions_mut().insert(Arc::new(client));
        }
    }

    fn call(
        self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<AppBody>, AppResponseError>> + Send {
        let own = self.listener.own.as_ref().filter(|_| self.connection.tls.is_some());
        let hsts = own.and_then(|own| own.hsts.clone());
        let own = self.own_answer(&request);
        let upgrade = request.body_mut().upgrade();
        let upgrade = upgrade.map(|upgrade| {
            let protocol = upgrade.protocol().to_owned();
            loader::Upgrade::new(protocol, upgrade.tunnel())
        });
        let hints = request.body_mut().interim().map(|(interim, number)| loader::Hints::new(interim, number));
        // Called before the future, which then doesn't contain the request.
        let keep = request.body_mut().keepsake().map(|keepsake| keepsake as Arc<dyn loader::Keep>);
        let offers = loader::Offers { upgrade, hints, keep };
        let call = own.map_or_else(|| Ok(self.app.call(request, self.connection, offers)), Err);
        async move {
            let mut response = match call {
                Ok(call) => call.await?,
                Err(own) => front::answer(*own).await,
            };
            if let Some(hsts) = hsts {
                response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert(hsts);
            }
            Ok(response)
        }
    }

    fn is_whole(body: &AppBody) -> bool {
        body.is_whole()
    }
}
