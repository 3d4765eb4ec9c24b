use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span;

use app_host_core::ids::{Generation, RequestId, Slot, WorkerId};
use app_host_core::restart::{Failure, KillReason, WorkerState};

use super::*;

const WORKER: WorkerView =
    WorkerView { id: WorkerId(9), slot: Slot(1), generation: Generation(3), state: WorkerState::Ready };

fn known() -> Known {
    Known { pid: Some(77), stats: None, active: Some(("0123456789ab".to_owned(), "shop".to_owned())) }
}

/// A subscriber that keeps the fields of the last line.
#[derive(Clone, Default)]
struct LastLine(Arc<Mutex<BTreeMap<String, Value>>>);

impl Visit for LastLine {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().insert(field.name().to_owned(), json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.lock().unwrap().insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.lock().unwrap().insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.lock().unwrap().insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.lock().unwrap().insert(field.name().to_owned(), json!(value));
    }
}

impl tracing::Subscriber for LastLine {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().clear();
        event.record(&mut self.clone());
        let level = event.metadata().level().to_string();
        self.0.lock().unwrap().insert("the level".to_owned(), json!(level));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// One report of each kind.
fn reports() -> Vec<Report> {
    let second = Duration::from_secs(1);
    let (request, from, to) = (RequestId(5), Generation(3), Generation(4));
    vec![
        Report::Serving { generation: from, workers: 2 },
        Report::WorkerSpawned(WORKER),
        Report::WorkerReady(WORKER),
        Report::WorkerUnfit { worker: WORKER, failure: Failure::Stopped },
        Report::WorkerTerminated(WORKER),
        Report::HandOnTimedOut(WORKER),
        Report::WorkerExited { worker: WORKER, how: Ended::Code(0), expected: true },
        Report::WorkerExited { worker: WORKER, how: Ended::Signal(9), expected: false },
        Report::DrainOrdered { worker: WORKER, successor: true, timeout: second },
        Report::WorkerHung { worker: WORKER, silent: second },
        Report::WorkerRecycled { worker: WORKER, why: RecycleReason::Requests { served: 8, limit: 7 } },
        Report::WorkerRecycled { worker: WORKER, why: RecycleReason::Memory { resident: 8, limit: 7 } },
        Report::KillOrdered { worker: WORKER, why: KillReason::DrainTimedOut },
        Report::RespawnScheduled { slot: Slot(1), after: second },
        Report::RollStarted { request, from, to, workers: 2 },
        Report::ProbationStarted { request, probation: second },
        Report::ProbationPassed { request },
        Report::Scaled { from: 2, to: 3 },
        Report::Scaled { from: 1, to: 1 },
        Report::ScalePutBy { phase: Phase::Rolling },
        Report::ScaleIgnored { phase: Phase::Locked },
        Report::ReturnStarted { request, from: to, to: from },
        Report::ReturnEnded { request, generation: from },
        Report::Locked { serving: 2 },
        Report::StopDelayed { delay: second },
        Report::Stopping,
        Report::StoppingAtOnce,
    ]
}

#[test]
fn a_facts_line_and_its_event_say_the_same_under_the_same_names() {
    let line = LastLine::default();
    let _guard = tracing::subscriber::set_default(line.clone());
    for report in reports() {
        let fact = describe(&report, &known());
        fact.log();
        let mut logged = line.0.lock().unwrap().clone();
        assert_eq!(logged.remove("message"), Some(json!(fact.name)), "{report:?}");
        assert_eq!(logged.remove("the level"), Some(json!(fact.level.to_string())), "{report:?}");
        assert_eq!(json!(logged), json!(fact.fields), "{report:?}");
    }
}

#[test]
fn whatever_is_about_a_worker_names_it() {
    for report in reports() {
        let Fields { slot, generation, worker_pid, .. } = describe(&report, &known()).fields;
        if report.worker().is_some() {
            assert_eq!((slot, generation, worker_pid), (Some(1), Some(3), Some(77)), "{report:?}");
        } else {
            assert_eq!(worker_pid, None, "{report:?}");
        }
    }
}

#[test]
fn levels_say_who_must_act() {
    let level = |report: Report| describe(&report, &known()).level;
    assert_eq!(level(Report::Locked { serving: 2 }), Level::ERROR);
    assert_eq!(level(Report::WorkerExited { worker: WORKER, how: Ended::Code(0), expected: true }), Level::INFO);
    assert_eq!(level(Report::WorkerExited { worker: WORKER, how: Ended::Code(0), expected: false }), Level::ERROR);
    assert_eq!(level(Report::Scaled { from: 1, to: 1 }), Level::WARN);
}
