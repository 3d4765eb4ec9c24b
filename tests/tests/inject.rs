//! Whatever system call of a restart fails, its request gets a verdict, and the next one completes. The binary `inject`
//! tries all of them.

use std::time::Duration;

use app_host_tests::inject::Injected;
use app_host_tests::said;

/// One fault in so many is tried here.
const EVERY: usize = 5;

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn a_restart_whose_system_calls_fail_has_a_verdict_and_the_next_one_completes() {
    let injected = Injected::start();
    let faults = injected.faults();
    assert!(faults.len() > 100, "a restart makes more system calls than {}", faults.len());
    let verdicts: Vec<String> = faults.iter().step_by(EVERY).map(|fault| injected.trial(fault)).collect();
    assert!(verdicts.iter().any(|verdict| verdict != "complete"), "faults are injected: {verdicts:?}");
    injected.end();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn a_disk_that_lets_a_restart_wait_is_named_in_the_log_while_it_does() {
    let injected = Injected::start();
    assert_eq!(injected.delay("fsync", Duration::from_secs(4)), "complete");
    let waits = injected.host().lines_with(said::PREFLIGHT_WAITS);
    assert_eq!(waits.len(), 1, "once");
    assert_eq!(waits[0].str("waits_for"), "the disk: fsync of the library's copy");
    assert_eq!(waits[0].number("limit_ms"), Some(60_000));
    let rolled = injected.host().wait_for(said::ROLL_STARTED, |_| true).seconds();
    assert!(waits[0].seconds() < rolled.map(|at| at - 1.0), "while it waits, not behind it");
    injected.end();
}
