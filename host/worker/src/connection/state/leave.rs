//! What a connection wants, and what is in its way: to stay, to move, to be parked, to announce its close.

use super::{Announce, ConnState, Ending, Goal, MAX_UNREAD, Obstacle, Stage};

impl ConnState {
    /// Why the connection can't leave now; `None` if it can.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        if !self.is_followed() {
            return Some(Obstacle::Protocol);
        }
        if self.in_flight() > 0 {
            return Some(Obstacle::InFlight);
        }
        match self.framing().unfinished_head() {
            None => Some(Obstacle::Position),
            Some(head) if head > MAX_UNREAD => Some(Obstacle::LongHead),
            Some(_) if self.unflushed.get() || self.flushed.get() != self.ended.get() => Some(Obstacle::Unflushed),
            Some(_) => None,
        }
    }

    /// Whether the connection may leave without a byte of a request: one with half a head is better served.
    pub(super) fn may_park(&self) -> bool {
        self.is_followed() && self.in_flight() == 0 && self.framing().unfinished_head() == Some(0)
    }

    /// A drain has begun, or changes how it ends connections.
    pub(super) fn on_drain(&self, ending: Ending) {
        match ending {
            Ending::HandOver => self.want_to(Goal::Move),
            Ending::Close => {
                self.want_to(Goal::Stay);
                self.announce.set(Announce::IfAlone);
            }
        }
    }

    /// Sets whether a connection of a worker that serves is kept: if not, its next response announces the close. An
    /// announcement for another reason stays.
    pub(super) fn keep_alive(&self, keeps: bool) {
        match (self.announce.get(), keeps) {
            (Announce::IfAlone, true) => self.announce.set(Announce::Never),
            (Announce::Never, false) => self.announce.set(Announce::IfAlone),
            _ => {}
        }
    }

    /// Sets the goal, unless HTTP has already been told that the connection leaves.
    pub(super) fn want_to(&self, goal: Goal) {
        if self.stage.get() != Stage::Left {
            self.goal.set(goal);
        }
    }
}
