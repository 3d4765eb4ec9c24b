//! Whose the machine is: many tests' at a time, or one's alone.
//!
//! Most tests wait most of the time, and run beside each other. Some take all that the machine has, measure it, or
//! change limits of the test process itself: they would disturb the others, as these would disturb them. Such a test is
//! [`alone`]. Whatever starts processes is [`beside`] others, which every [`Host`](crate::Host) is by itself.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// A turn of a thread. It ends when this is dropped, on whichever thread.
#[derive(Debug)]
pub struct Turn {
    of: ThreadId,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Alone,
    Beside,
}

struct Turns {
    alone: Option<ThreadId>,
    /// How many wait to be alone; nobody begins beside others meanwhile.
    waiting: usize,
    /// One for each turn.
    beside: Vec<ThreadId>,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { alone: None, waiting: 0, beside: Vec::new() });
static CHANGED: Condvar = Condvar::new();

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no test is alone. Whoever has a turn already gets another at once.
pub fn beside() -> Turn {
    let of = thread::current().id();
    let has_to_wait = |turns: &mut Turns| {
        let has_a_turn = turns.alone == Some(of) || turns.beside.contains(&of);
        !has_a_turn && (turns.alone.is_some() || turns.waiting > 0)
    };
    let mut turns = CHANGED.wait_while(turns(), has_to_wait).unwrap_or_else(PoisonError::into_inner);
    turns.beside.push(of);
    Turn { of, kind: Kind::Beside }
}

/// Waits until no other test runs.
///
/// # Panics
/// When this thread has a turn beside others: it would wait for itself.
pub fn alone() -> Turn {
    let of = thread::current().id();
    let mut turns = turns();
    assert!(!turns.beside.contains(&of), "a test is alone before it has a host");
    turns.waiting += 1;
    let is_crowded = |turns: &mut Turns| turns.alone.is_some() || !turns.beside.is_empty();
    let mut turns = CHANGED.wait_while(turns, is_crowded).unwrap_or_else(PoisonError::into_inner);
    turns.waiting -= 1;
    turns.alone = Some(of);
    Turn { of, kind: Kind::Alone }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = turns();
        match self.kind {
            Kind::Alone => turns.alone = None,
            Kind::Beside => {
                if let Some(place) = turns.beside.iter().position(|it| *it == self.of) {
                    turns.beside.swap_remove(place);
                }
            }
        }
        drop(turns);
        CHANGED.notify_all();
    }
}
