//! Where in the client's bytes a connection is, and what is wrong with them: what only HTTP/1 needs.

use std::sync::{MutexGuard, PoisonError};

use super::super::framing::{Fault, Framing};
use super::{Announce, ConnState, Protocol};

impl ConnState {
    /// HTTP gets these bytes, read just now or before. Returns whether the body of a request that it has handed out is
    /// malformed: then it must find an error instead, lest it take what it shouldn't.
    pub fn on_delivered(&self, bytes: &[u8]) -> bool {
        if !self.is_followed() {
            return false;
        }
        let mut framing = self.framing();
        framing.delivered(bytes);
        framing.body_fault().is_some()
    }

    /// HTTP has handed a request over, whose body has this length; `None` if its own bytes tell its end. Returns what is
    /// wrong with the request as far as it has come.
    pub fn on_request(&self, body: Option<u64>) -> Option<Fault> {
        self.begun.add(1);
        self.responding.set(false);
        if self.has_frames() {
            self.forgive_for_request();
        }
        if self.is_spent() {
            self.announce.set(Announce::Last);
        }
        if self.is_followed() { self.framing().request(body) } else { None }
    }

    /// What is wrong with the body of the request that HTTP has handed over last, as far as it has come.
    pub fn body_fault(&self) -> Option<Fault> {
        if self.is_followed() { self.framing().body_fault() } else { None }
    }

    /// Whether HTTP must not hear yet that the client has ended its side, because it would give up what is in flight: a
    /// client may end its side behind its last request (RFC 9112, section 9.6), and waits for the answer.
    pub fn hides_end(&self) -> bool {
        self.is_followed() && self.in_flight() > 0 && !self.framing().in_body()
    }

    /// Whether the client has ended its side and waits for an answer: or is gone, which looks the same until something is
    /// sent to it.
    pub(super) fn is_half_closed(&self) -> bool {
        self.client_ended.get() && self.is_followed() && self.in_flight() > 0
    }

    /// Whether HTTP closes the connection if the app has let go of the request's body: not all of it has come.
    pub fn is_body_unread(&self) -> bool {
        self.is_followed() && self.framing().in_body()
    }

    /// Whether the position in the stream is followed: only HTTP/1 needs it.
    pub(super) fn is_followed(&self) -> bool {
        self.protocol == Protocol::Http1 && !self.carried.get()
    }

    /// The position in the stream. A panic of another owner can't leave it half changed.
    pub(super) fn framing(&self) -> MutexGuard<'_, Framing> {
        self.framing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
