//! What a client of HTTP/2 sends whose connection moves, and what HTTP says where it goes on.
//!
//! Run as `command` is (see there), with `--bin http2` and without the dictionary.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unfulfilled_lint_expectations,
    reason = "the rooms are the host's; see there"
)]

#[path = "../../../host/worker/src/connection"]
mod connection {
    pub mod state {
        pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    }

    #[path = "http2/moving"]
    pub mod moving {
        #[path = "fields.rs"]
        pub mod fields;
        #[path = "frames.rs"]
        pub mod frames;
        #[path = "observer.rs"]
        pub mod observer;
        #[path = "resume.rs"]
        pub mod resume;
        #[path = "snapshot.rs"]
        pub mod snapshot;
        #[path = "sorter.rs"]
        pub mod sorter;
    }
}

use connection::moving::fields::Block;
use connection::moving::observer::Observer;
use connection::moving::resume::Resume;
use connection::moving::snapshot::{Http2Snapshot, Settings};
use connection::moving::sorter::{SortError, Sorter};

/// What is known behind these bytes of both sides, each in pieces of so many.
fn followed(received: &[u8], sent: &[u8], piece: usize) -> Observer {
    let mut observer = Observer::new(0);
    received.chunks(piece).for_each(|bytes| observer.on_delivered(bytes));
    sent.chunks(piece).for_each(|bytes| observer.on_written(bytes));
    observer
}

/// Everything that a sorter is given comes out once and in its order, but for what it swallows: nothing is, here.
fn sort(bytes: &[u8], piece: usize) {
    let mut sorter = Sorter::new(0, false);
    let mut out = Vec::new();
    let mut stays = false;
    for bytes in bytes.chunks(piece) {
        stays |= sorter.push(bytes, (1 << 20, true), &mut out).is_err();
    }
    sorter.finish(&mut out);
    assert_eq!(out, bytes, "{stays}");
}

/// Streams that are held back come behind the others, and none of their bytes is lost.
fn hold(bytes: &[u8], piece: usize) {
    let mut sorter = Sorter::new(1, true);
    sorter.on_told();
    sorter.hold_behind(7);
    let mut out = Vec::new();
    for bytes in bytes.chunks(piece) {
        match sorter.push(bytes, (1 << 17, piece % 2 == 0), &mut out) {
            Err(SortError::Unproven) => return,
            Err(SortError::Stays(_)) => sorter.stay(),
            Ok(()) => {}
        }
    }
    assert!(sorter.unread() <= bytes.len() && out.len() <= bytes.len());
    sorter.finish(&mut out);
    // Two acknowledgements are swallowed, at most, of nine bytes and what they must not have.
    assert!(out.len() <= bytes.len());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let piece = usize::from(*first) + 1;
    let (received, sent) = bytes.split_at(bytes.len() / 2);
    let observer = followed(received, sent, piece);
    let whole = followed(received, sent, usize::MAX);
    assert_eq!(observer.snapshot(true), whole.snapshot(true), "it does not matter where reads end");
    assert_eq!((observer.last(), observer.credit()), (whole.last(), whole.credit()));
    sort(bytes, piece);
    hold(bytes, piece);
    let _ = Block::read(bytes);
    let snapshot = whole.snapshot(false).unwrap_or(Http2Snapshot {
        last: 1,
        send_window: 65_535 - u32::from(*first),
        credit: 1 << 20,
        client: Settings::NONE,
        ours: Settings::NONE,
        moves: 0,
        proven: false,
    });
    let mut resume = Resume::new(&snapshot, 1 << 20);
    while !resume.read(piece).is_empty() {}
    for bytes in bytes.chunks(piece) {
        match resume.swallow(bytes) {
            Ok(taken) => assert!(taken <= bytes.len()),
            Err(_) => break,
        }
        if resume.is_done() {
            let _ = resume.outro();
            break;
        }
    }
});
