//! How HTTP goes on in the midst of a connection: what it is told first, and what it must answer to that.
//!
//! Pure. h2 has no way to begin in the midst, so it begins at the beginning: it is told the client's settings, and gets one
//! request, on the client's last stream. Its answer is as long as [what is missing](Http2Snapshot::missing) of the
//! client's window. Of all that, the client gets nothing: it has had it already, or did not ask. That one request does
//! three things. It brings the window to where the client has it, it makes h2 take that stream and all before it for
//! closed, and its answer's end is when h2 is where the client is.
//!
//! What h2 says to it is compared byte by byte. The one thing that must not happen is that its table of fields differs from
//! the one that the client has: that would not be an error but other fields.

use super::fields::without_changes;
use super::frames::{ACK, DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, Head, SETTINGS, WINDOW_UPDATE, increment};
use super::snapshot::{FIRST_WINDOW, Http2Snapshot, INITIAL_WINDOW_SIZE, Settings};
use crate::connection::state::PREFACE;

/// `GET /` (RFC 7541, appendix A).
const REQUEST: [u8; 3] = [0x82, 0x86, 0x84];

/// `:status: 200`.
const OK: u8 = 0x88;

/// HTTP has not said what the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HTTP/2 goes on otherwise than the client knows it: {0}")]
pub struct Mismatch(&'static str);

/// One connection that goes on.
#[derive(Debug)]
pub struct Resume {
    snapshot: Http2Snapshot,
    /// How much the client may send where HTTP begins.
    window: u32,
    /// What HTTP is told, and has not read.
    intro: Vec<u8>,
    read: usize,
    /// A frame of HTTP's that has not come as a whole.
    partial: Vec<u8>,
    settings: bool,
    acknowledged: bool,
    widened: bool,
    answer: AnswerStage,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerStage {
    /// It has not begun, and its body is to have so many bytes.
    Awaited(usize),
    /// So many are to come.
    Begun(usize),
    Ended,
}

impl AnswerStage {
    const fn goes_on(left: usize) -> Self {
        if left == 0 { Self::Ended } else { Self::Begun(left) }
    }
}

impl Resume {
    /// Goes on with a connection of which this is known, where clients may send `window` bytes.
    pub fn new(snapshot: &Http2Snapshot, window: u32) -> Self {
        let Http2Snapshot { last, send_window, client, .. } = snapshot;
        let mut intro = PREFACE.to_vec();
        client.write(&mut intro);
        Head::write(SETTINGS, ACK, 0, &[], &mut intro);
        if let Some(more) = send_window.checked_sub(FIRST_WINDOW).filter(|more| *more > 0) {
            Head::write(WINDOW_UPDATE, 0, 0, &more.to_be_bytes(), &mut intro);
        }
        Head::write(HEADERS, END_HEADERS | END_STREAM, *last, &REQUEST, &mut intro);
        let room = client.get(INITIAL_WINDOW_SIZE).unwrap_or(FIRST_WINDOW);
        if let Some(more) = FIRST_WINDOW.saturating_sub(*send_window).checked_sub(room).filter(|more| *more > 0) {
            Head::write(WINDOW_UPDATE, 0, *last, &more.to_be_bytes(), &mut intro);
        }
        Self {
            snapshot: *snapshot,
            window,
            intro,
            read: 0,
            partial: Vec::new(),
            settings: false,
            acknowledged: false,
            widened: false,
            answer: AnswerStage::Awaited(snapshot.missing().len()),
        }
    }

    pub const fn snapshot(&self) -> &Http2Snapshot {
        &self.snapshot
    }

    /// What HTTP is to read next; it takes so many bytes of it.
    pub fn read(&mut self, most: usize) -> &[u8] {
        let begin = self.read;
        self.read = self.intro.len().min(begin + most);
        &self.intro[begin..self.read]
    }

    /// Whether HTTP is where the client is.
    pub const fn is_done(&self) -> bool {
        self.settings && self.acknowledged && self.widened && matches!(self.answer, AnswerStage::Ended)
    }

    /// HTTP writes these bytes. Returns how many of them are swallowed: all, or those to the end of what the client must not
    /// get.
    pub fn swallow(&mut self, bytes: &[u8]) -> Result<usize, Mismatch> {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while !self.is_done()
            && let Some(head) = Head::read(&self.partial[at..])
        {
            let end = at + HEAD + head.length;
            if end > self.partial.len() {
                break;
            }
            let frame = std::mem::take(&mut self.partial);
            let compared = self.compare(head, &frame[at + HEAD..end]);
            self.partial = frame;
            compared?;
            at = end;
        }
        self.partial.drain(..at);
        Ok(if self.is_done() { bytes.len() - std::mem::take(&mut self.partial).len() } else { bytes.len() })
    }

    fn compare(&mut self, head: Head, payload: &[u8]) -> Result<(), Mismatch> {
        let Head { kind, stream, length, .. } = head;
        let last = self.snapshot.last;
        match (kind, self.answer) {
            (SETTINGS, _) if head.has(ACK) && !self.acknowledged => self.acknowledged = true,
            (SETTINGS, _) if !head.has(ACK) && !self.settings => {
                let mut ours = Settings::NONE;
                if !ours.add(payload, length) || ours != self.snapshot.ours {
                    return Err(Mismatch("its settings"));
                }
                self.settings = true;
            }
            (WINDOW_UPDATE, _) if stream == 0 && !self.widened => {
                if increment(payload) != self.window - FIRST_WINDOW {
                    return Err(Mismatch("its window"));
                }
                self.widened = true;
            }
            (HEADERS, AnswerStage::Awaited(body)) if stream == last => {
                let is_one = without_changes(payload).1 == [OK] && head.has(END_HEADERS);
                if !is_one || head.has(END_STREAM) != (body == 0) {
                    return Err(Mismatch("an answer"));
                }
                self.answer = AnswerStage::goes_on(body);
            }
            (DATA, AnswerStage::Begun(left)) if stream == last => {
                let left = left.checked_sub(length).ok_or(Mismatch("a body"))?;
                if head.has(END_STREAM) != (left == 0) || payload.iter().any(|byte| *byte != 0) {
                    return Err(Mismatch("a body"));
                }
                self.answer = AnswerStage::goes_on(left);
            }
            _ => return Err(Mismatch("a frame")),
        }
        Ok(())
    }

    /// What the client is told where HTTP goes on; `None` if it may send more already than HTTP lets it.
    pub fn outro(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.snapshot.greet(self.window, &mut out).then_some(out)
    }
}
