//! What `ctl` reads at a socket that anybody may listen at: lines, events, a status, a list of versions; and what it
//! prints of them for people moves no cursor.
//!
//! Run as `command` is (see there), with `--bin ctl` and without the dictionary.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unfulfilled_lint_expectations,
    reason = "the rooms are the host's; see there"
)]

#[path = "../../../host/src/ctl"]
mod ctl {
    #[path = "lines.rs"]
    pub mod lines;
    #[path = "progress.rs"]
    pub mod progress;
    #[path = "table.rs"]
    pub mod table;

    pub fn read(bytes: &[u8], piece: usize) -> (Vec<String>, bool) {
        let (mut lines, mut found) = (lines::Lines::default(), Vec::new());
        let mut progress = progress::Progress::default();
        for piece in bytes.chunks(piece) {
            lines.put(piece);
            loop {
                match lines.next() {
                    Ok(Some(lines::Line::Answer(answer))) => found.push(answer.to_string()),
                    Ok(Some(lines::Line::Event(event))) => {
                        found.extend(progress.line(&event));
                        found.push(progress::plain(&event));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert!(!error.to_string().contains(app_host_core::foreign::is_unsafe), "{error}");
                        return (found, false);
                    }
                }
            }
        }
        (found, true)
    }

    pub fn tables(text: &str) {
        let Ok(mut value) = serde_json::from_str(text) else { return };
        app_host_core::foreign::make_printable(&mut value);
        let mut shown = Vec::new();
        if let serde_json::Value::Array(versions) = &value {
            // A line each, and one that says what they are.
            shown.push((table::versions(versions), versions.len() + 1));
        }
        if let Ok(status) = serde_json::from_value::<app_host_core::status::Status>(value) {
            // A line a worker and a certificate, and up to eight of the master.
            let lines = status.workers.len() + status.certificates.len() + 8;
            let later = std::time::Duration::from_millis(1500);
            shown.push((table::status(&status, None), lines));
            shown.push((table::status(&status, Some((&status, later))), lines));
        }
        for (shown, lines) in shown {
            assert!(!shown.contains(|c| c != '\n' && app_host_core::foreign::is_unsafe(c)), "{shown:?}");
            assert!(shown.lines().count() <= lines, "{shown:?}");
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else { return };
    let found = ctl::read(stream, usize::from(*first) + 1);
    assert_eq!(ctl::read(stream, usize::MAX), found, "how it is cut doesn't matter");
    for line in found.0 {
        assert!(!app_host_core::foreign::printable(&line).contains(app_host_core::foreign::is_unsafe), "{line:?}");
    }
    ctl::tables(&String::from_utf8_lossy(stream));
});
