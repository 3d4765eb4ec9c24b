//! What a client may send besides data, how often, and what it is answered.

use crate::alert::{Alert, TlsError};
use crate::keys::Version;

use super::{DATA, HANDSHAKE, Opened, Records};

/// How many key updates a client may send without data in between; as many as `BoringSSL` and rustls take.
pub(super) const KEY_UPDATES: u8 = 32;

/// How many alerts that end nothing it may send; as many as they take.
pub(super) const WARNINGS: u8 = 4;

/// How many requests for another handshake: each is refused.
pub(super) const RENEGOTIATIONS: u8 = 1;

/// How many records without a byte of data it may send, one behind the other; `OpenSSL`'s number.
pub(super) const EMPTY: u8 = 32;

/// The bytes of a handshake message before its body: type and length.
const MESSAGE_HEADER: usize = 4;

const CLIENT_HELLO: u8 = 1;
const KEY_UPDATE: u8 = 24;

/// How much more a client may do of what is no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) key_updates: u8,
    pub(super) warnings: u8,
    pub(super) renegotiations: u8,
    pub(super) empty: u8,
    /// TLS 1.3: how much of a message has come that was split over records.
    pub(super) fragment: Fragment,
    /// TLS 1.2: how many bytes of a refused handshake are still to come.
    pub(super) skip: u32,
}

/// The beginning of a handshake message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) bytes: [u8; MESSAGE_HEADER],
    pub(super) length: u8,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            key_updates: KEY_UPDATES,
            warnings: WARNINGS,
            renegotiations: RENEGOTIATIONS,
            empty: EMPTY,
            fragment: Fragment::default(),
            skip: 0,
        }
    }
}

/// Counts one down.
fn spend(left: &mut u8, what: &'static str) -> Result<(), TlsError> {
    *left = left.checked_sub(1).ok_or(TlsError::broken(what, Alert::UnexpectedMessage))?;
    Ok(())
}

impl Control {
    /// A record of this type comes: nothing else may come in the middle of a handshake message (RFC 8446, section 5.1).
    pub(super) fn expect(&self, kind: u8) -> Result<(), TlsError> {
        if kind != HANDSHAKE && (self.fragment.length > 0 || self.skip > 0) {
            return Err(TlsError::broken("a record comes in the middle of a message", Alert::UnexpectedMessage));
        }
        Ok(())
    }

    /// Data have come.
    pub(super) fn data(&mut self, length: usize) -> Result<(), TlsError> {
        if length == 0 {
            return spend(&mut self.empty, "too many empty records");
        }
        self.empty = EMPTY;
        self.key_updates = KEY_UPDATES;
        Ok(())
    }
}

impl Records {
    pub(super) fn alert<'a>(&mut self, plain: &[u8]) -> Result<Opened<'a>, TlsError> {
        const WARNING: u8 = 1;
        let &[level, code] = plain else {
            return Err(TlsError::broken("an alert can't be read", Alert::DecodeError));
        };
        if code == Alert::CloseNotify.code() {
            self.read_closed = true;
            return Ok(Opened::Closed);
        }
        // In TLS 1.3 the level says nothing (RFC 8446, section 6).
        let ends_nothing = match self.version() {
            Version::Tls13 => code == Alert::UserCanceled.code(),
            Version::Tls12 => level == WARNING,
        };
        if ends_nothing {
            spend(&mut self.control.warnings, "too many warnings")?;
            return Ok(Opened::Control);
        }
        // Who has given up wants no answer.
        self.read_closed = true;
        self.write_closed = true;
        Err(TlsError::AlertReceived(code))
    }

    pub(super) fn handshake(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        if plain.is_empty() {
            return Err(TlsError::broken("a handshake record is empty", Alert::UnexpectedMessage));
        }
        match self.version() {
            Version::Tls13 => self.post_handshake(plain, out),
            Version::Tls12 => self.renegotiation(plain, out),
        }
    }

    /// TLS 1.3: of all messages only a key update may come from a client that wasn't asked for anything.
    fn post_handshake(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        const BODY: [u8; MESSAGE_HEADER] = [KEY_UPDATE, 0, 0, 1];
        let mut bytes = plain.iter().copied();
        let fragment = &mut self.control.fragment;
        while usize::from(fragment.length) < MESSAGE_HEADER {
            let Some(byte) = bytes.next() else { return Ok(()) };
            let at = usize::from(fragment.length);
            if byte != BODY[at] {
                let (what, alert) = match at {
                    0 => ("a handshake message has no place here", Alert::UnexpectedMessage),
                    _ => ("a key update has a wrong length", Alert::DecodeError),
                };
                return Err(TlsError::broken(what, alert));
            }
            fragment.bytes[at] = byte;
            fragment.length += 1;
        }
        let Some(requested) = bytes.next() else { return Ok(()) };
        self.control.fragment = super::control::Fragment::default();
        if bytes.next().is_some() {
            // RFC 8446, section 5.1: a message after which the key changes ends its record.
            return Err(TlsError::broken("a key update does not end its record", Alert::UnexpectedMessage));
        }
        if requested > 1 {
            return Err(TlsError::broken("a key update asks for something unknown", Alert::IllegalParameter));
        }
        spend(&mut self.control.key_updates, "too many key updates")?;
        self.read.update();
        if requested == 1 && !self.write_closed {
            self.update_write_key(out)?;
        }
        Ok(())
    }

    /// Sends a key update that asks for none, and goes on with the next key.
    pub(super) fn update_write_key(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        const MESSAGE: [u8; MESSAGE_HEADER + 1] = [KEY_UPDATE, 0, 0, 1, 0];
        // With the old key, which has room for this one: it is the record that ends it.
        let begin = out.len();
        out.extend_from_slice(&[DATA, 3, 3, 0, 0]);
        out.extend_from_slice(&MESSAGE);
        self.finish(HANDSHAKE, begin, out)?;
        self.write.update();
        Ok(())
    }

    /// TLS 1.2: a client asks for another handshake, which it doesn't get (RFC 5246, section 7.2.2).
    fn renegotiation(&mut self, mut plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        const WARNING: u8 = 1;
        while !plain.is_empty() {
            if self.control.skip > 0 {
                let now = plain.len().min(usize::try_from(self.control.skip).unwrap_or(usize::MAX));
                // No more than what is left.
                self.control.skip -= u32::try_from(now).unwrap_or(u32::MAX);
                plain = &plain[now..];
                continue;
            }
            let Some((&[kind, high, middle, low], rest)) = plain.split_first_chunk::<MESSAGE_HEADER>() else {
                return Err(TlsError::broken("a handshake message can't be read", Alert::DecodeError));
            };
            if kind != CLIENT_HELLO {
                return Err(TlsError::broken("a handshake message has no place here", Alert::UnexpectedMessage));
            }
            spend(&mut self.control.renegotiations, "too many requests for another handshake")?;
            self.control.skip = u32::from_be_bytes([0, high, middle, low]);
            plain = rest;
            if !self.write_closed {
                self.send(super::ALERT, &[WARNING, Alert::NoRenegotiation.code()], out)?;
            }
        }
        Ok(())
    }
}
