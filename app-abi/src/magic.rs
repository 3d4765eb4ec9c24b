//! The magic number: what may run beside what.
//!
//! Owns the ABI's own number and its changelog. The high half of a magic is [`ABI`], the low half
//! is the app's epoch. Two libraries may serve side by side only if their magics are equal.

use std::fmt;

/// The number of this ABI, the high half of every magic.
///
/// It rises when anything that crosses the line changes incompatibly: a struct, enum, signature,
/// order or name; rules of ownership, threading or blocking; what a value means; the minor of
/// `abi_stable` or the ABI version of `async-ffi`; the master's logic or the worker protocol where
/// workers of the older kind would misunderstand.
///
/// Changelog, one line a change:
/// - 1: the first ABI.
pub const ABI: u32 = 1;

/// How far the ABI has grown compatibly within [`ABI`].
///
/// It rises with a new service, a function appended to a service table, or a new extension.
///
/// Changelog, one line a change:
/// - 0: services `info`, `log` and `request`.
/// - 1: service `databank`.
/// - 2: services `trace`, `dispatch` and `listener`; a request's extension 1, `FfiUpgrade`.
/// - 3: service `lock`.
/// - 4: a request's extension 2, `FfiTls`.
/// - 5: a request's extension 3, `FfiClient`.
/// - 6: a request's extension 4, `FfiEarlyHints`.
/// - 7: a request's extension 5, `FfiResume`.
/// - 8: an app's extension 1, `FfiState`.
pub const ABI_MINOR: u32 = 8;

/// The magic of an app with this `epoch`: [`ABI`] in the high half, the epoch in the low half.
#[must_use]
pub const fn magic(epoch: u32) -> u64 {
    // `u64::from` is not const, and widening loses nothing.
    ((ABI as u64) << 32) | epoch as u64
}

/// A magic number, shown as its two halves in hexadecimal: `00000001_00000003`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Magic(pub u64);

impl Magic {
    /// The high half: the ABI that the library was built against.
    #[must_use]
    pub const fn abi(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The low half: the app's epoch.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    pub const fn epoch(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}_{:08x}", self.abi(), self.epoch())
    }
}

impl fmt::Debug for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_shows_both_halves_in_hexadecimal() {
        let magic = Magic(magic(0xfe));
        assert_eq!(magic.abi(), ABI);
        assert_eq!(magic.epoch(), 0xfe);
        assert_eq!(magic.to_string(), format!("{ABI:08x}_000000fe"));
        assert_eq!(Magic(0x0000_0002_0000_0001).to_string(), "00000002_00000001");
    }
}
