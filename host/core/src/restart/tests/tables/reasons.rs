//! The words of reasons.

use super::super::super::{FailureReason, RefusalReason};
use super::*;

#[test]
fn reasons_are_stable_and_lead_what_is_printed() {
    let slot = Slot(1);
    let text = || "why".to_owned();
    let refusals = [
        (Refusal::Starting, "starting"),
        (Refusal::Stopping, "stopping"),
        (Refusal::NoWorkers, "no workers"),
        (Refusal::BadDriver(text()), "bad driver: why"),
        (Refusal::AbortedRestart, "aborted restart"),
        (Refusal::RestartInFlight, "restart in flight"),
        (Refusal::BadConfig(text()), "bad config: why"),
        (Refusal::BadArtifact(text()), "bad artifact: why"),
        (Refusal::Incompatibility(text()), "incompatibility: why"),
        (Refusal::CannotBind(text()), "cannot bind: why"),
        (Refusal::DatabankUnreachable(text()), "databank unreachable: why"),
        (Refusal::Unchanged, "unchanged"),
    ];
    let kinds: Vec<_> = refusals.iter().map(|(refusal, _)| refusal.kind()).collect();
    assert!(RefusalReason::ALL.iter().all(|reason| kinds.contains(reason)), "one of each: {kinds:?}");
    for (refusal, printed) in refusals {
        assert_eq!(refusal.to_string(), printed);
        assert_eq!(refusal.reason(), printed.trim_end_matches(": why"));
        let verdict = Verdict::Refused(refusal);
        assert_eq!(verdict.to_string(), format!("refused: {printed}"));
    }
    let error = text();
    let killed = Failure::WorkerDied { slot, how: Ended::Signal(6) };
    let no_listener = Failure::CannotListen { slot, error };
    let error = text();
    let no_start = Failure::AppFailedToStart { slot, error };
    let error = text();
    let no_process = Failure::CannotSpawn { slot, error };
    let failures = [
        (killed, "worker died", "worker died: slot 1, signal 6"),
        (Failure::NotReadyInTime { slot }, "not ready in time", "not ready in time: slot 1"),
        (no_listener, "cannot listen", "cannot listen: slot 1, why"),
        (no_start, "app failed to start", "app failed to start: slot 1, why"),
        (no_process, "cannot spawn", "cannot spawn: slot 1, why"),
        (Failure::Stopped, "stopped", "stopped"),
    ];
    let reasons: Vec<_> = failures.iter().map(|(_, reason, _)| *reason).collect();
    assert!(FailureReason::ALL.iter().all(|reason| reasons.contains(&reason.as_str())), "one of each: {reasons:?}");
    for (failure, reason, printed) in failures {
        assert_eq!(failure.reason(), reason);
        let verdict = Verdict::Failed(failure);
        assert_eq!(verdict.to_string(), format!("failed: {printed}"));
    }
    for unchanged in [false, true] {
        // Scripts compare it.
        assert_eq!(Verdict::Complete { unchanged, draining: 0 }.to_string(), "complete");
    }
}
