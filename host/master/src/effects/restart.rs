//! A request for a restart, from its gate to its verdict: what the master prepares, adopts, activates and announces.

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use app_host_core::command::Until;
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::ids::{Generation, RequestId, Time};
use app_host_core::restart::{By, Event, Judged, Refusal, Verdict};
use app_host_core::status::{VerdictRecord, millis};

use super::{Effects, Replace, event, micros, present, settings};
use crate::control::Reply;
use crate::facts::{self, Fact, Fields, Known};
use crate::preflight::{Prepared, Refused, Took};
use crate::requests::{Progress, Target};
use crate::{Input, systemd};

impl Effects {
    /// Takes note of a request; the machine is to see the event next.
    pub(crate) fn request(&mut self, by: By, target: Target, now: Time) -> Event {
        self.look_at_own_files(now);
        // Whoever rotates logs may have a restart for it, and who compresses the old one loses what comes later. Also
        // where the restart is refused.
        if self.logging.has_moved() || self.workers.access_log_has_moved() {
            self.reopen_logs();
        }
        let request = self.requests.add(by, target, now);
        let fields = Fields { request: Some(request.0), by: Some(by.as_str()), ..Fields::default() };
        self.tell(&Fact::info("restart requested", fields));
        Event::Request { request, by }
    }

    /// Has a client wait for what becomes of a request that has no verdict yet, or answers it.
    pub(crate) fn answer_when(&mut self, request: RequestId, until: Until, reply: oneshot::Sender<Reply>) {
        match self.requests.get_mut(request) {
            Some(pending) => pending.wait(until, reply),
            // The client may have gone.
            None => drop(reply.send(Reply::Answer(self.requests.verdict_on(request)))),
        }
    }

    /// What the preflight of this request looked at, if that alone can be the reason of a refusal.
    pub(crate) fn judged(&self, request: RequestId) -> Option<Judged> {
        self.requests.get(request)?.judged
    }

    /// Keeps what a preflight prepared, and makes an event of its outcome.
    pub(crate) fn preflight_ended(&mut self, request: RequestId, outcome: Result<(Prepared, Took), Refused>) -> Event {
        let judged = match &outcome {
            Err(refused) => refused.judged,
            // What can still be refused for itself is a setting.
            Ok((prepared, _)) => Some(Judged::Config(prepared.config_id)),
        };
        // Of one that was cancelled meanwhile nothing is kept.
        let pending = self.requests.get_mut(request).filter(|pending| matches!(pending.progress, Progress::Running(_)));
        match outcome {
            Ok(prepared) => {
                let settings = settings(&prepared.0);
                let unchanged = prepared.0.is_as(&self.generations[&self.active]);
                if let Some(pending) = pending {
                    pending.judged = judged;
                    pending.progress = Progress::Passed(Box::new(prepared));
                }
                Event::PreflightPassed { request, settings, unchanged }
            }
            Err(refused) => {
                if let Some(pending) = pending {
                    pending.judged = judged;
                    pending.progress = Progress::Idle;
                }
                Event::PreflightRefused { request, refusal: refused.refusal }
            }
        }
    }

    pub(super) fn start_preflight(&mut self, request: RequestId) {
        let target = self.requests.get(request).map(|pending| pending.target.clone());
        let kept = match target {
            Some(Target::Active) => {
                let event = self.prepare_same(request);
                self.follow_ups.push_back(event);
                return;
            }
            Some(Target::Earlier(digits)) => match self.history.current().earlier(digits.as_deref()) {
                Ok(kept) => Some(kept.clone()),
                Err(error) => {
                    let refusal = Refusal::BadArtifact(error.to_string());
                    self.follow_ups.push_back(Event::PreflightRefused { request, refusal });
                    return;
                }
            },
            Some(Target::Configured) | None => None,
        };
        let (preflight, inbox) = (self.preflight.clone(), self.inbox.clone());
        let (running, magic) = (self.generations[&self.active].clone(), self.magic);
        let history = self.history.current().clone();
        let task = tokio::task::spawn_local(async move {
            let outcome = Box::new(match kept {
                None => preflight.next(&running, magic, &history).await,
                Some(kept) => preflight.back_to(&kept, &running, magic, &history).await,
            });
            drop(running);
            // The loop has ended: nobody is interested any more.
            let _ = inbox.send(Input::Preflight { request, outcome }).await;
        });
        if let Some(pending) = self.requests.get_mut(request) {
            pending.progress = Progress::Running(task.abort_handle());
        }
    }

