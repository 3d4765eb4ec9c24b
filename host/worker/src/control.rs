//! The control thread: between the master, the signals and the serving threads.
//!
//! Owns the worker's deadlines. Everything that it waits for has one, or ends with the master; it
//! never calls the app and never takes a lock that a serving thread holds for longer than an instant.

use std::convert::Infallible;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::accept::{self, Intake, LAST_CALL, LeftOver};
use super::arrivals::Berths;
use super::detached::Detached;
use super::hearing::{Ears, Heard, Master, Ordered};
use super::schedule::Schedule;
use super::serving::{self, LeftOvers, Orders, Says, Start, Word};
use super::{Equipment, Listener, WorkerError, last, signals};
use crate::access::AccessLog;
use crate::handover::{self, Road, Stance};
use crate::http::{self, DrainControl, Ending, Phase};
use app_host_core::config::AppConfig;
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::message::{AccessSetup, Connections, FromWorker, Origin, WorkerSetup};
use app_host_core::status::millis;
use app_host_platform::channel::Channel;
use app_host_platform::logging::{self, ChildLog, Kind, LineWriter};
use app_host_platform::output::{self, Output, Stream};
use app_host_platform::sys;
use app_host_platform::sys::stats::Lane;
use app_host_services::databank::{Databank, Making};
use app_host_services::dispatch::Dispatch;
use app_host_services::loader::{AppListeners, HostInfo};

/// How a worker ends that could not begin, or that its own bug ended.
const FAILED: i32 = 1;

/// How a worker ends whose serving threads didn't come back from the app in time.
const BLOCKED: i32 = 3;

/// How long the last messages to other workers are waited for, when the worker exits.
const LAST_MESSAGES: Duration = Duration::from_millis(100);

/// How long the last lines of the access log are waited for, when the worker exits.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// Plays the control thread's part. Returns only with an error.
pub(super) async fn work(
    channel: &Channel,
    setup: WorkerSetup,
    equipment: Equipment,
    log: ChildLog,
) -> Result<ExitCode, WorkerError> {
    signals::leave_to_master().map_err(WorkerError::Signals)?;
    let terminate = signals::terminate().map_err(WorkerError::Signals)?;
    let mut control = Control::start(channel, setup, equipment, terminate, log)?;
    control.wait_until_accepting().await?;
    channel.send(&FromWorker::Ready).await.map_err(WorkerError::Send)?;
    let ordered = control.serve().await;
    match control.drain(ordered).await {}
}

/// How long the app's standard output waits for a log that takes nothing, before lines are dropped.
const PRINTING: Duration = Duration::from_secs(1);

/// Makes the thread that logs what the app prints.
fn follow(outputs: Arc<[Arc<Output>]>) -> Result<(), WorkerError> {
    let name = "output".to_owned();
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(move || output::follow(&outputs));
    spawned.map(drop).map_err(|source| WorkerError::Thread { name, source })
}

struct Control<'a> {
    ears: Ears<'a>,
    /// What the app prints to its standard streams.
    outputs: Arc<[Arc<Output>]>,
    access: Option<Arc<AccessLog>>,
    lanes: &'static [Lane],
    /// Shared with the threads, which take duplicates; let go once nobody here accepts any more, so
    /// that a listener which leaves the configuration closes with its last user.
    listeners: Option<Arc<[Listener]>>,
    app_listeners: AppListeners,
    dispatch: Dispatch,
    intake: watch::Sender<Intake>,
    left_over: Arc<LeftOvers>,
    drain: DrainControl,
    road: Road<Detached>,
    stop: watch::Sender<bool>,
    idle_linger: Duration,
    /// What must not be repeated.
    app_config: AppConfig,
    /// The lock, held to the end.
    _held: OwnedFd,
}

