//! The names of things: small copyable identities that all modules share.
//!
//! Owns no behaviour beyond printing and ordering. Pure: std and serde only.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time as the restart logic knows it: the time since the master started.
///
/// The pure machine has no clock; whoever calls it says what time it is.
pub type Time = Duration;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One immutable pair of version and configuration, counted 1, 2, 3 …
    Generation,
    u64
);
number!(
    /// A worker's place, 0 … N-1.
    Slot,
    u16
);
number!(
    /// One spawned worker. Never used again within a master, so whatever a worker says late can be
    /// told from what its successor says.
    WorkerId,
    u64
);
number!(
    /// One request for a restart, counted 1, 2, 3 …; its verdict carries the same number.
    RequestId,
    u64
);

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            #[doc = concat!("The name of ", $bytes, " with this digest.")]
            pub const fn from_digest(digest: [u8; 32]) -> Self {
                Self(digest)
            }

            /// Reads the 64 hexadecimal digits that [`Display`](fmt::Display) writes.
            pub fn parse(text: &str) -> Option<Self> {
                parse_digest(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| {
                    serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &"64 hexadecimal digits")
                })
            }
        }
    };
}

digest!(
    /// A version's name: the SHA-256 of its bytes.
    VersionId,
    "the version"
);
digest!(
    /// A configuration's name: the SHA-256 of its file's bytes.
    ConfigId,
    "the configuration"
);

impl VersionId {
    /// The first 12 digits: enough to tell versions apart in a log.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// So did this one, and the kernel has made a core dump of it (`WCOREDUMP`), where `core(5)` says.
    Dumped(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Dumped(signal) => write!(f, "signal {signal} (core dumped)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_id_reads_back_what_it_printed() {
        let id = VersionId::from_digest(std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap()));
        assert_eq!(VersionId::parse(&id.to_string()), Some(id));
        assert_eq!(VersionId::parse("zz"), None);
        assert_eq!(VersionId::parse(&"é".repeat(32)), None);
    }
}
