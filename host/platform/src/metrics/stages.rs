//! How long the stages of restarts take.
//!
//! ```text
//! preflight ─▶ start ────────▶ probation ─▶ roll ───────────▶ drain ─────────▶ complete
//!              the first         it stays     until the last    until the last
//!              candidate worker  alive        drain is ordered  predecessor is gone
//!                 └──────────────── a failure ──────┴──────────▶ return ──────▶ failed
//! ```
//! A stage is counted when it has ended as it should; one in which a restart fails is not. A preflight
//! counts also when it refuses.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use app_host_core::ids::{RequestId, Time};
use app_host_core::restart::{Report, Verdict};

/// How long the stages of each class take at most, in milliseconds. One more class has those that take longer.
pub(super) const BOUNDS_MS: [u64; 13] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];

/// A number of durations, by their classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    pub(super) classes: [u64; BOUNDS_MS.len() + 1],
    pub(super) sum: Duration,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        let class = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < duration);
        self.classes[class] += 1;
        self.sum = self.sum.saturating_add(duration);
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Preflight,
    Start,
    Probation,
    Roll,
    Drain,
    Return,
}

const NAMES: [&str; 6] = ["preflight", "start", "probation", "roll", "drain", "return"];

/// Where a restart in flight is.
#[derive(Clone, Copy, Debug)]
struct Running {
    request: RequestId,
    stage: Stage,
    since: Time,
    /// When the last drain was ordered that this stage has seen.
    ordered: Option<Time>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stages {
    durations: [Durations; NAMES.len()],
    running: Option<Running>,
}

impl Stages {
    pub(super) fn durations(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        NAMES.into_iter().zip(&self.durations)
    }

    pub(super) fn preflight(&mut self, request: RequestId, now: Time) {
        self.running = Some(Running { request, stage: Stage::Preflight, since: now, ordered: None });
    }

    pub(super) fn reported(&mut self, report: &Report, now: Time) {
        match report {
            Report::RollStarted { request, .. } => self.step(*request, Stage::Start, now),
            Report::ProbationStarted { request, .. } => self.step(*request, Stage::Probation, now),
            Report::ProbationPassed { request } => self.step(*request, Stage::Roll, now),
            Report::DrainOrdered { successor: true, .. } => {
                if let Some(Running { stage: Stage::Roll, ordered, .. }) = &mut self.running {
                    *ordered = Some(now);
                }
            }
            Report::ReturnStarted { request, .. } => {
                // What it was in has not ended as it should.
                self.running = Some(Running { request: *request, stage: Stage::Return, since: now, ordered: None });
            }
            Report::ReturnEnded { request, .. } => self.end(*request, now),
            _ => {}
        }
    }

    pub(super) fn judged(&mut self, request: RequestId, verdict: &Verdict, now: Time) {
        match self.running.filter(|running| running.request == request) {
            Some(Running { stage: Stage::Roll, ordered, .. }) if matches!(verdict, Verdict::Complete { .. }) => {
                // A roll without a predecessor to drain ends with it.
                self.step(request, Stage::Drain, ordered.unwrap_or(now));
                self.end(request, now);
            }
            Some(Running { stage: Stage::Preflight, .. }) => self.end(request, now),
            Some(_) => self.running = None,
            None => {}
        }
    }

    /// Ends the stage that a restart is in and begins the next.
    fn step(&mut self, request: RequestId, stage: Stage, now: Time) {
        self.end(request, now);
        self.running = Some(Running { request, stage, since: now, ordered: None });
    }

    fn end(&mut self, request: RequestId, now: Time) {
        if let Some(running) = self.running.take_if(|running| running.request == request) {
            self.durations[running.stage as usize].add(now.saturating_sub(running.since));
        }
    }
}
