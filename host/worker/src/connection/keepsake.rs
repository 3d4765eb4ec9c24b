//! What the handler of a connection that goes on elsewhere leaves for the next one.

use std::sync::{Arc, Mutex};

use super::tunnel::lock;

/// What was left: it travels with the connection.
pub type Legacy = Option<Arc<[u8]>>;

/// What one handler has found, and leaves. Used on any thread.
pub struct Keepsake {
    found: Legacy,
    left: Mutex<Open>,
}

/// What is left so far, while something may be.
struct Open {
    left: Legacy,
    is_open: bool,
}

impl Keepsake {
    /// The place of a handler that has found this. Unless it leaves something else, the next one finds the same.
    pub(super) fn new(found: Legacy) -> Self {
        let left = Mutex::new(Open { left: found.clone(), is_open: true });
        Self { found, left }
    }

    /// What the handler before has left.
    pub fn found(&self) -> Legacy {
        self.found.clone()
    }

    /// Leaves these bytes, unless it is too late. Returns whether they are kept.
    pub fn leave(&self, bytes: &[u8]) -> bool {
        let mut open = lock(&self.left);
        if open.is_open {
            open.left = Some(bytes.into());
        }
        open.is_open
    }

    /// What is left. Afterwards it is too late for more.
    pub(super) fn close(&self) -> Legacy {
        let mut open = lock(&self.left);
        open.is_open = false;
        open.left.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_was_left_is_found_until_it_is_too_late() {
        let keepsake = Keepsake::new(Some((*b"before").into()));
        assert!(keepsake.leave(b"one") && keepsake.leave(b"two"));
        assert_eq!(keepsake.found().as_deref(), Some(&b"before"[..]));
        assert_eq!(keepsake.close().as_deref(), Some(&b"two"[..]));
        assert!(!keepsake.leave(b"three"));
        assert_eq!(Keepsake::new(Some((*b"before").into())).close().as_deref(), Some(&b"before"[..]));
    }
}
