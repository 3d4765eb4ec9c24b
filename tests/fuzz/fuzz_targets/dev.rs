//! What `dev` reads: the log of its master, in which an app's own words stand as well, and what cargo says of a build.
//!
//! Run as `command` is (see there), with `--bin dev` and without the dictionary.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unfulfilled_lint_expectations,
    reason = "the rooms are the host's; see there"
)]

#[path = "../../../host/src/dev"]
mod dev {
    #[path = "cargo.rs"]
    pub mod cargo;
    #[path = "news.rs"]
    pub mod news;
}

use dev::news::{News, Reader, RestartOutcome};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        for news in reader.line(&String::from_utf8_lossy(line)) {
            match news {
                News::Address(_) => {}
                News::Live { version } | News::Verdict(RestartOutcome::Complete { version }) => {
                    assert!(!version.contains(app_host_core::foreign::is_unsafe), "{version:?}");
                }
                News::Verdict(
                    RestartOutcome::Refused { reason, detail } | RestartOutcome::Failed { reason, detail },
                ) => {
                    assert!(!format!("{reason}{detail}").contains(app_host_core::foreign::is_unsafe), "{detail:?}");
                }
                News::Line { text, .. } => {
                    assert!(!app_host_core::foreign::printable(&text).contains(app_host_core::foreign::is_unsafe))
                }
            }
        }
    }
    let id = cargo_metadata::PackageId { repr: "path+file:///app#0.1.0".to_owned() };
    if let Ok(Some(library)) = dev::cargo::library(bytes, &id, || {}) {
        assert!(library.extension().is_some_and(|extension| extension == "so"));
    }
});
