//! `dev`: builds the app, serves it, and brings each change of its sources live.
//!
//! Owns the order of things: what a change, a build and a word of the service lead to. Everything
//! comes through one inbox. [`sources`] sees changes, [`written`] what of them the service itself has made, [`build`]
//! runs cargo, [`service`] runs the master as a child and reads its log, [`page`] makes browsers reload, [`say`] has the
//! words.
//!
//! ```text
//!            change                built, another library            verdict
//! idle ───────────────▶ building ──────────────────────▶ restarting ─────────▶ idle
//!  ▲                     │    ▲                               │ incompatibility, or locked before
//!  └─────────────────────┘    └── changed meanwhile           ▼
//!     an error                                       a new master (a full restart)
//! ```
//! A build that failed touches nothing: what was live before stays so. One that succeeded is served even if something has
//! changed meanwhile, and then the next one begins: else what changes all the time would keep everything from being live.
//! All of it ends with the terminal.

mod build;
mod cargo;
mod ending;
mod news;
mod page;
mod processes;
mod say;
mod service;
mod sources;
mod written;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use app_host_core::config::Config;
use app_host_platform::timer::sleep_until;
use build::{Building, Built, Project};
use ending::{Stop, Why};
use news::{News, Outcome};
use page::Page;
use say::Terminal;
use service::Service;
use sources::Change;
use written::{Served, Written};

/// How many happenings wait at most; who has one more waits.
const INBOX: usize = 256;

/// How long a master may take to stop before it is killed. Its workers have two seconds.
const STOPPING: Duration = Duration::from_secs(5);

/// The configuration, if the app has one of its own.
const CONFIG: &str = "app-host.json";

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    pub directory: PathBuf,
    pub release: bool,
    pub open: bool,
}

/// What comes into the inbox.
enum Happening {
    Changed(Change),
    Built(Built),
    News(News),
    /// The service and all its workers have gone.
    Ended,
}

/// How often is looked whether the terminal is still there, where no signal says so.
const LOOK: Duration = Duration::from_secs(1);

/// Serves the app of a directory until SIGINT, SIGTERM or SIGHUP comes, or its terminal goes.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, dev(options))
}

