//! The values of the state machine: its goals, the facts that it gets and the decisions that it returns.

use super::cells::Countable;

/// Where a connection is to be as soon as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Here.
    Stay,
    /// At another worker.
    Move,
    /// Parked: it has been idle for so long that it needs no task, timers and buffers until something comes.
    Park,
}

/// Why a connection can't leave yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The protocol has a state that can't be transferred.
    Protocol,
    /// A request is in flight.
    InFlight,
    /// It is neither between two requests nor in a head, or the position is not known.
    Position,
    /// It is in a head that is too long to be transferred.
    LongHead,
    /// A response has not gone out in full. Nothing else is in the way.
    Unflushed,
}

/// Whether the worker drains, and what becomes of a response that may go on elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drains {
    No,
    /// Another worker may go on with it.
    HandOver,
    /// It ends here.
    Close,
}

/// How far the connection's first request is, if another worker has answered it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It is no such request.
    None,
    /// It has not come yet.
    Awaited,
    /// The app has it.
    Asked,
    /// The app has answered it as the one before did: the client has had the head.
    Granted,
}

/// Which of the next HTTP/1 responses announce the close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// None.
    Never,
    /// The first that has no further request behind the one that it answers.
    IfAlone,
    /// The next, because the worker drains or the connection has been idle for too long.
    Always,
    /// The next, which is the last that the client gets here, whatever the worker does.
    Last,
}

/// How far the connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is read and written.
    Open,
    /// A read waits for a flush.
    Held,
    /// HTTP was told the end of the stream, and returns the connection.
    Left,
    /// It is being closed, which has a time-out of its own.
    Closing,
}

/// What the transport does when HTTP wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// It reads.
    On,
    /// It waits.
    Wait,
    /// It waits for the next turn, and sees to it that there is one: others have theirs first.
    Later,
    /// The same, but the next turn comes after [`REST`](super::REST): it has sent too much of what only makes work.
    Rest,
    /// It finds the end of the stream, so that HTTP returns the connection.
    End,
}

/// What a read has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The end of the client's side.
    End,
}

/// What the transport does when HTTP wants to shut it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing: the connection goes on in another worker, or is parked.
    Leave,
    /// It is closed at once.
    Close,
    /// The end of our side is sent, and the client's is read for a little.
    Linger,
}

/// How HTTP ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// As it should.
    Done,
    /// By an error.
    Failed,
    /// It did not: the driver has given up.
    GivenUp,
}

/// What happens to a connection that HTTP is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It has been closed, or is by being dropped.
    Close,
    /// It leaves, if HTTP returns a head of this many bytes.
    Leave { to: Goal, head: usize },
    /// It is no HTTP any more: a tunnel if the app has granted one, and then a lingering close.
    Carry,
}

impl Countable for Goal {
    const ALL: &'static [Self] = &[Self::Stay, Self::Move, Self::Park];

    fn number(self) -> u8 {
        self as u8
    }
}

impl Countable for Drains {
    const ALL: &'static [Self] = &[Self::No, Self::HandOver, Self::Close];

    fn number(self) -> u8 {
        self as u8
    }
}

impl Countable for Replay {
    const ALL: &'static [Self] = &[Self::None, Self::Awaited, Self::Asked, Self::Granted];

    fn number(self) -> u8 {
        self as u8
    }
}

impl Countable for Stage {
    const ALL: &'static [Self] = &[Self::Open, Self::Held, Self::Left, Self::Closing];

    fn number(self) -> u8 {
        self as u8
    }
}

impl Countable for Announce {
    const ALL: &'static [Self] = &[Self::Never, Self::IfAlone, Self::Always, Self::Last];

    fn number(self) -> u8 {
        self as u8
    }
}
