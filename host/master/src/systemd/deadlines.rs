//! How much more time a master asks its manager for (`EXTEND_TIMEOUT_USEC=`, `sd_notify(3)`).
//!
//! A manager gives a start, a reload and a stop a time that it has from a file; how long they may take depends on the
//! configuration. So the master asks for a little more, again and again, while it is at one of them: as long as its own
//! deadlines say that it may be. Asked for little, because the manager's watchdog waits for it as well.

use std::time::Duration;

/// The most that is asked for at once.
const STEP: Duration = Duration::from_secs(10);

/// What ends besides the workers: processes of other kinds, the log, the databank's check.
const MARGIN: Duration = Duration::from_secs(10);

/// What the master is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Restarting,
    Stopping,
}

/// What the master's own deadlines follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// How long it may take until the first worker is spawned: disk, probe, databank.
    pub preparation: Duration,
    /// `restart.start_timeout`.
    pub start: Duration,
    /// `restart.probation`.
    pub probation: Duration,
    /// `restart.state_timeout`.
    pub state: Duration,
    /// `restart.shutdown_timeout`.
    pub shutdown: Duration,
    /// `shutdown_delay`.
    pub delay: Duration,
    pub workers: u32,
}

impl Deadlines {
    /// The longest that a stage takes if each step takes as long as it may.
    fn of(&self, stage: Stage) -> Duration {
        let rounds = |rounds: u32| self.start.saturating_mul(rounds);
        let roll = rounds(self.workers).saturating_add(self.state).saturating_add(self.shutdown);
        match stage {
            // Workers that an earlier master has left may have to end first. Then one worker starts, and the others after
            // it.
            Stage::Starting => self.preparation.saturating_add(self.shutdown).saturating_add(rounds(2)),
            // One after the other, what the last leaves, and its drain; and the way back, where that goes wrong at the end.
            Stage::Restarting => {
                let there = self.preparation.saturating_add(self.probation).saturating_add(roll);
                there.saturating_add(roll)
            }
            Stage::Stopping => self.delay.saturating_add(self.shutdown),
        }
        .saturating_add(MARGIN)
    }

    /// How much is asked for by a master that has been at a stage for so long: nothing any more, if it should have come to
    /// its end. `watchdog` is what the manager gives between two signs of life.
    pub fn extension(&self, stage: Stage, elapsed: Duration, watchdog: Option<Duration>) -> Option<Duration> {
        let left = self.of(stage).checked_sub(elapsed).filter(|left| !left.is_zero())?;
        Some(left.min(STEP).min(watchdog.unwrap_or(STEP)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const DEADLINES: Deadlines = Deadlines {
        preparation: secs(60),
        start: secs(10),
        probation: secs(1),
        state: secs(5),
        shutdown: secs(30),
        delay: secs(0),
        workers: 2,
    };

    #[test]
    fn more_time_is_asked_for_until_the_masters_own_deadlines_are_over() {
        let slow = Deadlines { start: secs(100), workers: 8, ..DEADLINES };
        let long = Deadlines { shutdown: secs(3600), ..DEADLINES };
        let announced = Deadlines { delay: secs(20), ..DEADLINES };
        for (deadlines, stage, end) in [
            (DEADLINES, Stage::Starting, 60 + 30 + 2 * 10 + 10),
            (DEADLINES, Stage::Restarting, 60 + 1 + 2 * (2 * 10 + 5 + 30) + 10),
            (DEADLINES, Stage::Stopping, 30 + 10),
            (slow, Stage::Starting, 60 + 30 + 2 * 100 + 10),
            (slow, Stage::Restarting, 60 + 1 + 2 * (8 * 100 + 5 + 30) + 10),
            (slow, Stage::Stopping, 30 + 10),
            (long, Stage::Starting, 60 + 3600 + 2 * 10 + 10),
            (long, Stage::Stopping, 3600 + 10),
            (announced, Stage::Restarting, 60 + 1 + 2 * (2 * 10 + 5 + 30) + 10),
            (announced, Stage::Stopping, 20 + 30 + 10),
        ] {
            let asks = |elapsed| deadlines.extension(stage, elapsed, None);
            for (elapsed, expected) in [
                (secs(0), Some(secs(10))),
                (secs(end - 10), Some(secs(10))),
                (secs(end - 3), Some(secs(3))),
                (secs(end), None),
                (secs(end * 2), None),
            ] {
                assert_eq!(asks(elapsed), expected, "{deadlines:?} {stage:?} {elapsed:?}");
            }
        }
    }

    #[test]
    fn a_watchdog_is_not_made_to_wait_longer_than_it_says() {
        for (watchdog, expected) in [(None, 10), (Some(secs(30)), 10), (Some(secs(3)), 3)] {
            assert_eq!(DEADLINES.extension(Stage::Starting, secs(1), watchdog), Some(secs(expected)), "{watchdog:?}");
        }
    }

    #[test]
    fn no_configuration_is_too_large() {
        let all = Deadlines {
            preparation: Duration::MAX,
            start: Duration::MAX,
            probation: Duration::MAX,
            state: Duration::MAX,
            shutdown: Duration::MAX,
            delay: Duration::MAX,
            workers: u32::MAX,
        };
        for stage in [Stage::Starting, Stage::Restarting, Stage::Stopping] {
            assert_eq!(all.extension(stage, secs(1_000_000), None), Some(secs(10)), "{stage:?}");
        }
    }
}
