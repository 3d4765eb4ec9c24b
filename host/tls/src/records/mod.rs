//! The record layer behind the handshake: opens what the client sends, seals what it gets, answers what is no data.
//!
//! Without I/O: [`Records::length`] says how many bytes the next record has, [`Records::open`] takes one whole record, and all
//! that is to be sent is appended to a buffer of the caller's. What can be asked of us without end is counted, and bounded as
//! rustls and `BoringSSL` bound it.

mod control;
mod state;
#[cfg(test)]
mod tests;

use crate::alert::{Alert, TlsError};
use crate::keys::{Direction, Kind, Suite, Version};
use control::Control;
pub use state::State;

/// The bytes of a record's header: type, version, length.
pub const HEADER: usize = 5;

/// The most bytes of plaintext in a record (RFC 8446, section 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// By how many bytes a record is longer than its plaintext, at most.
pub const OVERHEAD: usize = HEADER + EXPLICIT_NONCE + TAG;

const TAG: usize = 16;

/// The bytes of the nonce that a record of TLS 1.2's GCM carries (RFC 5288, section 3).
const EXPLICIT_NONCE: usize = 8;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// The version in each record: TLS 1.2, also where it is 1.3 (RFC 8446, section 5.1).
const RECORD_VERSION: [u8; 2] = [3, 3];

/// What a record was.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Bytes of the client's; may be none.
    Data(&'a [u8]),
    /// Something for this layer, which has dealt with it.
    Control,
    /// The client sends nothing more.
    Closed,
}

/// One connection behind its handshake.
#[derive(Debug)]
pub struct Records {
    read: Direction,
    write: Direction,
    control: Control,
    /// The client has said that it sends nothing more.
    read_closed: bool,
    /// We have said so, or have given up.
    write_closed: bool,
}

impl Records {
    pub(crate) fn new(read: Direction, write: Direction) -> Self {
        Self { read, write, control: Control::default(), read_closed: false, write_closed: false }
    }

    /// The version that was agreed on.
    pub const fn version(&self) -> Version {
        self.read.kind().version
    }

    /// How records are protected.
    pub const fn suite(&self) -> Suite {
        self.read.kind().suite
    }

