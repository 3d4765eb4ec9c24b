//! HTTP/2's frames, as far as a connection must be followed to leave: where they end, and the payload of short ones.

/// The length of a frame's head (RFC 9113, section 4.1).
pub const HEAD: usize = 9;

/// The longest payload that we let clients send: no SETTINGS of ours says otherwise (RFC 9113, section 6.5.2).
pub const MAX_LENGTH: usize = 16_384;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// The flag of DATA and HEADERS behind which the stream's sender is done, and that of SETTINGS and PING that answers.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// How much of the payload of SETTINGS is kept, to be read: 21 settings, of which RFC 9113 knows six.
const KEPT: usize = 128;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    /// The head that these bytes begin with, if they are that many.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[high, middle, low, kind, flags, a, b, c, d] = bytes.first_chunk()?;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([a & 0x7f, b, c, d]) })
    }

    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Appends a frame with this head, whose length is that of its payload.
    pub fn write(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
        let [.., high, middle, low] = payload.len().to_be_bytes();
        out.extend([high, middle, low, kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
    }
}

/// What of the payload of HEADERS is the beginning of the block of fields.
pub fn fragment(head: Head, payload: &[u8]) -> Option<&[u8]> {
    let before = usize::from(head.has(PADDED));
    let padding = if before == 1 { usize::from(*payload.first()?) } else { 0 };
    let before = before + if head.has(PRIORITY) { 5 } else { 0 };
    payload.get(before..payload.len().checked_sub(padding)?)
}

/// Splits what goes in one direction into frames.
#[derive(Clone, Debug)]
pub struct Splitter {
    /// How many bytes come before the first frame.
    skip: usize,
    head: [u8; HEAD],
    /// How many bytes of the head have come.
    known: usize,
    /// How many bytes of the payload have not come.
    left: usize,
    /// The beginning of the payload of a frame that is about the connection.
    kept: Vec<u8>,
}

impl Splitter {
    /// Before the first frame, or that many bytes before it.
    pub const fn new(skip: usize) -> Self {
        Self { skip, head: [0; HEAD], known: 0, left: 0, kept: Vec::new() }
    }

    /// Whether nothing of a frame has come that has not ended.
    pub const fn is_between(&self) -> bool {
        self.known == 0 && self.skip == 0
    }

    /// How many of the bytes that come next belong to what has begun.
    pub fn rest(&self, bytes: &[u8]) -> usize {
        if self.skip > 0 {
            return self.skip.min(bytes.len());
        }
        let rest = match self.known {
            0 => 0,
            HEAD => self.left,
            known => {
                let missing = HEAD - known;
                let mut head = self.head;
                let Some(found) = bytes.get(..missing) else { return bytes.len() };
                head[known..].copy_from_slice(found);
                missing + Head::read(&head).map_or(0, |head| head.length)
            }
        };
        rest.min(bytes.len())
    }

    /// Goes on by these bytes. Tells of each frame that ends in them, with its payload if that is kept: of SETTINGS as far
    /// as it is short enough, and of `WINDOW_UPDATE`.
    pub fn feed(&mut self, bytes: &[u8], mut on_frame: impl FnMut(Head, &[u8])) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let mut bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.known < HEAD {
                let taken = (HEAD - self.known).min(bytes.len());
                self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
                self.known += taken;
                bytes = &bytes[taken..];
                if self.known < HEAD {
                    return;
                }
                self.left = Head::read(&self.head).map_or(0, |head| head.length);
                self.kept.clear();
            }
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            if matches!(self.head[3], SETTINGS | WINDOW_UPDATE) {
                let room = KEPT.saturating_sub(self.kept.len()).min(payload.len());
                self.kept.extend_from_slice(&payload[..room]);
            }
            self.left -= payload.len();
            bytes = rest;
            if self.left > 0 {
                return;
            }
            self.known = 0;
            if let Some(head) = Head::read(&self.head) {
                on_frame(head, &self.kept);
            }
        }
    }
}

/// The number that a `WINDOW_UPDATE` says.
pub fn increment(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}
