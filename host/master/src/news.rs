//! Facts that the machine reports, as events for those who listen at the control socket.
//!
//! An event is called as its log line is, and its fields are those of the line.

use serde_json::{Value, json};

use super::audience::Audience;
use super::crew::Crew;
use app_host_core::restart::{RecycleReason, Report, WorkerView};
use app_host_core::status::millis;

/// Tells a fact. To be called before the log forgets the process of a worker that has exited.
pub(super) fn tell(report: &Report, crew: &Crew, audience: &Audience) {
    let worker = |worker: &WorkerView, more: Value| {
        let mut fields = json!({
            "slot": worker.slot,
            "generation": worker.generation,
            "worker_pid": crew.pid(worker.id),
        });
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        fields
    };
    let none = || json!({});
    match report {
        Report::Serving { generation, workers } => {
            audience.tell("serving", || json!({ "generation": generation, "workers": workers }));
        }
        Report::WorkerSpawned(view) => audience.tell("worker spawned", || worker(view, none())),
        Report::WorkerReady(view) => audience.tell("worker ready", || worker(view, none())),
        Report::WorkerUnfit { worker: view, failure } => audience.tell("worker can't serve", || {
            worker(view, json!({ "reason": failure.reason(), "detail": failure.to_string() }))
        }),
        Report::WorkerTerminated(view) => {
            audience.tell("worker was told to end by somebody else", || worker(view, none()));
        }
        Report::WorkerExited { worker: view, how, expected } => {
            audience.tell("worker exited", || worker(view, json!({ "status": how.to_string(), "expected": expected })));
        }
        Report::DrainOrdered { worker: view, successor, timeout } => {
            audience.tell("worker ordered to drain", || {
                worker(view, json!({ "successor": successor, "timeout_ms": millis(*timeout) }))
            });
        }
        Report::WorkerHung { worker: view, silent } => audience.tell("worker hung, and is aborted", || {
            let routes = crew.stats(view.id).map(|stats| stats.routes_silent_for(*silent / 2)).unwrap_or_default();
            worker(view, json!({ "silent_ms": millis(*silent), "routes": routes }))
        }),
        Report::WorkerRecycled { worker: view, why } => audience.tell("worker recycled", || {
            let more = match why {
                RecycleReason::Requests { served, limit } => {
                    json!({ "why": "requests", "requests": served, "limit": limit })
                }
                RecycleReason::Memory { resident, limit } => {
                    json!({ "why": "memory", "memory_bytes": resident, "limit": limit })
                }
            };
            worker(view, more)
        }),
        Report::KillOrdered { worker: view, why } => {
            audience.tell("worker killed", || worker(view, json!({ "why": why.to_string() })));
        }
        Report::RespawnScheduled { slot, after } => {
            audience.tell("worker respawn scheduled", || json!({ "slot": slot, "after_ms": millis(*after) }));
        }
        Report::RollStarted { request, from, to, workers } => audience
            .tell("restart roll started", || json!({ "request": request, "from": from, "to": to, "workers": workers })),
        Report::ProbationStarted { request, probation } => audience
            .tell("restart probation started", || json!({ "request": request, "probation_ms": millis(*probation) })),
        Report::ProbationPassed { request } => {
            audience.tell("restart probation passed", || json!({ "request": request }));
        }
        Report::Scaled { from, to } => {
            audience.tell("the number of workers changes", || json!({ "from": from, "to": to }));
        }
        Report::ScalePutBy { phase } => {
            audience.tell("the number of workers changes later", || json!({ "phase": phase.to_string() }));
        }
        Report::ScaleIgnored { phase } => {
            audience.tell("the number of workers can't change any more", || json!({ "phase": phase.to_string() }));
        }
        Report::ReturnStarted { request, from, to } => {
            audience.tell("restart rollback started", || json!({ "request": request, "from": from, "to": to }));
        }
        Report::ReturnEnded { request, generation } => {
            audience.tell("restart rollback ended", || json!({ "request": request, "generation": generation }));
        }
        Report::Locked { serving } => audience.tell("locked", || json!({ "serving": serving })),
        Report::StopDelayed { delay } => audience.tell("stop delayed", || json!({ "delay_ms": millis(*delay) })),
        Report::Stopping => audience.tell("stopping", none),
        Report::StoppingAtOnce => audience.tell("stopping at once", none),
    }
}
