//! The control thread: between the master, the signals and the serving threads.
//!
//! Owns the worker's deadlines. Everything that it waits for has one, or ends with the master; it
//! never calls the app, and never takes a lock that a serving thread holds for longer than an
//! instant.

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

use super::accept::{Intake, LAST_CALL};
use super::serving::{self, Orders, Says, Start, Word};
use super::{Equipment, Listener, WorkerError, signals};
use crate::channel::{Channel, ChannelError};
use crate::http::{self, DrainControl, Phase};
use crate::loader::HostInfo;
use crate::message::{FromWorker, ToWorker, WorkerSetup};
use crate::preflight::chain;
use crate::sys;
use crate::sys::stats::Lane;

/// How a worker ends that could not begin, or that its own bug ended.
const FAILED: i32 = 1;

/// How a worker ends whose serving threads didn't come back from the app in time.
const BLOCKED: i32 = 3;

/// How long before a drain's timeout what is left is cut: a tenth of it within these bounds, so that
/// a busy machine can still run the app's `stop`; half of a timeout that is shorter.
const MARGIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Plays the control thread's part. Returns only with an error.
pub(super) async fn work(channel: &Channel, setup: WorkerSetup, equipment: Equipment) -> Result<ExitCode, WorkerError> {
    signals::leave_to_master().map_err(WorkerError::Signals)?;
    let terminate = signals::terminate().map_err(WorkerError::Signals)?;
    let mut control = Control::start(channel, setup, equipment, terminate)?;
    control.wait_until_accepting().await?;
    channel.send(&FromWorker::Ready).await.map_err(WorkerError::Send)?;
    let ordered = control.serve().await;
    match control.drain(ordered).await {}
}

/// What ends the serving.
#[derive(Clone, Copy, Debug)]
struct Ordered {
    /// Whether others go on accepting on the listeners.
    successor: bool,
    timeout: Duration,
}

/// What the control thread hears.
enum Heard {
    Order(Ordered),
    Thread(Word),
}

struct Control<'a> {
    channel: &'a Channel,
    /// Whether the master is still there.
    mastered: bool,
    terminate: Signal,
    words: mpsc::UnboundedReceiver<Word>,
    lanes: &'static [Lane],
    /// Shared with the threads, which take duplicates; let go once nobody here accepts any more, so
    /// that a listener which leaves the configuration closes with its last user.
    listeners: Option<Arc<[Listener]>>,
    intake: watch::Sender<Intake>,
    drain: DrainControl,
    stop: watch::Sender<bool>,
    idle_linger: Duration,
    shutdown_timeout: Duration,
    /// The dispatch and handover sockets and the lock, held to the end.
    _held: [OwnedFd; 3],
}

impl<'a> Control<'a> {
    /// Makes the serving threads.
    fn start(
        channel: &'a Channel,
        setup: WorkerSetup,
        equipment: Equipment,
        terminate: Signal,
    ) -> Result<Self, WorkerError> {
        let Equipment { lanes, listeners, _held: held } = equipment;
        let lanes = &lanes[..usize::from(setup.threads).clamp(1, lanes.len())];
        let listeners: Arc<[Listener]> = listeners.into();
        let (says, words) = mpsc::unbounded_channel();
        let (intake, intake_order) = watch::channel(Intake::Open);
        let (stop, stop_order) = watch::channel(false);
        let (app, started) = watch::channel(None);
        let (drain, drain_signal) = http::drain_signal();
        let orders = Orders {
            listeners: Arc::clone(&listeners),
            app: started,
            intake: intake_order,
            drain: drain_signal,
            stop: stop_order,
            says: Says(says),
        };
        let host = HostInfo {
            config: setup.app_config,
            slot: setup.slot.0,
            generation: setup.generation.0,
            pid: std::process::id(),
        };
        let mut start = Some(Start { library: setup.library, host, app });
        for (index, lane) in lanes.iter().enumerate() {
            serving::spawn(index, lane, start.take(), orders.clone())?;
        }
        Ok(Self {
            channel,
            mastered: true,
            terminate,
            words,
            lanes,
            listeners: Some(listeners),
            intake,
            drain,
            stop,
            idle_linger: setup.idle_linger,
            shutdown_timeout: setup.shutdown_timeout,
            _held: held,
        })
    }

