//! Upgrades: what the app is offered with a request, until its response grants it and has gone out.

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::again::Again;
use super::shared::InFlight;
use super::tunnel::{Tunnel, lock};

/// The app's side of a requested upgrade. Dropping it changes nothing: the response decides.
pub struct Upgrade {
    protocol: String,
    tunnel: oneshot::Receiver<Tunnel>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[error("the app's answer granted no upgrade, or the client has gone")]
pub struct NotUpgraded;

impl Upgrade {
    /// Both sides of an upgrade to `protocol`, which HTTP/2 gives by name (RFC 8441).
    pub(super) fn requested(protocol: &str) -> (RequestedUpgrade, Self) {
        let (sender, receiver) = oneshot::channel();
        (RequestedUpgrade(sender), Self { protocol: protocol.to_owned(), tunnel: receiver })
    }

    /// The pseudo header `:protocol`, empty if there was none.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Waits for the tunnel, until the response that grants it has been sent. On any thread.
    pub async fn tunnel(self) -> Result<Tunnel, NotUpgraded> {
        self.tunnel.await.map_err(|_| NotUpgraded)
    }
}

/// The host's side of an [`Upgrade`], until the app answers.
pub(super) struct RequestedUpgrade(oneshot::Sender<Tunnel>);

impl RequestedUpgrade {
    /// The upgrade, once the app has granted it.
    pub(super) fn grant(self, mut in_flight: InFlight, again: Option<Again>) -> GrantedUpgrade {
        in_flight.stop_the_clock();
        GrantedUpgrade { tunnel: self.0, in_flight, again }
    }
}

/// An upgrade that the app has granted, while its response goes out.
pub(super) struct GrantedUpgrade {
    pub(super) tunnel: oneshot::Sender<Tunnel>,
    pub(super) in_flight: InFlight,
    /// What another worker is to ask, if the app lets one go on.
    pub(super) again: Option<Again>,
}

/// Where a granted upgrade waits for the response to be written.
#[derive(Clone, Default)]
pub(super) struct PendingUpgrade(Arc<Mutex<Option<GrantedUpgrade>>>);

impl PendingUpgrade {
    pub(super) fn set(&self, granted: GrantedUpgrade) {
        *lock(&self.0) = Some(granted);
    }

    pub(super) fn take(&self) -> Option<GrantedUpgrade> {
        lock(&self.0).take()
    }
}
