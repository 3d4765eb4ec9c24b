//! The control thread of a worker: starts the serving threads, obeys the master and the signals, drains and exits.
//!
//! Owns the worker's deadlines ([`schedule`]). Everything that it waits for has one, or ends with the master; it never
//! calls the app, and never takes a lock that a serving thread holds for longer than an instant.

mod drain;
mod inputs;
mod schedule;

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};

use app_host_core::config::{AppConfig, ClientLimits, Http2Restart};
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::message::{AccessSetup, FromWorker, WorkerSetup};
use app_host_platform::channel::Channel;
use app_host_platform::logging::{self, ChildLog, Kind, LineWriter};
use app_host_platform::output::{self, Output, Stream};
use app_host_platform::sys;
use app_host_platform::sys::stats::ThreadStats;
use app_host_services::databank::{Databank, Making};
use app_host_services::dispatch::Dispatch;
use app_host_services::loader::{AppListeners, HostInfo};

use crate::accept::Intake;
use crate::access::AccessLog;
use crate::addresses::Addresses;
use crate::arrivals::ServingThreads;
use crate::capacity::Capacity;
use crate::connection::{self, DrainControl, Limits};
use crate::detached::Detached;
use crate::inheritance::AppState;
use crate::serving::{self, EventSender, Start, ThreadEvent, ThreadSetup, Unserved};
use crate::tls;
use crate::transfer::{self, TransferHandle};
use crate::{Equipment, Listener, WorkerError, exit, signals};
use inputs::{ControlInputs, DrainOrder, Input, Master};

/// The exit code of a worker that could not start, or that a bug in the host ended.
const FAILED: i32 = 1;

/// The exit code of a worker whose serving threads were still blocked by the app when its time was over.
const BLOCKED: i32 = 3;

/// How long an exiting worker waits until its last messages to other workers are sent.
const LAST_MESSAGES: Duration = Duration::from_millis(100);

/// How long an exiting worker waits until the last lines of the access log are written.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// How long the app's standard output waits for a log that takes nothing, before lines are dropped.
const PRINTING: Duration = Duration::from_secs(1);

/// Runs the control thread. Returns only with an error.
pub(super) async fn run(
    channel: &Channel,
    setup: WorkerSetup,
    equipment: Equipment,
    log: ChildLog,
) -> Result<ExitCode, WorkerError> {
    signals::leave_to_master().map_err(WorkerError::Signals)?;
    let terminate = signals::terminate().map_err(WorkerError::Signals)?;
    let mut control = Control::start(channel, setup, equipment, terminate, log)?;
    control.accept().await?;
    let keeps_state = control.inputs.app_state.is_kept();
    channel.send(&FromWorker::Ready { keeps_state }).await.map_err(WorkerError::Send)?;
    let order = control.serve().await;
    match control.drain(order).await {}
}

/// Starts the thread that logs what the app prints.
fn follow(outputs: Arc<[Arc<Output>]>) -> Result<(), WorkerError> {
    let name = "output".to_owned();
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(move || output::follow(&outputs));
    spawned.map(drop).map_err(|source| WorkerError::Thread { name, source })
}

/// Opens the access log, if requests are logged: its own file, or the log.
fn open_access_log(
    setup: &WorkerSetup,
    file: Option<OwnedFd>,
    log: &ChildLog,
) -> Result<Option<Arc<AccessLog>>, WorkerError> {
    let Some(AccessSetup { trusted_peers, .. }) = setup.access_log.clone() else { return Ok(None) };
    let writer = match file {
        Some(file) => LineWriter::open(Kind::Access, Some(file)).map_err(WorkerError::AccessLog)?,
        None => log.writer(),
    };
    let style = logging::app_lines(writer.clone(), setup.log, std::process::id());
    let opened = AccessLog::open(writer, style, trusted_peers, (setup.slot, setup.generation));
    Ok(Some(Arc::new(opened.map_err(WorkerError::AccessLog)?)))
}

