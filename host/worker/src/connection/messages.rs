//! Where the messages of a WebSocket begin and end (RFC 6455, section 5.2), from the bytes alone. Pure.
//!
//! Only the heads of frames are read: nothing is unmasked or copied. What isn't a frame as the RFC has it, or has bits of
//! an extension where none was negotiated, is never between two messages again.

/// The longest head: two bytes, a length of eight, and a mask.
const MAX_HEAD: usize = 14;

const FIN: u8 = 0x80;
const EXTENSION_BITS: u8 = 0x70;
const CONTINUATION: u8 = 0;
/// The first of the opcodes of control frames, which may stand within a message.
const CLOSE: u8 = 8;
const MASK: u8 = 0x80;

/// Follows one direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: [u8; MAX_HEAD],
    /// How many bytes of a frame's head have come.
    known: usize,
    /// How many bytes of a frame's content are to come.
    left: u64,
    /// Whether a message has begun, and its last frame has not.
    in_message: bool,
    /// Whether there is nothing between two messages any more: the closing handshake has begun, or the position is lost.
    over: bool,
    /// Whether an extension was negotiated, whose bits may be set.
    extended: bool,
}

impl Messages {
    /// Those of a direction that begins, with an extension or without.
    pub(super) fn new(extended: bool) -> Self {
        Self { extended, ..Self::default() }
    }

    /// Whether the last byte was the last of a message, or none has come.
    pub(super) fn is_between(&self) -> bool {
        !self.over && !self.in_message && self.known == 0 && self.left == 0
    }

    /// Whether it can't be between two messages any more.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Follows these bytes, all of them or, if it `stops`, up to the next place between two messages. Returns how many.
    pub(super) fn follow(&mut self, bytes: &[u8], stops: bool) -> usize {
        let mut rest = bytes;
        while !(rest.is_empty() || self.over || stops && self.is_between()) {
            if self.left > 0 {
                let content = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                self.left -= content as u64;
                rest = &rest[content..];
                continue;
            }
            self.head[self.known] = rest[0];
            self.known += 1;
            rest = &rest[1..];
            if self.known == self.head_length() {
                self.begin();
            }
        }
        if self.over { bytes.len() } else { bytes.len() - rest.len() }
    }

    /// How long the head is, as far as it is known.
    fn head_length(&self) -> usize {
        if self.known < 2 {
            return 2;
        }
        let length = match self.head[1] & !MASK {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & MASK == 0 { 0 } else { 4 }
    }

    /// A head is there as a whole.
    fn begin(&mut self) {
        let [first, second, rest @ ..] = self.head;
        self.left = match second & !MASK {
            126 => u16::from_be_bytes([rest[0], rest[1]]).into(),
            127 => u64::from_be_bytes([rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]]),
            length => length.into(),
        };
        self.known = 0;
        let opcode = first & 0x0f;
        let is_control = opcode >= CLOSE;
        self.over = opcode == CLOSE
            || (first & EXTENSION_BITS != 0 && !self.extended)
            || (!is_control && (opcode == CONTINUATION) != self.in_message)
            || (is_control && first & FIN == 0);
        if !is_control {
            self.in_message = first & FIN == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with this first byte, masked as a client's or not.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASK } else { 0 };
        let mut frame = vec![first];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..=125), _) => frame.push(mask | short),
            (_, Ok(middle)) => {
                frame.push(mask | 0x7e);
                frame.extend(middle.to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(if masked { &[1, 2, 3, 4][..] } else { &[] });
        // What looks like frames again and again.
        frame.extend([0x81, 0x02].iter().cycle().take(length));
        frame
    }

    /// A message in some frames, with control frames within it.
    fn message(lengths: &[usize], masked: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let opcode = if number == 0 { 1 } else { CONTINUATION };
            let last = if number + 1 == lengths.len() { FIN } else { 0 };
            bytes.extend(frame(opcode | last, *length, masked));
            if last == 0 {
                bytes.extend(frame(FIN | 9, 3, masked));
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn ends_of_messages_are_found_wherever_reads_end(
            messages in prop::collection::vec(
                prop::collection::vec(prop_oneof![0_usize..10, 120_usize..140, 65_530_usize..65_540], 1..4), 1..5),
            masked: bool,
            piece in 1_usize..5000,
        ) {
            let all: Vec<Vec<u8>> = messages.iter().map(|lengths| message(lengths, masked)).collect();
            let bytes = all.concat();
            let mut ends: Vec<usize> = Vec::new();
            let mut followed = Messages::default();
            let mut at = 0;
            while at < bytes.len() {
                if followed.is_between() {
                    at += followed.follow(&bytes[at..=at], false);
                    continue;
                }
                // It stops at the end of a message, and nowhere else.
                let until = bytes.len().min(at + piece);
                at += followed.follow(&bytes[at..until], true);
                if followed.is_between() {
                    ends.push(at);
                } else {
                    prop_assert_eq!(at, until);
                }
            }
            let expected: Vec<usize> = all.iter().scan(0, |sum, message| { *sum += message.len(); Some(*sum) }).collect();
            prop_assert_eq!(ends, expected);
        }

        #[test]
        fn any_bytes_are_followed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), stops: bool) {
            let mut followed = Messages::default();
            let taken = followed.follow(&bytes, stops);
            prop_assert!(taken <= bytes.len());
        }
    }

    #[test]
    fn what_closes_or_is_no_frame_is_the_end_of_it() {
        for bytes in
            [frame(FIN | CLOSE, 2, true), frame(FIN | 0x40 | 1, 3, false), frame(FIN, 1, true), frame(9, 0, true)]
        {
            let mut followed = Messages::default();
            assert_eq!(followed.follow(&bytes, false), bytes.len());
            assert!(!followed.is_between());
        }
        let mut extended = Messages::new(true);
        extended.follow(&frame(FIN | 0x40 | 1, 3, false), false);
        assert!(extended.is_between());
        let mut twice = Messages::default();
        twice.follow(&[frame(1, 1, true), frame(FIN | 1, 1, true)].concat(), false);
        assert!(!twice.is_between(), "a message within a message");
    }
}
