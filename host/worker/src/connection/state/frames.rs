//! HTTP/2's frames, as far as it takes to count those that make work and carry nothing of a request.
//!
//! h2 answers each SETTINGS and each PING, and reads on for as long as there is something to read: a client that sends
//! nothing else keeps a serving thread from everybody else. So it gets few of them in one turn, has to wait for its turns
//! when it has sent more of them than a client needs, and is cut off when it goes on. So does one that gives up most of its
//! requests, which would otherwise be good for the frames that give them up.

use std::time::Duration;

use super::ConnState;
use super::first::{PREFACE, Protocol};

/// How many such frames a connection may have had at a time, and is forgiven each time that it is looked at.
const MOST: u64 = 1000;

/// From how many on a connection waits between its turns. Taking turns is not enough: many clients that each have one all
/// the time take a serving thread's whole time.
const PATIENCE: u64 = 100;

/// How long it waits: so it can have 800 of them in a second, which is less work than most requests.
pub const REST: Duration = Duration::from_millis(10);

/// How many a request is good for: window updates, a reset, an empty frame at its end.
const OF_A_REQUEST: u64 = 100;

/// How many a frame of a response is good for.
const OF_A_RESPONSE_FRAME: u64 = 4;

/// The longest answer to such a frame in bytes: that to a PING (RFC 9113, section 6.7).
const LONGEST_REPLY: u64 = 17;

/// How many bytes of a response are good for one: its client's window updates.
const BYTES_FOR_ONE: u64 = 1024;

/// How many HTTP gets in one poll of its connection: then it is the turn of others.
pub(super) const OF_A_POLL: u64 = 8;

/// The kind of a frame by which a client gives a request up (RFC 9113, section 6.4).
const RST_STREAM: u8 = 3;

/// The length of a frame's head (RFC 9113, section 4.1).
const HEAD: usize = 9;

/// Follows the frames of one client.
#[derive(Debug)]
pub struct Frames {
    head: [u8; HEAD],
    /// How many bytes of the head have come.
    known: usize,
    /// How many bytes come before the next head.
    skip: usize,
}

impl Frames {
    /// Before the preface of a connection.
    pub const fn new() -> Self {
        Self { head: [0; HEAD], known: 0, skip: PREFACE.len() }
    }

    /// Between two frames of a connection.
    pub const fn between() -> Self {
        Self { skip: 0, ..Self::new() }
    }

    /// HTTP is to get these bytes. Returns what of them: at most `most` frames that carry nothing of a request.
    pub fn take(&mut self, all: &[u8], most: u64) -> Taken {
        let mut bytes = all;
        let (mut found, mut carried, mut resets) = (0, 0, 0);
        while found < most {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.known).min(bytes.len());
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known < HEAD {
                break;
            }
            self.known = 0;
            let [high, middle, low, kind, ..] = self.head;
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if carries(kind, self.skip) {
                carried += self.skip as u64;
            } else {
                found += 1;
                resets += u64::from(kind == RST_STREAM);
            }
        }
        // The whole of the last one, as far as it has come: half of a reset would begin what it gives up.
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        Taken { bytes: all.len() - bytes.len(), empty: found, carried, resets }
    }
}

/// What HTTP gets of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub bytes: usize,
    /// How many frames begin in them that carry nothing of a request.
    pub empty: u64,
    /// How long the frames are that begin in them and carry something.
    pub carried: u64,
    /// How many requests are given up by them.
    pub resets: u64,
}

/// Whether a frame of this kind and length carries something of a request: DATA, HEADERS or CONTINUATION.
const fn carries(kind: u8, length: usize) -> bool {
    match kind {
        0 => length > 0,
        1 | 9 => true,
        _ => false,
    }
}

impl ConnState {
    /// The client sends more of what only makes work than it may.
    pub fn is_flooding(&self) -> bool {
        self.empty_frames.get() > MOST || self.resets.get() > self.most_resets
    }

    /// HTTP is polled. It gets so many frames that carry nothing, and then waits for its next turn.
    pub fn on_poll(&self) {
        self.frames_left.replace(OF_A_POLL);
    }

    /// These bytes are to be delivered. Returns how many of them may be now.
    pub fn may_deliver(&self, bytes: &[u8]) -> usize {
        if !self.has_frames() {
            return bytes.len();
        }
        let taken = self.frames().take(bytes, self.frames_left.get());
        self.frames_left.reduce(taken.empty);
        self.empty_frames.add(taken.empty);
        self.replies.add(taken.empty * LONGEST_REPLY);
        self.carrying.add(taken.carried);
        self.resets.add(taken.resets);
        taken.bytes
    }

    /// Whether HTTP has had all the frames that it gets in this poll.
    pub(super) fn is_out_of_turn(&self) -> bool {
        self.has_frames() && self.frames_left.get() == 0
    }