    /// Waits for the next word from anybody. The master's end is an order to drain, as is SIGTERM.
    async fn hear(&mut self) -> Heard {
        loop {
            tokio::select! {
                received = self.channel.receive::<ToWorker>(), if self.mastered => match received {
                    Ok(Some((ToWorker::Drain { successor, timeout }, _))) => {
                        return Heard::Order(Ordered { successor, timeout });
                    }
                    Ok(None) => {
                        tracing::warn!("the master has gone");
                        return self.orphaned();
                    }
                    Err(ChannelError::Socket(error)) => {
                        tracing::error!(error = chain(&error), "control socket failed");
                        return self.orphaned();
                    }
                    Err(error) => tracing::error!(error = chain(&error), "an order is not understood"),
                },
                // Others go on serving: only the master closes the listeners for all.
                _ = self.terminate.recv() => {
                    return Heard::Order(Ordered { successor: true, timeout: self.shutdown_timeout });
                }
                Some(word) = self.words.recv() => return Heard::Thread(word),
            }
        }
    }

    fn orphaned(&mut self) -> Heard {
        self.mastered = false;
        Heard::Order(Ordered { successor: false, timeout: self.shutdown_timeout })
    }

    /// Returns when every thread accepts on every listener. An order before that ends the process:
    /// nothing has been served yet.
    async fn wait_until_accepting(&mut self) -> Result<(), WorkerError> {
        let mut accepting = 0;
        while accepting < self.lanes.len() {
            let failure = match self.hear().await {
                Heard::Thread(Word::Accepting) => {
                    accepting += 1;
                    continue;
                }
                Heard::Order(_) => sys::exit_now(0),
                Heard::Thread(Word::CannotListen(error)) => FromWorker::CannotListen { error },
                Heard::Thread(Word::CannotStart(error)) => FromWorker::StartFailed { error },
                Heard::Thread(word) => FromWorker::StartFailed {
                    error: format!("a serving thread ended early ({word:?}), which is a bug in the host"),
                },
            };
            self.channel.send(&failure).await.map_err(WorkerError::Send)?;
            sys::exit_now(FAILED)
        }
        Ok(())
    }

    /// Returns when the serving is to end.
    async fn serve(&mut self) -> Ordered {
        match self.hear().await {
            Heard::Order(ordered) => ordered,
            Heard::Thread(word) => exit_for_a_bug(&word),
        }
    }

    /// Ends the worker.
    async fn drain(&mut self, ordered: Ordered) -> Infallible {
        let began = Instant::now();
        let mut schedule = Schedule::new(began, ordered.timeout);
        tracing::info!(successor = ordered.successor, timeout_ms = millis(ordered.timeout), "draining");
        self.drain.begin(Phase::Draining { since: began, linger: self.idle_linger });
        let mut threads = Threads { open: self.lanes.len(), busy: self.lanes.len() };
        if ordered.successor {
            self.intake.send_replace(Intake::Closed);
        } else {
            self.intake.send_replace(Intake::LastCall);
            self.gather(&mut threads, &mut schedule, |threads, _| (threads.open > 0).then_some(began + LAST_CALL))
                .await;
            self.shut_listeners_down();
        }
        self.gather(&mut threads, &mut schedule, |threads, schedule| (threads.busy > 0).then_some(schedule.cut)).await;
        if threads.busy > 0 {
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
            sys::exit_now(BLOCKED)
        }
        if figures.cut > 0 {
            tracing::warn!(cut = figures.cut, "requests were cut at the end of the drain");
        }
        self.stop.send_replace(true);
        let stopped = async {
            while let Some(word) = self.words.recv().await {
                if matches!(word, Word::Stopped) {
                    break;
                }
            }
        };
        if timeout_at(schedule.end, stopped).await.is_err() {
            tracing::warn!("the app's stop did not end in time");
        }
        tracing::info!(requests = figures.requests, cut = figures.cut, "drained");
        sys::exit_now(0)
    }

