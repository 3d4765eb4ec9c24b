//! When the master tries to heal listeners that were shut down under its workers.
//!
//! Owns how often: at once, then with pauses that double for as long as it keeps happening, so that a worker that
//! shuts a listener down again and again costs a bounded part of everybody's time. Two things are tried: a listener
//! is revived in its place, which costs nothing, and, where that isn't enough, the active generation is restarted
//! as it is. What can be revived is not its business, and whether a restart is refused neither.
//!
//! ```text
//!          new workers are wanted, and the master serves
//!  whole ─────────────────────────────────────────────────▶ asked ──▶ whole: any restart is complete
//!                          ▲                                  │
//!                          └───────────── pausing ◀───────────┘ refused, failed
//! ```

use std::time::Duration;

use super::{Phase, Verdict};
use crate::ids::{RequestId, Time};

/// The pause before the second try; each one is twice as long as that before it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// After how long without a try the next one is the first again.
const STEADY: Duration = Duration::from_mins(10);

/// Doubling [`FIRST_PAUSE`] this often passes [`LONGEST_PAUSE`]; more would only overflow.
const MOST_DOUBLINGS: u32 = 9;

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
        let doublings = self.tries.saturating_sub(1).min(MOST_DOUBLINGS);
        last.saturating_add(FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE))
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
    revivals: Pace,
    restarts: Pace,
    /// Whether only new workers can accept on all listeners.
    wanted: bool,
    /// The request whose verdict is still to come.
    asked: Option<RequestId>,
}

impl Healing {
    /// Whether what is found shut down may be revived now.
    pub fn may_revive(&self, now: Time) -> bool {
        self.revivals.next() <= now
    }

    /// Takes note that something was shut down and revived, or couldn't be.
    pub fn tried(&mut self, new_workers: bool, now: Time) {
        self.revivals.tried(now);
        self.wanted |= new_workers;
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
        if *verdict == Verdict::Complete {
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
            healing.tried(true, now);
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
        healing.tried(true, at(1));
        for phase in
            [Phase::Starting, Phase::Preflight, Phase::Rolling, Phase::Returning, Phase::Locked, Phase::Stopping]
        {
            assert!(!healing.asks(phase, at(9)), "{phase}");
            assert_eq!(healing.deadline(phase), None);
        }
        assert!(healing.asks(Phase::Serving, at(9)));
        healing.verdict(RequestId(7), &Verdict::Refused(Refusal::NoWorkers));
        assert!(healing.asks(Phase::Serving, at(9)));
        healing.verdict(RequestId(8), &Verdict::Complete);
        assert!(!healing.asks(Phase::Serving, at(9)));
    }

    #[test]
    fn what_is_revived_in_its_place_needs_no_restart_and_is_not_revived_every_time() {
        let mut healing = Healing::default();
        assert!(healing.may_revive(at(0)));
        healing.tried(false, at(0));
        assert!(!healing.asks(Phase::Serving, at(0)));
        assert!(healing.may_revive(at(1)));
        healing.tried(false, at(1));
        assert!(!healing.may_revive(at(2)) && healing.may_revive(at(3)));
        // It has been well for long.
        healing.tried(false, at(3000));
        assert!(healing.may_revive(at(3001)));
    }
}