    pub(super) fn cancel_preflight(&mut self, request: RequestId) {
        if let Some(pending) = self.requests.get_mut(request) {
            pending.cancel();
        }
    }

    pub(super) fn adopt(&mut self, request: RequestId, generation: Generation) {
        let pending = self.requests.get_mut(request).expect("what is adopted has no verdict yet");
        let (prepared, took) = pending.take_prepared().expect("a generation is adopted after its preflight passed");
        let active = &self.generations[&self.active];
        for (listener, address) in prepared.listeners.without(&active.listeners).addresses() {
            info!(listener, address, "listening");
        }
        for socket in prepared.listeners.left_over(&prepared.config) {
            warn!(socket, "no listener is for a passed socket any more: its clients get no answer");
        }
        let manifest = &prepared.version.manifest;
        let name = |text: &str| Some(foreign::line(text, foreign::MAX_NAME));
        let fields = Fields {
            request: Some(request.0),
            generation: Some(generation.0),
            version: Some(prepared.version.id.short()),
            app: name(&manifest.app_name),
            app_version: name(&manifest.app_version),
            magic: Some(manifest.magic.to_string()),
            copy_us: Some(micros(took.copy)),
            probe_us: Some(micros(took.probe)),
            ..Fields::default()
        };
        self.tell(&Fact::info("restart preflight passed", fields));
        if let Some(pending) = self.requests.get_mut(request) {
            pending.begins();
        }
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
        self.history.activated(prepared);
        self.serve_metrics(Replace::IfChanged);
        self.look_at_certificates();
    }

    pub(super) fn announce(&mut self, request: RequestId, verdict: &Verdict, now: Time) {
        let mut pending = self.requests.take(request);
        pending.cancel();
        let took = now.saturating_sub(pending.since);
        self.tally.judged(request, verdict, now);
        let (reason, detail) = match verdict {
            Verdict::Complete { .. } => (None, None),
            Verdict::Refused(refusal) => (Some(refusal.reason()), Some(refusal.to_string())),
            Verdict::Failed(failure) => (Some(failure.reason()), Some(failure.to_string())),
        };
        let record = VerdictRecord {
            request,
            by: pending.by.to_string(),
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
            time: present(),
        };
        let known = Known { active: self.names(), ..Known::default() };
        facts::verdict(&record, verdict, pending.by.as_str(), &known).log();
        let on_failure = self.active().config.restart.on_failure;
        systemd::reports::verdict(&self.systemd, verdict, &self.serving(), on_failure);
        self.events.tell(|| event("verdict", &record));
        self.requests.judged(pending, record);
    }

    /// What serves, for people.
    pub(super) fn serving(&self) -> String {
        let active = self.active();
        let app = foreign::line(&active.version.manifest.app_name, foreign::MAX_NAME);
        let version = active.version.id.short();
        let workers = self.scaled.unwrap_or(active.config.workers);
        format!("generation {} of {app} serves, version {version}, {workers} workers", self.active.0)
    }

    pub(super) fn prune(&self) {
        let mut keep = self.history.versions();
        keep.extend(self.generations.values().map(|prepared| prepared.version.id));
        let store = self.preflight.store.clone();
        // Jobs are done in turn, so this comes before the copy of the next preflight.
        self.preflight.disk.post(move || {
            if let Err(error) = store.prune(&keep) {
                warn!(error = %error, "old versions can't be removed");
            }
        });
    }
}