async fn dev(options: &Options) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let directory = fs::canonicalize(&options.directory)
        .with_context(|| format!("the directory {} can't be found", options.directory.display()))?;
    let project = Project::find(&directory, options.release)?;
    let config = config_of(&directory, &project)?;
    let (inbox, mut happenings) = mpsc::channel(INBOX);
    let page =
        if options.open { Some(Page::open().await.context("the page that reloads can't be served")?) } else { None };
    let watched = sources::Watched {
        directories: project.directories.clone(),
        files: vec![project.workspace_manifest.clone(), config.clone()],
        without: without(&config, &project),
    };
    let changes = inbox.clone();
    let served = Served::default();
    let written = Written::new(served.clone());
    sources::watch(watched, written, move |change| changes.blocking_send(Happening::Changed(change)).is_ok())?;
    let terminal = Terminal::new();
    terminal.begin(&project, &config);
    let mut dev = Dev {
        project,
        config,
        page,
        terminal,
        inbox,
        served,
        first: true,
        building: None,
        changed: None,
        state: State::Down,
    };
    dev.build(Instant::now());
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let limit = match &dev.state {
            State::Stopping { since, .. } => Some(*since + STOPPING),
            _ => None,
        };
        tokio::select! {
            happening = happenings.recv() => match happening.expect("the loop holds a sender") {
                Happening::Changed(change) => dev.changed(change),
                Happening::Built(built) => dev.built(built)?,
                Happening::News(news) => dev.heard(news)?,
                Happening::Ended => {
                    if dev.ended()? {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
            },
            why = stop.next() => {
                let is_over = match why {
                    Why::Asked => dev.quit(),
                    Why::HungUp => dev.has_lost_its_terminal(),
                };
                if is_over {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            _ = looks.tick() => {
                if dev.terminal.has_gone() && dev.has_lost_its_terminal() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            () = sleep_until(limit) => dev.kill(),
        }
    }
}

/// The app's own configuration, or one that is made for it beside cargo's output.
fn config_of(directory: &Path, project: &Project) -> anyhow::Result<PathBuf> {
    let own = directory.join(CONFIG);
    if own.exists() {
        return Ok(own);
    }
    let made = project.target_directory.join("app-host-dev").join(CONFIG);
    let write = || {
        fs::create_dir_all(made.parent().unwrap_or(Path::new("/")))?;
        fs::write(&made, "{ \"app\": { \"library\": \"app-host dev names it\" } }\n")
    };
    write().with_context(|| format!("{} can't be written", made.display()))?;
    Ok(made)
}

/// What changes by itself below the directories that are watched.
fn without(config: &Path, project: &Project) -> Vec<PathBuf> {
    let mut without = vec![project.target_directory.clone()];
    let directory = config.parent().unwrap_or(Path::new("/"));
    // One that isn't valid is the service's to complain of.
    match fs::read(config).ok().and_then(|bytes| Config::parse(&bytes, config).ok()) {
        Some(config) => {
            without.extend([config.state_dir, config.pid_file]);
            without.extend(config.log.file);
        }
        None => without.push(directory.join("state")),
    }
    without
}

/// What is going on.
struct Dev {
    project: Project,
    config: PathBuf,
    page: Option<Page>,
    terminal: Terminal,
    inbox: mpsc::Sender<Happening>,
    /// Whether nothing has been built yet.
    first: bool,
    /// For who asks which processes are the service's.
    served: Served,
    /// What is being built, and since when its sources were saved.
    building: Option<(Building, Instant)>,
    /// What has changed since the build began.
    changed: Option<Change>,
    state: State,
}

/// A library on its way to be served.
struct Build {
    library: PathBuf,
    /// When its sources were saved.
    saved: Instant,
    took: Duration,
}

enum State {
    /// Nothing is served; a build brings it up.
    Down,
    /// A master is on its way up; `next` is built already and waits for it.
    Starting {
        service: Service,
        build: Build,
        next: Option<Build>,
    },
    Serving {
        service: Service,
    },
    /// A restart is in flight; `next` is built already and waits for its verdict.
    Restarting {
        service: Service,
        build: Build,
        live: bool,
        next: Option<Build>,
    },
    /// A restart failed, so that this master does none any more.
    Locked {
        service: Service,
    },
    /// The master was told to stop; then a new one serves `next`, or nothing does.
    Stopping {
        service: Service,
        since: Instant,
        next: Next,
    },
}

enum Next {
    Serve(Build),
    Quit,
}

impl Dev {
    fn build(&mut self, saved: Instant) {
        let inbox = self.inbox.clone();
        let building = self.project.build(self.first, move |built| {
            // The loop has ended: nobody is interested any more.
            let _ = inbox.blocking_send(Happening::Built(built));
        });
        self.building = Some((building, saved));
        self.first = false;
    }

    fn changed(&mut self, change: Change) {
        let change = match self.changed.take() {
            Some(earlier) => earlier.and(change),
            None => change,
        };
        if self.building.is_some() {
            self.changed = Some(change);
        } else {
            self.terminal.changed(&change.paths, self.project.root());
            self.build(change.at);
        }
    }

    fn built(&mut self, built: Built) -> anyhow::Result<()> {
        let saved = self.building.take().map_or_else(Instant::now, |(_, saved)| saved);
        let changed = self.changed.take();
        match built {
            Built::Library { path, took } => self.serve(Build { library: path, saved, took })?,
            // Its errors are out of date.
            Built::Failed if changed.is_some() => {}
            Built::Failed => self.terminal.build_failed(self.is_serving()),
            Built::Broken(error) => self.terminal.broken(&error),
        }
        if let Some(change) = changed {
            self.terminal.changed(&change.paths, self.project.root());
            self.build(change.at);
        }
        Ok(())
    }

    fn is_serving(&self) -> bool {
        !matches!(self.state, State::Down | State::Starting { .. } | State::Stopping { .. })
    }

    /// Brings a build live, whatever is served at the moment.
    fn serve(&mut self, build: Build) -> anyhow::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Down) {
            State::Down => self.start(build)?,
            State::Serving { mut service } => {
                service.restart();
                State::Restarting { service, build, live: false, next: None }
            }
            State::Restarting { service, build: first, live, .. } => {
                State::Restarting { service, build: first, live, next: Some(build) }
            }
            State::Starting { service, build: first, .. } => {
                State::Starting { service, build: first, next: Some(build) }
            }
            State::Locked { service } => Self::replace(service, build),
            State::Stopping { service, since, next: Next::Serve(_) } => {
                State::Stopping { service, since, next: Next::Serve(build) }
            }
            quitting @ State::Stopping { .. } => quitting,
        };
        Ok(())
    }

    fn start(&self, build: Build) -> anyhow::Result<State> {
        let inbox = self.inbox.clone();
        let service = Service::start(&self.config, &build.library, self.project.root(), move |news| {
            let happening = news.map_or(Happening::Ended, Happening::News);
            inbox.blocking_send(happening).is_ok()
        })?;
        self.served.set(service.pid());
        Ok(State::Starting { service, build, next: None })
    }

    /// A full restart: this master stops, and another one serves the build.
    fn replace(service: Service, build: Build) -> State {
        service.stop();
        State::Stopping { service, since: Instant::now(), next: Next::Serve(build) }
    }

    fn heard(&mut self, news: News) -> anyhow::Result<()> {
        self.state = match (std::mem::replace(&mut self.state, State::Down), news) {
            (state, News::Line { level, text }) => {
                self.terminal.line(level, &text);
                state
            }
            (state, News::Address(address)) => {
                if let Some(page) = &self.page {
                    page.serve(address);
                }
                self.terminal.address(address, self.page.as_ref().map(Page::address));
                state
            }
            (State::Starting { service, build, next }, News::Live { version }) => {
                self.live(&version, &build, service.began());
                self.state = State::Serving { service };
                return next.map_or(Ok(()), |next| self.serve(next));
            }
            (State::Restarting { service, build, live: false, next }, News::Live { version }) => {
                self.live(&version, &build, service.began());
                State::Restarting { service, build, live: true, next }
            }
            (State::Restarting { service, build, live, next }, News::Verdict(outcome)) => {
                return self.verdict(service, build, live, next, outcome);
            }
            (state, _) => state,
        };
        Ok(())
    }

    fn live(&self, version: &str, build: &Build, began: Instant) {
        self.terminal.live(version, build.saved.elapsed(), build.took, began.elapsed());
        if let Some(page) = &self.page {
            page.reload(version);
        }
    }

    fn verdict(
        &mut self,
        service: Service,
        build: Build,
        live: bool,
        next: Option<Build>,
        outcome: Outcome,
    ) -> anyhow::Result<()> {
        let waiting = next.is_some();
        self.state = match outcome {
            Outcome::Complete { version } => {
                if !live {
                    self.live(&version, &build, service.began());
                }
                State::Serving { service }
            }
            Outcome::Refused { reason, detail } if reason == "incompatibility" && !waiting => {
                self.terminal.full_restart(&detail);
                Self::replace(service, build)
            }
            Outcome::Refused { reason, detail } => {
                self.terminal.refused(&reason, &detail);
                State::Serving { service }
            }
            Outcome::Failed { reason, detail } => {
                self.terminal.failed(&reason, &detail);
                State::Locked { service }
            }
        };
        next.map_or(Ok(()), |next| self.serve(next))
    }

    /// The service has ended. Says whether that is all.
    fn ended(&mut self) -> anyhow::Result<bool> {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Stopping { service, next, .. } => {
                service.reap();
                match next {
                    Next::Serve(build) => self.state = self.start(build)?,
                    Next::Quit => return Ok(true),
                }
            }
            State::Down => {}
            State::Starting { service, next: Some(next), .. } => {
                service.reap();
                self.state = self.start(next)?;
            }
            State::Starting { service, next: None, .. }
            | State::Serving { service }
            | State::Restarting { service, .. }
            | State::Locked { service } => {
                let status = service.reap();
                self.terminal.ended(&status);
            }
        }
        Ok(false)
    }

    /// Nobody sees any more what is said. Says whether there is nothing to wait for.
    fn has_lost_its_terminal(&mut self) -> bool {
        let is_quitting = matches!(self.state, State::Stopping { next: Next::Quit, .. });
        // The kernel and the shell may both say so: that isn't being asked twice.
        !is_quitting && self.quit()
    }

    /// Stops everything. Says whether there is nothing to wait for.
    fn quit(&mut self) -> bool {
        if let Some((building, _)) = self.building.take() {
            building.end();
        }
        self.state = match std::mem::replace(&mut self.state, State::Down) {
            State::Down => return true,
            // Asked twice: at once.
            State::Stopping { service, next: Next::Quit, .. } => {
                service.kill();
                service.reap();
                return true;
            }
            State::Starting { service, .. }
            | State::Serving { service }
            | State::Restarting { service, .. }
            | State::Locked { service }
            | State::Stopping { service, .. } => {
                service.stop();
                State::Stopping { service, since: Instant::now(), next: Next::Quit }
            }
        };
        false
    }

    /// The master didn't stop in time. Its workers leave by themselves when it is gone.
    fn kill(&mut self) {
        if let State::Stopping { service, since, .. } = &mut self.state {
            service.kill();
            *since = Instant::now();
        }
    }
}
