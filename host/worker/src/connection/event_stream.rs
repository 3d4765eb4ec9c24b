//! Event streams that another worker may go on with.
//!
//! Between two events the app's body is dropped, and the client's request is asked once more elsewhere, with the id of the
//! last event (`Last-Event-ID`); the head of its answer is [swallowed](super::transport), and its events follow. Where nobody
//! can be asked the stream ends there, and its client comes back by itself. Pure: what goes out is told.

use bytes::Bytes;

use app_host_core::not_resumed::NotResumed;

use super::again::StreamHead;
use super::events::Events;
use super::state::Drains;

/// One event stream that its app lets go on.
pub(super) struct EventStream {
    head: StreamHead,
    events: Events,
}

/// What becomes of an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// The app has more to say here.
    Stays,
    /// Another worker goes on, and asks this.
    Leaves(Bytes),
    /// It ends here.
    Ends(NotResumed),
}

impl EventStream {
    /// One that begins, or whose begin the client has had already.
    pub(super) fn new(mut head: StreamHead, goes_on: bool) -> Self {
        let events = Events::after(std::mem::take(&mut head.last_event_id), !goes_on);
        Self { head, events }
    }

    /// These bytes are on their way to the client.
    pub(super) fn on_sent(&mut self, bytes: &[u8]) {
        self.events.follow(bytes);
    }

    /// What becomes of it now. Once it no longer stays, that is not asked again.
    pub(super) fn course(&mut self, drains: Drains) -> Course {
        if drains == Drains::No || !self.events.is_between() {
            return Course::Stays;
        }
        if drains == Drains::Close {
            return Course::Ends(NotResumed::NoSuccessor);
        }
        self.head.after(self.events.last_id()).map_or_else(Course::Ends, Course::Leaves)
    }
}
