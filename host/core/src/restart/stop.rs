//! The way out: a delay in which the service still serves, a graceful stop, a fast one, and the end when the last worker
//! has gone.
//!
//! The delay is for whoever sends clients, a load balancer: it needs a while to notice that no more should come, and
//! whoever it sends meanwhile is to be served. Nothing is spawned any more, and a restart in flight ends.

use std::time::Duration;

use super::machine::{Machine, State, Step};
use super::{Action, ExitReason, Failure, KillReason, Refusal, Report, Verdict};
use crate::ids::Generation;

impl Machine {
    pub(super) fn stop(&mut self, step: &mut Step) {
        let mut candidate = None;
        match &self.state {
            State::Stopping { .. } => return self.stop_at_once(step),
            State::StopDelayed { candidate, .. } => {
                let candidate = *candidate;
                return self.begin_stopping(ExitReason::Stopped, candidate, step);
            }
            State::Preflight { request, .. } => {
                let request = *request;
                step.act(Action::CancelPreflight { request });
                let verdict = Verdict::Refused(Refusal::Stopping);
                step.act(Action::Verdict { request, verdict });
            }
            State::Rolling(roll) => {
                let request = roll.request;
                let verdict = Verdict::Failed(Failure::Stopped);
                step.act(Action::Verdict { request, verdict });
                candidate = Some(roll.candidate);
            }
            State::Returning(rollback) => {
                // Why it failed is known already, and says more than that its end came early.
                let verdict = Verdict::Failed(rollback.failure.clone());
                step.act(Action::Verdict { request: rollback.request, verdict });
                candidate = Some(rollback.failed);
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
            self.state = State::StopDelayed { until: step.now.saturating_add(delay), candidate };
            step.report(Report::StopDelayed { delay });
            step.act(Action::AnnounceStop);
        } else {
            self.begin_stopping(ExitReason::Stopped, candidate, step);
        }
    }

    /// Stops when the delay is over, or when nobody serves any more who could.
    pub(super) fn advance_delay(&mut self, step: &mut Step) {
        self.discard_candidate(step);
        if let State::StopDelayed { until, candidate } = self.state
            && (until <= step.now || self.workers.is_empty())
        {
            self.begin_stopping(ExitReason::Stopped, candidate, step);
            self.exit_when_empty(step);
        }
    }

    pub(super) fn begin_stopping(&mut self, exit: ExitReason, candidate: Option<Generation>, step: &mut Step) {
        self.state = State::Stopping { exit, candidate };
        self.back_offs.clear();
        self.wish = None;
        step.report(Report::Stopping);
        // Listeners close first, so that new clients are refused at once, not queued and reset.
        step.act(Action::CloseListeners);
        for id in self.workers.ids() {
            self.drain(id, false, step);
        }
    }

    fn stop_at_once(&mut self, step: &mut Step) {
        step.report(Report::StoppingAtOnce);
        for id in self.workers.ids() {
            self.kill(id, KillReason::FastStop, step);
        }
    }

    /// Lets go of a failed or given-up candidate once its last worker has gone.
    pub(super) fn discard_candidate(&mut self, step: &mut Step) {
        if let State::Locked { candidate } | State::StopDelayed { candidate, .. } | State::Stopping { candidate, .. } =
            &mut self.state
            && let Some(generation) = *candidate
            && self.workers.of(generation).next().is_none()
        {
            *candidate = None;
            step.act(Action::Discard { generation });
        }
    }

    pub(super) fn exit_when_empty(&mut self, step: &mut Step) {
        if !self.workers.is_empty() {
            return;
        }
        let reason = match std::mem::replace(&mut self.state, State::Exited) {
            State::Stopping { exit, .. } => exit,
            _ => ExitReason::LockedAndEmpty,
        };
        step.act(Action::Exit(reason));
    }
}
