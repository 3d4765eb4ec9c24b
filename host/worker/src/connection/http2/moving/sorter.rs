//! Sorts what a client sends while its connection leaves, or has just come: whole frames are passed on, held back or
//! swallowed.
//!
//! Pure: bytes go in, and those that HTTP may have come out.

use app_host_core::not_moved::NotMoved;

use super::fields::{Block, Doubt, without_changes};
use super::frames::{ACK, DATA, END_HEADERS, HEAD, HEADERS, Head, MAX_LENGTH, SETTINGS, fragment};

/// How much is held back of a connection: with what may lie in the buffers behind it, less than may travel.
pub const MAX_HELD: usize = 24 * 1024;

/// What a client may at least send of bodies, besides what is held: else uploads that are to end would starve.
const MIN_CREDIT: i64 = 64 * 1024;

/// Why a connection does not go on as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortError {
    /// It can't leave. What was held back is with HTTP then, and so is the frame that is at fault.
    Stays(NotMoved),
    /// It has come here, and its client has not given up its table: HTTP could not read its fields.
    Unproven,
}

/// Whether the client has shown that it has given up its table of fields, which it was told here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It has not been told to, or has not acknowledged that.
    Unasked,
    /// The next block of fields that has to do with the table shows it.
    Awaited,
    Given,
}

/// Sorts the frames of one client.
#[derive(Debug)]
pub struct Sorter {
    /// A frame that has not come as a whole.
    partial: Vec<u8>,
    held: Vec<u8>,
    held_data: i64,
    /// Streams behind this one wait.
    holds_behind: Option<u32>,
    /// How many acknowledgements of settings are not for HTTP, which has not asked for them.
    swallows: u32,
    /// The client was told here to give up its table, and whether it has shown that it has.
    is_told: bool,
    proof: Proof,
    /// The client was told to give up its table by another worker, and has not shown it.
    unproven: Option<Doubt>,
}

impl Sorter {
    /// Swallows so many acknowledgements.
    pub fn new(swallows: u32, is_unproven: bool) -> Self {
        Self {
            partial: Vec::new(),
            held: Vec::new(),
            held_data: 0,
            holds_behind: None,
            swallows,
            is_told: false,
            proof: Proof::Unasked,
            unproven: is_unproven.then(Doubt::default),
        }
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        let is_proven = self.proof != Proof::Awaited && self.unproven.is_none();
        self.swallows == 0 && is_proven && self.holds_behind.is_none() && self.partial.is_empty()
    }

    /// Whether the client has acknowledged all that HTTP doesn't know.
    pub const fn is_acknowledged(&self) -> bool {
        self.swallows == 0
    }

    pub const fn proof(&self) -> Proof {
        self.proof
    }

    /// The client is told to give up its table now, and acknowledges that. If it is told again it need not show it again.
    pub fn on_told(&mut self) {
        self.swallows += 1;
        self.is_told = true;
    }

    /// The connection does not leave: the client need not show anything that it was told.
    pub const fn stay(&mut self) {
        self.is_told = false;
        self.proof = Proof::Unasked;
    }

    /// Holds back what belongs to streams behind this one, from the next frame on.
    pub const fn hold_behind(&mut self, last: u32) {
        self.holds_behind = Some(last);
    }

