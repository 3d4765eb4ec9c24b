//! Headers of the PROXY protocol, which anybody may write who reaches a listener from a trusted network.
//!
//! Run as `command` is (see there), with `--bin proxy_protocol` and without the dictionary.
#![no_main]
#![allow(dead_code, missing_docs, unfulfilled_lint_expectations, reason = "the room is the host's; see there")]

#[path = "../../../host/worker/src/proxy_protocol/header/mod.rs"]
mod header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let read = header::read(bytes);
    match &read {
        Ok(None) => assert!(bytes.len() < header::MAX_HEADER, "there is a bound"),
        Ok(Some((_, length))) => {
            assert!((1..=bytes.len()).contains(length));
            assert_eq!(header::read(&bytes[..*length]), read, "what follows changes nothing");
        }
        Err(_) => {}
    }
    // However it comes, the answer is the same: no beginning has another one.
    for end in 0..bytes.len().min(300) {
        match header::read(&bytes[..end]) {
            Ok(None) => {}
            other => assert_eq!(other, read),
        }
    }
});
