//! Packets between workers: whatever a worker sends, what its master hands on says whose it is, and reads back.
//!
//! Run as `command` is (see there), with `--bin dispatch` and without the dictionary.
#![no_main]

use app_host_core::dispatch::wire::{self, Packet, Publisher};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let origin = Publisher { slot: 7, generation: 1 << 40 };
    let read = wire::read(bytes).is_ok();
    let mut sent = bytes.to_vec();
    match wire::stamp(&mut sent, origin) {
        Ok(stamped) => {
            let Ok(Packet::Message { origin: found, topic, bytes: message }) = wire::read(&stamped) else {
                panic!("what is handed on is a message");
            };
            assert_eq!(found, origin);
            assert!((1..=wire::MAX_TOPIC).contains(&topic.len()) && message.len() <= wire::MAX_MESSAGE);
            assert!(stamped.len() <= wire::MAX_PACKET && stamped.len() == bytes.len());
            assert!(bytes.ends_with(message));
        }
        Err(_) => assert_eq!(sent, bytes, "what isn't handed on isn't touched"),
    }
    if let Ok(Packet::Lost { topic, count }) = wire::read(bytes) {
        assert!(read);
        assert_eq!(wire::read(&wire::lost(topic, count)), wire::read(bytes));
    }
});
