//! What travels on a link. Pure but for the descriptors, which are only counted.
//!
//! One way: as many connections as fit, each with its papers and their length before them; the descriptors come
//! along in the same order. The other way: how many connections the worker has, and an answer for each connection
//! of the oldest packet that has none; without any, right at the beginning, when there was none yet.
//!
//! Both ends are the same binary or of the same magic, so integers are in the machine's own order.

use std::os::fd::BorrowedFd;

use super::outbox::{Answer, BATCH};
use super::{MAX_PAPERS, Parcel};

/// How long the length before a connection's papers is.
const LENGTH: usize = size_of::<u32>();

/// The most bytes that a packet with connections has: the longest papers, or many short ones.
pub(super) const MAX_PACKET: usize = LENGTH + MAX_PAPERS;

/// The most bytes that a packet with answers has.
pub(super) const MAX_WORD: usize = size_of::<u64>() + BATCH;

/// A packet of the first of these connections: as many as one takes. None, if the first has no papers that fit.
pub(super) fn pack<'a, P: Parcel>(parcels: impl Iterator<Item = &'a P>) -> (Vec<u8>, Vec<BorrowedFd<'a>>) {
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    for parcel in parcels.take(BATCH) {
        let begin = bytes.len();
        bytes.extend_from_slice(&[0; LENGTH]);
        let written = parcel.write_papers(&mut bytes);
        let length = u32::try_from(bytes.len() - begin - LENGTH).ok();
        let Some(length) = length.filter(|_| written && bytes.len() <= MAX_PACKET) else {
            bytes.truncate(begin);
            break;
        };
        bytes[begin..begin + LENGTH].copy_from_slice(&length.to_ne_bytes());
        descriptors.push(parcel.socket());
    }
    (bytes, descriptors)
}

/// The papers in a packet, in the order of the connections. What can't be read is no papers of anybody.
pub(super) fn unpack(mut packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = packet.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let (papers, rest) = rest.split_at_checked(length)?;
        packet = rest;
        Some(papers)
    })
}

/// What a worker that takes connections says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// How many connections it has.
    pub(super) held: u64,
    /// One for each connection of a packet.
    pub(super) answers: Vec<Answer>,
}

const TAKEN: u8 = 1;
const NO_ROOM: u8 = 2;
const UNKNOWN: u8 = 3;

impl Word {
    pub(super) fn write(&self) -> Vec<u8> {
        let kinds = self.answers.iter().map(|answer| match answer {
            Answer::Taken => TAKEN,
            Answer::NoRoom => NO_ROOM,
            Answer::Unknown => UNKNOWN,
        });
        self.held.to_ne_bytes().into_iter().chain(kinds).collect()
    }

    /// `None` for what no worker says.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (held, kinds) = bytes.split_first_chunk()?;
        let answers = kinds.iter().map(|kind| match *kind {
            TAKEN => Some(Answer::Taken),
            NO_ROOM => Some(Answer::NoRoom),
            UNKNOWN => Some(Answer::Unknown),
            _ => None,
        });
        Some(Self { held: u64::from_ne_bytes(*held), answers: answers.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Letter;
    use super::*;

    fn parcel(papers: Vec<u8>) -> Letter {
        Letter { socket: std::fs::File::open("/dev/null").unwrap().into(), papers, told: None }
    }

    #[test]
    fn as_many_are_packed_as_fit_and_one_always_does() {
        let count = |length: usize, of: usize| {
            let parcels: Vec<_> = (0..of).map(|_| parcel(vec![7; length])).collect();
            let (bytes, descriptors) = pack(parcels.iter());
            assert!(bytes.len() <= MAX_PACKET);
            assert!(unpack(&bytes).all(|papers| papers.len() == length));
            assert_eq!(unpack(&bytes).count(), descriptors.len());
            descriptors.len()
        };
        assert_eq!((count(0, 3), count(200, 2 * BATCH)), (3, BATCH));
        assert_eq!((count(MAX_PAPERS, 2), count(MAX_PAPERS / 2 - LENGTH, 3)), (1, 2));
        assert_eq!(count(MAX_PAPERS + 1, 2), 0);
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(papers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let parcels: Vec<_> = papers.iter().cloned().map(parcel).collect();
            let (bytes, _) = pack(parcels.iter());
            prop_assert_eq!(unpack(&bytes).collect::<Vec<_>>(), papers);
        }

        #[test]
        fn no_bytes_are_feared(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = unpack(&bytes).count();
            if let Some(word) = Word::read(&bytes) {
                prop_assert_eq!(word.write(), bytes);
            }
        }
    }
}
