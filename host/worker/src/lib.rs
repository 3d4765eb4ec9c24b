//! The worker process: loads one version of the app, serves HTTP with it, drains and exits.
//!
//! Owns the threads of the process and the order of its life. How a connection is served is for `connection`, how the app
//! is called for `loader` of the services; which worker lives when is the master's decision.
//!
//! ```text
//! control thread   setup ─ wait for the threads ─ Ready ─ handle messages and signals ─ drain ─ exit
//! serve-0          hash, load, start ─┬─ accept and serve ─────────────── drain ─ app's stop
//! serve-1 …        wait for the app ──┴─ accept and serve ─────────────── drain
//! log              writes the lines of all others
//! access log       the same, where it has a file of its own
//! output           makes lines of the log of what the app prints
//! databank …       the databank's connections and timers
//! dispatch         messages from and to other workers
//! transfer         connections from and to other workers
//! inherit, leave   what the app keeps in memory, from the worker before and to the one behind
//! exit             exit handlers, the app's too, once it has stopped
//! ```
//! The control thread runs no code of the app's, so an app that blocks can't keep the worker from obeying. Only the two
//! log threads wait for a log. Each serving thread has its own runtime and its own accept loops: a connection stays on the
//! thread that accepted it, and no request pays for a scheduler between threads.
//!
//! A worker whose app has stopped in time ends by `exit(3)`, so that exit handlers run, for as long as the drain may take.
//! All others end by `_exit` from the control thread.

#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    rustdoc::private_intra_doc_links,
    reason = "what is public here is so for the other crates of the host, not for strangers"
)]

mod accept;
mod access;
mod addresses;
mod arrivals;
mod capacity;
mod client;
mod connection;
mod context;
mod control;
mod detach_queue;
mod detached;
mod exit;
mod forwarded;
mod front;
mod idle_pool;
mod inheritance;
mod proxy_protocol;
mod record;
mod serving;
mod signals;
mod stream;
mod tls;
mod transfer;

pub use tls::check as tls_check;

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use app_host_core::error::chain;
use app_host_core::message::{AccessPlace, ListenerInfo, Origin, Server, WorkerSetup};
use app_host_platform::channel::{Channel, ChannelError};
use app_host_platform::console;
use app_host_platform::logging;
use app_host_platform::sys;
use app_host_platform::sys::stats::{StatsPage, ThreadStats};
use app_host_services::loader::AppListener;
use app_host_tls::{CertificateError, Tickets, TlsServer};

use capacity::Predecessor;
use context::ListenerRules;
use front::OwnAnswers;

/// How many descriptors the table has room for from the start, besides the connections that there will be: 32 KiB in the
/// kernel.
const SPARE_DESCRIPTORS: u64 = 4096;