struct Control<'a> {
    inputs: ControlInputs<'a>,
    /// What the app prints to its standard streams.
    outputs: Arc<[Arc<Output>]>,
    access: Option<Arc<AccessLog>>,
    stats: &'static [ThreadStats],
    /// Shared with the serving threads, which take duplicates. Dropped once none of them accepts any more, so that a
    /// listener which leaves the configuration closes with its last user.
    listeners: Option<Arc<[Listener]>>,
    app_listeners: AppListeners,
    dispatch: Dispatch,
    intake: watch::Sender<Intake>,
    unserved: Arc<Unserved>,
    drain: DrainControl,
    transfer: TransferHandle<Detached>,
    stop: watch::Sender<bool>,
    idle_linger: Duration,
    /// Its secrets must not be repeated in messages.
    app_config: AppConfig,
    /// The version's lock, held until the process ends.
    _held: OwnedFd,
}

/// The limits for all of the worker's life, if what they promise holds.
fn limits(setup: ClientLimits, threads: usize) -> &'static Limits {
    let limits: &'static Limits = Box::leak(Box::new(Limits::new(setup, threads)));
    if limits.http2 == Http2Restart::Goaway {
        return limits;
    }
    match connection::self_test(limits) {
        Ok(()) => limits,
        Err(error) => {
            tracing::error!(error = chain(&error), "connections of HTTP/2 can't move: the self-test failed");
            Box::leak(Box::new(Limits { stays: true, ..*limits }))
        }
    }
}

