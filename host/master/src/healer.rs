//! The healer: looks whether the listeners let clients in, and has the effects and the policy do something about it.
//!
//! Owns what was last seen, so that it is said once. When something is tried is `restart`'s to say, how a listener
//! is repaired the listeners'.

use std::time::Duration;

use tracing::{error, info, warn};

use app_host_core::ids::{RequestId, Time};
use app_host_core::restart::{Healing, Phase, Verdict};

use super::effects::Effects;
use crate::listeners::{Damage, Harm, Remedy};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Healer {
    policy: Healing,
    next: Time,
    /// The names of the listeners that were harmed at the last look.
    known: Vec<String>,
}

impl Healer {
    pub(super) fn new() -> Self {
        Self { policy: Healing::default(), next: EVERY, known: Vec::new() }
    }

    /// When the next look is due.
    pub(super) const fn looks_at(&self) -> Time {
        self.next
    }

    /// Looks, and repairs what can be repaired.
    pub(super) fn look(&mut self, effects: &mut Effects, now: Time) {
        self.next = now.saturating_add(EVERY);
        let down = effects.listeners_down();
        if !down.is_empty() {
            let found = effects.heal_listeners();
            if found.iter().any(|it| it.remedy == Remedy::NewWorkers) {
                self.policy.found();
            }
            for Damage { name, address, harm, remedy } in &found {
                let is_new = !self.known.contains(name);
                if is_new {
                    effects.harm_seen();
                    tell_harm(name, address, harm);
                }
                if is_new || *remedy == Remedy::Revived {
                    tell_remedy(name, address, remedy);
                }
            }
        }
        self.known = effects.listeners_down();
    }

    /// Whether a restart of what is active is to be asked for now.
    pub(super) fn asks(&self, phase: Phase, now: Time) -> bool {
        self.policy.asks(phase, now)
    }

    /// When [`asks`](Self::asks) is to be looked at next.
    pub(super) fn deadline(&self, phase: Phase) -> Option<Time> {
        self.policy.deadline(phase)
    }

    pub(super) fn asked(&mut self, request: RequestId, now: Time) {
        self.policy.asked(request, now);
    }

    pub(super) fn verdict(&mut self, request: RequestId, verdict: &Verdict) {
        self.policy.verdict(request, verdict);
        if matches!(verdict, Verdict::Complete { .. }) {
            // What is harmed from now on is new.
            self.known.clear();
        }
    }
}

fn tell_harm(listener: &str, address: &str, harm: &Harm) {
    match harm {
        Harm::ShutDown => {
            error!(listener, address, "a listener was shut down by a process that has it: its clients are refused");
        }
        Harm::FileGone => {
            error!(listener, address, "a listener's file was removed or replaced: its clients can't connect");
        }
        Harm::Changed(options) => {
            let options = options.join(", ");
            error!(listener, address, options, "a listener's options were changed: it may turn clients away");
        }
    }
}

fn tell_remedy(listener: &str, address: &str, remedy: &Remedy) {
    match remedy {
        Remedy::Revived => info!(listener, address, "listening again"),
        Remedy::NewWorkers => warn!(listener, address, "only new workers can accept on a listener"),
        Remedy::Manager => {
            let hint = "restart its socket unit, and then the service";
            error!(listener, address, hint, "a passed socket can't be made to listen again");
        }
        Remedy::NextLook(error) => {
            warn!(listener, address, error, "a listener can't be bound anew yet: that is tried each second");
        }
    }
}
