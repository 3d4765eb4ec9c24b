//! A request for a restart, from its gate to its verdict: what the master prepares, adopts, activates and announces.

use serde_json::json;
use tracing::{error, info, warn};

use super::{Effects, Replace, audience, manager, micros, report, settings};
use crate::Happening;
use crate::preflight::{Prepared, Refused, Took};
use app_host_core::causes::chain;
use app_host_core::foreign;
use app_host_core::ids::{Generation, RequestId, Time};
use app_host_core::restart::{By, Event, Judged, Refusal, Verdict};
use app_host_core::status::{VerdictRecord, millis};

impl Effects {
    /// Takes note of a request before the machine sees it.
    pub(crate) fn requested(&mut self, request: RequestId, by: By, now: Time) {
        self.look_at_own_files(now);
        // Whoever rotates logs may have a restart for it, and who compresses the old one loses what comes later. Also
        // where the restart is refused.
        if self.logging.has_moved() || self.crew.access_log_has_moved() {
            self.reopen_logs();
        }
        info!(request = request.0, by = %by, "restart requested");
        self.audience.tell("restart requested", || json!({ "request": request, "by": by.to_string() }));
        self.requested.insert(request, (by, now));
    }

    /// Where a request of [`By::Rollback`] goes: to the last good generation before the active one, or to that
    /// whose version begins with these hexadecimal digits. Where there is none, the request is refused as
    /// `bad artifact` like any other.
    pub(crate) fn rolls_back_to(&mut self, request: RequestId, version: Option<String>) {
        self.rollbacks.insert(request, version);
    }

    /// What the preflight of this request looked at, if that alone can be the reason of a refusal.
    pub(crate) fn judged(&self, request: RequestId) -> Option<Judged> {
        self.judged.filter(|(judged, _)| *judged == request).map(|(_, judged)| judged)
    }

    /// Keeps what a preflight prepared, and makes an event of its outcome.
    pub(crate) fn preflight_ended(&mut self, request: RequestId, outcome: Result<(Prepared, Took), Refused>) -> Event {
        let awaited = self.checking.take().is_some();
        let judged = match &outcome {
            Err(refused) => refused.judged,
            // What can still be refused for itself is a setting.
            Ok((prepared, _)) => Some(Judged::Config(prepared.config_id)),
        };
        self.judged = judged.map(|judged| (request, judged));
        match outcome {
            Ok((prepared, took)) => {
                let settings = settings(&prepared);
                let active = self.active();
                let unchanged = prepared.is_as(active);
                // What was cancelled meanwhile must not keep its listeners open.
                self.prepared = awaited.then_some((prepared, took));
                Event::PreflightPassed { request, settings, unchanged }
            }
            Err(refused) => Event::PreflightRefused { request, refusal: refused.refusal },
        }
    }

    pub(super) fn start_preflight(&mut self, request: RequestId) {
        if self.requested.get(&request).is_some_and(|(by, _)| *by == By::Healing) {
            let event = self.prepare_same(request);
            self.follow_ups.push_back(event);
            return;
        }
        let (preflight, inbox) = (self.preflight.clone(), self.inbox.clone());
        let (running, magic) = (self.generations[&self.active].clone(), self.magic);
        let kept = match self
            .rollbacks
            .remove(&request)
            .map(|digits| self.book.ledger().earlier(digits.as_deref()).cloned())
        {
            None => None,
            Some(Ok(kept)) => Some(kept),
            Some(Err(error)) => {
                let refusal = Refusal::BadArtifact(error.to_string());
                self.follow_ups.push_back(Event::PreflightRefused { request, refusal });
                return;
            }
        };
        let ledger = self.book.ledger().clone();
        let task = tokio::task::spawn_local(async move {
            let outcome = Box::new(match kept {
                None => preflight.next(&running, magic, &ledger).await,
                Some(kept) => preflight.back_to(&kept, &running, magic, &ledger).await,
            });
            drop(running);
            // The loop has ended: nobody is interested any more.
            let _ = inbox.send(Happening::Preflight { request, outcome }).await;
        });
        self.checking = Some(task.abort_handle());
    }

    pub(super) fn cancel_preflight(&mut self) {
        if let Some(task) = self.checking.take() {
            task.abort();
        }
        self.prepared = None;
    }

