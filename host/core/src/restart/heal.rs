//! When the master tries to heal listeners that were harmed under its workers.
//!
//! A listener that can be repaired in its place is, whenever it is found harmed: that costs nothing. Where that isn't
//! enough, the active generation is restarted as it is. Owns how often: at once, then with pauses that double for as
//! long as it keeps happening, so that a worker that harms a listener again and again costs a bounded part of
//! everybody's time. What can be repaired is not its business, and whether a restart is refused neither.
//!
//! ```text
//!          new workers are wanted, and the master serves
//!  whole ─────────────────────────────────────────────────▶ asked ──▶ whole: any restart is complete
//!                          ▲                                  │
//!                          └───────────── pausing ◀───────────┘ refused, failed
//! ```

use std::time::Duration;

use super::backoff::Exponential;
use super::{Phase, Verdict};
use crate::ids::{RequestId, Time};

/// The pauses from the second try on.
const PAUSES: Exponential = Exponential { first: Duration::from_secs(1), longest: Duration::from_mins(5) };

/// After how long without a try the next one is the first again.
const STEADY: Duration = Duration::from_mins(10);

/// How often something is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pace {
    tries: u32,
    last: Option<Time>,
}

impl Pace {
    /// When the next try may be.
    fn next(self) -> Time {
        let Some(last) = self.last else { return Time::ZERO };
        last.saturating_add(PAUSES.pause(self.tries.saturating_sub(1)))
    }

    fn tried(&mut self, now: Time) {
        if self.last.is_some_and(|last| now.saturating_sub(last) >= STEADY) {
            self.tries = 0;
        }
        self.tries = self.tries.saturating_add(1);
        self.last = Some(now);
    }
}

/// The policy of one master. See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Healing {
    restarts: Pace,
    /// Whether only new workers can accept on all listeners.
    wanted: bool,
    /// The request whose verdict is still to come.
    asked: Option<RequestId>,
}

impl Healing {
    /// Takes note that only new workers can accept on what was found.
    pub const fn found(&mut self) {
        self.wanted = true;
    }

    /// Whether a restart is to be asked for now.
    pub fn asks(&self, phase: Phase, now: Time) -> bool {
        self.wanted && self.asked.is_none() && phase == Phase::Serving && self.restarts.next() <= now
    }

    /// When [`asks`](Self::asks) is to be looked at next.
    pub fn deadline(&self, phase: Phase) -> Option<Time> {
        (self.wanted && self.asked.is_none() && phase == Phase::Serving).then(|| self.restarts.next())
    }

    /// A restart was asked for.
    pub fn asked(&mut self, request: RequestId, now: Time) {
        self.restarts.tried(now);
        self.asked = Some(request);
    }

    /// Takes note of a verdict, whoever asked: the workers of every restart get listeners that listen.
    pub fn verdict(&mut self, request: RequestId, verdict: &Verdict) {
        if self.asked == Some(request) {
            self.asked = None;
        }
        if matches!(verdict, Verdict::Complete { .. }) {
            self.wanted = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Refusal;
    use super::*;

    const fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn a_restart_is_asked_for_at_once_and_then_less_and_less_often() {
        let mut healing = Healing::default();
        let mut times = Vec::new();
        let mut last = at(0);
        for second in 0..2000 {
            let now = at(second);
            healing.found();
            if healing.asks(Phase::Serving, now) {
                let request = RequestId(second);
                healing.asked(request, now);
                assert!(!healing.asks(Phase::Serving, at(second + 999)), "one is asked for at a time");
                healing.verdict(request, &Verdict::Refused(Refusal::NoWorkers));
                times.push(second - last.as_secs());
                last = now;
            }
        }
        assert_eq!(times, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }

    #[test]
    fn nothing_is_asked_for_while_it_would_be_refused_nor_when_somebody_elses_restart_has_helped() {
        let mut healing = Healing::default();
        healing.found();
        for phase in
            [Phase::Starting, Phase::Preflight, Phase::Rolling, Phase::Returning, Phase::Locked, Phase::Stopping]
        {
            assert!(!healing.asks(phase, at(9)), "{phase}");
            assert_eq!(healing.deadline(phase), None);
        }
        assert!(healing.asks(Phase::Serving, at(9)));
        healing.verdict(RequestId(7), &Verdict::Refused(Refusal::NoWorkers));
        assert!(healing.asks(Phase::Serving, at(9)));
        healing.verdict(RequestId(8), &Verdict::Complete { unchanged: true, draining: 0 });
        assert!(!healing.asks(Phase::Serving, at(9)));
    }
}
