//! The manifest: what a library says about itself without being run.
//!
//! Owns the ELF note that [`export_app!`](crate::export_app) places in every app, and its decoder.
//! Finding the note in a file is left to the host, which reads it with an ELF parser.
//!
//! The description of the note is a row of plain, 4-aligned fields without pointers, so it survives
//! fat LTO, strip and every linker. Its length comes first: a later version may append fields, and
//! a decoder reads the ones it knows.

use crate::magic::{ABI, ABI_MINOR, Magic, magic};
use std::fmt;

/// The section that holds the note.
pub const SECTION: &str = ".note.app-abi";
/// The owner's name in the note's header, without its terminating zero.
pub const NOTE_NAME: &str = "app-abi";
/// The note's type.
pub const NOTE_TYPE: u32 = 1;

/// Says that the description was really written by `export_app!` ("apph").
const COOKIE: u32 = u32::from_le_bytes(*b"apph");
const NAME_LEN: usize = 64;
const VERSION_LEN: usize = 32;
const RUSTC_LEN: usize = 64;
const DESC_LEN: usize = size_of::<Desc>();

/// The note as it lies in the library. Made by [`export_app!`](crate::export_app) only.
#[doc(hidden)]
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Note {
    name_len: u32,
    desc_len: u32,
    kind: u32,
    name: [u8; 8],
    desc: Desc,
}

/// What the note describes, field by field as it lies in the file.
#[repr(C)]
#[derive(Debug)]
struct Desc {
    length: u32,
    cookie: u32,
    magic_low: u32,
    magic_high: u32,
    abi_minor: u32,
    host_minor_needed: u32,
    flags: u32,
    app_abi: [u32; 3],
    abi_stable: [u32; 3],
    async_ffi: u32,
    app_name: [u8; NAME_LEN],
    app_version: [u8; VERSION_LEN],
    rustc: [u8; RUSTC_LEN],
}

impl Note {
    /// The note of an app.
    ///
    /// # Panics
    /// When name or version don't fit, which `export_app!` makes an error at compile time.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lengths are a few hundred bytes")]
    pub const fn new(epoch: u32, app_name: &str, app_version: &str) -> Self {
        assert!(app_name.len() <= NAME_LEN, "the package's name is longer than 64 bytes");
        assert!(app_version.len() <= VERSION_LEN, "the package's version is longer than 32 bytes");
        let magic = Magic(magic(epoch));
        Self {
            name_len: NOTE_NAME.len() as u32 + 1,
            desc_len: DESC_LEN as u32,
            kind: NOTE_TYPE,
            name: padded(NOTE_NAME),
            desc: Desc {
                length: DESC_LEN as u32,
                cookie: COOKIE,
                magic_low: magic.epoch(),
                magic_high: magic.abi(),
                abi_minor: ABI_MINOR,
                host_minor_needed: ABI_MINOR,
                flags: 0,
                app_abi: Version::APP_ABI.numbers(),
                abi_stable: Version::ABI_STABLE.numbers(),
                async_ffi: async_ffi::ABI_VERSION,
                app_name: padded(app_name),
                app_version: padded(app_version),
                rustc: padded(env!("APP_ABI_RUSTC")),
            },
        }
    }
}

/// `text` in a field of fixed size, zeros behind it; what is longer is cut.
const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let mut i = 0;
    while i < N && i < text.len() {
        field[i] = text.as_bytes()[i];
        i += 1;
    }
    field
}

/// A version number of a crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl Version {
    /// This copy of `app-abi`.
    pub const APP_ABI: Self = Self::parse(env!("CARGO_PKG_VERSION"));
    /// The copy of `abi_stable` that this copy of `app-abi` is built on.
    pub const ABI_STABLE: Self = Self::parse(abi_stable::ABI_STABLE_VERSION.version.as_str());

    /// Whether code built on `other` speaks the same language as code built on `self`: the numbers
    /// up to the first one that isn't zero are equal (the rule of semantic versioning).
    #[must_use]
    pub const fn is_compatible(self, other: Self) -> bool {
        self.major == other.major && (self.major != 0 || self.minor == other.minor)
    }

    const fn numbers(self) -> [u32; 3] {
        [self.major, self.minor, self.patch]
    }

    const fn from_numbers([major, minor, patch]: [u32; 3]) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `1.2.3` and ignores what follows the third number.
    const fn parse(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut numbers = [0; 3];
        let (mut at, mut i) = (0, 0);
        while i < bytes.len() {
            match bytes[i] {
                digit @ b'0'..=b'9' => numbers[at] = numbers[at] * 10 + (digit - b'0') as u32,
                b'.' if at < 2 => at += 1,
                _ => break,
            }
            i += 1;
        }
        Self::from_numbers(numbers)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A manifest as read from a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// ABI and epoch.
    pub magic: Magic,
    /// The minor of the ABI that the app was built against.
    pub abi_minor: u32,
    /// The least [`ABI_MINOR`] that the app needs of its host.
    pub host_minor_needed: u32,
    /// Reserved for later versions; zero.
    pub flags: u32,
    /// The version of `app-abi` that the app was built against.
    pub app_abi: Version,
    /// The version of `abi_stable` that the app was built against.
    pub abi_stable: Version,
    /// The ABI version of `async-ffi` that the app was built against.
    pub async_ffi: u32,
    /// The name of the app's package.
    pub app_name: String,
    /// The version of the app's package.
    pub app_version: String,
    /// The compiler, for information.
    pub rustc: String,
}

