//! A client of HTTP/2 that writes its frames itself, as no library does.

use app_host_core::config::Http2Restart;

use super::transfer::Relay;
use super::*;

const MOVES: &Limits = &Limits { http2: Http2Restart::Move, ..Limits::TEST };

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

/// The window that a connection has at its beginning, and the one that we give.
pub const FIRST_WINDOW: usize = 65_535;
pub const WINDOW: usize = 1024 * 1024;

/// `HEADER_TABLE_SIZE` with nothing.
pub const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];

/// "The table has no room", as a block of fields begins with it.
pub const EMPTY: &[u8] = &[0x20];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = payload.len().to_be_bytes();
    [&[high, middle, low, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A request, in a block that begins so and has these fields. None of the others goes into a table.
fn request((method, flags): (u8, u8), stream: u32, path: &str, before: &[u8], fields: &[u8]) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    let block = [before, &[method, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'a'], fields].concat();
    frame(HEADERS, 4 | flags, stream, &block)
}

/// `GET`, with nothing behind it.
pub fn asks(stream: u32, path: &str, before: &[u8]) -> Vec<u8> {
    request((0x82, 1), stream, path, before, &[])
}

/// The same with these fields.
pub fn asks_with(stream: u32, before: &[u8], fields: &[u8]) -> Vec<u8> {
    request((0x82, 1), stream, "/next", before, fields)
}

/// `POST`, with a body behind it.
pub fn posts(stream: u32, path: &str, before: &[u8]) -> Vec<u8> {
    request((0x83, 0), stream, path, before, &[])
}

/// A client that has had an answer to its first request, on stream 1.
pub struct Client {
    pub relay: Relay,
}

impl Client {
    pub fn new() -> Self {
        Self { relay: Relay::with(4 * WINDOW, MOVES) }
    }

    pub async fn begin(settings: &[u8]) -> Self {
        let mut this = Self::new();
        this.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        this.send(&frame(SETTINGS, 0, 0, settings)).await;
        this.send(&asks(1, "/first", &[])).await;
        this.send(&frame(SETTINGS, 1, 0, &[])).await;
        assert_eq!(this.body(1).await, b"/first");
        this
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.relay.client.write_all(bytes).await.unwrap();
    }

    /// Ends its side.
    pub async fn client_ends(&mut self) {
        self.relay.client.shutdown().await.unwrap();
    }

    pub async fn next(&mut self) -> Option<Frame> {
        let client = &mut self.relay.client;
        let mut head = [0; 9];
        client.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        client.read_exact(&mut payload).await.unwrap();
        let [_, _, _, kind, flags, stream @ ..] = head;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of this kind.
    pub async fn await_kind(&mut self, kind: u8) -> Frame {
        loop {
            let next = timeout(Duration::from_mins(1), self.next()).await.expect("it hangs").expect("it ended");
            if next.kind == kind {
                return next;
            }
        }
    }

    /// The body of the answer on a stream.
    pub async fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let next = timeout(Duration::from_mins(1), self.next()).await.expect("it hangs").expect("it ended");
            assert!(next.kind != GOAWAY && next.kind != RST_STREAM, "{next:?}");
            if next.stream == stream && next.kind == DATA {
                body.extend_from_slice(&next.payload);
            }
            if next.stream == stream && next.flags & 1 == 1 {
                return body;
            }
        }
    }

    /// Is told to give up its table.
    pub async fn is_told(&mut self) {
        self.relay.transfer();
        let told = self.await_kind(SETTINGS).await;
        assert_eq!((told.flags, &told.payload[..]), (0, &NO_TABLE[..]));
    }

    pub async fn acknowledges(&mut self) {
        self.send(&frame(SETTINGS, 1, 0, &[])).await;
    }

    /// Moves, without anything to send, and acknowledges what it is told then. Returns how much more it may send.
    pub async fn moves(&mut self) -> usize {
        let before = self.relay.transfers();
        self.is_told().await;
        self.acknowledges().await;
        self.relay.settle().await;
        assert_eq!(self.relay.transfers(), before + 1);
        let raised = self.await_kind(SETTINGS).await;
        assert!(raised.payload.starts_with(&[0, 1, 0, 0, 16, 0]), "{raised:?}");
        self.acknowledges().await;
        // A PING is behind all that is said at once.
        self.send(&frame(PING, 0, 0, &[7; 8])).await;
        let mut more = 0;
        loop {
            let next = self.next().await.unwrap();
            match next.kind {
                WINDOW_UPDATE => more += u32::from_be_bytes(next.payload.try_into().unwrap()) as usize,
                PING => return more,
                _ => panic!("{next:?}"),
            }
        }
    }

    /// Is told to go, in two steps, and by whom it was asked last.
    pub async fn goes(&mut self) {
        self.await_kind(GOAWAY).await;
    }

    /// One whose streams have this window, and whose first answer is let through.
    pub async fn begin_with(settings: &[u8]) -> Self {
        let mut this = Self::new();
        this.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        this.send(&frame(SETTINGS, 0, 0, settings)).await;
        this.send(&asks(1, "/first", &[])).await;
        this.send(&frame(WINDOW_UPDATE, 0, 1, &6_u32.to_be_bytes())).await;
        this.send(&frame(SETTINGS, 1, 0, &[])).await;
        assert_eq!(this.body(1).await, b"/first");
        this
    }
}
