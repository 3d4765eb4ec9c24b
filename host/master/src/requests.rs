//! Requests for a restart that have no verdict yet, and the last verdicts.
//!
//! Owns everything that belongs to one request: who asked and when, what its restart is to serve, its preflight and
//! what that has prepared, and who waits at the control socket for what becomes of it. It is forgotten as a whole with
//! its verdict.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use app_host_core::command::{Answer, Until};
use app_host_core::ids::{RequestId, Time};
use app_host_core::restart::{By, Judged};
use app_host_core::status::VerdictRecord;

use crate::control::Reply;
use crate::preflight::{Prepared, Took};

/// How many verdicts are kept.
const VERDICTS: usize = 64;

/// What a restart is to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// What lies at the configured paths.
    Configured,
    /// What is active, once more.
    Active,
    /// An earlier generation: the one whose version begins with these digits, or the last good one.
    Earlier(Option<String>),
}

/// One request that has no verdict yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) by: By,
    pub(super) since: Time,
    pub(super) target: Target,
    pub(super) progress: Progress,
    /// What its preflight has looked at, if that alone can be the reason of a refusal.
    pub(super) judged: Option<Judged>,
    waiters: Vec<Waiter>,
}

/// How far the preflight of a request is.
#[derive(Debug)]
pub(super) enum Progress {
    /// It has not begun, has been cancelled, or what it prepared is a generation now.
    Idle,
    Running(AbortHandle),
    Passed(Box<(Prepared, Took)>),
}

/// A client of the control socket that waits for this to become of a request.
#[derive(Debug)]
struct Waiter {
    until: Until,
    reply: oneshot::Sender<Reply>,
}

impl Pending {
    /// Takes what the preflight has prepared.
    pub(super) fn take_prepared(&mut self) -> Option<(Prepared, Took)> {
        match std::mem::replace(&mut self.progress, Progress::Idle) {
            Progress::Passed(prepared) => Some(*prepared),
            other => {
                self.progress = other;
                None
            }
        }
    }

    /// Ends the preflight, and drops what it has prepared: nothing may keep the listeners of a cancelled one open.
    pub(super) fn cancel(&mut self) {
        if let Progress::Running(task) = std::mem::replace(&mut self.progress, Progress::Idle) {
            task.abort();
        }
    }

    /// Has a client wait. Those that have gone are forgotten.
    pub(super) fn wait(&mut self, until: Until, reply: oneshot::Sender<Reply>) {
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        self.waiters.push(Waiter { until, reply });
    }

