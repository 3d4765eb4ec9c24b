//! The audience: who waits for a verdict or listens to what happens, and what they are told.
//!
//! Owns the last verdicts, and every question of the control socket that has no answer yet. A verdict is
//! recorded once, and the log, the status, the events and whoever waits get the same.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::control::{Events, Reply};
use app_host_core::command::Answer;
use app_host_core::ids::RequestId;
use app_host_core::status::VerdictRecord;

/// How many verdicts are kept.
const VERDICTS: usize = 64;

/// The way to a client that waits for an answer.
type Owed = oneshot::Sender<Reply>;

/// See the module.
#[derive(Debug)]
pub(super) struct Audience {
    events: Events,
    verdicts: VecDeque<VerdictRecord>,
    /// Who waits for the verdict on a request. Dropped ones are taken out when another comes.
    waiting: HashMap<RequestId, Vec<Owed>>,
    /// Who has asked for a restart and wants to know whether it begins.
    accepting: HashMap<RequestId, Owed>,
}

/// The present time as the log writes it.
pub(super) fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

impl Audience {
    pub(super) fn new(events: Events) -> Self {
        Self { events, verdicts: VecDeque::new(), waiting: HashMap::new(), accepting: HashMap::new() }
    }

    /// Tells those who listen that something has happened. `fields` isn't called when nobody does.
    pub(super) fn tell(&self, event: &str, fields: impl FnOnce() -> Value) {
        self.events.tell(|| {
            let mut all = json!({ "event": event, "time": now() });
            if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields()) {
                all.extend(fields);
            }
            all
        });
    }

    /// The last verdicts, the newest last.
    pub(super) fn verdicts(&self) -> Vec<VerdictRecord> {
        self.verdicts.iter().cloned().collect()
    }

    /// Somebody has asked for this restart and is told when it begins, or that it doesn't.
    pub(super) fn awaits_begin(&mut self, request: RequestId, reply: Owed) {
        self.accepting.insert(request, reply);
    }

    /// Somebody wants the verdict on a request that has none yet.
    pub(super) fn awaits_verdict(&mut self, request: RequestId, reply: Owed) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|each| !each.is_closed());
            !waiting.is_empty()
        });
        self.waiting.entry(request).or_default().push(reply);
    }

    /// The answer to who wants the verdict on a request that may have it already: `None` when there is
    /// none for it.
    pub(super) fn given(&self, request: RequestId) -> Option<Answer> {
        self.verdicts.iter().find(|verdict| verdict.request == request).map(answer)
    }

    /// The restart begins.
    pub(super) fn begins(&mut self, request: RequestId) {
        if let Some(reply) = self.accepting.remove(&request) {
            // The client may have gone.
            let _ = reply.send(Reply::Answer(Answer::Ack));
        }
    }

    /// Records a verdict and tells it to everybody.
    pub(super) fn judged(&mut self, verdict: VerdictRecord) {
        self.tell("verdict", || serde_json::to_value(&verdict).unwrap_or_default());
        if let Some(reply) = self.accepting.remove(&verdict.request) {
            let reason = verdict.reason.as_deref().unwrap_or_default();
            let _ = reply.send(Reply::Answer(Answer::nack(reason)));
        }
        for reply in self.waiting.remove(&verdict.request).unwrap_or_default() {
            let _ = reply.send(Reply::Answer(answer(&verdict)));
        }
        if self.verdicts.len() == VERDICTS {
            self.verdicts.pop_front();
        }
        self.verdicts.push_back(verdict);
    }
}

/// What who waits for a verdict is answered.
fn answer(verdict: &VerdictRecord) -> Answer {
    let text = verdict.in_short();
    if verdict.is_complete() { Answer::Data(text) } else { Answer::Nack(text) }
}
