//! What a client owes: bytes of a body that the app waits for, or room for what it has asked for.

use std::sync::atomic::Ordering::Relaxed;

use app_host_core::refused::Refused;

use super::{ConnState, Protocol};

impl ConnState {
    /// The transport has found room for what goes out, or none.
    pub fn on_write_blocked(&self, blocked: bool) {
        self.write_blocked.set(blocked);
    }

    /// HTTP has something of a response that the client must take before more is asked of the app; or no longer has.
    pub fn on_untaken(&self, untaken: bool) {
        self.untaken.add(if untaken { 1 } else { u64::MAX });
    }

    /// The response to a request in flight has begun, or the request is no longer in flight.
    pub fn on_streaming(&self, streams: bool) {
        self.streaming.add(if streams { 1 } else { u64::MAX });
    }

    /// Whether nothing can go on before the client takes or gives something: it reads nothing of what is written, or every
    /// request in flight waits for it. An app that computes is waited for, and so is a tunnel, whose silence may be all
    /// that its protocol has to say. On HTTP/2 that goes for the body of a request whose response has begun, too: both sides
    /// of such a stream speak when they like.
    pub(super) fn client_owes(&self) -> bool {
        if self.carried.get() {
            return false;
        }
        let speaks = self.protocol == Protocol::Http2 && self.streaming.get() > 0;
        let awaited = self.is_body_missing() && !speaks;
        let bodies = if awaited { u64::from(self.bodies_awaited.load(Relaxed)) } else { 0 };
        let in_flight = self.in_flight();
        self.write_blocked.get() || (in_flight > 0 && self.untaken.get().saturating_add(bodies) >= in_flight)
    }

    /// Why a client is refused that [owes](Self::client_owes) something for too long.
    pub(super) fn owed(&self) -> Refused {
        if self.is_body_missing() && !self.write_blocked.get() {
            Refused::BodyTimedOut
        } else {
            Refused::ResponseTimedOut
        }
    }

    /// Whether a request in flight waits for bytes of the client.
    fn is_body_missing(&self) -> bool {
        self.bodies_awaited.load(Relaxed) > 0 && self.read_pending.get()
    }
}
