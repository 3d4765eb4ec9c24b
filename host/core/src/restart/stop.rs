//! The way out: a delay in which the service still serves, a graceful stop, a fast one, and the end when the last worker
//! has gone.
//!
//! The delay is for whoever sends clients, a load balancer: it needs a while to notice that no more should come, and
//! whoever it sends meanwhile is to be served. Nothing is spawned any more, and a restart in flight ends.

use std::time::Duration;

use crate::ids::{Generation, Time, WorkerId};

use super::machine::{Machine, State};
use super::{Action, ExitReason, Failure, KillReason, Refusal, Report, Verdict};

impl Machine {
    pub(super) fn stop(&mut self, now: Time, out: &mut Vec<Action>) {
        let mut candidate = None;
        match &self.state {
            State::Stopping { .. } => return self.stop_at_once(out),
            State::StopDelayed { candidate, .. } => {
                let candidate = *candidate;
                return self.begin_stopping(ExitReason::Stopped, candidate, now, out);
            }
            State::Preflight { request, .. } => {
                let request = *request;
                out.push(Action::CancelPreflight { request });
                let verdict = Verdict::Refused(Refusal::Stopping);
                out.push(Action::Verdict { request, verdict });
            }
            State::Rolling(roll) => {
                let request = roll.request;
                let verdict = Verdict::Failed(Failure::Stopped);
                out.push(Action::Verdict { request, verdict });
                candidate = Some(roll.candidate);
            }
            State::Returning(retreat) => {
                // Why it failed is known already, and says more than that its end came early.
                let verdict = Verdict::Failed(retreat.failure.clone());
                out.push(Action::Verdict { request: retreat.request, verdict });
                candidate = Some(retreat.failed);
            }
            State::Locked { candidate: failed } => candidate = *failed,
            State::Fresh | State::Starting(_) | State::Serving | State::Exited => {}
        }
        // Before it has served nobody was sent to it.
        let has_served = !matches!(self.state, State::Fresh | State::Starting(_));
        let delay = self.settings.shutdown_delay;
        if has_served && delay > Duration::ZERO {
            self.back_offs.clear();
            self.wish = None;
            self.state = State::StopDelayed { until: now.saturating_add(delay), candidate };
            out.push(Action::Report(Report::StopDelayed { delay }));
            out.push(Action::AnnounceStop);
        } else {
            self.begin_stopping(ExitReason::Stopped, candidate, now, out);
        }
    }

    /// Stops when the delay is over, or when nobody serves any more who could.
    pub(super) fn advance_delay(&mut self, now: Time, out: &mut Vec<Action>) {
        self.discard_candidate(out);
        if let State::StopDelayed { until, candidate } = self.state
            && (until <= now || self.workers.is_empty())
        {
            self.begin_stopping(ExitReason::Stopped, candidate, now, out);
            self.exit_when_empty(out);
        }
    }

    pub(super) fn begin_stopping(
        &mut self,
        exit: ExitReason,
        candidate: Option<Generation>,
        now: Time,
        out: &mut Vec<Action>,
    ) {
        self.state = State::Stopping { exit, candidate };
        self.back_offs.clear();
        self.wish = None;
        out.push(Action::Report(Report::Stopping));
        // Listeners close first, so that new clients are refused at once, not queued and reset.
        out.push(Action::CloseListeners);
        for id in self.ids() {
            self.drain(id, false, now, out);
        }
    }

    fn stop_at_once(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Report(Report::StoppingAtOnce));
        for id in self.ids() {
            self.kill(id, KillReason::FastStop, out);
        }
    }

    fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    /// Lets go of a failed or given-up candidate once its last worker has gone.
    pub(super) fn discard_candidate(&mut self, out: &mut Vec<Action>) {
        if let State::Locked { candidate } | State::StopDelayed { candidate, .. } | State::Stopping { candidate, .. } =
            &mut self.state
            && let Some(generation) = *candidate
            && self.workers.values().all(|it| it.generation != generation)
        {
            *candidate = None;
            out.push(Action::Discard { generation });
        }
    }

    pub(super) fn exit_when_empty(&mut self, out: &mut Vec<Action>) {
        if !self.workers.is_empty() {
            return;
        }
        let reason = match std::mem::replace(&mut self.state, State::Exited) {
            State::Stopping { exit, .. } => exit,
            _ => ExitReason::LockedAndEmpty,
        };
        out.push(Action::Exit(reason));
    }
}
