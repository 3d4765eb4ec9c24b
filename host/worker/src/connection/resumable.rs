//! WebSockets that another worker may go on with.
//!
//! Between two messages in either direction the app finds the end of its stream; when it has let go, the client's request is
//! asked once more elsewhere, and its answer is [swallowed](super::transport). Pure: what is written and read is told.

use bytes::Bytes;

use app_host_core::not_resumed::NotResumed;

use super::again::Again;
use super::messages::Messages;
use super::state::MAX_UNREAD;

/// One WebSocket, in the app's hands.
pub(super) struct Resumable {
    again: Again,
    incoming: Messages,
    outgoing: Messages,
    hold: Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It is the app's.
    Held,
    /// The app is to let go of it when it can.
    Wanted,
    /// The app has been told the end of its stream, which can't be taken back.
    Told,
    /// One side has ended it, or it is broken.
    Over,
}

impl Resumable {
    pub(super) fn new(again: Again) -> Self {
        let messages = || Messages::new(again == Err(NotResumed::Extension));
        let (incoming, outgoing) = (messages(), messages());
        Self { again, incoming, outgoing, hold: Hold::Held }
    }

    /// What another worker is to ask, or why none can.
    pub(super) fn into_again(self) -> Again {
        self.again
    }

    /// The app is to let go, or no longer.
    pub(super) fn want(&mut self, leaves: bool) {
        self.hold = match self.hold {
            Hold::Held | Hold::Wanted if leaves => Hold::Wanted,
            Hold::Held | Hold::Wanted => Hold::Held,
            told_or_over => told_or_over,
        };
    }

    /// Whether it could leave, now or behind the next message.
    fn can(&self) -> bool {
        matches!(self.hold, Hold::Wanted | Hold::Told) && !self.outgoing.is_over()
    }

    /// Whether the app finds the end of its stream, with so many bytes unread behind it.
    pub(super) fn is_ended(&self, unread: usize) -> bool {
        self.can() && self.incoming.is_between() && self.again.as_ref().map_or(0, Bytes::len) + unread <= MAX_UNREAD
    }

    /// The app finds it.
    pub(super) fn on_told(&mut self) {
        self.hold = Hold::Told;
    }

    /// How many of these bytes of the client's the app gets.
    pub(super) fn on_received(&mut self, bytes: &[u8]) -> usize {
        let stops = self.can();
        let taken = self.incoming.follow(bytes, stops);
        // At the end of a message with more behind it than can travel, the app gets the next one.
        if taken == 0 { self.incoming.follow(bytes, false) } else { taken }
    }

    /// The app has sent these.
    pub(super) fn on_sent(&mut self, bytes: &[u8]) {
        self.outgoing.follow(bytes, false);
    }

    /// One side has ended it, or it is broken.
    pub(super) fn on_over(&mut self) {
        self.hold = Hold::Over;
    }

    /// Whether one side has begun to close it, or it is broken.
    pub(super) fn is_over(&self) -> bool {
        self.hold == Hold::Over || self.incoming.is_over() || self.outgoing.is_over()
    }

    /// Whether the app was told, and has let go where it may be gone on with.
    pub(super) fn may_leave(&self) -> bool {
        self.hold == Hold::Told && self.incoming.is_between() && self.outgoing.is_between()
    }
}
