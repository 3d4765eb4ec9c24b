//! What a child says to its master: whatever the bytes and however they are cut, few are kept, and what comes out is
//! a message or an end.
//!
//! Run as `command` is (see there), with `--bin channel` and without the dictionary.
#![no_main]

use app_host_core::foreign;
use app_host_core::message::{FromAdmin, FromDatabankCheck, FromProbe, FromWorker};
use app_host_platform::channel::frames::{Frames, MAX_TEXT, frame};

fn read(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for piece in stream.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let now = rest.len().min(frames.room());
            frames.put(&rest[..now]);
            rest = &rest[now..];
            loop {
                match frames.take() {
                    Ok(Some(text)) => found.push(text),
                    Ok(None) => break,
                    Err(_) => return (found, false),
                }
            }
            assert!(frames.room() > 0, "a message is taken before there is no room for it");
        }
    }
    let whole = frames.end().is_ok();
    (found, whole)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else { return };
    let (found, whole) = read(stream, usize::from(*first) + 1);
    assert_eq!(read(stream, usize::MAX), (found.clone(), whole), "how it is cut doesn't matter");
    let again: Vec<u8> = found.iter().flat_map(|text| frame(text).expect("it came through")).collect();
    assert!(stream.starts_with(&again) && (!whole || again.len() == stream.len()));
    for text in found.iter().map(Vec::as_slice).chain([stream]) {
        assert!(text.len() <= MAX_TEXT || text == stream);
        if let Err(error) = serde_json::from_slice::<FromWorker>(text) {
            let said = foreign::line(&error.to_string(), foreign::MAX_NAME);
            assert!(said.len() <= foreign::MAX_NAME && !said.contains(foreign::is_unsafe), "{said:?}");
        }
        if let Ok(FromWorker::StartFailed { error } | FromWorker::CannotListen { error }) = serde_json::from_slice(text)
        {
            let said = foreign::line(&error, foreign::MAX_TEXT);
            assert!(said.len() <= foreign::MAX_TEXT && !said.contains(foreign::is_unsafe), "{said:?}");
            assert_eq!(foreign::line(&said, foreign::MAX_TEXT), said);
        }
        let _ = serde_json::from_slice::<FromProbe>(text);
        let _ = serde_json::from_slice::<FromDatabankCheck>(text);
        let _ = serde_json::from_slice::<FromAdmin>(text);
    }
});
