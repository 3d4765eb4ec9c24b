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
mod session;
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

use build::{Ended, Project};
use ending::{Stop, Why};
use news::News;
use page::Page;
use say::Terminal;
use session::{Dev, State};
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
    Built(Ended),
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
        lock: None,
        version: None,
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
                Happening::Built(ended) => dev.built(ended)?,
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
