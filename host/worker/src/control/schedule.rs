//! The moments of a drain, from its timeout alone. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long before a drain's timeout what is left is cut: a tenth of it within these bounds, so that
/// a busy machine can still run the app's `stop`; half of a timeout that is shorter.
const MARGIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The moments of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// When what is left is cut.
    pub(super) cut: Instant,
    /// When the process ends at the latest; a little later it would be killed.
    pub(super) end: Instant,
}

impl Schedule {
    pub(super) fn new(began: Instant, timeout: Duration) -> Self {
        let margin = (timeout / 10).clamp(MARGIN.0, MARGIN.1).min(timeout / 2);
        Self { cut: began + timeout.saturating_sub(margin), end: began + timeout.saturating_sub(margin / 4) }
    }

    /// How long idle connections linger. A close takes a while, too, and what could not be announced
    /// before must be announced then, so half of the time is kept for that.
    pub(super) fn linger(&self, began: Instant, wanted: Duration) -> Duration {
        wanted.min(self.cut.saturating_duration_since(began) / 2)
    }

    /// Whichever comes first holds: an order that is repeated moves no deadline further away.
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