impl<'a> Control<'a> {
    /// Makes the serving threads.
    fn start(
        channel: &'a Channel,
        setup: WorkerSetup,
        equipment: Equipment,
        terminate: Signal,
        log: ChildLog,
    ) -> Result<Self, WorkerError> {
        let Equipment { lanes, listeners, app_listeners, dispatch, handover, printed, library, access, _held: held } =
            equipment;
        let [stdout, stderr] = printed;
        let outputs = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)]
            .map(|(pipe, stream)| Output::new(pipe, stream, log.app(), PRINTING).map(Arc::new));
        let outputs: Arc<[_]> = outputs.into_iter().collect::<Result<_, _>>().map_err(WorkerError::Output)?;
        follow(Arc::clone(&outputs))?;
        last::write_last_lines_at_exit(&outputs);
        let lanes = &lanes[..usize::from(setup.threads).clamp(1, lanes.len())];
        let listeners: Arc<[Listener]> = listeners.into();
        let (says, words) = mpsc::unbounded_channel();
        let (intake, intake_order) = watch::channel(Intake::Open);
        let (stop, stop_order) = watch::channel(false);
        let (app, started) = watch::channel(None);
        let (drain, drain_signal) = http::drain_signal();
        drain.announce_close(setup.announce_close);
        let left_over = Arc::<LeftOvers>::default();
        let place = (setup.slot, setup.generation);
        let open = |wanted: AccessSetup| {
            let writer = match access {
                Some(file) => LineWriter::open(Kind::Access, Some(file)).map_err(WorkerError::AccessLog)?,
                None => log.writer(),
            };
            let style = logging::app_lines(writer.clone(), setup.log, std::process::id());
            AccessLog::open(writer, style, wanted.trusted_peers, place).map(Arc::new).map_err(WorkerError::AccessLog)
        };
        let access = setup.access_log.map(open).transpose()?;
        let (road, plan) = handover::plan();
        let orders = Orders {
            access: access.clone(),
            listeners: Arc::clone(&listeners),
            app: started,
            intake: intake_order,
            left_over: Arc::clone(&left_over),
            drain: drain_signal,
            road: road.clone(),
            stop: stop_order,
            says: Says(says),
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
        let berths =
            lanes.iter().enumerate().map(|(index, lane)| serving::spawn(index, lane, start.take(), orders.clone()));
        let berths = Berths::new(berths.collect::<Result<_, _>>()?, &listeners, drain.clone());
        plan.open(handover, berths).map_err(WorkerError::Handover)?;
        let ears = Ears {
            channel,
            master: Master::Heard,
            terminate,
            terminated: false,
            words,
            log,
            access: access.clone(),
            drain: drain.clone(),
            shutdown_timeout: setup.shutdown_timeout,
        };
        Ok(Self {
            ears,
            outputs,
            access,
            lanes,
            listeners: Some(listeners),
            app_listeners,
            dispatch,
            intake,
            left_over,
            drain,
            road,
            stop,
            idle_linger: setup.idle_linger,
            app_config: setup.app_config,
            _held: held,
        })
    }

    /// Returns when every thread accepts on every listener. An order before that ends the process:
    /// nothing has been served yet.
    async fn wait_until_accepting(&mut self) -> Result<(), WorkerError> {
        // An app's own words, of any length, which may quote what it was given.
        let bounded = |app_config: &AppConfig, error: &str| foreign::line(&app_config.hide(error), foreign::MAX_TEXT);
        let mut accepting = 0;
        while accepting < self.lanes.len() {
            let failure = match self.ears.hear().await {
                Heard::Thread(Word::Accepting) => {
                    accepting += 1;
                    continue;
                }
                Heard::Order(_) => self.exit(0),
                Heard::Thread(Word::CannotListen(error)) => {
                    FromWorker::CannotListen { error: bounded(&self.app_config, &error) }
                }
                Heard::Thread(Word::CannotStart(error)) => {
                    FromWorker::StartFailed { error: bounded(&self.app_config, &error) }
                }
                Heard::Thread(word) => FromWorker::StartFailed {
                    error: if logging::app_has_closed_ours() {
                        format!(
                            "a serving thread ended early ({word:?}): the app has closed a descriptor of the host's"
                        )
                    } else {
                        format!("a serving thread ended early ({word:?}), which is a bug in the host")
                    },
                },
            };
            self.ears.channel.send(&failure).await.map_err(WorkerError::Send)?;
            sys::exit_now(FAILED)
        }
        Ok(())
    }

    /// Returns when the serving is to end.
    async fn serve(&mut self) -> Ordered {
        match self.ears.hear().await {
            Heard::Order(ordered) => ordered,
            Heard::Thread(word) => self.exit_for_a_bug(&word),
        }
    }

    /// Ends the worker.
    async fn drain(&mut self, ordered: Ordered) -> Infallible {
        let began = Instant::now();
        let mut schedule = Schedule::new(began, ordered.timeout);
        let Ordered { successor, timeout, connections } = ordered;
        self.let_go(connections, &schedule);
        self.dispatch.refuse_locks();
        let handover = connections == Connections::HandedOver;
        tracing::info!(successor, handover, timeout_ms = millis(timeout), "draining");
        let mut threads = Threads { open: self.lanes.len(), busy: self.lanes.len() };
        if successor {
            self.intake.send_replace(Intake::Closed);
        } else {
            self.intake.send_replace(Intake::LastCall);
            self.gather(&mut threads, &mut schedule, |threads, _| (threads.open > 0).then_some(began + LAST_CALL))
                .await;
            self.last_call(threads.open);
            self.shut_listeners_down();
            self.intake.send_replace(Intake::Closed);
        }
        self.gather(&mut threads, &mut schedule, |threads, schedule| (threads.busy > 0).then_some(schedule.cut)).await;
        if threads.busy > 0 {
            self.road.stand(Stance::Ends);
            self.drain.begin(Phase::Cut);
            let unfinished = |threads: &Threads, schedule: &Schedule| (threads.busy > 0).then_some(schedule.end);
            self.gather(&mut threads, &mut schedule, unfinished).await;
        }
        let figures = Figures::of(self.lanes);
        if threads.busy > 0 {
            tracing::error!(
                threads = threads.busy,
                in_flight = figures.in_flight,
                route = figures.route,
                "the app blocks serving threads; the worker exits without them"
            );
            self.exit(BLOCKED)
        }
        let Figures { requests, cut, handed_over, received, closed, .. } = figures;
        if cut > 0 {
            tracing::warn!(cut, "requests were cut at the end of the drain");
        }
        self.stop.send_replace(true);
        let stopped = async {
            while let Some(word) = self.ears.words.recv().await {
                if matches!(word, Word::Stopped) {
                    break;
                }
            }
        };
        let has_stopped = timeout_at(schedule.end, stopped).await.is_ok();
        if !has_stopped {
            tracing::warn!("the app's stop did not end in time");
        }
        tracing::info!(requests, cut, handed_over, received, closed, "drained");
        self.say_last_words();
        if has_stopped {
            last::run_exit_handlers(schedule.end).await;
            tracing::warn!("the app's exit handlers did not end in time");
        }
        self.exit(0)
    }

    /// Has connections end here, one way or the other.
    fn let_go(&self, connections: Connections, schedule: &Schedule) {
        // The road first: what comes to it next is to find it so.
        let ending = match connections {
            Connections::HandedOver => {
                self.road.stand(Stance::Leaves);
                Ending::HandOver
            }
            Connections::Closed => {
                self.road.stand(Stance::Closes);
                Ending::Close
            }
        };
        let since = Instant::now();
        let linger = schedule.linger(since, self.idle_linger);
        self.drain.begin(Phase::Draining { since: since.into_std(), linger, ending });
    }

    /// Listens until `deadline` says that nothing is left to wait for, or its time has come.
    async fn gather(
        &mut self,
        threads: &mut Threads,
        schedule: &mut Schedule,
        deadline: impl Fn(&Threads, &Schedule) -> Option<Instant>,
    ) {
        while let Some(deadline) = deadline(threads, schedule) {
            match timeout_at(deadline, self.ears.hear()).await {
                Err(_) => return,
                Ok(Heard::Order(again)) => {
                    schedule.shorten(Schedule::new(Instant::now(), again.timeout));
                    // The whole service ends after all: new clients are to be refused at once, and nobody
                    // is there to take connections over.
                    if !again.successor {
                        self.shut_listeners_down();
                        self.let_go(Connections::Closed, schedule);
                    }
                }
                Ok(Heard::Thread(Word::Closed)) => {
                    threads.open -= 1;
                    if threads.open == 0 && *self.intake.borrow() == Intake::Closed {
                        self.listeners = None;
                        self.app_listeners.close();
                    }
                }
                Ok(Heard::Thread(Word::Drained)) => threads.busy -= 1,
                Ok(Heard::Thread(word)) => self.exit_for_a_bug(&word),
            }
        }
    }

    /// Takes what still waits, because the threads that have not answered can't, and for the clients
    /// that came since the others did. Those that are free serve it, now or later.
    fn last_call(&self, unanswered: usize) {
        let mut taken = 0;
        let listeners = self.listeners.iter().flat_map(|listeners| listeners.iter()).enumerate();
        for (index, listener) in listeners.filter(|(_, listener)| listener.origin == Origin::Bound) {
            accept::last_call(&SockRef::from(&listener.socket), |socket, peer| {
                self.left_over.put(LeftOver { listener: index, socket, peer });
                taken += 1;
            });
        }
        if unanswered > 0 {
            tracing::warn!(threads = unanswered, taken, "serving threads do not answer the last call");
        }
    }

    /// Refuses new clients at once, whoever else still holds the sockets open (`shutdown(2)` acts on
    /// the socket, not on the descriptor). That goes for what the app serves, too: nobody waits for it. A
    /// socket that was passed to the master is only closed: its manager goes on listening.
    fn shut_listeners_down(&mut self) {
        let listeners = self.listeners.take();
        let listeners = listeners.iter().flat_map(|listeners| listeners.iter());
        for listener in listeners.filter(|listener| listener.origin == Origin::Bound) {
            // Another worker may have been faster.
            if let Err(error) = SockRef::from(&listener.socket).shutdown(Shutdown::Both)
                && error.kind() != std::io::ErrorKind::NotConnected
            {
                let (listener, error) = (listener.name, chain(&error));
                tracing::warn!(listener, error, "listener can't be shut down");
            }
        }
        for (listener, error) in self.app_listeners.shut_down() {
            let error = chain(&error);
            tracing::warn!(listener, error, "listener can't be shut down");
        }
    }

    fn exit_for_a_bug(&self, word: &Word) -> ! {
        if logging::app_has_closed_ours() {
            tracing::error!(?word, "a serving thread ended early: the app has closed a descriptor of the host's");
        } else {
            tracing::error!(?word, "a serving thread ended early, which is a bug in the host");
        }
        self.exit(FAILED)
    }

    /// Ends the process once its messages are sent and its lines written.
    fn exit(&self, code: i32) -> ! {
        self.say_last_words();
        last::write_last_lines(&self.outputs);
        sys::exit_now(code)
    }

    /// Sends what other workers are still to get, and writes the access log's last lines.
    fn say_last_words(&self) {
        self.dispatch.finish(LAST_MESSAGES);
        if self.access.as_ref().is_some_and(|access| !access.finish(LAST_REQUESTS)) {
            tracing::warn!("access log takes nothing; its last lines are lost");
        }
    }
}

