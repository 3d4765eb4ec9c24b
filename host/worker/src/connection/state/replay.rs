//! What goes on elsewhere, and what came here to go on: responses that never end, and requests that were answered before.

use super::cells::Choice;
use super::{ConnState, Drains, Ending, Phase, Replay};

/// What a connection knows of going on.
#[derive(Debug, Default)]
pub(super) struct GoingOn {
    drains: Choice<Drains>,
    replay: Choice<Replay>,
    /// The response that is being sent goes on elsewhere, from where it is now.
    let_go: super::Flag,
}

impl ConnState {
    /// The same for a connection whose first request another worker has answered before.
    #[must_use]
    pub fn replaying(self) -> Self {
        self.going_on.replay.set(Replay::Awaited);
        self
    }

    /// The worker's phase is new.
    pub(super) fn on_going_on(&self, phase: Phase) {
        self.going_on.drains.set(match phase {
            Phase::Serving => Drains::No,
            Phase::Draining { ending: Ending::HandOver, .. } => Drains::HandOver,
            Phase::Draining { ending: Ending::Close, .. } | Phase::Cut => Drains::Close,
        });
    }

    /// What becomes of a response that may go on elsewhere.
    pub fn drains(&self) -> Drains {
        self.going_on.drains.get()
    }

    /// A request has come. Returns whether another worker has answered it before.
    pub fn on_replay(&self) -> bool {
        let is_one = self.going_on.replay.get() == Replay::Awaited;
        if is_one {
            self.going_on.replay.set(Replay::Asked);
        }
        is_one
    }

    /// The app has answered such a request as the one before did.
    pub fn on_granted_again(&self) {
        self.going_on.replay.set(Replay::Granted);
    }

    /// Whether it has.
    pub fn is_granted_again(&self) -> bool {
        self.going_on.replay.get() == Replay::Granted
    }

    /// Whether such a request has come, or is to come, and the app has not answered it so.
    pub fn awaits_grant(&self) -> bool {
        matches!(self.going_on.replay.get(), Replay::Awaited | Replay::Asked)
    }

    /// Whether the client has ended its side.
    pub fn has_client_ended(&self) -> bool {
        self.client_ended.get()
    }

    /// The response that is being sent goes on elsewhere.
    pub fn on_let_go(&self) {
        self.going_on.let_go.set(true);
    }

    /// Whether it does, and all of it that comes from here has gone out. To be asked when HTTP has nothing to do.
    pub fn has_let_go(&self) -> bool {
        self.going_on.let_go.get() && self.is_flushed()
    }
}
