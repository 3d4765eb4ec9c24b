//! Whatever system call of a restart fails, its request gets a verdict, and the next one completes. The binary `inject`
//! tries all of them.

use app_host_tests::inject::Injected;

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