    /// Whether the connection has to wait for its next turn, instead of having it when others have had theirs.
    pub(super) fn is_out_of_patience(&self) -> bool {
        // As far from its end for the one as for the other.
        self.empty_frames.get() > PATIENCE || self.resets.get() > self.most_resets / (MOST / PATIENCE)
    }

    /// A request has come, which is what some frames are for.
    pub(super) fn forgive_for_request(&self) {
        self.empty_frames.reduce(OF_A_REQUEST);
    }

    /// A request has ended whose answer had begun: whoever ended it, that was no work in vain.
    pub fn forgive_for_answer(&self) {
        self.resets.reduce(1);
    }

    /// A response has gone on by so many bytes.
    pub(super) fn forgive_for_response(&self, bytes: usize) {
        self.empty_frames.reduce(bytes as u64 / BYTES_FOR_ONE);
    }

    /// A response has got another frame, whose client may answer it with window updates and PINGs (gRPC's measure the way
    /// with each message).
    pub fn on_response_frame(&self) {
        if self.has_frames() {
            self.empty_frames.reduce(OF_A_RESPONSE_FRAME);
        }
    }

    /// How many bytes of requests and responses have been moved: on HTTP/2 without what frames that carry nothing cost.
    pub(super) fn moved(&self) -> u64 {
        if self.has_frames() {
            self.carrying.get().wrapping_add(self.sent.get().saturating_sub(self.replies.get()))
        } else {
            self.bytes()
        }
    }

    /// Time has gone by.
    pub(super) fn forgive_for_time(&self) {
        self.empty_frames.reduce(MOST);
        self.resets.reduce(self.most_resets);
    }

    /// Whether the connection's frames are counted.
    pub(super) fn has_frames(&self) -> bool {
        self.protocol == Protocol::Http2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The frames of these kinds and lengths, behind the preface.
    fn stream(frames: &[(u8, usize)]) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        for (kind, length) in frames {
            let [.., high, middle, low] = length.to_be_bytes();
            bytes.extend([high, middle, low, *kind, 0, 0, 0, 0, 1]);
            // What looks like a head of SETTINGS again and again.
            bytes.extend([0, 0, 0, 4].iter().cycle().take(*length));
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_counted_wherever_reads_end(
            frames in prop::collection::vec((0_u8..12, prop_oneof![Just(0_usize), 1_usize..300]), 0..30),
            piece in 1_usize..60,
            most in 1_u64..4,
        ) {
            let expected = frames.iter().filter(|(kind, length)| !matches!((kind, length), (0, 1..) | (1 | 9, _)));
            let mut followed = Frames::new();
            let (mut found, mut carried, mut resets) = (0, 0, 0);
            for mut bytes in stream(&frames).chunks(piece) {
                while !bytes.is_empty() {
                    let taken = followed.take(bytes, most);
                    prop_assert!(taken.bytes > 0 && taken.empty <= most, "{:?} of {}", taken, bytes.len());
                    let whole = taken.bytes == bytes.len();
                    prop_assert!(whole || taken.empty == most, "bytes are held back for nothing");
                    bytes = &bytes[taken.bytes..];
                    found += taken.empty;
                    carried += taken.carried;
                    resets += taken.resets;
                }
            }
            prop_assert_eq!(found, expected.count() as u64);
            let carrying = frames.iter().filter(|(kind, _)| matches!(kind, 0 | 1 | 9));
            prop_assert_eq!(carried, carrying.map(|(_, length)| *length as u64).sum::<u64>());
            prop_assert_eq!(resets, frames.iter().filter(|(kind, _)| *kind == 3).count() as u64);
        }
    }

    #[test]
    fn what_requests_responses_and_time_are_good_for_is_forgiven() {
        let state = ConnState::new(Protocol::Http2, 0);
        let settings = |count: usize| stream(&vec![(4, 0); count])[PREFACE.len()..].to_vec();
        let deliver = |mut bytes: &[u8]| {
            while !bytes.is_empty() {
                state.on_poll();
                bytes = &bytes[state.may_deliver(bytes)..];
            }
        };
        deliver(PREFACE);
        deliver(&settings(1000));
        assert!(!state.is_flooding());
        deliver(&settings(1));
        assert!(state.is_flooding());
        state.on_request(Some(0));
        assert!(!state.is_flooding());
        deliver(&settings(100));
        assert!(state.is_flooding());
        state.on_sent(1024);
        assert!(!state.is_flooding());
        deliver(&settings(1));
        // Acknowledgements are no response.
        (0..100).for_each(|_| state.on_sent(9));
        assert!(state.is_flooding());
        state.on_response_frame();
        assert!(!state.is_flooding());
        deliver(&settings(4));
        assert!(state.is_flooding());
        state.forgive_for_time();
        deliver(&settings(999));
        assert!(!state.is_flooding());
    }
}
