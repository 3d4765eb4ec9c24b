//! The master: owns the listeners, the versions and the generations, and never loads app code.
//!
//! Its story: [`start`](start::start) prepares the first generation; then one loop turns whatever happens in the
//! world into events for the [`Machine`], and the machine's actions into effects. Policy is in
//! `restart`, nowhere here.
//!
//! ```text
//!  signals ──────────────┐
//!  workers' messages ────┤                    ┌──▶ effects: spawn, drain, kill, bind, log …
//!  workers' exits ───────┼──▶ Machine::handle ┤
//!  preflight's outcome ──┤                    └──▶ deadline ─┐
//!  the control socket ───┤                                  │
//!  metrics' questions ───┤                                  │
//!  the lookout ──────────┤                                  │
//!  looks at the workers ─┤                                  │
//!  the clock ────────────┘◀──────────────────────────────────┘
//! ```

#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    rustdoc::private_intra_doc_links,
    reason = "what is public here is so for the other crates of the host, not for strangers"
)]

mod admin;
mod attend;
mod audience;
mod balance;
mod book;
mod control;
mod crew;
mod dispatch;
mod effects;
mod healer;
mod ledger;
mod listeners;
mod locks;
mod lookout;
mod manager;
mod news;
mod notify;
mod own_files;
pub mod preflight;
mod report;
mod signals;
mod start;
mod steer;
mod watcher;

use std::cell::OnceCell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::unistd::Uid;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Interval;
use tracing::{debug, info};

use crate::control::Ask;
use crate::listeners::Passed;
use crate::locks::StopMark;
use crate::notify::Notify;
use crate::preflight::{Prepared, Refused, Took};
use app_host_core::ids::{RequestId, Time};
use app_host_core::restart::{Action, By, Event, ExitReason, Machine, Scale};
use app_host_platform::console;
use app_host_platform::metrics::Snapshot;
use app_host_platform::sys;
use balance::Balance;
use effects::Effects;
use healer::Healer;
use lookout::Lookout;
use signals::{Hangup, Signals};
use steer::Requests;

/// The exit code of a locked master whose last worker has gone, so that a supervisor can act.
pub const EXIT_LOCKED_AND_EMPTY: u8 = 3;

/// How many happenings may wait to be looked at; whoever reports more waits itself.
const INBOX: usize = 64;

/// What the world reports to the loop.
enum Happening {
    /// Something that the machine takes as it is.
    Event(Event),
    /// A preflight has ended.
    Preflight { request: RequestId, outcome: Box<Result<(Prepared, Took), Refused>> },
    /// The process that serves metrics wants to know how things stand.
    Snapshot { reply: oneshot::Sender<Box<Snapshot>> },
}

