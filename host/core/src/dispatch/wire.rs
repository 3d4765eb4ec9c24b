//! The form of a packet on a dispatch socket: a small binary head, the topic, the message.
//!
//! ```text
//! byte   0      1          2..4    4..12                  12..      ..
//!        kind   length     slot    generation, how many   topic,    message
//!               of topic           were lost, or the      or lock
//!                                  number of a claim
//! ```
//! Numbers are in the machine's own order: both ends are the same binary. A worker leaves slot and
//! generation to the master, which knows them and believes nobody.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// The longest topic, in bytes.
pub const MAX_TOPIC: usize = 255;

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The longest packet, in bytes.
pub const MAX_PACKET: usize = HEAD + MAX_TOPIC + MAX_MESSAGE;

const HEAD: usize = 12;
const SLOT: Range<usize> = 2..4;
const NUMBER: Range<usize> = 4..12;

const MESSAGE: u8 = 1;
const LOST: u8 = 2;
const CLAIM: u8 = 3;
const RELEASE: u8 = 4;
const GRANTED: u8 = 5;

/// Who published a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher {
    pub slot: u16,
    pub generation: u64,
}

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Message {
        origin: Publisher,
        topic: &'a str,
        bytes: &'a [u8],
    },
    /// In this place so many messages of the topic, or where it is empty of any, were dropped.
    Lost {
        topic: &'a str,
        count: u64,
    },
    /// A worker wants the lock of this name; the number of the claim is its own.
    Claim {
        lock: &'a str,
        number: u64,
    },
    /// A worker gives it back, or doesn't want it any more.
    Release {
        lock: &'a str,
        number: u64,
    },
    /// The claim holds the lock.
    Granted {
        lock: &'a str,
        number: u64,
    },
}

/// A packet that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a packet of {0} bytes is too short, or too long")]
    Length(usize),
    #[error("a packet is of the kind {0}, which there is not")]
    Kind(u8),
    #[error("a packet's topic or lock is empty or not UTF-8")]
    Topic,
}

/// A message that is to be sent. Topic and message must be within their bounds.
#[must_use]
pub fn message(topic: &str, bytes: &[u8]) -> Bytes {
    packet(MESSAGE, 0, topic, bytes)
}

/// Word of a loss.
#[must_use]
pub fn lost(topic: &str, count: u64) -> Bytes {
    packet(LOST, count, topic, &[])
}

/// A claim to a lock, whose name must be as a topic is.
#[must_use]
pub fn claim(lock: &str, number: u64) -> Bytes {
    packet(CLAIM, number, lock, &[])
}

/// Gives a claim back.
#[must_use]
pub fn release(lock: &str, number: u64) -> Bytes {
    packet(RELEASE, number, lock, &[])
}

/// Word that a claim holds its lock.
#[must_use]
pub fn granted(lock: &str, number: u64) -> Bytes {
    packet(GRANTED, number, lock, &[])
}

fn packet(kind: u8, number: u64, topic: &str, bytes: &[u8]) -> Bytes {
    let mut packet = BytesMut::with_capacity(HEAD + topic.len() + bytes.len());
    packet.put_u8(kind);
    packet.put_u8(u8::try_from(topic.len()).expect("a topic has at most 255 bytes"));
    packet.put_u16_ne(0);
    packet.put_u64_ne(number);
    packet.put_slice(topic.as_bytes());
    packet.put_slice(bytes);
    packet.freeze()
}

