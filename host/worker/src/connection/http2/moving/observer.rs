//! What the frames of a connection come to, in both directions: what another worker must know to go on with it, and
//! whether there is anything that it could not know.
//!
//! Pure. Sees what HTTP has been given, and what the transport has taken.

use app_host_core::not_moved::NotMoved;

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Head, MAX_LENGTH, PING, PUSH_PROMISE,
    RST_STREAM, SETTINGS, Splitter, WINDOW_UPDATE, increment,
};
use super::snapshot::{FIRST_WINDOW, HEADER_TABLE_SIZE, Http2Snapshot, Settings};

/// How many streams are followed. One with more does not move.
const MOST_STREAMS: usize = 1000;

/// The table that HTTP has for the fields that it sends, at most (h2 0.4.20), and that both sides begin with (RFC 7541,
/// RFC 9113).
const TABLE: u32 = 4096;

/// A stream that has not been closed by both sides.
#[derive(Clone, Copy, Debug)]
struct FollowedStream {
    id: u32,
    client_ended: bool,
    we_ended: bool,
    /// We have reset it, and the client may not know yet.
    reset: Option<Reset>,
}

/// HTTP's table for the fields that it sends.
#[derive(Debug)]
struct Table {
    /// How large the client lets it be.
    size: u32,
    /// The client has changed that in settings which we have not acknowledged.
    changed: bool,
    /// HTTP has acknowledged them, and its next block of fields is to say so.
    owed: bool,
}

/// When we have reset a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    /// After what the client will acknowledge next, if anything.
    Later,
    /// Before it: the client knows when it acknowledges that.
    Before,
}

/// Follows one connection.
#[derive(Debug)]
pub struct Observer {
    inbound: Splitter,
    outbound: Splitter,
    open: Vec<FollowedStream>,
    last: u32,
    send_window: i64,
    credit: i64,
    client: Settings,
    ours: Settings,
    /// Settings of the client's that we have not acknowledged, and of ours that the client has not.
    client_unacknowledged: u32,
    ours_unacknowledged: u32,
    /// PINGs that have not been answered, by us and by the client.
    pings: u32,
    our_pings: u32,
    /// The client is, or we are, in the midst of a block of fields.
    client_in_block: bool,
    in_block: bool,
    table: Table,
    moves: u32,
    never: Option<NotMoved>,
}

impl Observer {
    /// Follows a connection from its beginning; its client sends `preface` bytes before its first frame.
    pub const fn new(preface: usize) -> Self {
        Self {
            inbound: Splitter::new(preface),
            outbound: Splitter::new(0),
            open: Vec::new(),
            last: 0,
            send_window: FIRST_WINDOW as i64,
            credit: FIRST_WINDOW as i64,
            client: Settings::NONE,
            ours: Settings::NONE,
            client_unacknowledged: 0,
            ours_unacknowledged: 0,
            pings: 0,
            our_pings: 0,
            client_in_block: false,
            in_block: false,
            table: Table { size: TABLE, changed: false, owed: false },
            moves: 0,
            never: None,
        }
    }

    /// Follows a connection that has come here, and whose client has been told that it may send so much.
    pub fn resumed(snapshot: &Http2Snapshot, credit: u32) -> Self {
        Self {
            last: snapshot.last,
            send_window: snapshot.send_window.into(),
            credit: credit.into(),
            client: snapshot.client,
            ours: snapshot.ours,
            table: Table { size: table(&snapshot.client), changed: false, owed: false },
            moves: snapshot.moves.saturating_add(1),
            ..Self::new(0)
        }
    }

    /// HTTP was given these bytes.
    pub fn on_delivered(&mut self, bytes: &[u8]) {
        let mut inbound = std::mem::replace(&mut self.inbound, Splitter::new(0));
        inbound.feed(bytes, |head, payload| self.on_received(head, payload));
        self.inbound = inbound;
    }

    /// The transport has taken these bytes of HTTP's.
    pub fn on_written(&mut self, bytes: &[u8]) {
        let mut outbound = std::mem::replace(&mut self.outbound, Splitter::new(0));
        outbound.feed(bytes, |head, payload| self.on_sent(head, payload));
        self.outbound = outbound;
    }

    /// What the client is told to acknowledge goes out now: it acknowledges behind all that went before.
    pub fn on_told(&mut self) {
        for stream in &mut self.open {
            stream.reset = stream.reset.map(|_| Reset::Before);
        }
    }

    /// The client has acknowledged that.
    pub fn on_told_acknowledged(&mut self) {
        self.open.retain(|stream| stream.reset != Some(Reset::Before));
    }

    fn on_received(&mut self, head: Head, payload: &[u8]) {
        if head.length > MAX_LENGTH {
            self.refuse(NotMoved::Frame);
        }
        match head.kind {
            DATA => {
                self.credit -= i64::try_from(head.length).unwrap_or(i64::MAX);
                if head.has(END_STREAM) {
                    self.end(head.stream, |stream| stream.client_ended = true);
                }
            }
            HEADERS => {
                self.client_in_block = !head.has(END_HEADERS);
                if head.stream > self.last {
                    self.last = head.stream;
                    if self.open.len() < MOST_STREAMS {
                        let id = head.stream;
                        self.open.push(FollowedStream { id, client_ended: false, we_ended: false, reset: None });
                    } else {
                        self.refuse(NotMoved::Streams);
                    }
                }
                if head.has(END_STREAM) {
                    self.end(head.stream, |stream| stream.client_ended = true);
                }
            }
            CONTINUATION => self.client_in_block = !head.has(END_HEADERS),
            RST_STREAM => self.open.retain(|stream| stream.id != head.stream),
            SETTINGS if head.has(ACK) => self.ours_unacknowledged = self.ours_unacknowledged.saturating_sub(1),
            SETTINGS => {
                self.client_unacknowledged += 1;
                if !self.client.add(payload, head.length) {
                    self.refuse(NotMoved::Frame);
                }
                let size = table(&self.client);
                self.table.changed |= size != self.table.size;
                self.table.size = size;
            }
            PUSH_PROMISE => self.refuse(NotMoved::Frame),
            PING if head.has(ACK) => self.our_pings = self.our_pings.saturating_sub(1),
            PING => self.pings += 1,
            GOAWAY => self.refuse(NotMoved::Closing),
            WINDOW_UPDATE if head.stream == 0 => self.send_window += i64::from(increment(payload)),
            _ => {}
        }
    }

