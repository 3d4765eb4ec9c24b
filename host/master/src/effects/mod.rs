//! Effects: what the machine orders, done in the world.
//!
//! Owns everything that a master holds: the generations with their versions and listeners, the
//! workers' processes, the log, the locks. Decides nothing.

mod certificates;
mod healing;
mod operator;
mod restart;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use app_abi::Magic;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use app_host_core::config::Log;
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::ids::{Generation, Time, WorkerId};
use app_host_core::message::{Connections, ToWorker};
use app_host_core::restart::history::Listed;
use app_host_core::restart::{Action, Event, ExitReason, Pair, Report, Settings};
use app_host_platform::logging::Logging;
use app_host_platform::metrics::{Figures, Tally};

use super::Input;
use super::admin::{Admin, Replace};
use super::facts::{self, Fact, Known};
use super::history::RecordedHistory;
use super::own_files::OwnFiles;
use super::requests::Requests;
use super::workers::Workers;
use crate::control::Events;
use crate::listeners::Listeners;
use crate::preflight::{Preflight, Prepared};
use crate::systemd::{self, Deadlines, Systemd};
pub(super) use certificates::Read;

/// The number that the machine gives to what the master started with.
const FIRST: Generation = Generation(1);

/// Everything that a running master holds.
pub(super) struct Effects {
    workers: Workers,
    generations: HashMap<Generation, Prepared>,
    active: Generation,
    /// How many workers are wanted since somebody has said so under the active configuration.
    scaled: Option<u16>,
    /// When it is looked again whether a certificate ends soon.
    certificates_due: Instant,
    /// Whether the operator wants no more clients to be sent here.
    out_of_rotation: bool,
    /// The magic of the library loaded when the master started.
    magic: Magic,
    preflight: Preflight,
    requests: Requests,
    follow_ups: VecDeque<Event>,
    history: RecordedHistory,
    logging: Logging,
    systemd: Rc<Systemd>,
    tally: Tally,
    admin: Admin,
    /// Everything that happens, for the clients of the control socket that listen.
    events: Events,
    inbox: mpsc::Sender<Input>,
    /// Behind all else: whoever waits for nothing any more hears so before the end, and the next master waits for nothing
    /// but this.
    own_files: OwnFiles,
}

/// What a master has made once and keeps until it exits.
pub(super) struct Equipment {
    pub(super) logging: Logging,
    pub(super) systemd: Rc<Systemd>,
    pub(super) own_files: OwnFiles,
    pub(super) history: RecordedHistory,
    pub(super) workers: Workers,
}

impl Effects {
    pub(super) fn new(first: Prepared, preflight: Preflight, equipment: Equipment, inbox: mpsc::Sender<Input>) -> Self {
        let Equipment { logging, systemd, own_files, history, workers } = equipment;
        let magic = first.version.magic();
        let admin = Admin::new(preflight.children.clone(), preflight.identity.clone(), inbox.clone());
        let mut effects = Self {
            workers,
            generations: HashMap::from([(FIRST, first)]),
            active: FIRST,
            scaled: None,
            certificates_due: Instant::now(),
            out_of_rotation: false,
            magic,
            preflight,
            requests: Requests::new(),
            follow_ups: VecDeque::new(),
            history,
            logging,
            systemd,
            tally: Tally::default(),
            admin,
            events: own_files.control().events(),
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
        self.history.current().list()
    }

    /// What the watcher is not to ask for.
    pub(super) fn barred(&self) -> &[Pair] {
        self.history.barred()
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
            self.workers.hand_over(from, to);
        }
    }

