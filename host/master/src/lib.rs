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
//!  the watcher ──────────┤                                  │
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
mod auto_restart;
mod balance;
mod commands;
mod control;
mod dispatch;
mod effects;
mod facts;
mod healer;
mod history;
mod history_file;
mod listeners;
mod locks;
mod own_files;
pub mod preflight;
mod requests;
mod signals;
mod start;
mod systemd;
mod watcher;
mod workers;

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

use app_host_core::ids::{Generation, RequestId, Time};
use app_host_core::restart::{Action, By, Event, ExitReason, Machine, Refusal, Scale};
use app_host_platform::metrics::Snapshot;
use app_host_platform::timer::sleep_until;
use app_host_platform::{console, sys};

use crate::control::{ControlRequest, Reply};
use crate::listeners::Passed;
use crate::locks::StopMark;
use crate::preflight::{Prepared, Refused, Took};
use crate::systemd::Systemd;
use auto_restart::AutoRestart;
use balance::Balance;
use effects::Effects;
use healer::Healer;
use requests::Target;
use signals::{Hangup, Signals};

/// The exit code of a locked master whose last worker has gone, so that a supervisor can act.
pub const EXIT_LOCKED_AND_EMPTY: u8 = 3;

/// How many inputs may wait to be looked at; whoever reports more waits itself.
const INBOX: usize = 64;

/// What the world reports to the loop.
enum Input {
    /// Something that the machine takes as it is.
    Event(Event),
    /// A preflight has ended.
    Preflight { request: RequestId, outcome: Box<Result<(Prepared, Took), Refused>> },
    /// Certificates and keys have been read anew, for a client that waits for it.
    Certificates { generation: Generation, outcome: Box<Result<effects::Read, Refusal>>, reply: oneshot::Sender<Reply> },
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
    let (inbox, inputs) = mpsc::channel(INBOX);
    let (questions, mut asked) = mpsc::channel(control::QUESTIONS);
    let systemd = Rc::new(Systemd::from_environment());
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
        effects = start::start(config_path, dev_library, passed, Rc::clone(&systemd), (inbox, questions), &stop_mark) => effects?,
        never = ask_for_time(&systemd) => match never {},
        () = stopped => return Ok(ExitCode::SUCCESS),
        () = turn_away(&mut asked, mark_stop) => return Ok(ExitCode::SUCCESS),
    };
    drop(stop_mark);
    if signals.hup.are_ignored() {
        info!("SIGHUP was ignored when the master was started, by nohup for instance, and stays so; SIGUSR2 restarts");
    }
    let exit = serve(effects, &systemd, signals, inputs, asked).await;
    Ok(match exit {
        ExitReason::Stopped => ExitCode::SUCCESS,
        ExitReason::LockedAndEmpty => ExitCode::from(EXIT_LOCKED_AND_EMPTY),
        ExitReason::StartFailed(_) => ExitCode::FAILURE,
    })
}

/// Answers the control socket until the machine can; returns when the master is told to stop.
async fn turn_away(asked: &mut mpsc::Receiver<ControlRequest>, stops: impl Fn()) {
    loop {
        // Without anybody who could ask, the start has failed and says so.
        let Some(ask) = asked.recv().await else { return std::future::pending().await };
        if commands::too_early(ask, &stops) {
            return;
        }
    }
}

/// Asks the service manager for more time while the master starts; for ever.
async fn ask_for_time(systemd: &Systemd) -> Infallible {
    /// How often it is looked whether more is to be asked for.
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        tokio::time::sleep(EVERY).await;
        if systemd.extends_at().is_some_and(|at| at <= Instant::now()) {
            systemd.extend();
        }
    }
}