/// Why bytes are not a manifest. The caller can only refuse the library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes end before a field does.
    #[error("the manifest ends within the field `{field}`")]
    Short {
        /// The field that is cut.
        field: &'static str,
    },
    /// The length at the start isn't one that this or a later version writes.
    #[error(
        "the manifest's field `length` is {found}, but at least {DESC_LEN} and at most the {size} bytes of the note were expected"
    )]
    Length {
        /// What the field says.
        found: u32,
        /// How many bytes there are.
        size: usize,
    },
    /// The cookie is wrong: something else wrote this note.
    #[error("the manifest's field `cookie` is {found:#010x}, expected {COOKIE:#010x}")]
    Cookie {
        /// What the field says.
        found: u32,
    },
    /// A text is not UTF-8.
    #[error("the manifest's field `{field}` is not valid UTF-8")]
    Text {
        /// The field.
        field: &'static str,
    },
}

impl Manifest {
    /// Decodes the description of the note, which is what follows the note's header and name.
    pub fn from_note_desc(desc: &[u8]) -> Result<Self, ManifestError> {
        let mut fields = DescReader { rest: desc };
        let length = fields.number("length")?;
        let within = usize::try_from(length).is_ok_and(|length| (DESC_LEN..=desc.len()).contains(&length));
        let cookie = fields.number("cookie")?;
        if cookie != COOKIE {
            return Err(ManifestError::Cookie { found: cookie });
        }
        if !within {
            return Err(ManifestError::Length { found: length, size: desc.len() });
        }
        let low = fields.number("magic")?;
        let high = fields.number("magic")?;
        Ok(Self {
            magic: Magic(u64::from(high) << 32 | u64::from(low)),
            abi_minor: fields.number("abi_minor")?,
            host_minor_needed: fields.number("host_minor_needed")?,
            flags: fields.number("flags")?,
            app_abi: fields.version("app_abi")?,
            abi_stable: fields.version("abi_stable")?,
            async_ffi: fields.number("async_ffi")?,
            app_name: fields.text::<NAME_LEN>("app_name")?,
            app_version: fields.text::<VERSION_LEN>("app_version")?,
            rustc: fields.text::<RUSTC_LEN>("rustc")?,
        })
    }
}

/// Why a library does not fit this host, as far as its manifest tells. Rebuild the app.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The high half of the magic differs.
    #[error("magic {found}: built for ABI {}, this host has ABI {ABI}", found.abi())]
    Abi {
        /// The library's magic.
        found: Magic,
    },
    /// The app needs a later minor of the ABI than the host has.
    #[error("`host_minor_needed` is {needed}, this host has minor {ABI_MINOR} of ABI {ABI}")]
    Minor {
        /// What the app needs.
        needed: u32,
    },
    /// One of the crates that the contract is made of is of another kind.
    #[error("`{field}` is version {found}, this host needs one compatible with {host}")]
    Version {
        /// The manifest's field.
        field: &'static str,
        /// The library's version.
        found: Version,
        /// The host's version.
        host: Version,
    },
    /// Futures cross in another form.
    #[error("`async_ffi` is ABI version {found}, this host has {}", async_ffi::ABI_VERSION)]
    AsyncFfi {
        /// The library's number.
        found: u32,
    },
}

impl Manifest {
    /// Whether a host that was built with this copy of `app-abi` may load the library at all. Says
    /// nothing of epochs, and nothing of layouts, which only the loaded library can tell.
    pub fn fits_host(&self) -> Result<(), Misfit> {
        if self.magic.abi() != ABI {
            return Err(Misfit::Abi { found: self.magic });
        }
        if self.host_minor_needed > ABI_MINOR {
            return Err(Misfit::Minor { needed: self.host_minor_needed });
        }
        let versions =
            [("app_abi", self.app_abi, Version::APP_ABI), ("abi_stable", self.abi_stable, Version::ABI_STABLE)];
        for (field, found, host) in versions {
            if !host.is_compatible(found) {
                return Err(Misfit::Version { field, found, host });
            }
        }
        if self.async_ffi != async_ffi::ABI_VERSION {
            return Err(Misfit::AsyncFfi { found: self.async_ffi });
        }
        Ok(())
    }
}

/// Reads one field after the other.
struct DescReader<'a> {
    rest: &'a [u8],
}

impl DescReader<'_> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ManifestError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(ManifestError::Short { field })?;
        self.rest = rest;
        Ok(*head)
    }

    fn number(&mut self, field: &'static str) -> Result<u32, ManifestError> {
        // Native order: a library of another byte order is of another architecture.
        self.take(field).map(u32::from_ne_bytes)
    }

    fn version(&mut self, field: &'static str) -> Result<Version, ManifestError> {
        Ok(Version { major: self.number(field)?, minor: self.number(field)?, patch: self.number(field)? })
    }

    fn text<const N: usize>(&mut self, field: &'static str) -> Result<String, ManifestError> {
        let bytes = self.take::<N>(field)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(N);
        String::from_utf8(bytes[..end].to_vec()).map_err(|_| ManifestError::Text { field })
    }
}

#[cfg(test)]
mod tests;
