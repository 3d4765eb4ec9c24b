//! Metrics: what is counted of a master and its workers, and the text that Prometheus reads.
//!
//! Owns the [`Tally`], in which the master counts what happens and keeps the figures of workers that are
//! gone, and the names and shapes of the metrics. Where figures come from is for who has them: workers write
//! their stats pages, the machine reports facts, the kernel is asked for CPU time and memory. Who may read
//! the text is the role `admin`'s business.
//!
//! ```text
//! stats pages of living workers ──┐
//! last figures of dead ones ──────┼──▶ Tally ──▶ Figures ──▶ Snapshot ──▶ exposition
//! facts and verdicts ─────────────┘   (in the master)      │  (in the process that serves it)
//!                                          Status ─────────┘
//! ```
//! A counter never goes backwards: what a worker has counted is added to the [`Tally`] before the worker is
//! forgotten. A gauge is of the living alone, so nothing of a dead worker lingers in it.

pub mod counters;
mod exposition;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use app_host_core::ids::{Generation, RequestId, Slot, Time};
use app_host_core::restart::{KillReason, Report, Verdict, WorkerView};
use app_host_core::status::Status;

use crate::sys::stats::{Latency, STATUS_CLASSES, StatsSnapshot};
use counters::{COUNTERS, Sums};
pub use exposition::text;
pub use stages::Durations;
use stages::Stages;

/// Everything that can be said of a master at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub status: Status,
    pub figures: Figures,
    /// The generations that can be gone back to or are quarantined, as `VERSIONS` lists them.
    pub versions: serde_json::Value,
}

/// What is counted, living and dead workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// In the order of the table of counters.
    pub counters: Vec<u64>,
    pub responses: [u64; STATUS_CLASSES],
    /// Clients refused below the app, in the order of `Refused::ALL`.
    pub refused: Vec<u64>,
    /// What could have gone on in another worker, by `LongLived` and in the order of `NotResumed::ALL`.
    #[serde(default)]
    pub not_resumed: Vec<Vec<u64>>,
    /// HTTP/2 connections that were to go on in another worker, in the order of `NotMoved::ALL`.
    #[serde(default)]
    pub not_moved: Vec<u64>,
    pub latency: Latency,
    pub respawns: u64,
    /// How often a listener was found harmed under its workers.
    #[serde(default)]
    pub listener_shutdowns: u64,
    pub exits: Exits,
    /// How many workers got SIGKILL, by the reason for it.
    pub kills: BTreeMap<String, u64>,
    /// How many requests for a restart got a verdict.
    pub restarts: Vec<Verdicts>,
    /// How long the stages of restarts took, by their names.
    pub stages: Vec<(String, Durations)>,
    /// The CPU time that dead workers of living generations have used.
    pub spent: Vec<Spent>,
}

/// How many workers have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    /// Because they were told to, or had said so.
    pub expected: u64,
    pub unexpected: u64,
}

/// How many requests for a restart got one verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// `complete`, `refused` or `failed`.
    pub verdict: String,
    /// The stable reason string, empty when complete.
    pub reason: String,
    pub count: u64,
}

/// The CPU time that the dead workers of one slot and generation have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub slot: Slot,
    pub generation: Generation,
    pub cpu: Duration,
}

/// What a master counts. See the module.
#[derive(Debug, Default)]
pub struct Tally {
    /// Of workers that are gone.
    gone: Sums,
    spent: BTreeMap<(Generation, Slot), Duration>,
    respawns: u64,
    listener_shutdowns: u64,
    exits: Exits,
    kills: BTreeMap<String, u64>,
    /// By verdict and reason.
    restarts: BTreeMap<(&'static str, &'static str), u64>,
    stages: Stages,
}

impl Tally {
    /// Takes note of a fact. What an exited worker leaves is told by [`Self::leaves`].
    pub fn reported(&mut self, report: &Report, now: Time) {
        self.stages.reported(report, now);
        match report {
            Report::WorkerExited { expected: true, .. } => self.exits.expected += 1,
            Report::WorkerExited { expected: false, .. } => self.exits.unexpected += 1,
            Report::KillOrdered { why, .. } => *self.kills.entry(why.to_string()).or_default() += 1,
            Report::RespawnScheduled { .. } => self.respawns += 1,
            _ => {}
        }
    }

    /// Adds the last figures of a worker that is about to be forgotten. What was in flight when it ended was
    /// cut by its end.
    pub fn leaves(&mut self, worker: &WorkerView, stats: &StatsSnapshot, cpu: Duration) {
        self.gone.add(stats);
        self.gone.cut_in_flight(stats);
        *self.spent.entry((worker.generation, worker.slot)).or_default() += cpu;
    }

    /// A listener was harmed by a process that has it, and it wasn't when it was looked at before.
    pub fn listener_harmed(&mut self) {
        self.listener_shutdowns += 1;
    }

    /// No worker belongs to this generation and none ever will again.
    pub fn discarded(&mut self, generation: Generation) {
        self.spent.retain(|(spent, _), _| *spent != generation);
    }

    /// The preflight of a restart begins.
    pub fn preflight(&mut self, request: RequestId, now: Time) {
        self.stages.preflight(request, now);
    }

    /// Takes note of a verdict.
    pub fn judged(&mut self, request: RequestId, verdict: &Verdict, now: Time) {
        self.stages.judged(request, verdict, now);
        let key = match verdict {
            Verdict::Complete { .. } => ("complete", ""),
            Verdict::Refused(refusal) => ("refused", refusal.reason()),
            Verdict::Failed(failure) => ("failed", failure.reason()),
        };
        *self.restarts.entry(key).or_default() += 1;
    }

    /// What was counted so far, with what living workers say of themselves.
    pub fn figures(&self, living: impl Iterator<Item = StatsSnapshot>) -> Figures {
        let mut sums = self.gone.clone();
        living.for_each(|stats| sums.add(&stats));
        let Sums { counters, responses, refused, not_resumed, not_moved, latency } = sums;
        // A reason that never was is there as well, so that the first one is an increase.
        let mut restarts: BTreeMap<_, _> = counters::reasons().map(|reason| (reason, 0)).collect();
        restarts.extend(&self.restarts);
        let mut kills: BTreeMap<_, _> = KillReason::ALL.iter().map(|why| (why.to_string(), 0)).collect();
        kills.extend(self.kills.clone());
        Figures {
            counters: counters.to_vec(),
            responses,
            refused: refused.to_vec(),
            not_resumed: not_resumed.map(Vec::from).into(),
            not_moved: not_moved.to_vec(),
            latency,
            respawns: self.respawns,
            listener_shutdowns: self.listener_shutdowns,
            exits: self.exits,
            kills,
            restarts: restarts
                .into_iter()
                .map(|((verdict, reason), count)| Verdicts {
                    verdict: verdict.to_owned(),
                    reason: reason.to_owned(),
                    count,
                })
                .collect(),
            stages: self.stages.durations().map(|(name, durations)| (name.to_owned(), durations.clone())).collect(),
            spent: self.spent.iter().map(|(&(generation, slot), &cpu)| Spent { slot, generation, cpu }).collect(),
        }
    }
}

impl Figures {
    /// A counter of the table, by its name; 0 for one that isn't in it.
    pub fn counter(&self, name: &str) -> u64 {
        let place = COUNTERS.iter().position(|counter| counter.name == name);
        place.and_then(|place| self.counters.get(place)).copied().unwrap_or_default()
    }

    /// How many restarts got a verdict.
    pub fn restarts(&self, verdict: &str) -> u64 {
        self.restarts.iter().filter(|each| each.verdict == verdict).map(|each| each.count).sum()
    }
}
