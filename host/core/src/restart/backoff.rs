//! Exponential back-off: how long something that keeps failing is left alone.

use std::time::Duration;

/// A pause that doubles from try to try, up to a longest one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exponential {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Exponential {
    /// The pause after `doublings` pauses before it.
    pub(super) fn pause(self, doublings: u32) -> Duration {
        // A shift of 31 is more than the longest pause has of the first, wherever this is used; the rest would overflow.
        self.first.saturating_mul(1 << doublings.min(31)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_never_overflow() {
        let pauses = Exponential { first: Duration::from_millis(100), longest: Duration::from_secs(30) };
        let pause = |doublings| pauses.pause(doublings).as_millis();
        assert_eq!(
            [0, 1, 2, 8, 9, 31, 32, u32::MAX].map(pause),
            [100, 200, 400, 25_600, 30_000, 30_000, 30_000, 30_000]
        );
        let endless = Exponential { first: Duration::MAX, longest: Duration::MAX };
        assert_eq!(endless.pause(u32::MAX), Duration::MAX);
    }
}