impl<'a> Control<'a> {
    /// Starts the serving threads, the transfer thread and those of the services.
    fn start(
        channel: &'a Channel,
        setup: WorkerSetup,
        equipment: Equipment,
        terminate: Signal,
        log: ChildLog,
    ) -> Result<Self, WorkerError> {
        let Equipment {
            stats,
            listeners,
            app_listeners,
            dispatch,
            transfer: transfer_socket,
            printed,
            library,
            access,
            tickets,
            predecessor,
            _held: held,
        } = equipment;
        let [stdout, stderr] = printed;
        let outputs = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)]
            .map(|(pipe, stream)| Output::new(pipe, stream, log.app(), PRINTING).map(Arc::new));
        let outputs: Arc<[_]> = outputs.into_iter().collect::<Result<_, _>>().map_err(WorkerError::Output)?;
        follow(Arc::clone(&outputs))?;
        exit::write_last_lines_at_exit(&outputs);
        let stats = &stats[..usize::from(setup.threads).clamp(1, stats.len())];
        let (servers, listeners) = (tls::servers(&listeners), Arc::<[Listener]>::from(listeners));
        let (sender, events) = mpsc::unbounded_channel();
        let ((intake, intake_order), (stop, stop_order)) = (watch::channel(Intake::Waiting), watch::channel(false));
        let (app, started) = watch::channel(None);
        let (app_state, handed_on) =
            AppState::new(started.clone(), &setup.library.app_version, setup.generation.0, setup.app_config.clone());
        let (drain, drain_signal) = connection::drain_signal();
        drain.announce_close(setup.announce_close);
        let unserved = Arc::<Unserved>::default();
        let access = open_access_log(&setup, access, &log)?;
        let (transfer, transfers) = transfer::channel();
        let limits = limits(setup.limits, stats.len());
        let thread_setup = ThreadSetup {
            access: access.clone(),
            limits,
            capacity: Arc::new(Capacity::new(limits, listeners.len(), sys::process::descriptor_limit(), predecessor)),
            addresses: limits.connections.max_per_address.map(Addresses::new),
            listeners: Arc::clone(&listeners),
            app: started,
            intake: intake_order,
            unserved: Arc::clone(&unserved),
            drain: drain_signal,
            transfer: transfer.clone(),
            stop: stop_order,
            events: EventSender(sender),
            heartbeat: setup.heartbeat,
        };
        let databank = Databank::open(&setup.databank, Making::Never).map_err(WorkerError::Databank)?;
        let dispatch = Dispatch::open(dispatch).map_err(WorkerError::Dispatch)?;
        let app_listeners = AppListeners::new(app_listeners);
        let host = HostInfo {
            config: setup.app_config.text.reveal().to_owned(),
            databank,
            dispatch: dispatch.clone(),
            listeners: app_listeners.clone(),
            log: log.app(),
            slot: setup.slot.0,
            generation: setup.generation.0,
            pid: std::process::id(),
        };
        let mut start = Some(Start { library: setup.library, file: library, host, app });
        let threads = stats
            .iter()
            .enumerate()
            .map(|(index, stats)| serving::spawn(index, stats, start.take(), thread_setup.clone()));
        let threads = ServingThreads::new(threads.collect::<Result<_, _>>()?, &listeners, limits, drain.clone());
        transfers.spawn(transfer_socket, threads).map_err(WorkerError::Transfer)?;
        let inputs = ControlInputs {
            channel,
            master: Master::Connected,
            terminate,
            terminated: false,
            events,
            log,
            access: access.clone(),
            tickets,
            servers,
            drain: drain.clone(),
            shutdown_timeout: setup.shutdown_timeout,
            app_state,
            handed_on,
        };
        Ok(Self {
            inputs,
            outputs,
            access,
            stats,
            listeners: Some(listeners),
            app_listeners,
            dispatch,
            intake,
            unserved,
            drain,
            transfer,
            stop,
            idle_linger: setup.idle_linger,
            app_config: setup.app_config,
            _held: held,
        })
    }

    /// Has all threads accept, once every one of them can on every listener. An order to drain before that, or a thread
    /// that fails, ends the process at once: none of them has accepted anything.
    async fn accept(&mut self) -> Result<(), WorkerError> {
        // An app's own text, of any length, which may quote what it was given.
        let bounded = |app_config: &AppConfig, error: &str| foreign::line(&app_config.hide(error), foreign::MAX_TEXT);
        let mut prepared = 0;
        while prepared < self.stats.len() {
            let failure = match self.inputs.recv().await {
                Input::Thread(ThreadEvent::Prepared) => {
                    prepared += 1;
                    continue;
                }
                Input::Drain(_) => self.exit(0),
                Input::Thread(ThreadEvent::CannotListen(error)) => {
                    FromWorker::CannotListen { error: bounded(&self.app_config, &error) }
                }
                Input::Thread(ThreadEvent::CannotStart(error)) => {
                    FromWorker::StartFailed { error: bounded(&self.app_config, &error) }
                }
                Input::Thread(event) => FromWorker::StartFailed {
                    error: if logging::app_has_closed_ours() {
                        format!(
                            "a serving thread ended early ({event:?}): the app has closed a descriptor of the host's"
                        )
                    } else {
                        format!("a serving thread ended early ({event:?}), which is a bug in the host")
                    },
                },
            };
            self.inputs.channel.send(&failure).await.map_err(WorkerError::Send)?;
            sys::exit_now(FAILED)
        }
        self.intake.send_replace(Intake::Open);
        Ok(())
    }

    /// Waits for the order to drain.
    async fn serve(&mut self) -> DrainOrder {
        match self.inputs.recv().await {
            Input::Drain(order) => order,
            Input::Thread(event) => self.exit_for_a_bug(&event),
        }
    }

    fn exit_for_a_bug(&self, event: &ThreadEvent) -> ! {
        if logging::app_has_closed_ours() {
            tracing::error!(?event, "a serving thread ended early: the app has closed a descriptor of the host's");
        } else {
            tracing::error!(?event, "a serving thread ended early, which is a bug in the host");
        }
        self.exit(FAILED)
    }

    /// Ends the process once its messages are sent and its log lines are written.
    fn exit(&self, code: i32) -> ! {
        self.flush();
        exit::write_last_lines(&self.outputs);
        sys::exit_now(code)
    }

    /// Sends the last messages to other workers, and writes the last lines of the access log.
    fn flush(&self) {
        self.dispatch.finish(LAST_MESSAGES);
        if self.access.as_ref().is_some_and(|access| !access.finish(LAST_REQUESTS)) {
            tracing::warn!("access log takes nothing; its last lines are lost");
        }
    }
}

#[cfg(test)]
mod tests;
