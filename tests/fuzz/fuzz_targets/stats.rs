//! A stats page of arbitrary bytes, as a worker may leave it: its master reads it and adds, and what it says is short
//! and printable.
//!
//! Run as `command` is (see there), with `--bin stats` and without the dictionary.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unfulfilled_lint_expectations,
    reason = "the rooms are the host's; see there"
)]

mod config {
    pub const MAX_THREADS: u16 = 64;
}
#[path = "../../../host/src/foreign.rs"]
mod foreign;
#[path = "../../../host/src/metrics"]
mod metrics {
    #[path = "counters.rs"]
    mod counters;

    pub fn add(stats: &crate::sys::stats::StatsSnapshot) {
        let mut sums = counters::Sums::default();
        for _ in 0..3 {
            sums.add(stats);
            sums.cut_in_flight(stats);
        }
    }
}
#[path = "../../../host/src/sys"]
mod sys {
    #[path = "stats.rs"]
    pub mod stats;
}

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;

use sys::stats::{LaneSnapshot, StatsPage};

static PAGE: OnceLock<(StatsPage, File)> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (page, file) = PAGE.get_or_init(|| {
        let (page, file) = StatsPage::create().expect("there is memory");
        (page, file.into())
    });
    // Two lanes are enough to add, and what is repeated fills them.
    let lanes: Vec<u8> = bytes.iter().copied().chain([0]).cycle().take(2 * 512).collect();
    file.write_all_at(&lanes, 128).expect("the page is there");
    let stats = page.snapshot();
    for of in [(|lane| lane.requests) as fn(&LaneSnapshot) -> u64, |lane| lane.cut.saturating_add(lane.in_flight)] {
        let sum = stats.sum(of);
        assert!(stats.lanes.iter().all(|lane| of(lane) <= sum));
    }
    for routes in
        [stats.routes(), stats.routes_silent_for(Duration::from_secs(1)), stats.routes_silent_for(Duration::MAX)]
    {
        assert!(routes.len() <= foreign::MAX_TEXT && !routes.contains(foreign::is_unsafe), "{routes:?}");
    }
    metrics::add(&stats);
    let _ = (page.signs(), page.connections());
});
