//! Effects: what the machine orders, done in the world.
//!
//! Owns everything that a master holds: the generations with their versions and listeners, the
//! workers' processes, the log, the locks. Decides nothing.

mod healing;
mod operator;
mod restart;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use app_abi::Magic;

use super::admin::{Admin, Replace};
use super::audience::{self, Audience};
use super::book::Book;
use super::crew::Crew;
use super::own_files::OwnFiles;
use super::{Happening, manager, news, report};
use crate::listeners::Listeners;
use crate::notify::{Deadlines, Notify};
use crate::preflight::{Preflight, Prepared, Took};
use app_host_core::causes::chain;
use app_host_core::config::Log;
use app_host_core::ids::{Generation, RequestId, Time, WorkerId};
use app_host_core::message::{Connections, ToWorker};
use app_host_core::restart::ledger::Listed;
use app_host_core::restart::{Action, By, Event, ExitReason, Judged, Pair, Report, Settings};
use app_host_platform::logging::Logging;
use app_host_platform::metrics::{Figures, Tally};

/// The number that the machine gives to what the master started with.
const FIRST: Generation = Generation(1);

/// Everything that a running master holds.
pub(super) struct Effects {
    crew: Crew,
    generations: HashMap<Generation, Prepared>,
    active: Generation,
    /// How many workers are wanted since somebody has said so under the active configuration.
    scaled: Option<u16>,
    /// Whether the operator wants no more clients to be sent here.
    out_of_rotation: bool,
    /// The magic of the library loaded when the master started.
    magic: Magic,
    preflight: Preflight,
    /// The preflight in flight.
    checking: Option<AbortHandle>,
    /// What the last preflight prepared, until the machine adopts or refuses it.
    prepared: Option<(Prepared, Took)>,
    /// What the last preflight looked at, and whose it was.
    judged: Option<(RequestId, Judged)>,
    /// Who has asked for what has no verdict yet, and when.
    requested: HashMap<RequestId, (By, Time)>,
    /// The earlier generations that requests without a verdict want back, by their versions' digits.
    rollbacks: HashMap<RequestId, Option<String>>,
    follow_ups: VecDeque<Event>,
    book: Book,
    logging: Logging,
    notify: Rc<Notify>,
    tally: Tally,
    admin: Admin,
    pub(super) audience: Audience,
    inbox: mpsc::Sender<Happening>,
    /// Behind all else: whoever waits for nothing any more hears so before the end, and the next master waits for nothing
    /// but this.
    own_files: OwnFiles,
}

/// What a master has made once and keeps until it exits.
pub(super) struct Equipment {
    pub(super) logging: Logging,
    pub(super) notify: Rc<Notify>,
    pub(super) own_files: OwnFiles,
    pub(super) book: Book,
    pub(super) crew: Crew,
}

impl Effects {
    pub(super) fn new(
        first: Prepared,
        preflight: Preflight,
        equipment: Equipment,
        inbox: mpsc::Sender<Happening>,
    ) -> Self {
        let Equipment { logging, notify, own_files, book, crew } = equipment;
        let magic = first.version.magic();
        let admin = Admin::new(preflight.children.clone(), preflight.identity.clone(), inbox.clone());
        let mut effects = Self {
            crew,
            generations: HashMap::from([(FIRST, first)]),
            active: FIRST,
            scaled: None,
            out_of_rotation: false,
            magic,
            preflight,
            checking: None,
            prepared: None,
            judged: None,
            requested: HashMap::new(),
            rollbacks: HashMap::new(),
            follow_ups: VecDeque::new(),
            book,
            logging,
            notify,
            tally: Tally::default(),
            admin,
            audience: Audience::new(own_files.control().events()),
            inbox,
            own_files,
        };
        effects.prune();
        // Before the first workers are ready: whoever asks is told that they aren't.
        effects.serve_metrics(Replace::IfChanged);
        effects
    }

    /// The settings of what the master starts with.
    pub(super) fn first_settings(&self) -> Settings {
        settings(&self.generations[&FIRST])
    }