    pub(super) fn adopt(&mut self, request: RequestId, generation: Generation) {
        let (prepared, took) = self.prepared.take().expect("a generation is adopted after its preflight passed");
        let active = &self.generations[&self.active];
        for (listener, address) in prepared.listeners.without(&active.listeners).addresses() {
            info!(listener, address, "listening");
        }
        for socket in prepared.listeners.left_over(&prepared.config) {
            warn!(socket, "no listener is for a passed socket any more: its clients wait in vain");
        }
        let manifest = &prepared.version.manifest;
        info!(
            request = request.0,
            generation = generation.0,
            version = prepared.version.id.short(),
            app = foreign::line(&manifest.app_name, foreign::MAX_NAME),
            app_version = foreign::line(&manifest.app_version, foreign::MAX_NAME),
            magic = %manifest.magic,
            copy_us = micros(took.copy),
            probe_us = micros(took.probe),
            "restart preflight passed"
        );
        self.audience.tell("restart preflight passed", || {
            json!({
                "request": request,
                "generation": generation,
                "version": prepared.version.id.short(),
                "app": manifest.app_name,
                "app_version": manifest.app_version,
            })
        });
        self.audience.begins(request);
        self.generations.insert(generation, prepared);
    }

    pub(super) fn activate(&mut self, generation: Generation) {
        let prepared = &self.generations[&generation];
        let Prepared { config, listeners, .. } = prepared;
        // What the master has started with has its settings already.
        if self.active != generation {
            // What was wanted holds until the configuration's own number changes.
            if config.workers != self.active().config.workers {
                self.scaled = None;
            }
            self.active = generation;
            listeners.apply_settings();
            if let Err(error) = self.logging.change(&config.log) {
                error!(error = chain(&error), "the log stays as it was");
            }
            if let Some(admin) = &prepared.admin {
                admin.apply_settings();
            }
        }
        self.book.activated(prepared);
        self.serve_metrics(Replace::IfChanged);
    }

    pub(super) fn announce(&mut self, request: RequestId, verdict: &Verdict, now: Time) {
        self.prepared = None;
        self.rollbacks.remove(&request);
        let (by, begin) = self.requested.remove(&request).expect("a verdict is on a request");
        let active = self.generations.get(&self.active);
        let took = now.saturating_sub(begin);
        self.tally.judged(request, verdict, now);
        report::log_verdict(request, by, verdict, took, self.active, active);
        manager::verdict(&self.notify, verdict, &self.serving(), self.active().config.restart.on_failure);
        let (reason, detail) = match verdict {
            Verdict::Complete { .. } => (None, None),
            Verdict::Refused(refusal) => (Some(refusal.reason()), Some(refusal.to_string())),
            Verdict::Failed(failure) => (Some(failure.reason()), Some(failure.to_string())),
        };
        self.audience.judged(VerdictRecord {
            request,
            by: by.to_string(),
            verdict: verdict.in_short(),
            unchanged: matches!(verdict, Verdict::Complete { unchanged: true, .. }),
            draining: match verdict {
                Verdict::Complete { draining, .. } => *draining,
                Verdict::Refused(_) | Verdict::Failed(_) => 0,
            },
            listeners_down: self.listeners_down(),
            reason: reason.map(str::to_owned),
            detail,
            generation: self.active,
            took_ms: millis(took),
            time: audience::now(),
        });
    }

    /// What serves, for people.
    pub(super) fn serving(&self) -> String {
        let active = self.active();
        let app = foreign::line(&active.version.manifest.app_name, foreign::MAX_NAME);
        let version = active.version.id.short();
        let workers = self.scaled.unwrap_or(active.config.workers);
        format!("generation {} of {app} serves, version {version}, {workers} workers", self.active.0)
    }

    /// Whether a request has no verdict yet.
    pub(crate) fn is_pending(&self, request: RequestId) -> bool {
        self.requested.contains_key(&request)
    }

    pub(super) fn prune(&self) {
        let mut keep = self.book.versions();
        keep.extend(self.generations.values().map(|prepared| prepared.version.id));
        let store = self.preflight.store.clone();
        // Jobs are done in turn, so this comes before the copy of the next preflight.
        self.preflight.desk.post(move || {
            if let Err(error) = store.prune(&keep) {
                warn!(error = %error, "old versions can't be removed");
            }
        });
    }
}