    /// Holds nothing back any more: `out` gets what was held.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.held_data = 0;
        self.holds_behind = None;
    }

    /// Sorts no more: `out` gets all that HTTP has not had.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.release(out);
        out.append(&mut self.partial);
    }

    /// How much HTTP has not had.
    pub fn unread(&self) -> usize {
        self.held.len() + self.partial.len()
    }

    /// Takes these bytes, which begin where a frame does or what came before has ended; `out` gets what HTTP may have.
    /// The client may send `credit` bytes of bodies, behind what HTTP has had; `is_idle` says that it has no stream open.
    ///
    /// # Errors
    /// The connection can't leave, or go on.
    pub fn push(&mut self, bytes: &[u8], (credit, is_idle): (i64, bool), out: &mut Vec<u8>) -> Result<(), SortError> {
        self.partial.extend_from_slice(bytes);
        let (mut credit, mut is_idle) = (credit, is_idle);
        let mut result = Ok(());
        let mut at = 0;
        while let Some(head) = Head::read(&self.partial[at..]) {
            if head.length > MAX_LENGTH {
                // HTTP refuses it by its head.
                result = Err(SortError::Stays(NotMoved::Frame));
                self.release(out);
                out.extend_from_slice(&self.partial[at..]);
                at = self.partial.len();
                break;
            }
            let end = at + HEAD + head.length;
            if end > self.partial.len() {
                break;
            }
            let place = self.place(head, at + HEAD, end, credit);
            match place {
                Ok(Place::Passed) => {
                    credit -= data(head);
                    is_idle &= head.kind != HEADERS;
                    out.extend_from_slice(&self.partial[at..end]);
                }
                Ok(Place::Swallowed) => {}
                Ok(Place::Held) => self.held.extend_from_slice(&self.partial[at..end]),
                Err(SortError::Unproven) if is_idle => return Err(SortError::Unproven),
                Err(why) => {
                    result = Err(match why {
                        // What is in flight would end with it. HTTP may be able to read it, and ends it otherwise.
                        SortError::Unproven => SortError::Stays(NotMoved::Table),
                        SortError::Stays(_) => why,
                    });
                    self.release(out);
                    out.extend_from_slice(&self.partial[at..end]);
                }
            }
            at = end;
        }
        self.partial.drain(..at);
        if self.holds_behind.is_some() && self.unread() > MAX_HELD {
            self.release(out);
            result = Err(SortError::Stays(NotMoved::Unread));
        }
        result
    }

    fn place(&mut self, head: Head, begin: usize, end: usize, credit: i64) -> Result<Place, SortError> {
        if head.kind == SETTINGS && head.has(ACK) && self.swallows > 0 {
            self.swallows -= 1;
            if self.swallows == 0 && self.is_told && self.proof == Proof::Unasked {
                self.proof = Proof::Awaited;
            }
            return Ok(Place::Swallowed);
        }
        if head.kind == HEADERS && (self.proof == Proof::Awaited || self.unproven.is_some()) {
            self.prove(head, begin, end)?;
        }
        let Some(last) = self.holds_behind else { return Ok(Place::Passed) };
        if head.stream > last {
            self.held_data += data(head);
            if credit - self.held_data < MIN_CREDIT {
                return Err(SortError::Stays(NotMoved::Unread));
            }
            return Ok(Place::Held);
        }
        // It would change what is held.
        if head.kind == SETTINGS && !self.held.is_empty() {
            return Err(SortError::Stays(NotMoved::Settings));
        }
        Ok(Place::Passed)
    }

    /// Looks at the payload of HEADERS: what does it show of the client's table?
    fn prove(&mut self, head: Head, begin: usize, end: usize) -> Result<(), SortError> {
        let start = fragment(head, &self.partial[begin..end]).unwrap_or_default();
        // It says so at its beginning. Of one that goes on in another frame, no more than that is known.
        let empties = without_changes(start).0;
        let block = if empties { Some(Block::EMPTIES) } else { Block::read(start).filter(|_| head.has(END_HEADERS)) };
        if let Some(doubt) = self.unproven.take() {
            self.unproven = block.and_then(|block| doubt.behind(block).ok()).ok_or(SortError::Unproven)?;
        }
        match block {
            Some(Block { empties: true, .. }) if self.proof == Proof::Awaited => self.proof = Proof::Given,
            Some(block) if self.proof == Proof::Awaited && !block.is_plain() => {
                return Err(SortError::Stays(NotMoved::Table));
            }
            None => return Err(SortError::Stays(NotMoved::Table)),
            Some(_) => {}
        }
        Ok(())
    }
}

/// How much of what a client may send of bodies a frame is.
fn data(head: Head) -> i64 {
    if head.kind == DATA { i64::try_from(head.length).unwrap_or(i64::MAX) } else { 0 }
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Passed,
    Held,
    Swallowed,
}
