//! When certificates are read again because their files have changed.
//!
//! Pure: what lies in a file, and when, is told, and what the active generation has read of it.

use crate::ids::Time;

/// How long all files must have been left alone: who renews a certificate puts its key in place by another step.
const SETTLE: Time = Time::from_secs(1);

/// What is known of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// What was seen in each last.
    files: Vec<Option<[u8; 32]>>,
    due: Option<Time>,
}

impl Renewal {
    /// Files of which this was read: the digest of it, or nothing where that isn't known.
    pub fn new(read: impl IntoIterator<Item = Option<[u8; 32]>>) -> Self {
        Self { files: read.into_iter().collect(), due: None }
    }

    /// What lies in a file at `now`: the digest of it, or nothing, which is no reason to read it.
    pub fn seen(&mut self, file: usize, digest: Option<[u8; 32]>, now: Time) {
        let (Some(known), Some(digest)) = (self.files.get_mut(file), digest) else { return };
        let changed = known.replace(digest).is_some_and(|known| known != digest);
        if changed || self.due.is_some() {
            self.due = Some(now + SETTLE);
        }
    }

    /// When they are to be read.
    pub const fn due(&self) -> Option<Time> {
        self.due
    }

    /// Whether they are to be read now; that is so once.
    pub fn take(&mut self, now: Time) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn a_change_is_read_once_when_all_files_have_settled() {
        let mut renewal = Renewal::new([None, Some([2; 32])]);
        renewal.seen(0, Some([1; 32]), at(0));
        renewal.seen(1, Some([2; 32]), at(0));
        assert_eq!(renewal.due(), None, "as they were read");
        renewal.seen(0, None, at(10));
        renewal.seen(0, Some([1; 32]), at(20));
        renewal.seen(7, Some([1; 32]), at(20));
        assert_eq!(renewal.due(), None, "nothing has changed");
        renewal.seen(0, Some([3; 32]), at(100));
        renewal.seen(1, Some([4; 32]), at(900));
        assert!(!renewal.take(at(1_899)));
        assert!(renewal.take(at(1_900)));
        assert!(!renewal.take(at(9_999)), "once");
    }
    #[test]
    fn what_has_changed_between_its_reading_and_the_first_look_is_read_again() {
        let mut renewal = Renewal::new([Some([1; 32]), Some([2; 32])]);
        renewal.seen(0, Some([3; 32]), at(0));
        renewal.seen(1, Some([4; 32]), at(0));
        assert!(renewal.take(at(1_000)));
    }
}
