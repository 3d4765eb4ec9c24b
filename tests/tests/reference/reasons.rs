//! Why a restart or a client is refused, and why a restart fails.

use std::collections::BTreeSet;

use app_host_core::refused::Refused;
use app_host_core::restart::{FailureReason, RefusalReason};

use super::{named, read, section};

#[test]
fn every_reason_of_a_refusal_or_a_failure_stands_in_its_table_and_no_other() {
    let page = read("operate/restart.md");
    let refused: BTreeSet<_> = RefusalReason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let failed: BTreeSet<_> = FailureReason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let mut table = named(section(&page, "## Refused: no worker was touched"));
    assert!(table.remove("refused: …"), "the head of the table");
    assert_eq!(table, refused, "on the page (left), in the code (right)");
    let mut table = named(section(&page, "## Failed: workers were touched, and it went wrong"));
    assert!(table.remove("failed: …"), "the head of the table");
    assert_eq!(table, failed, "on the page (left), in the code (right)");
}

#[test]
fn every_reason_to_refuse_a_client_stands_in_the_table_of_limits_and_no_other() {
    let page = read("operate/client-limits.md");
    let table = named(section(&page, "## Refused below the app"));
    let there: BTreeSet<_> = Refused::ALL.iter().map(|why| why.as_str().to_owned()).collect();
    assert_eq!(table, there, "on the page (left), in the code (right)");
}
