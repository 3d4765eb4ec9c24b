//! One session of `dev`: what is built, what is served, and what follows from each event.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Happening;
use super::build::{Building, Built, Ended, Project};
use super::news::{News, RestartOutcome};
use super::page::Page;
use super::say::Terminal;
use super::service::Service;
use super::sources::{Change, Look};
use super::written::Served;

/// What is going on.
pub(super) struct Dev {
    pub(super) project: Project,
    pub(super) config: PathBuf,
    pub(super) page: Option<Page>,
    pub(super) terminal: Terminal,
    pub(super) inbox: mpsc::Sender<Happening>,
    /// Whether nothing has been built yet.
    pub(super) first: bool,
    /// For who asks which processes are the service's.
    pub(super) served: Served,
    /// What is being built, and since when its sources were saved.
    pub(super) building: Option<(Building, Instant)>,
    /// What has changed since the build began.
    pub(super) changed: Option<Change>,
    /// How the last build left `Cargo.lock`.
    pub(super) lock: Option<Look>,
    /// What was live last.
    pub(super) version: Option<String>,
    pub(super) state: State,
}

/// A library on its way to be served.
pub(super) struct Build {
    pub(super) library: PathBuf,
    /// When its sources were saved.
    pub(super) saved: Instant,
    pub(super) took: Duration,
}

pub(super) enum State {
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

pub(super) enum Next {
    Serve(Build),
    Quit,
}

impl Dev {
    pub(super) fn build(&mut self, saved: Instant) {
        let inbox = self.inbox.clone();
        let building = self.project.build(self.first, move |built| {
            // The loop has ended: nobody is interested any more.
            let _ = inbox.blocking_send(Happening::Built(built));
        });
        self.building = Some((building, saved));
        self.first = false;
    }

    pub(super) fn changed(&mut self, change: Change) {
        let change = match self.changed.take() {
            Some(earlier) => earlier.and(change),
            None => change,
        };
        if self.building.is_some() {
            self.changed = Some(change);
        } else if let Some(change) = self.saved(change) {
            self.terminal.changed(&change.paths, self.project.root());
            self.build(change.at);
        }
    }

    /// What of a change somebody has saved: not a `Cargo.lock` as our own build has left it.
    fn saved(&self, change: Change) -> Option<Change> {
        let lock = self.project.lock();
        if self.lock.is_some() && self.lock == Look::at(&lock) { change.without(&lock) } else { Some(change) }
    }

    pub(super) fn built(&mut self, Ended { built, lock }: Ended) -> anyhow::Result<()> {
        let saved = self.building.take().map_or_else(Instant::now, |(_, saved)| saved);
        self.lock = lock;
        let changed = self.changed.take().and_then(|change| self.saved(change));
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

    pub(super) fn is_serving(&self) -> bool {
        !matches!(self.state, State::Down | State::Starting { .. } | State::Stopping { .. })
    }

    /// Brings a build live, whatever is served at the moment.
    pub(super) fn serve(&mut self, build: Build) -> anyhow::Result<()> {
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

    pub(super) fn start(&self, build: Build) -> anyhow::Result<State> {
        let inbox = self.inbox.clone();
        let service = Service::start(&self.config, &build.library, self.project.root(), move |news| {
            let happening = news.map_or(Happening::Ended, Happening::News);
            inbox.blocking_send(happening).is_ok()
        })?;
        self.served.set(service.pid());
        Ok(State::Starting { service, build, next: None })
    }

    /// A full restart: this master stops, and another one serves the build.
    pub(super) fn replace(service: Service, build: Build) -> State {
        service.stop();
        State::Stopping { service, since: Instant::now(), next: Next::Serve(build) }
    }

    pub(super) fn heard(&mut self, news: News) -> anyhow::Result<()> {
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

    pub(super) fn live(&mut self, version: &str, build: &Build, began: Instant) {
        let before = self.version.replace(version.to_owned());
        let is_as_before = before.as_deref() == Some(version);
        self.terminal.live(version, is_as_before, build.saved.elapsed(), build.took, began.elapsed());
        if let Some(page) = &self.page {
            page.reload(version);
        }
    }

    pub(super) fn verdict(
        &mut self,
        service: Service,
        build: Build,
        live: bool,
        next: Option<Build>,
        outcome: RestartOutcome,
    ) -> anyhow::Result<()> {
        let waiting = next.is_some();
        self.state = match outcome {
            RestartOutcome::Complete { version } => {
                if !live {
                    self.live(&version, &build, service.began());
                }
                State::Serving { service }
            }
            RestartOutcome::Refused { reason, detail } if reason == "incompatibility" && !waiting => {
                self.terminal.full_restart(&detail);
                Self::replace(service, build)
            }
            RestartOutcome::Refused { reason, detail } => {
                self.terminal.refused(&reason, &detail);
                State::Serving { service }
            }
            RestartOutcome::Failed { reason, detail } => {
                self.terminal.failed(&reason, &detail);
                State::Locked { service }
            }
        };
        next.map_or(Ok(()), |next| self.serve(next))
    }

    /// The service has ended. Says whether that is all.
    pub(super) fn ended(&mut self) -> anyhow::Result<bool> {
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
    pub(super) fn has_lost_its_terminal(&mut self) -> bool {
        let is_quitting = matches!(self.state, State::Stopping { next: Next::Quit, .. });
        // The kernel and the shell may both say so: that isn't being asked twice.
        !is_quitting && self.quit()
    }

    /// Stops everything. Says whether there is nothing to wait for.
    pub(super) fn quit(&mut self) -> bool {
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
    pub(super) fn kill(&mut self) {
        if let State::Stopping { service, since, .. } = &mut self.state {
            service.kill();
            *since = Instant::now();
        }
    }
}
