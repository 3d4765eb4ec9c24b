//! The schedule of a drain: when connections are cut and when the process ends, from the timeout alone. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long before a drain's timeout the remaining connections are cut: a tenth of the timeout within these bounds, so
/// that a busy machine can still run the app's `stop`; half of a shorter timeout.
const MARGIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The moments of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// When the remaining connections are cut.
    pub(super) cut: Instant,
    /// When the process must have ended; a little later it would be killed.
    pub(super) end: Instant,
}

impl Schedule {
    pub(super) fn new(began: Instant, timeout: Duration) -> Self {
        let margin = (timeout / 10).clamp(MARGIN.0, MARGIN.1).min(timeout / 2);
        Self { cut: began + timeout.saturating_sub(margin), end: began + timeout.saturating_sub(margin / 4) }
    }

    /// How long idle connections linger. Closes that could not be announced before must be announced then, and take a
    /// while, so half of the time is kept for them.
    pub(super) fn linger(&self, began: Instant, wanted: Duration) -> Duration {
        wanted.min(self.cut.saturating_duration_since(began) / 2)
    }

    /// Takes the earlier deadlines: a repeated order moves none further away.
    pub(super) fn shorten(&mut self, other: Self) {
        self.cut = self.cut.min(other.cut);
        self.end = self.end.min(other.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_comes_a_little_before_the_timeout() {
        let began = Instant::now();
        for (timeout, cut, end) in
            [(30_000, 28_000, 29_500), (5_000, 4_500, 4_875), (1_000, 800, 950), (80, 40, 70), (0, 0, 0)]
        {
            let schedule = Schedule::new(began, Duration::from_millis(timeout));
            assert_eq!(schedule.cut - began, Duration::from_millis(cut), "timeout {timeout} ms");
            assert_eq!(schedule.end - began, Duration::from_millis(end), "timeout {timeout} ms");
        }
    }

    #[test]
    fn the_linger_ends_well_before_the_cut() {
        let began = Instant::now();
        for (timeout, wanted, linger) in [(30_000, 5_000, 5_000), (5_000, 5_000, 2_250), (80, 5_000, 20), (0, 5_000, 0)]
        {
            let schedule = Schedule::new(began, Duration::from_millis(timeout));
            let found = schedule.linger(began, Duration::from_millis(wanted));
            assert_eq!(found, Duration::from_millis(linger), "timeout {timeout} ms");
        }
    }

    #[test]
    fn a_second_order_moves_no_deadline_away() {
        let began = Instant::now();
        let first = Schedule::new(began, Duration::from_secs(5));
        let mut schedule = first;
        schedule.shorten(Schedule::new(began + Duration::from_secs(1), Duration::from_secs(30)));
        assert_eq!(schedule, first);
        schedule.shorten(Schedule::new(began + Duration::from_secs(1), Duration::from_secs(1)));
        assert!(schedule.end < first.end);
    }
}