    /// Does what the machine ordered; says why the master is to exit, when it is.
    pub(super) fn perform(&mut self, actions: Vec<Action>, now: Time) -> Option<ExitReason> {
        let mut exit = None;
        for action in actions {
            match action {
                Action::Preflight { request } => {
                    self.systemd.expect(self.deadlines());
                    self.systemd.reloading();
                    self.tally.preflight(request, now);
                    self.start_preflight(request);
                }
                Action::CancelPreflight { request } => self.cancel_preflight(request),
                Action::Spawn { worker, slot, generation } => {
                    let prepared = &self.generations[&generation];
                    let spawned = self.workers.spawn(worker, slot, generation, prepared, &self.logging);
                    self.follow_ups.push_back(match spawned {
                        Ok(()) => Event::Spawned { worker },
                        Err(error) => Event::SpawnFailed { worker, error: chain(&error) },
                    });
                }
                Action::HandOn { from, to } => {
                    if !self.workers.hand_state_on(from, to) {
                        self.follow_ups.push_back(Event::HandedOn { worker: from, heir: to });
                    }
                }
                Action::Drain { worker, successor, timeout } => {
                    let handed_over = successor && self.workers.hands_over(worker);
                    let connections = if handed_over { Connections::HandedOver } else { Connections::Closed };
                    self.workers.order(worker, ToWorker::Drain { successor, timeout, connections }, None);
                }
                Action::Abort { worker } => self.workers.abort(worker),
                Action::Kill { worker, .. } => self.workers.kill(worker),
                Action::Adopt { request, generation } => self.adopt(request, generation),
                Action::RolledOver { generation } => self.history.rolled_over(&self.generations[&generation]),
                Action::Activate { generation } => self.activate(generation),
                Action::Quarantine { generation, failure } => {
                    let failed = &self.generations[&generation];
                    self.history.quarantine(generation, failed, &failure);
                    self.preflight.failed.remember(failed.pair(), failed.secrets());
                    let (written, inbox) = (self.history.written(), self.inbox.clone());
                    tokio::task::spawn_local(async move {
                        written.await;
                        // The loop has ended: nobody is interested any more.
                        let _ = inbox.send(Input::Event(Event::WrittenDown { generation })).await;
                    });
                }
                Action::Discard { generation } => {
                    self.generations.remove(&generation);
                    self.tally.discarded(generation);
                    self.prune();
                }
                Action::AnnounceStop => self.workers.announce_close(true),
                Action::CloseListeners => self.close_listeners(),
                Action::Verdict { request, verdict } => self.announce(request, &verdict, now),
                Action::Report(report) => {
                    self.reported(&report, now);
                }
                Action::Exit(reason) => {
                    self.tell(&facts::exit(&reason));
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

    /// Does what follows from a fact that the machine reports, and tells it: to the service manager, to the metrics and
    /// to operators.
    fn reported(&mut self, report: &Report, now: Time) {
        match report {
            Report::Scaled { to, .. } => self.scaled = Some(*to),
            Report::StopDelayed { .. } | Report::Stopping | Report::StoppingAtOnce => {
                self.systemd.expect(self.deadlines());
                self.mark_stop();
                if !matches!(report, Report::StopDelayed { .. }) {
                    self.workers.grant_no_locks();
                }
            }
            Report::Locked { .. } => self.history.nothing_changed(),
            _ => {}
        }
        systemd::reports::tell(&self.systemd, report, || self.serving());
        let worker = report.worker();
        let stats = worker.and_then(|worker| self.workers.stats(worker.id));
        if let (Report::WorkerExited { worker, .. }, Some(stats)) = (report, &stats) {
            self.tally.leaves(worker, stats, self.workers.cpu(worker.id));
        }
        self.tally.reported(report, now);
        let pid = worker.map(|worker| self.workers.pid(worker.id));
        self.tell(&facts::describe(report, &Known { pid, stats, active: self.names() }));
        if let Report::WorkerExited { worker, .. } = report {
            self.workers.remove(worker.id);
        }
    }

    /// Tells operators a fact: in the log, and as an event.
    fn tell(&self, fact: &Fact) {
        fact.log();
        self.events.tell(|| event(fact.name, &fact.fields));
    }

    /// The active generation's version and the name of its app.
    fn names(&self) -> Option<(String, String)> {
        let active = self.generations.get(&self.active)?;
        let app = foreign::line(&active.version.manifest.app_name, foreign::MAX_NAME);
        Some((active.version.id.short(), app))
    }

    /// What was counted so far.
    pub(super) fn figures(&self) -> Figures {
        self.tally.figures(self.workers.all_stats())
    }

    /// Waits until everything that was written down has reached the disk, and nobody is answered any more.
    pub(super) async fn finish(&mut self) {
        self.history.written().await;
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
        Event::Looked { found: self.workers.look(self.active().config.recycle.memory.is_some()) }
    }

    /// How often the service manager wants a sign of life.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.systemd.watchdog()
    }

    /// The sign that it wants.
    pub(super) fn alive(&self) {
        self.systemd.alive();
    }

    /// Asks the service manager for more time, for what is under way.
    pub(super) fn ask_for_time(&self) {
        self.systemd.expect(self.deadlines());
        self.systemd.extend();
    }

    fn deadlines(&self) -> Deadlines {
        let configs: Vec<_> =
            self.generations.values().chain(self.requests.prepared()).map(|prepared| &*prepared.config).collect();
        systemd::reports::deadlines(&configs, self.scaled)
    }

    pub(super) const fn requests(&self) -> &Requests {
        &self.requests
    }

    pub(super) const fn workers(&self) -> &Workers {
        &self.workers
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
        single: config.restart.single,
        state_timeout: Some(config.restart.state_timeout).filter(|_| config.restart.state_limit > 0),
        shutdown_delay: config.shutdown_delay,
    }
}

/// The present time as the log writes it.
fn present() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// The line of an event.
fn event(name: &str, fields: &impl Serialize) -> Value {
    let mut event = json!({ "event": name, "time": present() });
    if let (Value::Object(event), Ok(Value::Object(fields))) = (&mut event, serde_json::to_value(fields)) {
        event.extend(fields);
    }
    event
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
