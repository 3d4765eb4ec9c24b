//! What another worker must know of a connection of HTTP/2 to go on with it.

use serde::{Deserialize, Serialize};

use super::frames::{Head, SETTINGS, WINDOW_UPDATE};

/// Settings that have a number up to this are known (RFC 9113, section 6.5.2; RFC 8441, section 3).
const KNOWN: usize = 8;

pub const HEADER_TABLE_SIZE: usize = 1;
pub const INITIAL_WINDOW_SIZE: usize = 4;
pub const MAX_FRAME_SIZE: usize = 5;

/// The window that a connection has, and a stream unless it is told, at its beginning (RFC 9113, section 6.9.2).
pub const FIRST_WINDOW: u32 = 65_535;

/// The settings of one side, all that it has ever sent in one: each of them by its number, less one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings([Option<u32>; KNOWN]);

impl Settings {
    /// Those of a side that has sent none.
    pub const NONE: Self = Self([None; KNOWN]);

    /// Adds what the payload of a frame says. Returns whether it is one.
    pub fn add(&mut self, payload: &[u8], length: usize) -> bool {
        let (settings, rest) = payload.as_chunks::<6>();
        for [high, low, value @ ..] in settings {
            let number = usize::from(u16::from_be_bytes([*high, *low]));
            if let Some(setting) = number.checked_sub(1).and_then(|index| self.0.get_mut(index)) {
                *setting = Some(u32::from_be_bytes(*value));
            }
        }
        rest.is_empty() && payload.len() == length
    }

    pub fn get(&self, number: usize) -> Option<u32> {
        self.0.get(number.checked_sub(1)?).copied().flatten()
    }

    /// The same with another value of one of them.
    #[must_use]
    pub fn with(mut self, number: usize, value: u32) -> Self {
        if let Some(setting) = number.checked_sub(1).and_then(|index| self.0.get_mut(index)) {
            *setting = Some(value);
        }
        self
    }

    /// Appends the frame that says all of them.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        for (number, value) in (1_u16..).zip(self.0) {
            if let Some(value) = value {
                payload.extend(number.to_be_bytes());
                payload.extend(value.to_be_bytes());
            }
        }
        Head::write(SETTINGS, 0, 0, &payload, out);
    }
}

/// The table that clients may have for their fields again. It is what h2 lets them have.
const TABLE: u32 = 4096;

/// What is to be known of a connection that has no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http2Snapshot {
    /// The number of the client's last stream.
    pub last: u32,
    /// How much we may send.
    pub send_window: u32,
    /// How much the client may send, as it knows.
    pub credit: u32,
    /// The client's settings.
    pub client: Settings,
    /// Ours, as they were at the beginning.
    pub ours: Settings,
    /// How many times the connection has moved.
    pub moves: u32,
    /// Whether the client has shown that it has given up its table.
    pub proven: bool,
}

impl Http2Snapshot {
    /// What is to be sent of a window as it is at a connection's beginning, for it to be as it is here.
    pub fn missing(&self) -> &'static [u8] {
        static ZEROS: [u8; FIRST_WINDOW as usize] = [0; FIRST_WINDOW as usize];
        &ZEROS[..FIRST_WINDOW.saturating_sub(self.send_window) as usize]
    }

    /// Appends what the client is told where HTTP goes on: that it may have its table again, and may send as much as HTTP lets
    /// it, which is `window`. Returns whether that is not less than it may already.
    pub fn greet(&self, window: u32, out: &mut Vec<u8>) -> bool {
        self.ours.with(HEADER_TABLE_SIZE, TABLE).write(out);
        let more = window.checked_sub(self.credit);
        if let Some(more) = more.filter(|more| *more > 0) {
            Head::write(WINDOW_UPDATE, 0, 0, &more.to_be_bytes(), out);
        }
        more.is_some()
    }

    /// Whether another worker whose HTTP/2 has these settings can have made it.
    pub fn fits(&self, ours: &Settings) -> bool {
        self.is_possible() && self.ours == *ours
    }

    /// Whether any worker can have made it.
    pub const fn is_possible(&self) -> bool {
        let most = 0x7fff_ffff;
        self.last % 2 == 1 && self.last <= most && self.send_window <= most && self.credit <= most
    }
}
