//! Ledgers of arbitrary bytes: one that is read is sound, is written as it was read, and can be decided with.
//!
//! Run as `command` is (see there), with `--bin ledger` and without the dictionary.
#![no_main]

use app_host_core::ids::ConfigId;
use app_host_core::restart::ledger::Ledger;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // So that bytes can get past it.
    let digest = |_: &str| ConfigId::from_digest([0; 32]);
    let Ok(ledger) = Ledger::parse(bytes, digest) else { return };
    let written = ledger.to_json().expect("texts and numbers can be written");
    assert_eq!(Ledger::parse(&written, digest).expect("what was written is read"), ledger);
    let _ = ledger.list();
    for digits in [None, Some(""), Some("0000"), Some("ffff")] {
        let _ = ledger.earlier(digits);
    }
    let _ = ledger.held();
});
