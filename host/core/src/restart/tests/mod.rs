//! Tests of the pure machine: tables of claims, and properties of random worlds.

mod bench;
mod draining;
mod health;
mod history;
mod links;
mod properties;
mod tables;
mod watch;
mod world;

use std::time::Duration;

use super::{Action, By, Event, KillReason, OnFailure, Recycle, Refusal, Settings, Signs, Verdict, WorkerState};
use crate::ids::{Ended, Generation, RequestId, Slot, WorkerId};

const START_TIMEOUT: Duration = Duration::from_secs(10);
const PROBATION: Duration = Duration::from_millis(250);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
const HANG_TIMEOUT: Duration = Duration::from_mins(1);

const fn settings(workers: u16) -> Settings {
    Settings {
        workers,
        databank_shared: true,
        start_timeout: START_TIMEOUT,
        probation: PROBATION,
        shutdown_timeout: SHUTDOWN_TIMEOUT,
        on_failure: OnFailure::Lock,
        hang_timeout: Some(HANG_TIMEOUT),
        recycle: Recycle::NEVER,
        while_draining: false,
        parallel: 1,
        single: false,
        state_timeout: None,
        shutdown_delay: Duration::ZERO,
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn request(number: u64) -> Event {
    Event::Request { request: RequestId(number), by: By::Signal }
}

const fn passed(number: u64, settings: Settings) -> Event {
    Event::PreflightPassed { request: RequestId(number), settings, unchanged: false }
}

const fn refused(number: u64, refusal: Refusal) -> Event {
    Event::PreflightRefused { request: RequestId(number), refusal }
}

const fn spawned(worker: u64) -> Event {
    Event::Spawned { worker: WorkerId(worker) }
}

const fn ready(worker: u64) -> Event {
    Event::Ready { worker: WorkerId(worker), keeps_state: true }
}

const fn handed_on(worker: u64, heir: u64) -> Event {
    Event::HandedOn { worker: WorkerId(worker), heir: WorkerId(heir) }
}

const fn hand_on(from: u64, to: u64) -> Action {
    Action::HandOn { from: WorkerId(from), to: WorkerId(to) }
}

const fn terminated(worker: u64) -> Event {
    Event::Terminated { worker: WorkerId(worker) }
}

const fn exited(worker: u64, code: i32) -> Event {
    Event::Exited { worker: WorkerId(worker), how: Ended::Code(code) }
}

fn cannot_listen(worker: u64) -> Event {
    Event::CannotListen { worker: WorkerId(worker), error: "no descriptor".to_owned() }
}

fn start_failed(worker: u64) -> Event {
    Event::StartFailed { worker: WorkerId(worker), error: "no route".to_owned() }
}

fn spawn_failed(worker: u64) -> Event {
    Event::SpawnFailed { worker: WorkerId(worker), error: "EAGAIN".to_owned() }
}

const fn spawn(worker: u64, slot: u16, generation: u64) -> Action {
    Action::Spawn { worker: WorkerId(worker), slot: Slot(slot), generation: Generation(generation) }
}

const fn drain(worker: u64) -> Action {
    Action::Drain { worker: WorkerId(worker), successor: true, timeout: SHUTDOWN_TIMEOUT }
}

const fn last_drain(worker: u64) -> Action {
    Action::Drain { worker: WorkerId(worker), successor: false, timeout: SHUTDOWN_TIMEOUT }
}

const fn kill(worker: u64, why: KillReason) -> Action {
    Action::Kill { worker: WorkerId(worker), why }
}

const fn verdict(number: u64, verdict: Verdict) -> Action {
    Action::Verdict { request: RequestId(number), verdict }
}
