//! The wire format of a link between two workers. Pure but for the descriptors, which are only counted.
//!
//! From sender to receiver: up to [`BATCH`] connections a packet, each as the length of its record and the record; the
//! descriptors come along in the same order. From receiver to sender: how many connections the receiver has, and a reply
//! for each connection of the oldest packet that has none yet. The receiver's first packet has no replies.
//!
//! Both ends are the same binary or of the same magic, so integers are in the machine's own byte order.

use std::ops::Deref;
use std::os::fd::BorrowedFd;

use zeroize::Zeroize;

use super::outbox::{BATCH, Reply};
use super::{MAX_RECORD, Transferable};

/// The bytes of the length before a record.
const LENGTH: usize = size_of::<u32>();

/// The most bytes of a packet with connections: the longest record, or many short ones.
pub(super) const MAX_PACKET: usize = LENGTH + MAX_RECORD;

/// The most bytes of a packet with replies.
pub(super) const MAX_ACK: usize = size_of::<u64>() + BATCH;

/// Bytes that may hold keys of connections: overwritten when they are dropped.
pub(super) struct Packet(Vec<u8>);

impl Packet {
    /// With room for all that one takes: growing would leave copies behind.
    fn new() -> Self {
        Self(Vec::with_capacity(MAX_PACKET))
    }
}

impl Deref for Packet {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

/// Packs the first of these connections, as many as one packet takes. Packs none if the first has no record that fits.
pub(super) fn pack<'a, C: Transferable>(connections: impl Iterator<Item = &'a C>) -> (Packet, Vec<BorrowedFd<'a>>) {
    let (mut packet, mut descriptors) = (Packet::new(), Vec::new());
    let bytes = &mut packet.0;
    for connection in connections.take(BATCH) {
        let begin = bytes.len();
        bytes.extend_from_slice(&[0; LENGTH]);
        let written = connection.write_record(bytes);
        let length = u32::try_from(bytes.len() - begin - LENGTH).ok();
        let Some(length) = length.filter(|_| written && bytes.len() <= MAX_PACKET) else {
            bytes[begin..].zeroize();
            bytes.truncate(begin);
            break;
        };
        bytes[begin..begin + LENGTH].copy_from_slice(&length.to_ne_bytes());
        descriptors.push(connection.socket());
    }
    (packet, descriptors)
}

/// The records in a packet, in the order of the connections. Ends at the first bytes that are no record.
pub(super) fn unpack(mut packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = packet.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let (record, rest) = rest.split_at_checked(length)?;
        packet = rest;
        Some(record)
    })
}

/// What the receiving worker sends back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    /// How many connections the worker has.
    pub(super) connections: u64,
    /// One for each connection of a packet.
    pub(super) replies: Vec<Reply>,
}

const ACCEPTED: u8 = 1;
const NO_ROOM: u8 = 2;
const UNKNOWN: u8 = 3;

impl Ack {
    pub(super) fn write(&self) -> Vec<u8> {
        let kinds = self.replies.iter().map(|reply| match reply {
            Reply::Accepted => ACCEPTED,
            Reply::NoRoom => NO_ROOM,
            Reply::Unknown => UNKNOWN,
        });
        self.connections.to_ne_bytes().into_iter().chain(kinds).collect()
    }

    /// Reads what [`write`](Self::write) has written; `None` for anything else.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (connections, kinds) = bytes.split_first_chunk()?;
        let replies = kinds.iter().map(|kind| match *kind {
            ACCEPTED => Some(Reply::Accepted),
            NO_ROOM => Some(Reply::NoRoom),
            UNKNOWN => Some(Reply::Unknown),
            _ => None,
        });
        Some(Self { connections: u64::from_ne_bytes(*connections), replies: replies.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::TestConnection;
    use super::*;

    fn connection(record: Vec<u8>) -> TestConnection {
        TestConnection { socket: std::fs::File::open("/dev/null").unwrap().into(), record, outcome: None }
    }

    #[test]
    fn a_packet_takes_as_many_as_fit_and_always_one() {
        let count = |length: usize, of: usize| {
            let connections: Vec<_> = (0..of).map(|_| connection(vec![7; length])).collect();
            let (bytes, descriptors) = pack(connections.iter());
            assert!(bytes.len() <= MAX_PACKET);
            assert!(unpack(&bytes).all(|record| record.len() == length));
            assert_eq!(unpack(&bytes).count(), descriptors.len());
            descriptors.len()
        };
        assert_eq!((count(0, 3), count(200, 2 * BATCH)), (3, BATCH));
        assert_eq!((count(MAX_RECORD, 2), count(MAX_RECORD / 2 - LENGTH, 3)), (1, 2));
        assert_eq!(count(MAX_RECORD + 1, 2), 0);
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let connections: Vec<_> = records.iter().cloned().map(connection).collect();
            let (bytes, _) = pack(connections.iter());
            prop_assert_eq!(unpack(&bytes).collect::<Vec<_>>(), records);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = unpack(&bytes).count();
            if let Some(ack) = Ack::read(&bytes) {
                prop_assert_eq!(ack.write(), bytes);
            }
        }
    }
}