/// How many threads still accept, and how many still have connections.
struct Threads {
    open: usize,
    busy: usize,
}

/// What the lanes say together.
struct Figures {
    requests: u64,
    in_flight: u64,
    cut: u64,
    handed_over: u64,
    received: u64,
    closed: u64,
    /// A route that a thread is held with.
    route: Option<String>,
}

impl Figures {
    fn of(lanes: &[Lane]) -> Self {
        let mut figures =
            Self { requests: 0, in_flight: 0, cut: 0, handed_over: 0, received: 0, closed: 0, route: None };
        for lane in lanes.iter().map(Lane::snapshot) {
            let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
            add(&mut figures.requests, lane.requests);
            add(&mut figures.in_flight, lane.in_flight);
            add(&mut figures.cut, lane.cut);
            add(&mut figures.handed_over, lane.handed_over);
            add(&mut figures.received, lane.taken_over);
            add(&mut figures.closed, lane.dismissed);
            figures.route = figures.route.or(lane.route);
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use app_host_platform::sys::packet;

    fn control(channel: &Channel, listeners: Vec<Listener>) -> Control<'_> {
        let (_, words) = mpsc::unbounded_channel();
        let (intake, _) = watch::channel(Intake::Open);
        let (stop, _) = watch::channel(false);
        let (drain, _) = http::drain_signal();
        let held = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (_, dispatch) = packet::pair().unwrap();
        let log = ChildLog::nowhere();
        let ears = Ears {
            channel,
            master: Master::Heard,
            terminate: signals::terminate().unwrap(),
            terminated: false,
            words,
            log,
            access: None,
            drain: drain.clone(),
            shutdown_timeout: Duration::from_secs(30),
        };
        Control {
            ears,
            outputs: Arc::default(),
            access: None,
            lanes: &[],
            listeners: Some(listeners.into()),
            app_listeners: AppListeners::new(Vec::new()),
            dispatch: Dispatch::open(dispatch).unwrap(),
            intake,
            left_over: Arc::default(),
            drain,
            road: handover::plan().0,
            stop,
            app_config: AppConfig::empty(),
            idle_linger: Duration::from_secs(5),
            _held: held(),
        }
    }

    #[tokio::test]
    async fn what_waits_at_the_last_call_is_taken_although_no_thread_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let (_master, channel) = crate::hearing::tests::child();
        let mut control = control(
            &channel,
            vec![Listener { socket: listener.into(), name: "test", unix: false, origin: Origin::Bound }],
        );
        control.last_call(1);
        control.shut_listeners_down();
        let mut taken = Vec::new();
        while let Some(LeftOver { socket, .. }) = control.left_over.take() {
            taken.push(socket.peer_addr().unwrap().as_socket().unwrap());
        }
        taken.sort_unstable();
        let mut expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        expected.sort_unstable();
        assert_eq!(taken, expected);
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
