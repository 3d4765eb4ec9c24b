//! Claims about the watcher's policy: one a test.

mod properties;

use super::super::{By, Judged, Machine, Pair, Phase, Watch};
use super::*;
use crate::config::Watched;
use crate::ids::{ConfigId, Time, VersionId};

const LIBRARY: Watched = Watched { library: true, config: false, certificates: false };
const BOTH: Watched = Watched { library: true, config: true, certificates: false };
const CONFIG: Watched = Watched { library: false, config: true, certificates: false };

/// The pause after the first refusal, and the longest.
const FIRST_PAUSE: Duration = ms(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const fn version(number: u8) -> VersionId {
    VersionId::from_digest([number; 32])
}

const fn config(number: u8) -> ConfigId {
    ConfigId::from_digest([number; 32])
}

const fn pair(version_number: u8, config_number: u8) -> Pair {
    Pair { version: version(version_number), config: config(config_number) }
}

fn bad_artifact() -> Refusal {
    Refusal::BadArtifact("no manifest".to_owned())
}

fn unreachable() -> Refusal {
    Refusal::DatabankUnreachable("refused".to_owned())
}

/// A policy in a master that serves version 0 with configuration 0, and its clock.
struct Bench {
    watch: Watch,
    phase: Phase,
    now: Time,
    last_request: u64,
}

impl Bench {
    fn new(watched: Watched) -> Self {
        let mut watch = Watch::new(watched, pair(0, 0));
        watch.library_seen(Some(version(0)));
        watch.config_seen(Some(config(0)));
        Self { watch, phase: Phase::Serving, now: ms(1000), last_request: 0 }
    }

    /// Version 1 was seen and asked for.
    fn asked() -> Self {
        let mut bench = Self::new(LIBRARY);
        bench.watch.library_seen(Some(version(1)));
        assert!(bench.asks());
        bench
    }

    /// Whether it asks; the request is on its way then.
    fn asks(&mut self) -> bool {
        let asks = self.watch.asks(self.phase, self.now);
        if asks {
            self.last_request += 1;
            self.watch.asked(RequestId(self.last_request));
            assert!(!self.watch.asks(self.phase, self.now), "it asks for ever");
        }
        asks
    }

    fn refused(&mut self, refusal: Refusal, judged: Option<Judged>) {
        self.watch.verdict(RequestId(self.last_request), &Verdict::Refused(refusal), judged, self.now);
    }

    fn complete(&mut self, active: Pair) {
        self.watch.verdict(
            RequestId(self.last_request),
            &Verdict::Complete { unchanged: false, draining: 0 },
            Some(Judged::Config(config(0))),
            self.now,
        );
        self.watch.set_active(active);
    }

    /// How long until the next look at it.
    fn pause(&self) -> Option<Duration> {
        Some(self.watch.deadline(self.phase)?.saturating_sub(self.now))
    }

    fn asks_after(&mut self, pause: Duration) -> bool {
        self.now += pause;
        self.asks()
    }
}

#[test]
fn what_is_active_is_not_asked_for() {
    let mut bench = Bench::new(BOTH);
    assert!(!bench.asks());
    // It was touched, or away for a while.
    for seen in [None, Some(version(0)), None] {
        bench.watch.library_seen(seen);
        assert!(!bench.asks(), "{seen:?}");
    }
}

#[test]
fn a_new_library_is_asked_for_once() {
    let mut bench = Bench::asked();
    bench.complete(pair(1, 0));
    assert!(!bench.asks_after(LONGEST_PAUSE));
    assert_eq!(bench.pause(), None);
}

#[test]
fn only_what_is_watched_asks() {
    for (watched, by_library, by_config) in [(LIBRARY, true, false), (CONFIG, false, true), (BOTH, true, true)] {
        let mut bench = Bench::new(watched);
        bench.watch.config_seen(Some(config(1)));
        assert_eq!(bench.asks(), by_config, "{watched:?}");
        let mut bench = Bench::new(watched);
        bench.watch.library_seen(Some(version(1)));
        assert_eq!(bench.asks(), by_library, "{watched:?}");
    }
}

#[test]
fn what_is_barred_is_not_asked_for_until_one_of_the_two_changes() {
    for watched in [LIBRARY, BOTH] {
        let mut bench = Bench::new(watched);
        bench.watch.set_barred(&[pair(1, 0), pair(2, 2)]);
        bench.watch.library_seen(Some(version(1)));
        assert!(!bench.asks(), "{watched:?}");
        assert_eq!(bench.pause(), None);
        bench.watch.library_seen(Some(version(2)));
        assert!(bench.asks(), "{watched:?}: barred with another configuration only");
        let mut bench = Bench::new(watched);
        bench.watch.set_barred(&[pair(1, 0)]);
        bench.watch.library_seen(Some(version(1)));
        bench.watch.config_seen(Some(config(1)));
        assert!(bench.asks(), "{watched:?}: the configuration has changed");
    }
    let mut bench = Bench::new(CONFIG);
    bench.watch.set_barred(&[pair(1, 1)]);
    bench.watch.config_seen(Some(config(1)));
    assert!(!bench.asks(), "the library may be the one that it was barred with");
    bench.watch.config_seen(Some(config(2)));
    assert!(bench.asks());
}

#[test]
fn a_barred_library_is_not_asked_for_before_its_configuration_is_seen() {
    let mut watch = Watch::new(LIBRARY, pair(0, 0));
    watch.set_barred(&[pair(1, 0)]);
    watch.library_seen(Some(version(1)));
    assert!(!watch.asks(Phase::Serving, ms(1)));
    watch.config_seen(Some(config(1)));
    assert!(watch.asks(Phase::Serving, ms(1)));
}

#[test]
fn a_library_that_is_being_replaced_is_not_asked_for_before_it_is_there_again() {
    let mut bench = Bench::asked();
    bench.refused(unreachable(), None);
    bench.watch.library_seen(None);
    assert!(!bench.asks_after(LONGEST_PAUSE));
    assert_eq!(bench.pause(), None);
    bench.watch.library_seen(Some(version(1)));
    assert!(bench.asks());
}

#[test]
fn a_library_refused_for_what_it_is_is_not_tried_again_until_it_changes() {
    for refusal in [bad_artifact(), Refusal::Incompatibility("epoch".to_owned())] {
        let mut bench = Bench::asked();
        bench.refused(refusal, Some(Judged::Version(version(1))));
        // It was touched, or moved away and back; the configuration has changed.
        bench.watch.library_seen(None);
        bench.watch.library_seen(Some(version(1)));
        bench.watch.config_seen(Some(config(1)));
        assert!(!bench.asks_after(LONGEST_PAUSE));
        assert_eq!(bench.pause(), None);
        bench.watch.library_seen(Some(version(2)));
        assert!(bench.asks());
        bench.refused(bad_artifact(), Some(Judged::Version(version(2))));
        // Back to the first: it has changed.
        bench.watch.library_seen(Some(version(1)));
        assert!(bench.asks());
    }
}

#[test]
fn a_refusal_of_something_else_than_what_was_seen_is_not_the_last_word() {
    // The file was another one for the moment in which the preflight has copied it.
    for judged in [Some(Judged::Version(version(2))), None] {
        let mut bench = Bench::asked();
        bench.refused(bad_artifact(), judged);
        assert_eq!(bench.pause(), Some(FIRST_PAUSE));
        assert!(bench.asks_after(FIRST_PAUSE));
    }
    let mut bench = Bench::asked();
    bench.refused(Refusal::Unchanged, Some(Judged::Config(config(0))));
    assert_eq!(bench.pause(), Some(FIRST_PAUSE), "version 0 was there for a moment");
    let mut bench = Bench::asked();
    bench.complete(pair(2, 0));
    assert_eq!(bench.pause(), Some(FIRST_PAUSE), "version 2 was there for a moment");
    assert!(bench.asks_after(FIRST_PAUSE));
}

#[test]
fn a_reason_outside_is_asked_about_again_with_growing_and_bounded_pauses() {
    let outside = [unreachable(), Refusal::CannotBind("127.0.0.1:80".to_owned()), Refusal::BadConfig("log".to_owned())];
    for refusal in outside {
        let mut bench = Bench::asked();
        let mut pauses = Vec::new();
        for _ in 0..30 {
            bench.refused(refusal.clone(), None);
            let pause = bench.pause().unwrap();
            pauses.push(pause);
            bench.now += pause.saturating_sub(ms(1));
            assert!(!bench.asks(), "before its time");
            assert!(bench.asks_after(ms(1)));
        }
        assert_eq!(pauses[..4], [ms(250), ms(500), ms(1000), ms(2000)]);
        assert!(pauses.iter().skip(7).all(|pause| *pause == LONGEST_PAUSE), "{pauses:?}");
        bench.refused(refusal, None);
        // Another build begins anew, at once.
        bench.watch.library_seen(Some(version(2)));
        assert!(bench.asks());
        bench.refused(unreachable(), None);
        assert_eq!(bench.pause(), Some(FIRST_PAUSE));
    }
}

#[test]
fn a_bad_configuration_is_tried_again_when_its_file_changes() {
    let refusals = || [Refusal::BadConfig("1:1".to_owned()), Refusal::NoWorkers, Refusal::BadDriver("m".to_owned())];
    for watched in [LIBRARY, BOTH] {
        for refusal in refusals() {
            let mut bench = Bench::new(watched);
            bench.watch.config_seen(Some(config(1)));
            bench.watch.library_seen(Some(version(1)));
            assert!(bench.asks());
            bench.refused(refusal, Some(Judged::Config(config(1))));
            assert!(!bench.asks_after(LONGEST_PAUSE));
            assert_eq!(bench.pause(), None);
            bench.watch.config_seen(Some(config(2)));
            assert!(bench.asks());
        }
    }
    // It has changed while it was judged.
    for refusal in refusals() {
        let mut bench = Bench::asked();
        bench.watch.config_seen(Some(config(2)));
        assert!(!bench.asks());
        bench.refused(refusal, Some(Judged::Config(config(1))));
        assert!(bench.asks_after(FIRST_PAUSE));
    }
}

#[test]
fn an_active_generation_that_can_not_be_restarted_is_said_once_a_build() {
    for refusal in [Refusal::NoWorkers, Refusal::BadDriver("memory".to_owned())] {
        let mut bench = Bench::asked();
        bench.refused(refusal, None);
        assert!(!bench.asks_after(LONGEST_PAUSE));
        bench.watch.library_seen(Some(version(2)));
        assert!(bench.asks());
    }
}

#[test]
fn what_was_refused_while_a_restart_was_in_progress_is_asked_for_when_it_has_ended() {
    for (refusal, phases) in [
        (Refusal::Starting, &[Phase::Starting][..]),
        (Refusal::RestartInFlight, &[Phase::Preflight, Phase::Rolling, Phase::Rolling]),
    ] {
        let mut bench = Bench::new(LIBRARY);
        bench.phase = phases[0];
        bench.watch.library_seen(Some(version(1)));
        assert!(bench.asks(), "it is said that it waits");
        bench.refused(refusal, None);
        for (number, phase) in (2..).zip(phases) {
            bench.phase = *phase;
            bench.watch.library_seen(Some(version(number)));
            assert!(!bench.asks_after(LONGEST_PAUSE), "once is enough");
            assert_eq!(bench.pause(), None);
        }
        bench.phase = Phase::Serving;
        assert!(bench.asks());
    }
}

#[test]
fn a_build_that_the_ended_restart_has_brought_in_is_not_asked_for_again() {
    let mut bench = Bench::asked();
    bench.refused(Refusal::RestartInFlight, None);
    bench.watch.set_active(pair(1, 0));
    assert!(!bench.asks());
}

#[test]
fn a_build_that_lands_in_the_watchers_own_restart_is_asked_for_after_it() {
    let mut bench = Bench::asked();
    bench.phase = Phase::Rolling;
    bench.watch.library_seen(Some(version(2)));
    assert!(bench.asks());
    bench.refused(Refusal::RestartInFlight, None);
    // The verdict on the first, which is of no interest any more.
    bench.watch.verdict(RequestId(1), &Verdict::Refused(bad_artifact()), Some(Judged::Version(version(1))), bench.now);
    bench.phase = Phase::Serving;
    assert!(bench.asks());
}

#[test]
fn nothing_is_asked_once_it_is_over() {
    for phase in [Phase::Locked, Phase::Stopping, Phase::Exited] {
        let mut bench = Bench::asked();
        bench.refused(unreachable(), None);
        bench.phase = phase;
        bench.watch.library_seen(Some(version(2)));
        assert!(!bench.asks_after(LONGEST_PAUSE), "{phase}");
        assert_eq!(bench.pause(), None, "{phase}");
    }
}
