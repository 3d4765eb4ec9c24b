//! Listeners that were harmed: what can be seen and done about them with all that a master holds.

use app_host_core::error::chain;
use app_host_core::ids::RequestId;
use app_host_core::restart::{Event, Refusal};

use super::{Effects, Replace, settings};
use crate::listeners::{AdminListener, Damage};
use crate::preflight::{Prepared, Took};
use crate::requests::Progress;

impl Effects {
    /// The names of the active generation's listeners that turn clients away, because a process has harmed them.
    pub(crate) fn listeners_down(&self) -> Vec<String> {
        let active = self.active();
        let admin = active.admin.as_ref().filter(|admin| !admin.is_whole()).map(|_| "admin".to_owned());
        active.listeners.harmed().map(str::to_owned).chain(admin).collect()
    }

    /// Takes note that one was harmed.
    pub(crate) fn harm_seen(&mut self) {
        self.tally.listener_harmed();
    }

    /// Repairs those that can be, without a worker being touched; says what else is to be done.
    pub(crate) fn heal_listeners(&mut self) -> Vec<Damage> {
        let active = self.generations.get_mut(&self.active).expect("the active generation exists");
        let mut found = active.listeners.heal();
        if let Some((damage, healed)) = active.admin.as_ref().and_then(AdminListener::heal) {
            found.push(damage);
            if healed.is_some() {
                active.admin = healed;
                self.serve_metrics(Replace::Anyway);
            }
        }
        found
    }

    /// What is active once more, as it is but for listeners that were harmed.
    pub(super) fn prepare_same(&mut self, request: RequestId) -> Event {
        let active = self.active();
        match active.listeners.healed() {
            Ok(listeners) => {
                let prepared = Prepared { listeners, ..active.clone() };
                let settings = settings(&prepared);
                if let Some(pending) = self.requests.get_mut(request) {
                    pending.progress = Progress::Passed(Box::new((prepared, Took::default())));
                }
                Event::PreflightPassed { request, settings, unchanged: true }
            }
            Err(error) => Event::PreflightRefused { request, refusal: Refusal::CannotBind(chain(&error)) },
        }
    }
}
