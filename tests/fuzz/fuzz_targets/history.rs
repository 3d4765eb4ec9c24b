//! Ledgers of arbitrary bytes: one that is read is sound, is written as it was read, and can be decided with.
//!
//! Run as `command` is (see there), with `--bin history` and without the dictionary.
#![no_main]

use app_host_core::ids::ConfigId;
use app_host_core::restart::history::History;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // So that bytes can get past it.
    let digest = |_: &str| ConfigId::from_digest([0; 32]);
    let Ok(history) = History::parse(bytes, digest) else { return };
    let written = history.to_json().expect("texts and numbers can be written");
    assert_eq!(History::parse(&written, digest).expect("what was written is read"), history);
    let _ = history.list();
    for digits in [None, Some(""), Some("0000"), Some("ffff")] {
        let _ = history.earlier(digits);
    }
    let _ = history.held();
});
