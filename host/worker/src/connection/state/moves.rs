//! Whether a connection of HTTP/2 goes to another worker, and what keeps it.

use app_host_core::config::Http2Restart;
use app_host_core::not_moved::NotMoved;

use super::cells::{Choice, Countable, Flag};
use super::{ConnState, Ending, Frames, Goal, Limits, Protocol, Stage};

/// Whether a connection of HTTP/2 may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// None does here.
    Never,
    May,
    /// This one can't, which is known.
    Refused,
}

/// What becomes of one connection of HTTP/2.
#[derive(Debug, Default)]
pub struct MoveState {
    moves: Choice<Moves>,
    /// What keeps it from that.
    in_the_way: Choice<NotMoved>,
    may_leave: Flag,
    /// HTTP is not yet where the client is.
    arrives: Flag,
}

impl ConnState {
    /// The same for a worker with these limits.
    #[must_use]
    pub fn with_moves(self, limits: &Limits) -> Self {
        if self.protocol == Protocol::Http2 && limits.http2 == Http2Restart::Move {
            self.moving.moves.set(Moves::May);
            if limits.stays {
                self.on_not_movable(NotMoved::SelfTest);
            }
        }
        self
    }

    /// The same for a connection of HTTP/2 that has come from another worker.
    #[must_use]
    pub fn arriving(self) -> Self {
        self.moving.arrives.set(true);
        Self { frames: Frames::between().into(), ..self }
    }

    /// Whether the connection may move.
    pub fn may_move(&self) -> bool {
        self.moving.moves.get() == Moves::May
    }

    /// Whether it goes to another worker as soon as it can.
    pub fn is_leaving(&self) -> bool {
        self.may_move() && self.goal.get() == Goal::Move
    }

    /// Whether HTTP is not yet where the client is.
    pub fn is_arriving(&self) -> bool {
        self.moving.arrives.get()
    }

    /// HTTP is where the client is.
    pub fn on_arrived(&self) {
        self.moving.arrives.set(false);
    }

    /// What is in the way now.
    pub fn on_in_the_way(&self, why: NotMoved) {
        if self.may_move() {
            self.moving.in_the_way.set(why);
        }
    }

    /// The connection can't move.
    pub fn on_not_movable(&self, why: NotMoved) {
        if self.may_move() {
            self.moving.in_the_way.set(why);
            self.moving.moves.set(Moves::Refused);
        }
    }

    /// Whether the connection may leave now.
    pub fn on_may_leave(&self, may: bool) {
        self.moving.may_leave.set(may);
    }

    /// HTTP waits. Returns whether the connection leaves now.
    pub fn takes_leave(&self) -> bool {
        let leaves = self.moving.may_leave.get() && self.is_leaving();
        if leaves {
            self.stage.set(Stage::Left);
        }
        leaves
    }

    /// Whether it has left.
    pub fn has_left(&self) -> bool {
        self.stage.get() == Stage::Left
    }

    /// The connection is told to go because the worker drains, instead of being moved. Returns why, once.
    pub fn take_not_moved(&self) -> Option<NotMoved> {
        let drains = self.moving.moves.get() != Moves::Never && self.dismissed.get();
        drains.then(|| {
            self.moving.moves.set(Moves::Never);
            self.moving.in_the_way.get()
        })
    }

    /// A drain has begun, or changes how it ends connections of HTTP/2.
    pub(super) fn on_http2_drain(&self, ending: Ending) {
        match ending {
            Ending::HandOver => self.want_to(Goal::Move),
            Ending::Close => {
                self.on_not_movable(NotMoved::NoSuccessor);
                self.want_to(Goal::Stay);
            }
        }
    }
}

impl Countable for Moves {
    const ALL: &'static [Self] = &[Self::Never, Self::May, Self::Refused];

    fn number(self) -> u8 {
        self as u8
    }
}

impl Countable for NotMoved {
    const ALL: &'static [Self] = Self::ALL;

    fn number(self) -> u8 {
        self as u8
    }
}
