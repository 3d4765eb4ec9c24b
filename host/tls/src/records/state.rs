//! A connection between two records, as bytes: what another process needs to go on with it.
//!
//! One byte for version and suite; for each direction the number of the next record and what its key is made of; what is left
//! of the bounds. 85 to 117 bytes, in TLS 1.3 with AES-128 the fewest.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::keys::{Direction, Kind, Material, Suite, Version};

use super::Records;
use super::control::{self, Control, Fragment};

/// A connection that is not served at the moment. The keys in it are in the clear: it goes to no log and no file.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct State(Box<[u8]>);

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State(…)")
    }
}

/// Which key of which version each first byte stands for.
const KINDS: [Kind; 6] = [
    Kind { version: Version::Tls13, suite: Suite::Aes128Gcm },
    Kind { version: Version::Tls13, suite: Suite::Aes256Gcm },
    Kind { version: Version::Tls13, suite: Suite::ChaCha20Poly1305 },
    Kind { version: Version::Tls12, suite: Suite::Aes128Gcm },
    Kind { version: Version::Tls12, suite: Suite::Aes256Gcm },
    Kind { version: Version::Tls12, suite: Suite::ChaCha20Poly1305 },
];

/// The bytes behind the two directions.
const BOUNDS: usize = 4 + 1 + 4 + 4;

impl State {
    /// The most bytes of a state.
    pub const MAX: usize = 1 + 2 * (8 + crate::STATE_SECRET) + BOUNDS;

    /// Its bytes, for a way on which nobody listens.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The state of these bytes, which may be anything. `None` if they are none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let kind = KINDS.get(usize::from(*bytes.first()?))?;
        let length = 1 + 2 * (8 + kind.material_len()) + BOUNDS;
        (bytes.len() == length).then(|| Self(bytes.into()))
    }

    /// Goes on with the connection. `None` if the state is of no connection.
    pub fn resume(self) -> Option<Records> {
        let (first, mut rest) = self.0.split_first()?;
        let kind = *KINDS.get(usize::from(*first))?;
        let mut direction = || {
            let (sequence, after) = rest.split_first_chunk::<8>()?;
            let (material, after) = after.split_at_checked(kind.material_len())?;
            rest = after;
            Direction::new(kind, Material::new(&[material])?, u64::from_be_bytes(*sequence))
        };
        let (read, write) = (direction()?, direction()?);
        let rest: &[u8; BOUNDS] = rest.try_into().ok()?;
        let &[key_updates, warnings, renegotiations, empty, length, a, b, c, d, s1, s2, s3, s4] = rest;
        let control = Control {
            key_updates: key_updates.min(control::KEY_UPDATES),
            warnings: warnings.min(control::WARNINGS),
            renegotiations: renegotiations.min(control::RENEGOTIATIONS),
            empty: empty.min(control::EMPTY),
            fragment: Fragment { bytes: [a, b, c, d], length: length.min(4) },
            skip: u32::from_be_bytes([s1, s2, s3, s4]),
        };
        Some(Records { read, write, control, read_closed: false, write_closed: false })
    }
}

impl Records {
    /// The state of this connection, which ends here: nobody may go on with both. `None` once one side is closed, when there
    /// is nothing to go on with.
    pub fn suspend(&self) -> Option<State> {
        if self.read_closed || self.write_closed {
            return None;
        }
        let Self { read, write, control, .. } = self;
        let kind = KINDS.iter().position(|kind| *kind == read.kind())?;
        // As long as it will be: a vector that grows leaves copies behind.
        let mut bytes = Vec::with_capacity(1 + 2 * (8 + read.kind().material_len()) + BOUNDS);
        bytes.push(u8::try_from(kind).ok()?);
        for direction in [read, write] {
            bytes.extend_from_slice(&direction.sequence().to_be_bytes());
            bytes.extend_from_slice(direction.material().bytes());
        }
        let Control { key_updates, warnings, renegotiations, empty, fragment, skip } = *control;
        bytes.extend_from_slice(&[key_updates, warnings, renegotiations, empty, fragment.length]);
        bytes.extend_from_slice(&fragment.bytes);
        bytes.extend_from_slice(&skip.to_be_bytes());
        Some(State(bytes.into_boxed_slice()))
    }
}