    /// The restart begins, which some wait for.
    pub(super) fn begins(&mut self) {
        for waiter in self.waiters.extract_if(.., |waiter| waiter.until == Until::Accepted) {
            // The client may have gone.
            let _ = waiter.reply.send(Reply::Answer(Answer::Ack));
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Requests {
    last: RequestId,
    pending: HashMap<RequestId, Pending>,
    verdicts: VecDeque<VerdictRecord>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { last: RequestId(0), pending: HashMap::new(), verdicts: VecDeque::new() }
    }

    /// Numbers a new request.
    pub(super) fn add(&mut self, by: By, target: Target, now: Time) -> RequestId {
        self.last = RequestId(self.last.0 + 1);
        let (progress, judged, waiters) = (Progress::Idle, None, Vec::new());
        self.pending.insert(self.last, Pending { by, since: now, target, progress, judged, waiters });
        self.last
    }

    /// The request that was added last.
    pub(super) const fn last(&self) -> RequestId {
        self.last
    }

    pub(super) fn get(&self, request: RequestId) -> Option<&Pending> {
        self.pending.get(&request)
    }

    pub(super) fn get_mut(&mut self, request: RequestId) -> Option<&mut Pending> {
        self.pending.get_mut(&request)
    }

    /// What preflights that passed have prepared and no generation has adopted.
    pub(super) fn prepared(&self) -> impl Iterator<Item = &Prepared> {
        self.pending.values().filter_map(|pending| match &pending.progress {
            Progress::Passed(prepared) => Some(&prepared.0),
            Progress::Idle | Progress::Running(_) => None,
        })
    }

    /// Takes a request out, which gets its verdict now.
    ///
    /// # Panics
    /// When it has one already.
    pub(super) fn take(&mut self, request: RequestId) -> Pending {
        self.pending.remove(&request).expect("a request gets one verdict")
    }

    /// Records a verdict, and tells it to those who waited for it.
    pub(super) fn judged(&mut self, pending: Pending, verdict: VerdictRecord) {
        for Waiter { until, reply } in pending.waiters {
            let answer = match until {
                // It would have heard of the beginning.
                Until::Accepted => Answer::nack(verdict.reason.as_deref().unwrap_or_default()),
                Until::Judged => answer(&verdict),
            };
            let _ = reply.send(Reply::Answer(answer));
        }
        if self.verdicts.len() == VERDICTS {
            self.verdicts.pop_front();
        }
        self.verdicts.push_back(verdict);
    }

    /// The last verdicts, the newest last.
    pub(super) fn verdicts(&self) -> Vec<VerdictRecord> {
        self.verdicts.iter().cloned().collect()
    }

    /// The answer to a client that wants the verdict on a request which isn't pending.
    pub(super) fn verdict_on(&self, request: RequestId) -> Answer {
        let known = self.verdicts.iter().find(|verdict| verdict.request == request);
        known.map_or_else(
            || {
                let was = (RequestId(1)..=self.last).contains(&request);
                Answer::nack(if was { "forgotten" } else { "no such request" })
            },
            answer,
        )
    }
}

/// What a client that waits for a verdict is answered.
fn answer(verdict: &VerdictRecord) -> Answer {
    let text = verdict.in_short();
    if verdict.is_complete() { Answer::Data(text) } else { Answer::Nack(text) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use app_host_core::ids::Generation;

    use super::*;

    fn record(request: RequestId, reason: Option<&str>) -> VerdictRecord {
        VerdictRecord {
            request,
            by: By::Control.to_string(),
            verdict: reason.map_or_else(|| "complete".to_owned(), |reason| format!("refused: {reason}")),
            unchanged: false,
            draining: 0,
            listeners_down: Vec::new(),
            reason: reason.map(str::to_owned),
            detail: None,
            generation: Generation(1),
            took_ms: 7,
            time: String::new(),
        }
    }

    fn asked(requests: &mut Requests) -> RequestId {
        requests.add(By::Control, Target::Configured, Duration::ZERO)
    }

    fn answered(mut reply: oneshot::Receiver<Reply>) -> Answer {
        match reply.try_recv() {
            Ok(Reply::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_waits_for_the_beginning_and_who_for_the_verdict_hears_of_each_once() {
        let mut requests = Requests::new();
        let request = asked(&mut requests);
        let pending = requests.get_mut(request).unwrap();
        let (accepted, mut begins) = oneshot::channel();
        let (judged, verdict) = oneshot::channel();
        pending.wait(Until::Accepted, accepted);
        pending.wait(Until::Judged, judged);
        assert!(begins.try_recv().is_err());
        pending.begins();
        assert_eq!(answered(begins), Answer::Ack);
        let pending = requests.take(request);
        requests.judged(pending, record(request, None));
        assert_eq!(answered(verdict), Answer::Data("1 complete".to_owned()));
        assert!(requests.get(request).is_none());
    }

    #[test]
    fn a_request_that_never_begins_says_why_to_all_that_wait() {
        let mut requests = Requests::new();
        let request = asked(&mut requests);
        let (accepted, begins) = oneshot::channel();
        let (judged, verdict) = oneshot::channel();
        let pending = requests.get_mut(request).unwrap();
        pending.wait(Until::Accepted, accepted);
        pending.wait(Until::Judged, judged);
        let pending = requests.take(request);
        requests.judged(pending, record(request, Some("locked")));
        assert_eq!(answered(begins), Answer::nack("locked"));
        assert_eq!(answered(verdict), Answer::Nack("1 refused: locked".to_owned()));
    }

    #[test]
    fn clients_that_have_gone_are_forgotten_and_so_are_old_verdicts() {
        let mut requests = Requests::new();
        let request = asked(&mut requests);
        for _ in 0..1000 {
            let (reply, _) = oneshot::channel();
            requests.get_mut(request).unwrap().wait(Until::Judged, reply);
        }
        assert_eq!(requests.get(request).unwrap().waiters.len(), 1);
        for _ in 0..VERDICTS {
            let request = asked(&mut requests);
            let pending = requests.take(request);
            requests.judged(pending, record(request, None));
        }
        let first = requests.take(request);
        requests.judged(first, record(request, None));
        assert_eq!(requests.verdicts().len(), VERDICTS);
        assert_eq!(requests.verdict_on(RequestId(2)), Answer::nack("forgotten"));
        assert_eq!(requests.verdict_on(RequestId(3)), Answer::Data("3 complete".to_owned()));
        assert_eq!(requests.verdict_on(RequestId(66)), Answer::nack("no such request"));
        assert_eq!(requests.verdict_on(RequestId(0)), Answer::nack("no such request"));
    }
}
