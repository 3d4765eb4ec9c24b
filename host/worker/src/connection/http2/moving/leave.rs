//! How a connection leaves: which step is next.
//!
//! ```text
//! Stays ── is to leave ──▶ Told ── acknowledged ──▶ Waits ── 50 ms without a gap ──▶ Holds ── 100 ms ──▶ refused
//!   ▲                       │                        │ ▲ └─ an older stream is open ─┐ │
//!   └── is to stay ─────────┴────────────────────────┴─│────────────────────────────│─┘
//!                                                      └────────────────────────────┘
//! ```
//! In `Waits` and `Holds` it leaves as soon as no stream is open. Pure: the time is an argument.

use std::time::{Duration, Instant};

use app_host_core::not_moved::NotMoved;

use super::observer::Observer;

/// For how long a gap between streams is waited for before new ones are held back.
const WAIT: Duration = Duration::from_millis(50);

/// For how long it is waited for at a time where there was none, at most.
const LONGEST_WAIT: Duration = Duration::from_millis(800);

/// For how long new ones are held back, at most.
const HOLD: Duration = Duration::from_millis(100);

/// How many times a connection moves: each time, HTTP forgets what its client has done to it.
const MOST_MOVES: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaveStage {
    Stays,
    /// The client has been told to give up its table.
    Told,
    /// A gap is waited for. `mark` was the last stream when that began.
    Waits {
        until: Instant,
        wait: Duration,
        mark: u32,
    },
    /// New streams are held back.
    Holds {
        until: Instant,
    },
    Refused,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveStep {
    Nothing,
    /// The client is told to give up its table, and acknowledges that.
    Tell,
    /// New streams are held back.
    Hold,
    /// Nothing is held back any more.
    Release,
    /// The same, and the connection does not move.
    Refuse(NotMoved),
}

/// One connection's way out.
#[derive(Debug)]
pub struct Leave(LeaveStage);

impl Leave {
    pub const fn new() -> Self {
        Self(LeaveStage::Stays)
    }

    /// Whether it has not begun to leave.
    pub fn stays(&self) -> bool {
        self.0 == LeaveStage::Stays
    }

    /// Whether what comes in is sorted.
    pub const fn sorts(&self) -> bool {
        matches!(self.0, LeaveStage::Told | LeaveStage::Waits { .. } | LeaveStage::Holds { .. })
    }

    /// Whether it leaves as soon as nothing is open.
    pub const fn may_end(&self) -> bool {
        matches!(self.0, LeaveStage::Waits { .. } | LeaveStage::Holds { .. })
    }

    /// When the next step is due, if nothing happens.
    pub const fn due(&self) -> Option<Instant> {
        match self.0 {
            LeaveStage::Waits { until, .. } | LeaveStage::Holds { until } => Some(until),
            LeaveStage::Stays | LeaveStage::Told | LeaveStage::Refused => None,
        }
    }

    /// What is in the way now.
    pub fn in_the_way(&self, observer: &Observer) -> NotMoved {
        if self.may_end() && observer.has_open(u32::MAX) { NotMoved::Streams } else { NotMoved::Settings }
    }

    /// Does not move, for a reason that was found elsewhere.
    pub const fn refuse(&mut self) {
        self.0 = LeaveStage::Refused;
    }

    /// What is next at `now`, if the connection `is_to_leave`. `may_tell` says whether the client can be told something
    /// now, `is_acknowledged` that it has acknowledged all that it was told.
    pub fn step(
        &mut self,
        observer: &Observer,
        is_to_leave: bool,
        (may_tell, is_acknowledged): (bool, bool),
        now: Instant,
    ) -> LeaveStep {
        if self.0 == LeaveStage::Refused {
            return LeaveStep::Nothing;
        }
        if !is_to_leave {
            let was = std::mem::replace(&mut self.0, LeaveStage::Stays);
            return if was == LeaveStage::Stays { LeaveStep::Nothing } else { LeaveStep::Release };
        }
        let spent = (observer.moves() >= MOST_MOVES).then_some(NotMoved::Moves);
        if let Some(why) = observer.never().or(spent) {
            self.0 = LeaveStage::Refused;
            return LeaveStep::Refuse(why);
        }
        let waits = |wait| LeaveStage::Waits { until: now + wait, wait, mark: observer.last() };
        match self.0 {
            LeaveStage::Stays if may_tell => {
                self.0 = LeaveStage::Told;
                return LeaveStep::Tell;
            }
            LeaveStage::Told if is_acknowledged => self.0 = waits(WAIT),
            // A stream that we have reset since is closed when the client knows it.
            LeaveStage::Waits { .. } | LeaveStage::Holds { .. } if observer.has_reset() && may_tell => {
                return LeaveStep::Tell;
            }
            // One that is older would keep the others waiting for long; and where none is open, it is none of them that is
            // waited for.
            LeaveStage::Waits { until, wait, mark }
                if now >= until && (observer.has_open(mark) || !observer.has_open(u32::MAX)) =>
            {
                self.0 = waits((wait * 2).min(LONGEST_WAIT));
            }
            LeaveStage::Waits { until, .. } if now >= until => {
                self.0 = LeaveStage::Holds { until: now + HOLD };
                return LeaveStep::Hold;
            }
            LeaveStage::Holds { until } if now >= until => {
                self.0 = LeaveStage::Refused;
                return LeaveStep::Refuse(NotMoved::Streams);
            }
            _ => {}
        }
        LeaveStep::Nothing
    }
}
