//! Effects: what the machine orders, done in the world.
//!
//! Owns everything that a master holds: the generations with their versions and listeners, the
//! workers' processes, the log, the locks. Decides nothing.

mod healing;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

use app_abi::Magic;

use super::admin::{Admin, Replace};
use super::audience::{self, Audience};
use super::book::Book;
use super::crew::Crew;
use super::own_files::OwnFiles;
use super::{Happening, manager, news, report};
use crate::causes::chain;
use crate::command::Level;
use crate::config::Log;
use crate::control::{VerdictRecord, millis};
use crate::databank;
use crate::foreign;
use crate::ids::{Generation, RequestId, Time, WorkerId};
use crate::listeners::Listeners;
use crate::logging::Logging;
use crate::message::{Connections, ToWorker};
use crate::metrics::{Figures, Tally};
use crate::notify::{Deadlines, Notify};
use crate::preflight::{Preflight, Prepared, Refused, Took};
use crate::restart::ledger::Listed;
use crate::restart::{Action, By, Event, ExitReason, Judged, Pair, Refusal, Report, Settings, Verdict};

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

    /// Takes note of a request before the machine sees it.
    pub(super) fn requested(&mut self, request: RequestId, by: By, now: Time) {
        self.look_at_own_files(now);
        // Whoever rotates logs may have a restart for it, and who compresses the old one loses what comes later. Also
        // where the restart is refused.
        if self.logging.has_moved() || self.crew.access_log_has_moved() {
            self.reopen_logs();
        }
        info!(request = request.0, by = %by, "restart requested");
        self.audience.tell("restart requested", || json!({ "request": request, "by": by.to_string() }));
        self.requested.insert(request, (by, now));
    }

    /// Where a request of [`By::Rollback`] goes: to the last good generation before the active one, or to that
    /// whose version begins with these hexadecimal digits. Where there is none, the request is refused as
    /// `bad artifact` like any other.
    pub(super) fn rolls_back_to(&mut self, request: RequestId, version: Option<String>) {
        self.rollbacks.insert(request, version);
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

    /// What the preflight of this request looked at, if that alone can be the reason of a refusal.
    pub(super) fn judged(&self, request: RequestId) -> Option<Judged> {
        self.judged.filter(|(judged, _)| *judged == request).map(|(_, judged)| judged)
    }

    /// Keeps what a preflight prepared, and makes an event of its outcome.
    pub(super) fn preflight_ended(&mut self, request: RequestId, outcome: Result<(Prepared, Took), Refused>) -> Event {
        let awaited = self.checking.take().is_some();
        let judged = match &outcome {
            Err(refused) => refused.judged,
            // What can still be refused for itself is a setting.
            Ok((prepared, _)) => Some(Judged::Config(prepared.config_id)),
        };
        self.judged = judged.map(|judged| (request, judged));
        match outcome {
            Ok((prepared, took)) => {
                let settings = settings(&prepared);
                let active = self.active();
                let unchanged = prepared.is_as(active);
                // What was cancelled meanwhile must not keep its listeners open.
                self.prepared = awaited.then_some((prepared, took));
                Event::PreflightPassed { request, settings, unchanged }
            }
            Err(refused) => Event::PreflightRefused { request, refusal: refused.refusal },
        }
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

    fn start_preflight(&mut self, request: RequestId) {
        if self.requested.get(&request).is_some_and(|(by, _)| *by == By::Healing) {
            let event = self.prepare_same(request);
            self.follow_ups.push_back(event);
            return;
        }
        let (preflight, inbox) = (self.preflight.clone(), self.inbox.clone());
        let (running, magic) = (self.generations[&self.active].clone(), self.magic);
        let kept = match self
            .rollbacks
            .remove(&request)
            .map(|digits| self.book.ledger().earlier(digits.as_deref()).cloned())
        {
            None => None,
            Some(Ok(kept)) => Some(kept),
            Some(Err(error)) => {
                let refusal = Refusal::BadArtifact(error.to_string());
                self.follow_ups.push_back(Event::PreflightRefused { request, refusal });
                return;
            }
        };
        let ledger = self.book.ledger().clone();
        let task = tokio::task::spawn_local(async move {
            let outcome = Box::new(match kept {
                None => preflight.next(&running, magic, &ledger).await,
                Some(kept) => preflight.back_to(&kept, &running, magic, &ledger).await,
            });
            drop(running);
            // The loop has ended: nobody is interested any more.
            let _ = inbox.send(Happening::Preflight { request, outcome }).await;
        });
        self.checking = Some(task.abort_handle());
    }

    fn cancel_preflight(&mut self) {
        if let Some(task) = self.checking.take() {
            task.abort();
        }
        self.prepared = None;
    }

    fn adopt(&mut self, request: RequestId, generation: Generation) {
        let (prepared, took) = self.prepared.take().expect("a generation is adopted after its preflight passed");
        let active = &self.generations[&self.active];
        for (listener, address) in prepared.listeners.without(&active.listeners).addresses() {
            info!(listener, address, "listening");
        }
        for socket in prepared.listeners.left_over(&prepared.config) {
            warn!(socket, "no listener is for a passed socket any more: its clients wait in vain");
        }
        let manifest = &prepared.version.manifest;
        info!(
            request = request.0,
            generation = generation.0,
            version = prepared.version.id.short(),
            app = foreign::line(&manifest.app_name, foreign::MAX_NAME),
            app_version = foreign::line(&manifest.app_version, foreign::MAX_NAME),
            magic = %manifest.magic,
            copy_us = micros(took.copy),
            probe_us = micros(took.probe),
            "restart preflight passed"
        );
        self.audience.tell("restart preflight passed", || {
            json!({
                "request": request,
                "generation": generation,
                "version": prepared.version.id.short(),
                "app": manifest.app_name,
                "app_version": manifest.app_version,
            })
        });
        self.audience.begins(request);
        self.generations.insert(generation, prepared);
    }

    fn activate(&mut self, generation: Generation) {
        let prepared = &self.generations[&generation];
        let Prepared { config, listeners, .. } = prepared;
        // What the master has started with has its settings already.
        if self.active != generation {
            // What was wanted holds until the configuration's own number changes.
            if config.workers != self.active().config.workers {
                self.scaled = None;
            }
            self.active = generation;
            listeners.apply_settings();
            if let Err(error) = self.logging.change(&config.log) {
                error!(error = chain(&error), "the log stays as it was");
            }
            if let Some(admin) = &prepared.admin {
                admin.apply_settings();
            }
        }
        self.book.activated(prepared);
        self.serve_metrics(Replace::IfChanged);
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

    fn announce(&mut self, request: RequestId, verdict: &Verdict, now: Time) {
        self.prepared = None;
        self.rollbacks.remove(&request);
        let (by, begin) = self.requested.remove(&request).expect("a verdict is on a request");
        let active = self.generations.get(&self.active);
        let took = now.saturating_sub(begin);
        self.tally.judged(request, verdict, now);
        report::log_verdict(request, by, verdict, took, self.active, active);
        manager::verdict(&self.notify, verdict, &self.serving(), self.active().config.restart.on_failure);
        let (reason, detail) = match verdict {
            Verdict::Complete { .. } => (None, None),
            Verdict::Refused(refusal) => (Some(refusal.reason()), Some(refusal.to_string())),
            Verdict::Failed(failure) => (Some(failure.reason()), Some(failure.to_string())),
        };
        self.audience.judged(VerdictRecord {
            request,
            by: by.to_string(),
            verdict: verdict.in_short(),
            unchanged: matches!(verdict, Verdict::Complete { unchanged: true, .. }),
            draining: match verdict {
                Verdict::Complete { draining, .. } => *draining,
                Verdict::Refused(_) | Verdict::Failed(_) => 0,
            },
            listeners_down: self.listeners_down(),
            reason: reason.map(str::to_owned),
            detail,
            generation: self.active,
            took_ms: millis(took),
            time: audience::now(),
        });
    }

    /// What serves, for people.
    fn serving(&self) -> String {
        let active = self.active();
        let app = foreign::line(&active.version.manifest.app_name, foreign::MAX_NAME);
        let version = active.version.id.short();
        let workers = self.scaled.unwrap_or(active.config.workers);
        format!("generation {} of {app} serves, version {version}, {workers} workers", self.active.0)
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

    /// Whether a request has no verdict yet.
    pub(super) fn is_pending(&self, request: RequestId) -> bool {
        self.requested.contains_key(&request)
    }

    pub(super) const fn crew(&self) -> &Crew {
        &self.crew
    }

    pub(super) const fn logging(&self) -> &Logging {
        &self.logging
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

    /// Has the master and all workers log otherwise, until it is said again or `restore`d.
    pub(super) fn set_log_level(&mut self, level: Level) {
        let level = match level {
            Level::Set(level) => Some(level),
            Level::Restore => None,
        };
        self.logging.set_level(level);
        self.crew.set_log_level(level);
        let level = self.logging.level();
        info!(level = %level, "log level changed");
        self.audience.tell("log level changed", || json!({ "level": level }));
    }

    /// Has whoever sends clients send no more, and clients ask elsewhere next time, or takes that back. Those that come
    /// are served.
    pub(super) fn take_out_of_rotation(&mut self, out: bool) {
        self.out_of_rotation = out;
        self.crew.announce_close(out);
        if out {
            warn!("taken out of rotation: not ready, and connections are told to close, until ctl drain off");
        } else {
            info!("back in rotation");
        }
        self.audience.tell(if out { "taken out of rotation" } else { "back in rotation" }, || json!({}));
    }

    /// Whether the operator has taken the service out of rotation.
    pub(super) const fn is_out_of_rotation(&self) -> bool {
        self.out_of_rotation
    }

    /// When the pid file and the control socket are to be looked at next.
    pub(super) const fn looks_at_own_files(&self) -> Time {
        self.own_files.looks_at()
    }

    /// Sees to it that they are where others look for them.
    pub(super) fn look_at_own_files(&mut self, now: Time) {
        self.own_files.look(now);
    }

    /// Opens every log file anew, by its name, and has everybody write there.
    pub(super) fn reopen_logs(&mut self) {
        if let Err(error) = self.logging.reopen() {
            error!(error = chain(&error), "the log stays as it was");
            return;
        }
        self.crew.reopen_logs(&self.logging);
        info!("log files reopened");
        self.audience.tell("log files reopened", || json!({}));
    }

    fn prune(&self) {
        let mut keep = self.book.versions();
        keep.extend(self.generations.values().map(|prepared| prepared.version.id));
        let store = self.preflight.store.clone();
        // Jobs are done in turn, so this comes before the copy of the next preflight.
        self.preflight.desk.post(move || {
            if let Err(error) = store.prune(&keep) {
                warn!(error = %error, "old versions can't be removed");
            }
        });
    }
}

fn settings(prepared: &Prepared) -> Settings {
    let config = &prepared.config;
    Settings {
        workers: config.workers,
        databank_shared: databank::is_shared(&prepared.databank.store),
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