    /// Every generation that can be gone back to or is quarantined, the newest first.
    pub(super) fn versions(&self) -> Vec<Listed<'_>> {
        self.book.ledger().list()
    }

    /// What the watcher is not to ask for.
    pub(super) fn barred(&self) -> &[Pair] {
        self.book.barred()
    }

    /// What respawns use.
    pub(super) fn active(&self) -> &Prepared {
        &self.generations[&self.active]
    }

    pub(super) fn config_path(&self) -> &Path {
        &self.preflight.config_path
    }

    /// An event that an effect has caused at once.
    pub(super) fn follow_up(&mut self) -> Option<Event> {
        self.follow_ups.pop_front()
    }

    /// Joins workers, so that the first of each pair can give its connections to the second. Before the orders to
    /// drain, which say whether anybody takes them.
    pub(super) fn link(&mut self, links: Vec<(WorkerId, WorkerId)>) {
        for (from, to) in links {
            self.crew.hand_over(from, to);
        }
    }

    /// Does what the machine ordered; says why the master is to exit, when it is.
    pub(super) fn perform(&mut self, actions: Vec<Action>, now: Time) -> Option<ExitReason> {
        let mut exit = None;
        for action in actions {
            match action {
                Action::Preflight { request } => {
                    self.notify.expect(self.deadlines());
                    self.notify.reloading();
                    self.tally.preflight(request, now);
                    self.start_preflight(request);
                }
                Action::CancelPreflight { .. } => self.cancel_preflight(),
                Action::Spawn { worker, slot, generation } => {
                    let prepared = &self.generations[&generation];
                    let spawned = self.crew.spawn(worker, slot, generation, prepared, &self.logging);
                    self.follow_ups.push_back(match spawned {
                        Ok(()) => Event::Spawned { worker },
                        Err(error) => Event::SpawnFailed { worker, error: chain(&error) },
                    });
                }
                Action::Drain { worker, successor, timeout } => {
                    let handed_over = successor && self.crew.hands_over(worker);
                    let connections = if handed_over { Connections::HandedOver } else { Connections::Closed };
                    self.crew.order(worker, ToWorker::Drain { successor, timeout, connections });
                }
                Action::Abort { worker } => self.crew.abort(worker),
                Action::Kill { worker, .. } => self.crew.kill(worker),
                Action::Adopt { request, generation } => self.adopt(request, generation),
                Action::RolledOver { generation } => self.book.rolled_over(&self.generations[&generation]),
                Action::Activate { generation } => self.activate(generation),
                Action::Quarantine { generation, failure } => {
                    let failed = &self.generations[&generation];
                    self.book.quarantine(generation, failed, &failure);
                    self.preflight.failed.remember(failed.pair(), failed.secrets());
                    let (written, inbox) = (self.book.written(), self.inbox.clone());
                    tokio::task::spawn_local(async move {
                        written.await;
                        // The loop has ended: nobody is interested any more.
                        let _ = inbox.send(Happening::Event(Event::WrittenDown { generation })).await;
                    });
                }
                Action::Discard { generation } => {
                    self.generations.remove(&generation);
                    self.tally.discarded(generation);
                    self.prune();
                }
                Action::AnnounceStop => self.crew.announce_close(true),
                Action::CloseListeners => self.close_listeners(),
                Action::Verdict { request, verdict } => self.announce(request, &verdict, now),
                Action::Report(report) => {
                    if let Report::Scaled { to, .. } = report {
                        self.scaled = Some(to);
                    }
                    if matches!(report, Report::StopDelayed { .. } | Report::Stopping | Report::StoppingAtOnce) {
                        self.notify.expect(self.deadlines());
                        self.mark_stop();
                    }
                    if matches!(report, Report::Locked { .. }) {
                        self.book.nothing_changed();
                    }
                    if matches!(report, Report::Stopping | Report::StoppingAtOnce) {
                        self.crew.grant_no_locks();
                    }
                    manager::tell(&self.notify, &report, || self.serving());
                    news::tell(&report, &self.crew, &self.audience);
                    self.count(&report, now);
                    report::log(&report, &mut self.crew, self.generations.get(&self.active));
                }
                Action::Exit(reason) => {
                    report::log_exit(&reason);
                    exit = Some(reason);
                }
            }
        }
        exit
    }

    /// Serves metrics and page as the active generation says.
    fn serve_metrics(&mut self, replace: Replace) {
        let active = &self.generations[&self.active];
        let log = Log { level: self.logging.level(), ..active.config.log.clone() };
        self.admin.follow(active.admin.as_ref(), &log, replace);
    }

    /// Counts a fact. To be called before the log forgets a worker that has exited.
    fn count(&mut self, report: &Report, now: Time) {
        if let Report::WorkerExited { worker, .. } = report
            && let Some(stats) = self.crew.stats(worker.id)
        {
            self.tally.leaves(worker, &stats, self.crew.cpu(worker.id));
        }
        self.tally.reported(report, now);
    }

    /// What was counted so far.
    pub(super) fn figures(&self) -> Figures {
        self.tally.figures(self.crew.all_stats())
    }

    /// Waits until everything that was written down has reached the disk, and nobody is answered any more.
    pub(super) async fn finish(&mut self) {
        self.book.written().await;
        self.admin.end().await;
    }

    /// Has the next master wait for the end of this one.
    pub(super) fn mark_stop(&self) {
        self.own_files.mark_stop();
    }

    /// Drops the master's share in every listener; the workers shut them down.
    fn close_listeners(&mut self) {
        for prepared in self.generations.values_mut() {
            prepared.listeners = Listeners::default();
        }
    }

    /// Looks at the workers.
    pub(super) fn look(&self) -> Event {
        Event::Looked { found: self.crew.look(self.active().config.recycle.memory.is_some()) }
    }

    /// How often the service manager wants a sign of life.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.notify.watchdog()
    }

    /// The sign that it wants.
    pub(super) fn alive(&self) {
        self.notify.alive();
    }

    /// Asks the service manager for more time, for what is under way.
    pub(super) fn ask_for_time(&self) {
        self.notify.expect(self.deadlines());
        self.notify.extend();
    }

    fn deadlines(&self) -> Deadlines {
        let prepared = self.prepared.iter().map(|(prepared, _)| prepared);
        let configs: Vec<_> = self.generations.values().chain(prepared).map(|prepared| &*prepared.config).collect();
        manager::deadlines(&configs, self.scaled)
    }

    pub(super) const fn crew(&self) -> &Crew {
        &self.crew
    }

    pub(super) const fn magic(&self) -> Magic {
        self.magic
    }

    pub(super) const fn generations(&self) -> &HashMap<Generation, Prepared> {
        &self.generations
    }

    pub(super) const fn active_number(&self) -> Generation {
        self.active
    }
}

fn settings(prepared: &Prepared) -> Settings {
    let config = &prepared.config;
    Settings {
        workers: config.workers,
        databank_shared: prepared.databank.store.is_shared(),
        start_timeout: config.restart.start_timeout,
        probation: config.restart.probation,
        shutdown_timeout: config.restart.shutdown_timeout,
        on_failure: config.restart.on_failure,
        hang_timeout: config.hang_timeout,
        recycle: config.recycle,
        while_draining: config.restart.while_draining,
        parallel: config.restart.parallel,
        shutdown_delay: config.shutdown_delay,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
