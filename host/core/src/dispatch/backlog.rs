//! Packets that wait to be sent, within bounds. What is to happen beyond them is the owner's choice:
//! refuse the newest, or take out the oldest.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{MAX_WAITING, MAX_WAITING_BYTES};

/// Packets in the order in which they came.
#[derive(Debug, Default)]
pub struct Backlog {
    packets: VecDeque<Bytes>,
    bytes: usize,
}

impl Backlog {
    /// Whether the packet may be pushed and the bounds hold.
    #[must_use]
    pub fn has_room_for(&self, packet: &Bytes) -> bool {
        self.packets.len() < MAX_WAITING && self.bytes + packet.len() <= MAX_WAITING_BYTES
    }

    /// Puts a packet behind the others, for which there must be room.
    pub fn push(&mut self, packet: Bytes) {
        debug_assert!(self.has_room_for(&packet), "the owner makes room");
        self.bytes += packet.len();
        self.packets.push_back(packet);
    }

    /// Takes out the oldest.
    pub fn pop(&mut self) -> Option<Bytes> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        if self.packets.is_empty() {
            // A flood that is over keeps no memory.
            self.packets = VecDeque::new();
        }
        Some(packet)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_bounded_in_number_and_in_bytes_and_keeps_the_order() {
        for length in [1, 64 * 1024] {
            let mut backlog = Backlog::default();
            let packet = Bytes::from(vec![0; length]);
            let mut pushed = 0;
            while backlog.has_room_for(&packet) {
                backlog.push(packet.clone());
                pushed += 1;
            }
            assert_eq!(pushed, MAX_WAITING.min(MAX_WAITING_BYTES / length));
            assert_eq!(backlog.pop(), Some(packet.clone()));
            assert!(backlog.has_room_for(&packet));
        }
        let mut backlog = Backlog::default();
        backlog.push(Bytes::from_static(b"1"));
        backlog.push(Bytes::from_static(b"2"));
        assert_eq!(backlog.pop().unwrap(), "1");
        assert_eq!(backlog.pop().unwrap(), "2");
        assert!(backlog.is_empty() && backlog.pop().is_none());
    }
}
