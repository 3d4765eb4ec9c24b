//! Facts: what the master tells operators of itself, in one form for the log and the events of the control socket.
//!
//! The name of a fact is the message of its log line and the name of its event; its fields are called the same in both.
//! What the machine reports becomes a fact in [`describe`]: a new [`Report`] needs an arm there, and nothing else. Levels:
//! error, an operator must act; warn, the service is degraded; info, the service's life.

use serde::Serialize;
use tracing::{Level, error, info, warn};

use app_host_core::ids::Ended;
use app_host_core::not_resumed::LongLived;
use app_host_core::restart::{ExitReason, Phase, RecycleReason, Report, Verdict, WorkerView};
use app_host_core::status::{VerdictRecord, millis};
use app_host_platform::sys::stats::{StatsSnapshot, ThreadSnapshot};

/// Something that has happened, as operators are told it.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) level: Level,
    pub(super) name: &'static str,
    pub(super) fields: Fields,
}

/// Defines every field that a fact can have, and how a fact is logged: `tracing` must know the names at compile time.
macro_rules! fields {
    ($($(#[$about:meta])* $name:ident: $type:ty,)+) => {
        /// The fields of a fact. An absent one is in neither the line nor the event.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub(super) struct Fields {
            $($(#[$about])* #[serde(skip_serializing_if = "Option::is_none")] pub(super) $name: Option<$type>,)+
        }

        impl Fact {
            /// Writes the fact as one line of the log.
            pub(super) fn log(&self) {
                let Fields { $($name),+ } = &self.fields;
                match self.level {
                    Level::ERROR => error!($($name,)+ "{}", self.name),
                    Level::WARN => warn!($($name,)+ "{}", self.name),
                    _ => info!($($name,)+ "{}", self.name),
                }
            }
        }
    };
}

fields! {
    /// The restart that it belongs to.
    request: u64,
    /// Who asked for it.
    by: &'static str,
    /// What became of it.
    verdict: String,
    /// The stable reason of a refusal or failure.
    reason: String,
    /// The reason and what more there is to say about it.
    detail: String,
    /// Whether a complete restart changed nothing but the workers; absent where it did.
    unchanged: bool,
    /// How many workers of former generations still drain.
    draining: usize,
    /// The worker's slot, generation and process.
    slot: u16,
    generation: u64,
    worker_pid: i32,
    /// Where something moves from and to: generations of a roll, numbers of workers.
    from: u64,
    to: u64,
    /// The first digits of a version, and what its library says of itself.
    version: String,
    app: String,
    app_version: String,
    magic: String,
    workers: u16,
    /// How a process ended, and whether that was to be expected.
    status: String,
    expected: bool,
    /// What a worker has done in its life; `cut` counts what its end has cut.
    requests: u64,
    cut: u64,
    handed_over: u64,
    received: u64,
    closed: u64,
    websockets_resumed: u64,
    websockets_ended: u64,
    event_streams_resumed: u64,
    event_streams_ended: u64,
    http2_moved: u64,
    http2_not_moved: u64,
    /// What the app held the worker's threads with.
    routes: String,
    /// Whether other workers serve on.
    successor: bool,
    why: &'static str,
    memory_bytes: u64,
    /// What `requests` or `memory_bytes` has reached.
    limit: u64,
    phase: &'static str,
    /// How many workers serve on.
    serving: usize,
    timeout_ms: u64,
    silent_ms: u64,
    after_ms: u64,
    probation_ms: u64,
    delay_ms: u64,
    took_ms: u64,
    copy_us: u64,
    probe_us: u64,
    /// A listener, or several, and a certificate of it.
    listener: String,
    listeners: String,
    names: String,
    not_after: String,
    /// What is logged from now on.
    log_level: String,
    /// What the operator should do, or know.
    advice: &'static str,
}

/// What the master knows besides what the machine reports.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The process of the worker that the report is about.
    pub(super) pid: Option<i32>,
    /// What that worker has done so far.
    pub(super) stats: Option<StatsSnapshot>,
    /// The active generation's version and the app's name.
    pub(super) active: Option<(String, String)>,
}

impl Fact {
    pub(super) const fn info(name: &'static str, fields: Fields) -> Self {
        Self { level: Level::INFO, name, fields }
    }

    pub(super) const fn warn(name: &'static str, fields: Fields) -> Self {
        Self { level: Level::WARN, name, fields }
    }

    pub(super) const fn error(name: &'static str, fields: Fields) -> Self {
        Self { level: Level::ERROR, name, fields }
    }
}

/// What the machine reports, as a fact.
pub(super) fn describe(report: &Report, known: &Known) -> Fact {
    match report {
        Report::Serving { generation, workers } => {
            let (version, app) = known.active.clone().unzip();
            let generation = Some(generation.0);
            Fact::info("serving", Fields { generation, version, app, workers: Some(*workers), ..Fields::default() })
        }
        Report::WorkerSpawned(worker) => Fact::info("worker spawned", known.of(worker)),
        Report::WorkerReady(worker) => Fact::info("worker ready", known.of(worker)),
        Report::WorkerUnfit { worker, failure } => {
            let (reason, detail) = (Some(failure.reason().to_owned()), Some(failure.to_string()));
            Fact::error("worker can't serve", Fields { reason, detail, ..known.of(worker) })
        }
        Report::WorkerTerminated(worker) => Fact::warn("worker told to stop by another process", known.of(worker)),
        Report::HandOnTimedOut(worker) => Fact::warn("worker hands on nothing in time", known.of(worker)),
        Report::WorkerExited { worker, how, expected } => worker_exited(worker, *how, *expected, known),
        Report::DrainOrdered { worker, successor, timeout } => {
            let (successor, timeout_ms) = (Some(*successor), Some(millis(*timeout)));
            Fact::info("worker ordered to drain", Fields { successor, timeout_ms, ..known.of(worker) })
        }
        Report::WorkerHung { worker, silent } => {
            // Those of threads that are well say nothing.
            let routes = known.stats.as_ref().map(|stats| stats.routes_silent_for(*silent / 2));
            Fact::error(
                "worker hung, and is aborted",
                Fields { silent_ms: Some(millis(*silent)), routes, ..known.of(worker) },
            )
        }
        Report::WorkerRecycled { worker, why } => Fact::info("worker recycled", recycled(why, known.of(worker))),
        Report::KillOrdered { worker, why } => {
            Fact::warn("worker killed", Fields { why: Some(why.as_str()), ..known.of(worker) })
        }
        Report::RespawnScheduled { slot, after } => {
            let (slot, after_ms) = (Some(slot.0), Some(millis(*after)));
            Fact::warn("worker respawn scheduled", Fields { slot, after_ms, ..Fields::default() })
        }
        Report::RollStarted { request, from, to, workers } => {
            let fields = Fields { workers: Some(*workers), ..between(Some(request.0), from.0, to.0) };
            Fact::info("restart roll started", fields)
        }
        Report::ProbationStarted { request, probation } => {
            let (request, probation_ms) = (Some(request.0), Some(millis(*probation)));
            Fact::info("restart probation started", Fields { request, probation_ms, ..Fields::default() })
        }
        Report::ProbationPassed { request } => {
            Fact::info("restart probation passed", Fields { request: Some(request.0), ..Fields::default() })
        }
        Report::ReturnStarted { request, from, to } => {
            Fact::warn("restart rollback started", between(Some(request.0), from.0, to.0))
        }
        Report::ReturnEnded { request, generation } => {
            let (request, generation) = (Some(request.0), Some(generation.0));
            Fact::info("restart rollback ended", Fields { request, generation, ..Fields::default() })
        }
        Report::Locked { serving } => {
            let advice =
                "restart the master as soon as possible: until then restarts are refused and no worker is respawned";
            Fact::error("locked", Fields { serving: Some(*serving), advice: Some(advice), ..Fields::default() })
        }
        Report::Scaled { from, to } => scaled(*from, *to),
        Report::ScalePutBy { phase } => Fact::info("the number of workers changes later", in_phase(*phase)),
        Report::ScaleIgnored { phase } => Fact::warn("the number of workers can't change any more", in_phase(*phase)),
        Report::StopDelayed { delay } => {
            let advice = "not ready, and serving as before until the delay is over; a second signal skips the delay";
            Fact::info(
                "stop delayed",
                Fields { delay_ms: Some(millis(*delay)), advice: Some(advice), ..Fields::default() },
            )
        }
        Report::Stopping => Fact::info("stopping", Fields::default()),
        Report::StoppingAtOnce => Fact::warn("stopping at once", Fields::default()),
    }
}

impl Known {
    /// The fields that every fact about a worker has.
    fn of(&self, worker: &WorkerView) -> Fields {
        Fields {
            slot: Some(worker.slot.0),
            generation: Some(worker.generation.0),
            worker_pid: self.pid,
            ..Fields::default()
        }
    }
}

fn worker_exited(worker: &WorkerView, how: Ended, expected: bool, known: &Known) -> Fact {
    let stats = known.stats.clone().unwrap_or_default();
    let fields = Fields {
        status: Some(how.to_string()),
        expected: Some(expected),
        requests: Some(stats.sum(|thread| thread.requests)),
        // What was still in flight when the process ended was cut by its end.
        cut: Some(stats.sum(|thread| thread.cut.saturating_add(thread.in_flight))),
        handed_over: Some(stats.sum(|thread| thread.handed_over)),
        received: Some(stats.sum(|thread| thread.taken_over)),
        closed: Some(stats.sum(|thread| thread.dismissed)),
        websockets_resumed: Some(stats.sum(|thread| thread.resumed(LongLived::WebSocket))),
        websockets_ended: Some(stats.sum(|thread| thread.ended(LongLived::WebSocket))),
        event_streams_resumed: Some(stats.sum(|thread| thread.resumed(LongLived::EventStream))),
        event_streams_ended: Some(stats.sum(|thread| thread.ended(LongLived::EventStream))),
        http2_moved: Some(stats.sum(|thread| thread.moved_http2)),
        http2_not_moved: Some(stats.sum(ThreadSnapshot::http2_not_moved)),
        // What a killed or crashed worker had in hand is the first question.
        routes: Some(stats.routes()),
        ..known.of(worker)
    };
    if expected { Fact::info("worker exited", fields) } else { Fact::error("worker exited", fields) }
}

fn recycled(why: &RecycleReason, worker: Fields) -> Fields {
    match why {
        RecycleReason::Requests { served, limit } => {
            Fields { why: Some("requests"), requests: Some(*served), limit: Some(*limit), ..worker }
        }
        RecycleReason::Memory { resident, limit } => {
            Fields { why: Some("memory"), memory_bytes: Some(*resident), limit: Some(*limit), ..worker }
        }
    }
}

fn scaled(from: u16, to: u16) -> Fact {
    if from == to {
        return Fact::warn("the number of workers stays", Fields { workers: Some(to), ..Fields::default() });
    }
    Fact::info("the number of workers changes", between(None, u64::from(from), u64::from(to)))
}

fn in_phase(phase: Phase) -> Fields {
    Fields { phase: Some(phase.as_str()), ..Fields::default() }
}

fn between(request: Option<u64>, from: u64, to: u64) -> Fields {
    Fields { request, from: Some(from), to: Some(to), ..Fields::default() }
}

/// What became of a request: the last line of a restart. As an event it is its record.
pub(super) fn verdict(record: &VerdictRecord, verdict: &Verdict, by: &'static str, known: &Known) -> Fact {
    let fields = Fields {
        request: Some(record.request.0),
        by: Some(by),
        verdict: Some(record.verdict.clone()),
        took_ms: Some(record.took_ms),
        ..Fields::default()
    };
    match verdict {
        Verdict::Complete { .. } => {
            let (version, app) = known.active.clone().unzip();
            let fields = Fields {
                unchanged: record.unchanged.then_some(true),
                draining: (record.draining > 0).then_some(record.draining),
                generation: Some(record.generation.0),
                version,
                app,
                ..fields
            };
            Fact::info("zero-downtime restart complete", fields)
        }
        Verdict::Refused(_) => {
            let (reason, detail) = (record.reason.clone(), record.detail.clone());
            Fact::warn("zero-downtime restart refused", Fields { reason, detail, ..fields })
        }
        Verdict::Failed(_) => {
            let (reason, detail) = (record.reason.clone(), record.detail.clone());
            Fact::error("zero-downtime restart failed", Fields { reason, detail, ..fields })
        }
    }
}

/// Why the master exits.
pub(super) fn exit(reason: &ExitReason) -> Fact {
    match reason {
        ExitReason::Stopped => Fact::info("stopped", Fields::default()),
        ExitReason::StartFailed(failure) => Fact::error(
            "the first workers could not start",
            Fields {
                reason: Some(failure.reason().to_owned()),
                detail: Some(failure.to_string()),
                ..Fields::default()
            },
        ),
        ExitReason::LockedAndEmpty => Fact::error("the last worker of a locked master has gone", Fields::default()),
    }
}

#[cfg(test)]
mod tests;
