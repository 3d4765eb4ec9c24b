//! What travels between two workers, of which the other one may be run by somebody else: packets of connections, the
//! papers of each, and the answers.
//!
//! Run as `command` is (see there), with `--bin handover` and without the dictionary.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unfulfilled_lint_expectations,
    reason = "the rooms are the host's; see there"
)]

#[path = "../../../host/worker/src/handover"]
mod handover {
    #[path = "harbour.rs"]
    mod harbour;
    #[path = "outbox.rs"]
    pub mod outbox;
    #[path = "wire.rs"]
    pub mod wire;
    pub use harbour::{Harbour, NoBerth, Parcel, Settle};

    pub const MAX_PAPERS: usize = 96 * 1024;

    pub fn unpack(packet: &[u8]) -> Vec<&[u8]> {
        wire::unpack(packet).collect()
    }

    /// An outbox with connections on their way hears any answers.
    pub fn answers(bytes: &[u8]) {
        let Some(word) = wire::Word::read(bytes) else { return };
        assert_eq!(word.write(), bytes);
        let mut outbox = outbox::Outbox::<u32>::new();
        let mut now = std::time::Duration::ZERO;
        let link = outbox.add_link(None, now);
        for number in 0..10 {
            outbox.push(number, now);
        }
        if let Some((to, count)) = outbox.next(now) {
            assert_eq!(to, link);
            outbox.sent(link, count.min(5), now);
        }
        for _ in 0..3 {
            outbox.answered(link, &word.answers, word.held, now);
            now += std::time::Duration::from_secs(2);
            outbox.tick(now);
        }
        outbox.gone(link, now);
        outbox.close();
        outbox.cut();
        assert_eq!(outbox.take_done().len(), 10, "each connection is somewhere, once");
    }
}
#[path = "../../../host/worker/src/http"]
mod http {
    use std::time::Duration;

    pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
    pub mod timeouts {
        pub const IDLE_TICKS: u32 = 4;
    }
    #[path = "state/history.rs"]
    mod history;
    pub use history::History;
}
#[path = "../../../host/worker/src"]
mod worker {
    #[path = "papers.rs"]
    mod papers;

    pub fn papers(bytes: &[u8]) {
        let Some((papers, rest)) = papers::Papers::read(bytes) else { return };
        assert!(bytes.ends_with(rest));
        assert!(std::time::Instant::now().checked_add(papers.history.next_tick).is_some());
        let mut history = papers.history;
        for _ in 0..10 {
            let _ = history.waits_on();
        }
        let mut packet = Vec::new();
        assert!(papers.write(&mut packet));
        let (again, _) = papers::Papers::read(&packet).expect("what was written is read");
        assert_eq!((again.listener, again.age, again.history), (papers.listener, papers.age, papers.history));
        for end in [papers.peer, papers.local].into_iter().flatten() {
            let address = end.address();
            assert_eq!(papers::End::of(address).address(), address);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let all = handover::unpack(bytes);
    assert!(all.iter().map(|papers| papers.len() + 4).sum::<usize>() <= bytes.len());
    all.into_iter().for_each(worker::papers);
    worker::papers(bytes);
    handover::answers(bytes);
});