    /// How many bytes the first record in `bytes` has, its header included; `None` while less than a header is there.
    ///
    /// # Errors
    /// When it is longer than a record may be.
    pub fn length(&self, bytes: &[u8]) -> Result<Option<usize>, TlsError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let expansion = match self.version() {
            // RFC 8446, section 5.2.
            Version::Tls13 => 256,
            // RFC 5246, section 6.2.3.
            Version::Tls12 => 2048,
        };
        if length > MAX_PLAINTEXT + expansion {
            return Err(TlsError::broken("a record is too long", Alert::RecordOverflow));
        }
        Ok(Some(HEADER + length))
    }

    /// Opens one whole record, in place. What is to be answered is appended to `out`.
    ///
    /// # Errors
    /// When the connection can't go on. The alert that says so to the client is in `out` then.
    pub fn open<'a>(&mut self, record: &'a mut [u8], out: &mut Vec<u8>) -> Result<Opened<'a>, TlsError> {
        let opened = self.try_open(record, out);
        if let Err(TlsError::Broken { alert, .. }) = &opened {
            self.send_alert(*alert, out);
        }
        opened
    }

    fn try_open<'a>(&mut self, record: &'a mut [u8], out: &mut Vec<u8>) -> Result<Opened<'a>, TlsError> {
        if self.read_closed {
            // RFC 8446, section 6.1: anything behind it is ignored.
            return Ok(Opened::Closed);
        }
        let Some((header, sealed)) = record.split_first_chunk_mut::<HEADER>() else {
            return Err(TlsError::broken("a record has no header", Alert::DecodeError));
        };
        let (kind, plain) = match self.version() {
            Version::Tls13 => open_13(&mut self.read, *header, sealed)?,
            Version::Tls12 => open_12(&mut self.read, *header, sealed)?,
        };
        if plain.len() > MAX_PLAINTEXT {
            return Err(TlsError::broken("a record has too many bytes", Alert::RecordOverflow));
        }
        self.control.expect(kind)?;
        match kind {
            DATA => {
                self.control.data(plain.len())?;
                Ok(Opened::Data(plain))
            }
            ALERT => self.alert(plain),
            HANDSHAKE => {
                self.handshake(plain, out)?;
                Ok(Opened::Control)
            }
            _ => Err(TlsError::broken("a record has a type that has no place here", Alert::UnexpectedMessage)),
        }
    }

    /// Seals all of `plain`, which may come in pieces, into as few records as it takes.
    ///
    /// # Errors
    /// When no more can be sent: [`TlsError::KeyUsedUp`], or after [`Self::close`].
    pub fn seal<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut pieces = pieces.filter(|piece| !piece.is_empty());
        let mut piece: &[u8] = pieces.next().unwrap_or_default();
        while !piece.is_empty() {
            let begin = self.begin(DATA, out)?;
            let room = MAX_PLAINTEXT;
            let plain = out.len();
            while !piece.is_empty() && out.len() - plain < room {
                let (now, later) = piece.split_at(piece.len().min(room - (out.len() - plain)));
                out.extend_from_slice(now);
                piece = if later.is_empty() { pieces.next().unwrap_or_default() } else { later };
            }
            self.finish(DATA, begin, out)?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent. The second time it does nothing.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.send_alert(Alert::CloseNotify, out);
    }

    /// Whether the client has said that it sends nothing more.
    pub const fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    /// The end of sending, said by an alert.
    fn send_alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        if self.write_closed {
            return;
        }
        let level = if alert == Alert::CloseNotify { WARNING } else { FATAL };
        // A key that is used up sends no alert either: the end of the stream says it.
        let _ = self.send(ALERT, &[level, alert.code()], out);
        self.write_closed = true;
    }

    /// Sends one record of a type.
    fn send(&mut self, kind: u8, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        let begin = self.begin(kind, out)?;
        out.extend_from_slice(plain);
        self.finish(kind, begin, out)
    }

    /// Begins a record, whose plaintext is to be appended; returns where it begins.
    fn begin(&mut self, kind: u8, out: &mut Vec<u8>) -> Result<usize, TlsError> {
        if self.write_closed {
            return Err(TlsError::KeyUsedUp);
        }
        if self.write.is_used_up() {
            match self.version() {
                Version::Tls13 => self.update_write_key(out)?,
                Version::Tls12 => return Err(TlsError::KeyUsedUp),
            }
        }
        let begin = out.len();
        let outer = if self.version() == Version::Tls13 { DATA } else { kind };
        out.extend_from_slice(&[outer, RECORD_VERSION[0], RECORD_VERSION[1], 0, 0]);
        if carries_nonce(self.write.kind()) {
            out.extend_from_slice(&self.write.explicit_nonce());
        }
        Ok(begin)
    }

    /// Ends the record that begins at `begin`: its length, and its protection.
    fn finish(&mut self, kind: u8, begin: usize, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let body = begin + HEADER + if carries_nonce(self.write.kind()) { EXPLICIT_NONCE } else { 0 };
        if self.version() == Version::Tls13 {
            out.push(kind);
        }
        let length = u16::try_from(out.len() - begin - HEADER + TAG).map_err(|_| TlsError::KeyUsedUp)?;
        out[begin + 3..begin + HEADER].copy_from_slice(&length.to_be_bytes());
        let mut aad = [0; AAD_12];
        let aad: &[u8] = match self.version() {
            Version::Tls13 => {
                aad[..HEADER].copy_from_slice(&out[begin..begin + HEADER]);
                &aad[..HEADER]
            }
            Version::Tls12 => {
                aad = aad_12(self.write.sequence(), kind, RECORD_VERSION, out.len() - body);
                &aad
            }
        };
        let Some(tag) = self.write.seal(aad, &mut out[body..]) else {
            // Nothing in the clear may be sent.
            out.truncate(begin);
            self.write_closed = true;
            return Err(TlsError::KeyUsedUp);
        };
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// The bytes that TLS 1.2 protects besides the content (RFC 5246, section 6.2.3.3).
const AAD_12: usize = 13;

fn aad_12(sequence: u64, kind: u8, version: [u8; 2], length: usize) -> [u8; AAD_12] {
    let mut aad = [0; AAD_12];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8] = kind;
    aad[9..11].copy_from_slice(&version);
    // A record is never longer than its 16 bits of length say.
    aad[11..].copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    aad
}

/// Whether each record carries a part of its nonce: GCM in TLS 1.2 (RFC 5288); `ChaCha20` there doesn't (RFC 7905).
fn carries_nonce(kind: Kind) -> bool {
    kind.version == Version::Tls12 && kind.suite != Suite::ChaCha20Poly1305
}

/// Opens a record of TLS 1.3: its type stands behind the plaintext, and zeros may follow (RFC 8446, section 5.2).
fn open_13<'a>(
    read: &mut Direction,
    header: [u8; HEADER],
    sealed: &'a mut [u8],
) -> Result<(u8, &'a mut [u8]), TlsError> {
    if header[0] != DATA {
        return Err(TlsError::broken("a record is not protected", Alert::UnexpectedMessage));
    }
    let Some(padded) = read.open(None, &header, sealed) else { return Err(forged()) };
    if padded.len() > MAX_PLAINTEXT + 1 {
        return Err(TlsError::broken("a record has too many bytes", Alert::RecordOverflow));
    }
    let Some(end) = padded.iter().rposition(|byte| *byte != 0) else {
        return Err(TlsError::broken("a record has no type", Alert::UnexpectedMessage));
    };
    let kind = padded[end];
    Ok((kind, &mut padded[..end]))
}

fn open_12<'a>(
    read: &mut Direction,
    header: [u8; HEADER],
    sealed: &'a mut [u8],
) -> Result<(u8, &'a mut [u8]), TlsError> {
    let (explicit, sealed) = if carries_nonce(read.kind()) {
        let (explicit, sealed) = sealed.split_first_chunk_mut::<EXPLICIT_NONCE>().ok_or_else(forged)?;
        (Some(*explicit), sealed)
    } else {
        (None, sealed)
    };
    let plain = sealed.len().checked_sub(TAG).ok_or_else(forged)?;
    let aad = aad_12(read.sequence(), header[0], [header[1], header[2]], plain);
    let plain = read.open(explicit, &aad, sealed).ok_or_else(forged)?;
    Ok((header[0], plain))
}

fn forged() -> TlsError {
    TlsError::broken("a record was not made with this connection's key", Alert::BadRecordMac)
}
