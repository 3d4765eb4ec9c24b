//! Listeners that were shut down: what can be seen and done about them with all that a master holds.

use tracing::warn;

use super::{Effects, Replace, settings};
use crate::causes::chain;
use crate::ids::RequestId;
use crate::listeners::{Listeners, Loopback, ShutDown};
use crate::preflight::{Prepared, Took};
use crate::restart::{Event, Refusal};

impl Effects {
    /// The names of the active generation's listeners that somebody has shut down.
    pub(in crate::master) fn listeners_down(&self) -> Vec<String> {
        let active = self.active();
        let admin = active.admin.as_ref().filter(|admin| !admin.is_open()).map(|_| "admin".to_owned());
        active.listeners.shut_down().map(str::to_owned).chain(admin).collect()
    }

    /// Takes note that one was.
    pub(in crate::master) fn shut_down_seen(&mut self) {
        self.tally.listener_shut_down();
    }

    /// Has those listen again that can, without a worker being touched; says what else is to be done.
    pub(in crate::master) fn heal_listeners(&mut self) -> Vec<ShutDown> {
        let active = self.generations.get_mut(&self.active).expect("the active generation exists");
        let found = active.listeners.heal();
        if let Some(admin) = active.admin.as_ref().filter(|admin| !admin.is_open()) {
            match admin.healed() {
                Ok(healed) => {
                    active.admin = Some(healed);
                    self.serve_metrics(Replace::Anyway);
                }
                Err(error) => warn!(error = chain(&error), "metrics can't be served"),
            }
        }
        found
    }

    /// What is active once more, as it is but for listeners that were shut down.
    pub(super) fn prepare_same(&mut self, request: RequestId) -> Event {
        let active = self.active();
        // All of them are bound: nothing has to be resolved.
        match Listeners::bind(&active.config, &active.listeners, &Loopback::default()) {
            Ok(listeners) => {
                let prepared = Prepared { listeners, ..active.clone() };
                let settings = settings(&prepared);
                self.prepared = Some((prepared, Took::default()));
                Event::PreflightPassed { request, settings, unchanged: true }
            }
            Err(error) => Event::PreflightRefused { request, refusal: Refusal::CannotBind(chain(&error)) },
        }
    }
}