/// Reads a packet.
pub fn read(packet: &[u8]) -> Result<Packet<'_>, WireError> {
    let wrong_length = WireError::Length(packet.len());
    let (head, rest) = packet.split_first_chunk::<HEAD>().ok_or(wrong_length)?;
    let (topic, bytes) = rest.split_at_checked(usize::from(head[1])).ok_or(wrong_length)?;
    let topic = std::str::from_utf8(topic).map_err(|_| WireError::Topic)?;
    let slot = u16::from_ne_bytes(head[SLOT].try_into().expect("it is of that length"));
    let number = u64::from_ne_bytes(head[NUMBER].try_into().expect("it is of that length"));
    match head[0] {
        MESSAGE | CLAIM | RELEASE | GRANTED if topic.is_empty() => Err(WireError::Topic),
        MESSAGE if bytes.len() > MAX_MESSAGE => Err(wrong_length),
        MESSAGE => Ok(Packet::Message { origin: Publisher { slot, generation: number }, topic, bytes }),
        LOST if bytes.is_empty() => Ok(Packet::Lost { topic, count: number }),
        CLAIM if bytes.is_empty() => Ok(Packet::Claim { lock: topic, number }),
        RELEASE if bytes.is_empty() => Ok(Packet::Release { lock: topic, number }),
        GRANTED if bytes.is_empty() => Ok(Packet::Granted { lock: topic, number }),
        LOST | CLAIM | RELEASE | GRANTED => Err(wrong_length),
        kind => Err(WireError::Kind(kind)),
    }
}

/// Checks a packet of a worker's for others and writes in it whose it is; gives a copy to hand on.
pub fn stamp(packet: &mut [u8], origin: Publisher) -> Result<Bytes, WireError> {
    match read(packet)? {
        Packet::Message { .. } => {}
        // Only the master knows what was lost; and what is for the master isn't for others.
        _ => return Err(WireError::Kind(packet[0])),
    }
    packet[SLOT].copy_from_slice(&origin.slot.to_ne_bytes());
    packet[NUMBER].copy_from_slice(&origin.generation.to_ne_bytes());
    Ok(Bytes::copy_from_slice(packet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_with_the_masters_stamp() {
        let origin = Publisher { slot: 3, generation: 7 };
        let longest = ("ü".repeat(127) + "x", vec![9; MAX_MESSAGE]);
        for (topic, bytes) in [("t", &b""[..]), ("entries", b"hello"), (&longest.0, &longest.1)] {
            let mut sent = message(topic, bytes).to_vec();
            assert!(sent.len() <= MAX_PACKET);
            // Whatever a worker claims.
            sent[2..12].fill(0xff);
            let stamped = stamp(&mut sent, origin).unwrap();
            assert_eq!(read(&stamped), Ok(Packet::Message { origin, topic, bytes }));
        }
        assert_eq!(read(&lost("t", 5)), Ok(Packet::Lost { topic: "t", count: 5 }));
        assert_eq!(read(&lost("", 5)), Ok(Packet::Lost { topic: "", count: 5 }));
        assert_eq!(read(&claim("l", 5)), Ok(Packet::Claim { lock: "l", number: 5 }));
        assert_eq!(read(&release("l", 5)), Ok(Packet::Release { lock: "l", number: 5 }));
        assert_eq!(read(&granted("l", 5)), Ok(Packet::Granted { lock: "l", number: 5 }));
    }

    #[test]
    fn garbage_is_an_error() {
        let origin = Publisher { slot: 0, generation: 1 };
        let mut no_utf8 = message("tt", b"x").to_vec();
        no_utf8[12] = 0xff;
        for (mut packet, error) in [
            (vec![], WireError::Length(0)),
            (vec![1; 11], WireError::Length(11)),
            (message("topic", b"").slice(..14).to_vec(), WireError::Length(14)),
            (message("t", &vec![0; MAX_MESSAGE + 1]).to_vec(), WireError::Length(MAX_MESSAGE + 14)),
            (vec![b'i'; 300], WireError::Kind(b'i')),
            (message("", b"x").to_vec(), WireError::Topic),
            (no_utf8, WireError::Topic),
            (lost("t", 1).to_vec(), WireError::Kind(LOST)),
            (granted("t", 1).to_vec(), WireError::Kind(GRANTED)),
            (claim("t", 1).to_vec(), WireError::Kind(CLAIM)),
            (release("", 1).to_vec(), WireError::Topic),
        ] {
            assert_eq!(stamp(&mut packet, origin), Err(error));
        }
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(kind) = packet.first_mut() {
                *kind %= 8;
            }
            let _ = stamp(&mut packet, Publisher { slot: 1, generation: 2 });
        }
    }
}