    fn on_sent(&mut self, head: Head, payload: &[u8]) {
        match head.kind {
            DATA => {
                self.send_window -= i64::try_from(head.length).unwrap_or(i64::MAX);
                if head.has(END_STREAM) {
                    self.end(head.stream, |stream| stream.we_ended = true);
                }
            }
            HEADERS => {
                self.in_block = !head.has(END_HEADERS);
                self.table.owed = false;
                if head.has(END_STREAM) {
                    self.end(head.stream, |stream| stream.we_ended = true);
                }
            }
            CONTINUATION => self.in_block = !head.has(END_HEADERS),
            RST_STREAM => {
                self.end(head.stream, |stream| (stream.we_ended, stream.reset) = (true, Some(Reset::Later)));
            }
            SETTINGS if head.has(ACK) => {
                self.client_unacknowledged = self.client_unacknowledged.saturating_sub(1);
                // HTTP begins with it when it has acknowledged it.
                self.table.owed |= self.table.changed;
                self.table.changed &= self.client_unacknowledged > 0;
            }
            SETTINGS => {
                self.ours_unacknowledged += 1;
                if !self.ours.add(payload, head.length) {
                    self.refuse(NotMoved::Settings);
                }
            }
            PUSH_PROMISE => self.refuse(NotMoved::Frame),
            PING if head.has(ACK) => self.pings = self.pings.saturating_sub(1),
            PING => self.our_pings += 1,
            GOAWAY => self.refuse(NotMoved::Closing),
            WINDOW_UPDATE if head.stream == 0 => self.credit += i64::from(increment(payload)),
            _ => {}
        }
    }

    /// One side is done with a stream. It is closed when both are.
    fn end(&mut self, id: u32, set: impl Fn(&mut FollowedStream)) {
        if let Some(index) = self.open.iter().position(|stream| stream.id == id) {
            let stream = &mut self.open[index];
            set(stream);
            if stream.client_ended && stream.we_ended {
                self.open.swap_remove(index);
            }
        }
    }

    fn refuse(&mut self, why: NotMoved) {
        self.never.get_or_insert(why);
    }

    /// Why the connection can never leave, if it can't.
    pub const fn never(&self) -> Option<NotMoved> {
        if self.never.is_none() && self.last == 0 { Some(NotMoved::NoRequest) } else { self.never }
    }

    /// How many times it has moved.
    pub const fn moves(&self) -> u32 {
        self.moves
    }

    /// What of the bytes that HTTP is given next belongs to a frame that it has in part.
    pub fn rest(&self, bytes: &[u8]) -> usize {
        self.inbound.rest(bytes)
    }

    /// The number of the client's last stream.
    pub const fn last(&self) -> u32 {
        self.last
    }

    /// How much the client may send.
    pub const fn credit(&self) -> i64 {
        self.credit
    }

    /// Whether a stream is open that the client began up to this one.
    pub fn has_open(&self, up_to: u32) -> bool {
        self.open.iter().any(|stream| stream.id <= up_to)
    }

    /// Whether a stream is open only because the client may not know that we have reset it, and has not been told
    /// anything since.
    pub fn has_reset(&self) -> bool {
        self.open.iter().any(|stream| stream.reset == Some(Reset::Later))
    }

    /// Whether something may be put in between what HTTP writes.
    pub const fn may_say(&self) -> bool {
        self.outbound.is_between() && !self.in_block
    }

    /// Whether something may be put in between what HTTP writes, which the client acknowledges after everything else.
    pub const fn may_tell(&self) -> bool {
        self.may_say() && self.ours_unacknowledged == 0
    }

    /// What another worker must know, if it can go on now.
    pub fn snapshot(&self, proven: bool) -> Option<Http2Snapshot> {
        let is_between = self.inbound.is_between() && self.outbound.is_between();
        let in_block = self.client_in_block || self.in_block;
        let unanswered =
            self.client_unacknowledged + self.ours_unacknowledged + self.pings.saturating_add(self.our_pings);
        if !is_between
            || in_block
            || unanswered > 0
            || self.table.owed
            || !self.open.is_empty()
            || self.never().is_some()
        {
            return None;
        }
        let snapshot = Http2Snapshot {
            last: self.last,
            send_window: u32::try_from(self.send_window).ok()?,
            credit: u32::try_from(self.credit).ok()?,
            client: self.client,
            ours: self.ours,
            moves: self.moves,
            proven,
        };
        snapshot.is_possible().then_some(snapshot)
    }
}

/// The table that HTTP has for the fields that it sends to a client with these settings.
fn table(client: &Settings) -> u32 {
    client.get(HEADER_TABLE_SIZE).unwrap_or(TABLE).min(TABLE)
}