    /// Listens until `deadline` says that nothing is left to wait for, or its time has come.
    async fn gather(
        &mut self,
        threads: &mut Threads,
        schedule: &mut Schedule,
        deadline: impl Fn(&Threads, &Schedule) -> Option<Instant>,
    ) {
        while let Some(deadline) = deadline(threads, schedule) {
            match timeout_at(deadline, self.hear()).await {
                Err(_) => return,
                Ok(Heard::Order(again)) => {
                    schedule.shorten(Schedule::new(Instant::now(), again.timeout));
                    // Without a master, the others may be gone, too.
                    if !self.mastered {
                        self.shut_listeners_down();
                    }
                }
                Ok(Heard::Thread(Word::Closed)) => {
                    threads.open -= 1;
                    if threads.open == 0 && *self.intake.borrow() == Intake::Closed {
                        self.listeners = None;
                    }
                }
                Ok(Heard::Thread(Word::Drained)) => threads.busy -= 1,
                Ok(Heard::Thread(word)) => exit_for_a_bug(&word),
            }
        }
    }

    /// Refuses new clients at once, whoever else still holds the sockets open (`shutdown(2)` acts on
    /// the socket, not on the descriptor).
    fn shut_listeners_down(&mut self) {
        for listener in self.listeners.take().iter().flat_map(|listeners| listeners.iter()) {
            // Another worker may have been faster.
            if let Err(error) = SockRef::from(&listener.socket).shutdown(Shutdown::Both)
                && error.kind() != std::io::ErrorKind::NotConnected
            {
                tracing::warn!(listener = listener.name, error = chain(&error), "listener can't be shut down");
            }
        }
    }
}

fn exit_for_a_bug(word: &Word) -> ! {
    tracing::error!(word = ?word, "a serving thread ended early, which is a bug in the host");
    sys::exit_now(FAILED)
}

/// How many threads still accept, and how many still have connections.
struct Threads {
    open: usize,
    busy: usize,
}

/// The moments of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    /// When what is left is cut.
    cut: Instant,
    /// When the process ends at the latest; a little later it would be killed.
    end: Instant,
}

impl Schedule {
    fn new(began: Instant, timeout: Duration) -> Self {
        let margin = (timeout / 10).clamp(MARGIN.0, MARGIN.1).min(timeout / 2);
        Self { cut: began + timeout.saturating_sub(margin), end: began + timeout.saturating_sub(margin / 4) }
    }

    /// Whichever comes first holds: an order that is repeated moves no deadline further away.
    fn shorten(&mut self, other: Self) {
        self.cut = self.cut.min(other.cut);
        self.end = self.end.min(other.end);
    }
}

/// What the lanes say together.
struct Figures {
    requests: u64,
    in_flight: u64,
    cut: u64,
    /// A route that a thread is held with.
    route: Option<String>,
}

impl Figures {
    fn of(lanes: &[Lane]) -> Self {
        let mut figures = Self { requests: 0, in_flight: 0, cut: 0, route: None };
        for lane in lanes.iter().map(Lane::snapshot) {
            figures.requests += lane.requests;
            figures.in_flight += lane.in_flight;
            figures.cut += lane.cut;
            figures.route = figures.route.or(lane.route);
        }
        figures
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_comes_a_little_before_the_timeout() {
        let began = Instant::now();
        for (timeout, cut, end) in
            [(30_000, 28_000, 29_500), (5_000, 4_500, 4_875), (1_000, 800, 950), (80, 40, 70), (0, 0, 0)]
        {
            let schedule = Schedule::new(began, Duration::from_millis(timeout));
            assert_eq!(schedule.cut - began, Duration::from_millis(cut), "timeout {timeout} ms");
            assert_eq!(schedule.end - began, Duration::from_millis(end), "timeout {timeout} ms");
        }
    }

    #[test]
    fn a_second_order_moves_no_deadline_away() {
        let began = Instant::now();
        let first = Schedule::new(began, Duration::from_secs(5));
        let mut schedule = first;
        schedule.shorten(Schedule::new(began + Duration::from_secs(1), Duration::from_secs(30)));
        assert_eq!(schedule, first);
        schedule.shorten(Schedule::new(began + Duration::from_secs(1), Duration::from_secs(1)));
        assert!(schedule.end < first.end);
    }
}
