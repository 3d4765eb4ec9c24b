//! What travels between two workers, of which an attacker may run the other one: packets of connections, the record of
//! each, and the acknowledgements.
//!
//! Run as `command` is (see there), with `--bin transfer` and without the dictionary.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unfulfilled_lint_expectations,
    reason = "the rooms are the host's; see there"
)]

#[path = "../../../host/worker/src/transfer"]
mod transfer {
    #[path = "outbox/mod.rs"]
    pub mod outbox;
    #[path = "receiver.rs"]
    mod receiver;
    #[path = "wire.rs"]
    pub mod wire;
    pub use receiver::{Commit, Receiver, Rejection, Transferable};

    pub const MAX_RECORD: usize = 96 * 1024;

    pub fn unpack(packet: &[u8]) -> Vec<&[u8]> {
        wire::unpack(packet).collect()
    }

    /// An outbox with connections on their way gets any replies.
    pub fn acknowledge(bytes: &[u8]) {
        let Some(ack) = wire::Ack::read(bytes) else { return };
        assert_eq!(ack.write(), bytes);
        let mut outbox = outbox::Outbox::<u32>::new();
        let mut now = std::time::Duration::ZERO;
        let link = outbox.add_link(None, now);
        for number in 0..10 {
            outbox.push(number, now);
        }
        if let Some((to, count)) = outbox.next(now) {
            assert_eq!(to, link);
            outbox.mark_sent(link, count.min(5), now);
        }
        for _ in 0..3 {
            outbox.acknowledge(link, &ack.replies, ack.connections, now);
            now += std::time::Duration::from_secs(2);
            outbox.tick(now);
        }
        outbox.link_gone(link, now);
        outbox.close();
        outbox.cut();
        assert_eq!(outbox.take_outcomes().len(), 10, "each connection is somewhere, once");
    }
}
#[path = "../../../host/worker/src/connection"]
mod connection {
    #[path = "http2/moving/frames.rs"]
    mod frames;
    #[path = "state/history.rs"]
    mod history;
    #[path = "http2/moving/snapshot.rs"]
    mod snapshot;
    pub use history::History;
    pub use snapshot::Http2Snapshot;
}
#[path = "../../../host/worker/src"]
mod worker {
    #[path = "record.rs"]
    mod record;

    pub fn record(bytes: &[u8]) {
        let Some((record, rest)) = record::ConnectionRecord::read(bytes) else { return };
        assert!(bytes.ends_with(rest));
        assert!(std::time::Instant::now().checked_add(record.history.next_look).is_some());
        let mut history = record.history;
        for _ in 0..10 {
            let _ = history.waits_on(std::time::Duration::from_secs(30), std::time::Duration::from_secs(90));
        }
        let mut packet = Vec::new();
        assert!(record.write(&mut packet));
        let (again, _) = record::ConnectionRecord::read(&packet).expect("what was written is read");
        assert_eq!((again.listener, again.age, again.history), (record.listener, record.age, record.history));
        assert_eq!(again.snapshot, record.snapshot);
        for end in [record.peer, record.local].into_iter().flatten() {
            let address = end.address();
            assert_eq!(record::Endpoint::of(address).address(), address);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let all = transfer::unpack(bytes);
    assert!(all.iter().map(|record| record.len() + 4).sum::<usize>() <= bytes.len());
    all.into_iter().for_each(worker::record);
    worker::record(bytes);
    transfer::acknowledge(bytes);
});
