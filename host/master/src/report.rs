//! The master's log lines: one for each fact that the machine reports.
//!
//! Messages are constant and the data are fields, named the same everywhere. error: an operator must
//! act; warn: degraded; info: lifecycle; debug: decisions.

use std::time::Duration;

use tracing::{error, info, warn};

use super::crew::Crew;
use crate::preflight::Prepared;
use app_host_core::foreign;
use app_host_core::ids::{Generation, RequestId};
use app_host_core::restart::{By, ExitReason, RecycleReason, Report, Verdict};
use app_host_core::status::millis;

/// A worker's fields, the same in every line about one.
macro_rules! about {
    ($level:ident, $crew:expr, $worker:expr, $($rest:tt)+) => {
        $level!(
            slot = $worker.slot.0,
            generation = $worker.generation.0,
            worker_pid = $crew.pid($worker.id),
            $($rest)+
        )
    };
}

/// Logs a fact. An exited worker's process is forgotten with the line that tells of it.
pub(super) fn log(report: &Report, crew: &mut Crew, active: Option<&Prepared>) {
    match report {
        Report::Serving { generation, workers } => {
            let (version, app) = names(active);
            info!(generation = generation.0, version, app, workers, "serving");
        }
        Report::WorkerSpawned(worker) => about!(info, crew, worker, "worker spawned"),
        Report::WorkerReady(worker) => about!(info, crew, worker, "worker ready"),
        Report::WorkerUnfit { worker, failure } => {
            about!(error, crew, worker, reason = failure.reason(), detail = %failure, "worker can't serve");
        }
        Report::WorkerTerminated(worker) => about!(warn, crew, worker, "worker was told to end by somebody else"),
        Report::WorkerExited { worker, how, expected } => {
            let stats = crew.stats(worker.id).unwrap_or_default();
            let requests = stats.sum(|lane| lane.requests);
            // What was still in flight when the process ended was cut by its end.
            let cut = stats.sum(|lane| lane.cut.saturating_add(lane.in_flight));
            let handed_over = stats.sum(|lane| lane.handed_over);
            let received = stats.sum(|lane| lane.taken_over);
            let closed = stats.sum(|lane| lane.dismissed);
            // What a killed or crashed worker had in hand is the first question.
            let routes = stats.routes();
            if *expected {
                about!(
                    info, crew, worker, status = %how, expected, requests, cut, handed_over, received, closed, routes,
                    "worker exited"
                );
            } else {
                about!(
                    error, crew, worker, status = %how, expected, requests, cut, handed_over, received, closed, routes,
                    "worker exited"
                );
            }
            crew.remove(worker.id);
        }
        Report::DrainOrdered { worker, successor, timeout } => {
            about!(info, crew, worker, successor, timeout_ms = millis(*timeout), "worker ordered to drain");
        }
        Report::WorkerHung { worker, silent } => {
            // Those of threads that are well say nothing.
            let routes = crew.stats(worker.id).map(|stats| stats.routes_silent_for(*silent / 2)).unwrap_or_default();
            about!(error, crew, worker, silent_ms = millis(*silent), routes, "worker hung, and is aborted");
        }
        Report::WorkerRecycled { worker, why } => match why {
            RecycleReason::Requests { served, limit } => {
                about!(info, crew, worker, why = "requests", requests = served, limit, "worker recycled");
            }
            RecycleReason::Memory { resident, limit } => {
                about!(info, crew, worker, why = "memory", memory_bytes = resident, limit, "worker recycled");
            }
        },
        Report::KillOrdered { worker, why } => about!(warn, crew, worker, why = %why, "worker killed"),
        Report::RespawnScheduled { slot, after } => {
            warn!(slot = slot.0, after_ms = millis(*after), "worker respawn scheduled");
        }
        Report::RollStarted { request, from, to, workers } => {
            info!(request = request.0, from = from.0, to = to.0, workers, "restart roll started");
        }
        Report::ProbationStarted { request, probation } => {
            info!(request = request.0, probation_ms = millis(*probation), "restart probation started");
        }
        Report::ProbationPassed { request } => info!(request = request.0, "restart probation passed"),
        Report::Scaled { from, to } if from == to => {
            warn!(workers = to, "the number of workers stays");
        }
        Report::Scaled { from, to } => info!(from, to, "the number of workers changes"),
        Report::ScalePutBy { phase } => info!(phase = %phase, "the number of workers changes later"),
        Report::ScaleIgnored { phase } => warn!(phase = %phase, "the number of workers can't change any more"),
        Report::ReturnStarted { request, from, to } => {
            warn!(request = request.0, from = from.0, to = to.0, "restart rollback started");
        }
        Report::ReturnEnded { request, generation } => {
            info!(request = request.0, generation = generation.0, "restart rollback ended");
        }
        Report::Locked { serving } => {
            let advice =
                "restart the master as soon as possible: until then restarts are refused and no worker is respawned";
            error!(serving, advice, "locked");
        }
        Report::StopDelayed { delay } => info!(
            delay_ms = millis(*delay),
            "stopping after a delay: not ready, and served as ever until then; a second signal skips it"
        ),
        Report::Stopping => info!("stopping"),
        Report::StoppingAtOnce => warn!("stopping at once"),
    }
}

/// Logs what became of a request. The last line of a restart is its verdict.
pub(super) fn log_verdict(
    request: RequestId,
    by: By,
    verdict: &Verdict,
    took: Duration,
    active: Generation,
    prepared: Option<&Prepared>,
) {
    let (request, took_ms) = (request.0, millis(took));
    match verdict {
        Verdict::Complete { unchanged, draining } => {
            let (version, app) = names(prepared);
            let generation = active.0;
            // Absent where something has changed.
            let unchanged = unchanged.then_some(true);
            let draining = (*draining > 0).then_some(*draining);
            info!(
                request, by = %by, verdict = "complete", unchanged, draining, generation, version, app, took_ms,
                "zero-downtime restart complete"
            );
        }
        Verdict::Refused(refusal) => {
            let reason = refusal.reason();
            let verdict = verdict.in_short();
            warn!(request, by = %by, verdict, reason, detail = %refusal, took_ms, "zero-downtime restart refused");
        }
        Verdict::Failed(failure) => {
            let reason = failure.reason();
            let verdict = verdict.in_short();
            error!(request, by = %by, verdict, reason, detail = %failure, took_ms, "zero-downtime restart failed");
        }
    }
}

/// Logs why the master exits.
pub(super) fn log_exit(reason: &ExitReason) {
    match reason {
        ExitReason::Stopped => info!("stopped"),
        ExitReason::StartFailed(failure) => {
            error!(reason = failure.reason(), detail = %failure, "the first workers could not start");
        }
        ExitReason::LockedAndEmpty => error!("the last worker of a locked master has gone"),
    }
}

fn names(prepared: Option<&Prepared>) -> (String, String) {
    prepared.map_or_else(Default::default, |prepared| {
        (prepared.version.id.short(), foreign::line(&prepared.version.manifest.app_name, foreign::MAX_NAME))
    })
}
