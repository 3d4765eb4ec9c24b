//! HTTP as the RFCs want it at a front door.

use app_host_tests::Host;
use app_host_tests::differential::{ask_all, cases};
use serde_json::json;

#[test]
fn each_malformed_or_unusual_request_is_answered_as_its_section_wants() {
    let host = Host::answering("a").with("/access_log", json!({ "file": "access" })).start();
    let cases = cases();
    let answers = ask_all(&host.address(), &cases);
    let wrong: Vec<_> = cases
        .iter()
        .zip(&answers)
        .filter(|(case, answer)| case.expected != **answer)
        .map(|(case, answer)| format!("{} (RFC {}): {answer} instead of {}", case.name, case.section, case.expected))
        .collect();
    assert!(wrong.is_empty(), "{}\n{wrong:#?}\n{}", wrong.len(), host.report());
    // None of them has hurt anybody else.
    let mut client = host.connect();
    assert_eq!(client.get("/").unwrap(), 200);
    // Each that was refused is seen.
    let refused =
        answers.iter().filter(|answer| matches!(answer.split(' ').next(), Some("400" | "414" | "431" | "501")));
    let refused = refused.count();
    let lines = || {
        let text = std::fs::read_to_string(host.path("access")).unwrap_or_default();
        text.lines().filter(|line| line.contains("\"refused\"")).count()
    };
    let seen = app_host_tests::host::wait_until(|| (lines() == refused).then_some(()));
    assert!(seen.is_some(), "{refused} were refused, {} lines", lines());
}