/// The loop. Ends when the machine says so.
async fn serve(
    mut effects: Effects,
    systemd: &Systemd,
    mut signals: Signals,
    mut inputs: mpsc::Receiver<Input>,
    mut asked: mpsc::Receiver<ControlRequest>,
) -> ExitReason {
    let mut machine = Machine::new(effects.first_settings());
    let begin = Instant::now();
    let mut auto_restart = AutoRestart::new();
    let mut healer = Healer::new();
    let mut balance = Balance::new();
    let mut watchdog = effects.watchdog().map(tokio::time::interval);
    let mut looked = begin;
    let mut event = Some(Event::Begin);
    loop {
        // An effect may be an event itself: a spawn has succeeded or failed.
        while let Some(happened) = event {
            let now: Time = begin.elapsed();
            // Nothing to see, once a second, is nothing to say.
            let is_look = matches!(happened, Event::Looked { .. });
            let actions = machine.handle(happened, now);
            if !is_look || !actions.is_empty() {
                debug!(phase = %machine.phase(), serving = machine.serving(), ?actions, "event handled");
            }
            for action in &actions {
                if let Action::Verdict { request, verdict } = action {
                    auto_restart.verdict(*request, verdict, effects.judged(*request), now);
                    healer.verdict(*request, verdict);
                }
            }
            effects.link(machine.links());
            if let Some(exit) = effects.perform(actions, now) {
                effects.finish().await;
                return exit;
            }
            event = effects.follow_up();
        }
        auto_restart.follow(effects.active(), effects.barred(), effects.config_path(), machine.phase());
        if auto_restart.asks(machine.phase_for(By::Watcher), begin.elapsed()) {
            event = Some(effects.request(By::Watcher, Target::Configured, begin.elapsed()));
            auto_restart.asked(effects.requests().last());
            continue;
        }
        if auto_restart.renews(machine.phase_for(By::Watcher), begin.elapsed()) {
            effects.renew_certificates();
        }
        if healer.asks(machine.phase_for(By::Healing), begin.elapsed()) {
            event = Some(effects.request(By::Healing, Target::Active, begin.elapsed()));
            healer.asked(effects.requests().last(), begin.elapsed());
            continue;
        }
        balance.look(&machine, &effects, begin.elapsed());
        let deadlines = machine.deadline().into_iter().chain(auto_restart.deadline(machine.phase_for(By::Watcher)));
        let deadlines = deadlines.chain(healer.deadline(machine.phase_for(By::Healing)));
        let deadline = deadlines.chain(balance.deadline(&machine, &effects)).min();
        let deadline = deadline.and_then(|deadline| begin.checked_add(deadline));
        let look = machine.check_interval().and_then(|every| looked.checked_add(every));
        event = tokio::select! {
            input = inputs.recv() => {
                take(input.expect("the effects hold a sender"), &mut effects, &machine, begin.elapsed())
            }
            Some(asked) = asked.recv() => commands::handle(asked, &mut effects, &machine, begin.elapsed()),
            _ = signals.usr2.recv() => Some(effects.request(By::Signal, Target::Configured, begin.elapsed())),
            hangup = signals.hup.recv() => Some(match hangup {
                Hangup::Restart => effects.request(By::Hangup, Target::Configured, begin.elapsed()),
                Hangup::TerminalGone => Event::Stop,
            }),
            _ = signals.usr1.recv() => {
                effects.look_at_own_files(begin.elapsed());
                effects.reopen_logs();
                None
            }
            // What it has seen is asked for in the next turn, if it is worth that.
            () = auto_restart.see(begin) => None,
            _ = signals.ttin.recv() => Some(Event::Scale(Scale::By(1))),
            _ = signals.ttou.recv() => Some(Event::Scale(Scale::By(-1))),
            () = signals.stops.recv() => Some(Event::Stop),
            () = sleep_until(deadline) => Some(Event::Tick),
            () = sleep_until(look) => {
                looked = Instant::now();
                Some(effects.look())
            }
            () = sleep_until(begin.checked_add(healer.looks_at())) => {
                healer.look(&mut effects, begin.elapsed());
                None
            }
            () = sleep_until(begin.checked_add(effects.looks_at_own_files())) => {
                effects.look_at_own_files(begin.elapsed());
                None
            }
            () = sleep_until(effects.tls_due()) => {
                effects.look_at_tls();
                None
            }
            () = sleep_until(systemd.extends_at()) => {
                effects.ask_for_time();
                None
            }
            // Here, so that a loop that stands still is noticed.
            () = tick(&mut watchdog) => {
                effects.alive();
                None
            }
        };
    }
}

/// What the world has reported, as the machine is to see it.
fn take(input: Input, effects: &mut Effects, machine: &Machine, now: Time) -> Option<Event> {
    match input {
        Input::Event(event) => Some(event),
        Input::Preflight { request, outcome } => Some(effects.preflight_ended(request, *outcome)),
        Input::Certificates { generation, outcome, reply } => {
            effects.certificates_read(generation, *outcome, reply);
            None
        }
        Input::Snapshot { reply } => {
            // It may have ended meanwhile.
            let _ = reply.send(Box::new(commands::snapshot(effects, machine, now)));
            None
        }
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
