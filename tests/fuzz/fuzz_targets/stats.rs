//! A stats page of arbitrary bytes, as a worker may leave it: its master reads it and adds, and what it says is short
//! and printable.
//!
//! Run as `command` is (see there), with `--bin stats` and without the dictionary.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;

use app_host_core::foreign;
use app_host_platform::metrics::counters::Sums;
use app_host_platform::sys::stats::{StatsPage, ThreadSnapshot, ThreadStats};

static PAGE: OnceLock<(StatsPage, File)> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (page, file) = PAGE.get_or_init(|| {
        let (page, file) = StatsPage::create().expect("there is memory");
        (page, file.into())
    });
    // Two threads are enough to add, and what is repeated fills them.
    let threads: Vec<u8> = bytes.iter().copied().chain([0]).cycle().take(2 * size_of::<ThreadStats>()).collect();
    file.write_all_at(&threads, 128).expect("the page is there");
    let stats = page.snapshot();
    for of in
        [(|thread| thread.requests) as fn(&ThreadSnapshot) -> u64, |thread| thread.cut.saturating_add(thread.in_flight)]
    {
        let sum = stats.sum(of);
        assert!(stats.threads.iter().all(|thread| of(thread) <= sum));
    }
    for routes in
        [stats.routes(), stats.routes_silent_for(Duration::from_secs(1)), stats.routes_silent_for(Duration::MAX)]
    {
        assert!(routes.len() <= foreign::MAX_TEXT && !routes.contains(foreign::is_unsafe), "{routes:?}");
    }
    let mut sums = Sums::default();
    for _ in 0..3 {
        sums.add(&stats);
        sums.cut_in_flight(&stats);
    }
    let _ = (page.signs(), page.connections());
});