/// Why a worker ends without being able, or obliged, to report it to its master.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the control socket can't be taken from standard input")]
    Control(#[source] io::Error),
    #[error("the runtime of the control thread can't be made")]
    Runtime(#[source] io::Error),
    #[error("the setup can't be received")]
    Setup(#[source] ChannelError),
    #[error("the setup came with {found} descriptors, expected {expected}")]
    Descriptors { found: usize, expected: usize },
    #[error("the log can't be begun")]
    Log(#[from] logging::LoggingError),
    #[error("the pipes of the app's standard streams can't be read")]
    Output(#[source] io::Error),
    #[error("the stats page can't be opened")]
    Stats(#[source] io::Error),
    #[error("signal handlers can't be installed")]
    Signals(#[source] io::Error),
    #[error("the access log can't be begun")]
    AccessLog(#[source] io::Error),
    #[error("the keys of session tickets can't be read")]
    TicketKeys(#[source] io::Error),
    #[error("listener \"{name}\": its TLS {error}")]
    Tls { name: String, error: CertificateError },
    #[error("the databank's thread can't be made")]
    Databank(#[source] io::Error),
    #[error("the thread for messages of other workers can't be made")]
    Dispatch(#[source] io::Error),
    #[error("the thread for connections of other workers can't be made")]
    Transfer(#[source] io::Error),
    #[error("thread {name} can't be made")]
    Thread { name: String, source: io::Error },
    #[error("a message to the master can't be sent")]
    Send(#[source] ChannelError),
}

/// What came with the setup.
struct Equipment {
    stats: &'static [ThreadStats],
    listeners: Vec<Listener>,
    app_listeners: Vec<AppListener>,
    /// Messages between workers travel on it.
    dispatch: OwnedFd,
    /// The master sends links to other workers on it.
    transfer: OwnedFd,
    /// The reading ends of the app's standard output and standard error.
    printed: [OwnedFd; 2],
    /// The version's file.
    library: OwnedFd,
    /// The access log's own file.
    access: Option<OwnedFd>,
    /// The keys of session tickets.
    tickets: Arc<Tickets>,
    /// The worker that this one replaces.
    predecessor: Option<Predecessor>,
    /// Held until the process ends: the lock by which a new master learns that this magic still runs.
    _held: OwnedFd,
}

/// A listener that the master has sent.
struct Listener {
    socket: OwnedFd,
    origin: Origin,
    rules: Arc<ListenerRules>,
}

/// Runs the worker, whose control socket is standard input.
pub fn run() -> ExitCode {
    let error = match try_run() {
        Ok(code) => return code,
        Err(error) => error,
    };
    // There may be no log yet; standard error is where it goes anyway.
    console::error(&format!("app-host: worker: {}", chain(&error)));
    logging::finish();
    ExitCode::FAILURE
}

fn try_run() -> Result<ExitCode, WorkerError> {
    let socket = sys::take_stdin().map_err(WorkerError::Control)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(WorkerError::Runtime)?;
    runtime.block_on(async {
        let channel = Channel::from_owned_fd(socket).map_err(WorkerError::Control)?;
        let received = channel.receive::<WorkerSetup>().await.map_err(WorkerError::Setup)?;
        // The master has died before it sent a setup: there is nothing to serve.
        let Some((setup, descriptors)) = received else { return Ok(ExitCode::SUCCESS) };
        // Before there is a second thread. If it fails, the kernel makes the room when it is needed.
        let _ = sys::process::make_room_for_descriptors(setup.connections.saturating_add(SPARE_DESCRIPTORS));
        let (log, equipment) = unpack(descriptors, &setup)?;
        let log = logging::init_child(setup.log, Some(log))?;
        sys::process::allow_core_dumps(setup.core_dumps);
        control::run(&channel, setup, equipment, log).await
    })
}

/// Takes the descriptors in the order that `message` documents. The first is the log.
fn unpack(descriptors: Vec<OwnedFd>, setup: &WorkerSetup) -> Result<(OwnedFd, Equipment), WorkerError> {
    let infos = &setup.listeners;
    let with_access = setup.access_log.as_ref().is_some_and(|setup| setup.place == AccessPlace::File);
    let with_tls = infos.iter().any(|info| info.tls.is_some());
    let beside = usize::from(with_access) + usize::from(with_tls) + usize::from(setup.predecessor.is_some());
    let (found, expected) = (descriptors.len(), 8 + beside + infos.len());
    let wrong = || WorkerError::Descriptors { found, expected };
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(wrong);
    let (log, dispatch, transfer, page, lock) = (next()?, next()?, next()?, next()?, next()?);
    let printed = [next()?, next()?];
    let library = next()?;
    let access = with_access.then(&mut next).transpose()?;
    let ticket_keys = with_tls.then(&mut next).transpose()?;
    let predecessor = setup.predecessor.map(|it| Ok::<_, WorkerError>((next()?, it.gone_after))).transpose()?;
    if found != expected {
        return Err(wrong());
    }
    let stats = StatsPage::open(&page).map_err(WorkerError::Stats)?.into_threads();
    // It is the other worker's to write, and no reason to fail if that one has written something else to it.
    let predecessor =
        predecessor.and_then(|(page, gone_after)| Some(Predecessor::new(StatsPage::look_at(&page).ok()?, gone_after)));
    let (mut listeners, mut app_listeners) = (Vec::new(), Vec::new());
    let tickets = Arc::new(Tickets::new(&[]));
    if let Some(keys) = ticket_keys {
        tls::set_ticket_keys(&tickets, keys).map_err(WorkerError::TicketKeys)?;
    }
    for (socket, ListenerInfo { name, unix, server, origin, tls, peers, front }) in descriptors.zip(infos) {
        let (name, unix, origin) = (name.clone(), *unix, *origin);
        let tls = tls.as_deref().map(|settings| TlsServer::new(settings, Arc::clone(&tickets)));
        let tls = tls.transpose().map_err(|(_, error)| WorkerError::Tls { name: name.clone(), error })?;
        match server {
            Server::Worker => {
                let (peers, own) = (peers.clone(), OwnAnswers::new(front));
                let rules = Arc::new(ListenerRules { name: name.leak(), unix, tls, peers, own });
                listeners.push(Listener { socket, origin, rules });
            }
            Server::App => app_listeners.push(AppListener { name, unix, origin, socket }),
        }
    }
    let equipment = Equipment {
        stats,
        listeners,
        app_listeners,
        dispatch,
        transfer,
        printed,
        library,
        access,
        tickets,
        predecessor,
        _held: lock,
    };
    Ok((log, equipment))
}
