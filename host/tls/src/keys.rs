//! The key of one direction: what it is made of, what it is used for, and how the next one is made.

use std::fmt;

use ring::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The most bytes of what a direction's key is made of: a SHA-384 secret of TLS 1.3.
pub const STATE_SECRET: usize = 48;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// How records are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suite {
    /// AES-128-GCM, with SHA-256.
    Aes128Gcm,
    /// AES-256-GCM, with SHA-384.
    Aes256Gcm,
    /// ChaCha20-Poly1305, with SHA-256.
    ChaCha20Poly1305,
}

impl Suite {
    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
            Self::Aes256Gcm => hkdf::HKDF_SHA384,
        }
    }

    const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// How many records one key may protect (RFC 8446, section 5.5, rounded down as rustls does it).
    pub(crate) const fn records_per_key(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 24,
            Self::ChaCha20Poly1305 => u64::MAX,
        }
    }
}

/// Which key of which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) version: Version,
    pub(crate) suite: Suite,
}

impl Kind {
    /// How many bytes its [`Material`] has: the traffic secret in TLS 1.3, key and IV in TLS 1.2.
    pub(crate) const fn material_len(self) -> usize {
        match (self.version, self.suite) {
            (Version::Tls13, Suite::Aes256Gcm) => 48,
            (Version::Tls13, Suite::Aes128Gcm | Suite::ChaCha20Poly1305) => 32,
            (Version::Tls12, suite) => suite.key_len() + NONCE_LEN,
        }
    }
}

/// What the key of a direction is made of.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Material {
    bytes: [u8; STATE_SECRET],
    length: usize,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material(…)")
    }
}

impl Material {
    /// From several parts, one behind the other. `None` if they are longer than any can be.
    pub(crate) fn new(parts: &[&[u8]]) -> Option<Self> {
        let mut this = Self { bytes: [0; STATE_SECRET], length: 0 };
        for part in parts {
            let end = this.length + part.len();
            this.bytes.get_mut(this.length..end)?.copy_from_slice(part);
            this.length = end;
        }
        Some(this)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The length that a HKDF output is to have.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label without a context (RFC 8446, section 7.1).
fn expand_label(suite: Suite, secret: &[u8], label: &[u8], out: &mut [u8]) {
    /// No output of ours is longer than a secret.
    const LENGTHS: &str = "outputs and labels are short";
    let length = u16::try_from(out.len()).expect(LENGTHS).to_be_bytes();
    let label_length = [u8::try_from(b"tls13 ".len() + label.len()).expect(LENGTHS)];
    let info: [&[u8]; 5] = [&length, &label_length, b"tls13 ", label, &[0]];
    let prk = hkdf::Prk::new_less_safe(suite.hash(), secret);
    prk.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out)).expect(LENGTHS);
}

/// One direction of a connection: its key, and how many records it has protected.
pub(crate) struct Direction {
    kind: Kind,
    material: Material,
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// The number of the next record.
    sequence: u64,
}

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, sequence, .. } = self;
        f.debug_struct("Direction").field("kind", kind).field("sequence", sequence).finish_non_exhaustive()
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

impl Direction {
    /// The direction with this key. `None` if the material is not of this kind.
    pub(crate) fn new(kind: Kind, material: Material, sequence: u64) -> Option<Self> {
        if material.length != kind.material_len() {
            return None;
        }
        let (key, iv) = Self::derive(kind, &material)?;
        Some(Self { kind, material, key, iv, sequence })
    }

    /// The direction with the key and IV that its material gives, where somebody has made them already: nothing of ours in
    /// a handshake took longer. `None` if they are not of this kind.
    pub(crate) fn with_key(kind: Kind, material: Material, key: &[u8], iv: &[u8], sequence: u64) -> Option<Self> {
        if material.length != kind.material_len() {
            return None;
        }
        let unbound = UnboundKey::new(kind.suite.algorithm(), key).ok()?;
        let this = Self { kind, material, key: LessSafeKey::new(unbound), iv: iv.try_into().ok()?, sequence };
        debug_assert!(this.is_made_of(key, iv), "the keys are not those of the handshake");
        Some(this)
    }

    fn derive(kind: Kind, material: &Material) -> Option<(LessSafeKey, [u8; NONCE_LEN])> {
        let (mut space, mut iv) = ([0; 32], [0; NONCE_LEN]);
        let key = &mut space[..kind.suite.key_len()];
        Self::expand(kind, material, key, &mut iv)?;
        let unbound = UnboundKey::new(kind.suite.algorithm(), key).ok();
        space.zeroize();
        Some((LessSafeKey::new(unbound?), iv))
    }

    /// Makes key and IV.
    fn expand(kind: Kind, material: &Material, key: &mut [u8], iv: &mut [u8; NONCE_LEN]) -> Option<()> {
        let Kind { version, suite } = kind;
        match version {
            Version::Tls13 => {
                expand_label(suite, material.bytes(), b"key", key);
                expand_label(suite, material.bytes(), b"iv", iv);
            }
            Version::Tls12 => {
                let (first, second) = material.bytes().split_at_checked(suite.key_len())?;
                key.copy_from_slice(first);
                iv.copy_from_slice(second);
            }
        }
        Some(())
    }

    /// Whether the material gives just this key and IV.
    fn is_made_of(&self, key: &[u8], iv: &[u8]) -> bool {
        let (mut space, mut derived_iv) = ([0; 32], [0; NONCE_LEN]);
        let derived = &mut space[..self.kind.suite.key_len()];
        let made = Self::expand(self.kind, &self.material, derived, &mut derived_iv).is_some();
        let same = made && derived == key && derived_iv == iv;
        space.zeroize();
        same
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) const fn material(&self) -> &Material {
        &self.material
    }

    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the key has protected as many records as it may.
    pub(crate) const fn is_used_up(&self) -> bool {
        self.sequence >= self.kind.suite.records_per_key()
    }

    /// Goes on with the next key (RFC 8446, section 7.2). TLS 1.2 has none.
    pub(crate) fn update(&mut self) {
        debug_assert_eq!(self.kind.version, Version::Tls13);
        let mut next = Material { bytes: [0; STATE_SECRET], length: self.material.length };
        let length = next.length;
        expand_label(self.kind.suite, self.material.bytes(), b"traffic upd", &mut next.bytes[..length]);
        if let Some(direction) = Self::new(self.kind, next, 0) {
            *self = direction;
        }
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// Protects `plain` in place, which is the next record's; returns the tag. The second half of the nonce that was used
    /// is for TLS 1.2's GCM, which sends it.
    pub(crate) fn seal(&mut self, aad: &[u8], plain: &mut [u8]) -> Option<aead::Tag> {
        let nonce = Nonce::assume_unique_for_key(self.nonce());
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), plain).ok()?;
        self.sequence = self.sequence.checked_add(1)?;
        Some(tag)
    }

    /// The part of the next record's nonce that a record of TLS 1.2's GCM carries.
    pub(crate) fn explicit_nonce(&self) -> [u8; 8] {
        let mut explicit = [0; 8];
        explicit.copy_from_slice(&self.nonce()[4..]);
        explicit
    }

    /// Opens the next record in place; `explicit` is the nonce that it carries, if it does.
    pub(crate) fn open<'a>(
        &mut self,
        explicit: Option<[u8; 8]>,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let mut nonce = self.nonce();
        if let Some(explicit) = explicit {
            nonce = self.iv;
            nonce[4..].copy_from_slice(&explicit);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(aad), sealed).ok()?;
        self.sequence = self.sequence.checked_add(1)?;
        Some(plain)
    }
}