/// Runs the master until it is stopped; returns its exit code.
///
/// # Errors
/// When it can't start. Everything that was taken is given back then.
pub fn run(config_path: &Path, dev_library: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    sys::keep_inherited_from_children().context("descriptors can't be kept from children")?;
    let passed = Passed::from_environment().context("the sockets that were passed to us can't be used")?;
    if let Err(error) = sys::process::raise_descriptor_limit() {
        console::warning(&format!("app-host: the limit on open descriptors stays as it is: {error}"));
    }
    // Another user may look into its own master, unless the configuration forbids it.
    if Uid::effective().is_root()
        && let Err(error) = sys::process::keep_memory_private()
    {
        console::warning(&format!("app-host: core dumps of the master may hold secrets: {error}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, master(config_path, dev_library, passed))
}

async fn master(config_path: &Path, dev_library: Option<PathBuf>, passed: Passed) -> anyhow::Result<ExitCode> {
    // Before anything else: a signal that comes early is kept for the loop.
    let mut signals = Signals::listen()?;
    let (inbox, happenings) = mpsc::channel(INBOX);
    let (questions, mut asked) = mpsc::channel(control::QUESTIONS);
    let notify = Rc::new(Notify::from_environment());
    let stop_mark: OnceCell<StopMark> = OnceCell::new();
    let mark_stop = || {
        if let Some(mark) = stop_mark.get() {
            mark.set();
        }
    };
    // Marked before what was begun is dropped, which takes a moment.
    let stopped = async {
        let Signals { stops, hup, .. } = &mut signals;
        tokio::select! {
            () = stops.recv() => {}
            () = hup.terminal_gone() => {}
        }
        mark_stop();
    };
    let effects = tokio::select! {
        effects = start::start(config_path, dev_library, passed, Rc::clone(&notify), (inbox, questions), &stop_mark) => effects?,
        never = ask_for_time(&notify) => match never {},
        () = stopped => return Ok(ExitCode::SUCCESS),
        () = turn_away(&mut asked, mark_stop) => return Ok(ExitCode::SUCCESS),
    };
    drop(stop_mark);
    if signals.hup.are_ignored() {
        info!("SIGHUP was ignored when the master was started, by nohup for instance, and stays so; SIGUSR2 restarts");
    }
    let exit = serve(effects, &notify, signals, happenings, asked).await;
    Ok(match exit {
        ExitReason::Stopped => ExitCode::SUCCESS,
        ExitReason::LockedAndEmpty => ExitCode::from(EXIT_LOCKED_AND_EMPTY),
        ExitReason::StartFailed(_) => ExitCode::FAILURE,
    })
}

/// Answers the control socket until the machine can; returns when the master is told to stop.
async fn turn_away(asked: &mut mpsc::Receiver<Ask>, stops: impl Fn()) {
    loop {
        // Without anybody who could ask, the start has failed and says so.
        let Some(ask) = asked.recv().await else { return std::future::pending().await };
        if steer::too_early(ask, &stops) {
            return;
        }
    }
}

/// Asks the service manager for more time while the master starts; for ever.
async fn ask_for_time(notify: &Notify) -> Infallible {
    /// How often it is looked whether more is to be asked for.
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        tokio::time::sleep(EVERY).await;
        if notify.extends_at().is_some_and(|at| at <= Instant::now()) {
            notify.extend();
        }
    }
}

/// The loop. Ends when the machine says so.
async fn serve(
    mut effects: Effects,
    notify: &Notify,
    mut signals: Signals,
    mut happenings: mpsc::Receiver<Happening>,
    mut asked: mpsc::Receiver<Ask>,
) -> ExitReason {
    let mut machine = Machine::new(effects.first_settings());
    let begin = Instant::now();
    let mut lookout = Lookout::new();
    let mut healer = Healer::new();
    let mut balance = Balance::new();
    let mut watchdog = effects.watchdog().map(tokio::time::interval);
    let mut requests = Requests::new(begin);
    let mut looked = begin;
    let mut event = Event::Begin;
    loop {
        // An effect may be an event itself: a spawn has succeeded or failed.
        let mut next = Some(event);
        while let Some(event) = next {
            let now: Time = begin.elapsed();
            // Nothing to see, once a second, is nothing to say.
            let is_look = matches!(event, Event::Looked { .. });
            let actions = machine.handle(event, now);
            if !is_look || !actions.is_empty() {
                debug!(phase = %machine.phase(), serving = machine.serving(), ?actions, "event handled");
            }
            for action in &actions {
                if let Action::Verdict { request, verdict } = action {
                    lookout.verdict(*request, verdict, effects.judged(*request), now);
                    healer.verdict(*request, verdict);
                }
            }
            effects.link(machine.links());
            if let Some(exit) = effects.perform(actions, now) {
                effects.finish().await;
                return exit;
            }
            next = effects.follow_up();
        }
        lookout.follow(effects.active(), effects.barred(), effects.config_path(), machine.phase());
        if lookout.asks(machine.phase_for(By::Watcher), begin.elapsed()) {
            event = requests.ask(&mut effects, By::Watcher);
            lookout.asked(requests.last());
            continue;
        }
        if healer.asks(machine.phase_for(By::Healing), begin.elapsed()) {
            event = requests.ask(&mut effects, By::Healing);
            healer.asked(requests.last(), begin.elapsed());
            continue;
        }
        balance.look(&machine, &effects, begin.elapsed());
        let deadlines = machine.deadline().into_iter().chain(lookout.deadline(machine.phase_for(By::Watcher)));
        let deadlines = deadlines.chain(healer.deadline(machine.phase_for(By::Healing)));
        let deadline = deadlines.chain(balance.deadline(&machine, &effects)).min();
        let deadline = deadline.and_then(|deadline| begin.checked_add(deadline));
        let look = machine.looks_every().and_then(|every| looked.checked_add(every));
        event = tokio::select! {
            happening = happenings.recv() => match happening.expect("the effects hold a sender") {
                Happening::Event(event) => event,
                Happening::Preflight { request, outcome } => effects.preflight_ended(request, *outcome),
                Happening::Snapshot { reply } => {
                    // It may have ended meanwhile.
                    let _ = reply.send(Box::new(steer::snapshot(&effects, &machine, begin.elapsed())));
                    Event::Tick
                }
            },
            Some(ask) = asked.recv() => {
                steer::take(ask, &mut effects, &machine, &mut requests, begin.elapsed())
            }
            _ = signals.usr2.recv() => requests.ask(&mut effects, By::Signal),
            hangup = signals.hup.recv() => match hangup {
                Hangup::Restart => requests.ask(&mut effects, By::Hangup),
                Hangup::TerminalGone => Event::Stop,
            },
            _ = signals.usr1.recv() => {
                effects.look_at_own_files(begin.elapsed());
                effects.reopen_logs();
                Event::Tick
            }
            // What it has seen is asked for in the next turn, if it is worth that.
            () = lookout.see() => Event::Tick,
            _ = signals.ttin.recv() => Event::Scale(Scale::By(1)),
            _ = signals.ttou.recv() => Event::Scale(Scale::By(-1)),
            () = signals.stops.recv() => Event::Stop,
            () = sleep_until(deadline) => Event::Tick,
            () = sleep_until(look) => {
                looked = Instant::now();
                effects.look()
            }
            () = sleep_until(begin.checked_add(healer.looks_at())) => {
                healer.look(&mut effects, begin.elapsed());
                // Of workers nothing is seen, and so nothing is said.
                Event::Looked { found: Vec::new() }
            }
            () = sleep_until(begin.checked_add(effects.looks_at_own_files())) => {
                effects.look_at_own_files(begin.elapsed());
                Event::Looked { found: Vec::new() }
            }
            () = sleep_until(notify.extends_at()) => {
                effects.ask_for_time();
                Event::Tick
            }
            // Here, so that a loop that stands still is noticed.
            () = tick(&mut watchdog) => {
                effects.alive();
                Event::Tick
            }
        };
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
