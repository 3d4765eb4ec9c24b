//! Secrets, and where they are looked for: in each of the forms that a careless line of code would give them.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use rustls::KeyLog;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::process;
use crate::tls::Files;

/// How many bytes of a secret are looked for together: half of the shortest, because a line of PEM may end within it.
const PIECE: usize = 16;

/// How long the scalar of an elliptic curve's key is: of P-256 and Ed25519, of P-384, of P-521.
const SCALARS: [usize; 3] = [32, 48, 66];

/// Bytes that nobody may see, and the forms in which they might be seen.
pub struct Secret {
    /// What it is.
    pub name: String,
    forms: Vec<Vec<u8>>,
}

/// Without the bytes: a test that fails is a log, too.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Secret {
    /// These bytes: raw, as numbers in hexadecimal and decimal, and in base64 wherever they begin there.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= PIECE && bytes.iter().any(|byte| *byte != bytes[0]), "{name} is no secret");
        let forms = bytes.chunks_exact(PIECE).flat_map(|piece| {
            let joined = |each: &dyn Fn(&u8) -> String, with: &str| {
                piece.iter().map(each).collect::<Vec<_>>().join(with).into_bytes()
            };
            let written = [
                piece.to_vec(),
                joined(&|byte| format!("{byte:02x}"), ""),
                joined(&|byte| format!("{byte:02X}"), ""),
                joined(&ToString::to_string, ", "),
                joined(&ToString::to_string, ","),
            ];
            written.into_iter().chain((0..3).map(|before| base64(before, piece)))
        });
        Self { name: name.to_owned(), forms: forms.collect() }
    }

    /// What a certificate's key has in its DER form and the certificate has not: the scalar of an elliptic curve, exponent
    /// and primes of RSA.
    pub fn of_key(files: &Files) -> Vec<Self> {
        let certificate = CertificateDer::from_pem_file(&files.certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
        let mut values = Vec::new();
        leaves(key.secret_der(), &mut values);
        values.retain(|value| value.len() >= PIECE && !certificate.windows(value.len()).any(|window| window == value));
        let name = files.key.file_name().expect("it has a name").to_string_lossy();
        let mut secrets: Vec<_> =
            values.iter().enumerate().map(|(number, value)| Self::new(&format!("{name}, {number}"), value)).collect();
        // As they lie in the file, whatever is in them: the last is short, the first may be the algorithm's name.
        let text = fs::read_to_string(&files.key).expect("a key");
        let lines = text.lines().filter(|line| line.len() == 64).map(|line| line.as_bytes().to_vec());
        secrets.push(Self { name: format!("{name}, lines of PEM"), forms: lines.collect() });
        secrets
    }

    /// The keys that seal session tickets: this process has them in a file of memory. Its user must be ours, or we root.
    pub fn of_tickets(master: u32) -> Vec<Self> {
        let is_theirs = |path: &Path| path.to_string_lossy().contains("app-host ticket keys");
        let files = process::descriptors(master).into_iter().filter(|(_, path)| is_theirs(path));
        let mut secrets = Vec::new();
        for (descriptor, _) in files {
            let keys = fs::read(format!("/proc/{master}/fd/{descriptor}")).expect("the file of ticket keys");
            // Eight bytes name a key, and each ticket tells them.
            secrets.extend(keys.chunks(40).map(|key| Self::new("a key of session tickets", &key[8..])));
        }
        secrets
    }

    /// Whether these bytes tell of it.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        !found([self], bytes).is_empty()
    }
}

/// Which of these secrets the bytes tell. Goes through them once: a core dump has some dozens of megabytes.
pub fn found<'a>(secrets: impl IntoIterator<Item = &'a Secret>, bytes: &[u8]) -> BTreeSet<&'a str> {
    let place = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    let mut begun: Vec<Vec<(&Secret, &[u8])>> = vec![Vec::new(); 1 << 16];
    for secret in secrets {
        for form in &secret.forms {
            begun[place(form)].push((secret, form));
        }
    }
    let mut found = BTreeSet::new();
    for (at, two) in bytes.windows(2).enumerate() {
        let here = begun[place(two)].iter().filter(|(_, form)| bytes[at..].starts_with(form));
        found.extend(here.map(|(secret, _)| secret.name.as_str()));
    }
    found
}

/// The secrets of connections, as a client has made them.
#[derive(Debug, Default)]
pub struct Told(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for Told {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().expect("no panic").push((label.to_owned(), secret.to_vec()));
    }
}

impl Told {
    /// All of them until now.
    pub fn secrets(&self) -> Vec<Secret> {
        self.0.lock().expect("no panic").iter().map(|(label, secret)| Secret::new(label, secret)).collect()
    }
}

/// These bytes in base64 (RFC 4648) behind `before` others, without the characters that those have a part in.
fn base64(before: usize, bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = String::new();
    for byte in bytes {
        write!(bits, "{byte:08b}").expect("a string takes it");
    }
    let skipped = (6 - before * 8 % 6) % 6;
    let (digits, _) = bits.as_bytes()[skipped..].as_chunks::<6>();
    let value = |digit: &[u8; 6]| digit.iter().fold(0, |value, bit| value * 2 + usize::from(bit - b'0'));
    digits.iter().map(|digit| DIGITS[value(digit)]).collect()
}

/// Splits what begins with a value of DER into its tag, its content, and what follows.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// The integers and strings of bytes within this DER.
fn leaves(der: &[u8], into: &mut Vec<Vec<u8>>) {
    let (constructed, octets, integer) = (0x20, 0x04, 0x02);
    let mut der = der;
    while let Some((tag, content, rest)) = value(der) {
        // A private key is DER within such a string, unless it is the scalar itself, whatever that begins with.
        let has_more = tag == octets
            && !SCALARS.contains(&content.len())
            && value(content).is_some_and(|(tag, _, rest)| rest.is_empty() && [0x30, octets].contains(&tag));
        if tag & constructed != 0 || has_more {
            leaves(content, into);
        } else if tag == octets {
            into.push(content.to_vec());
        } else if tag == integer {
            // Only a sign.
            into.push(content.strip_prefix(&[0]).unwrap_or(content).to_vec());
        }
        der = rest;
    }
}

/// Command lines and environments of a process and what it has begotten.
#[derive(Debug, Default)]
pub struct Shown {
    /// Each that was seen.
    pub texts: BTreeSet<Vec<u8>>,
    /// The roles of the children that could be looked at, `internal-worker` for instance.
    pub roles: BTreeSet<String>,
}

impl Shown {
    /// Looks at this process and its children.
    pub fn look(&mut self, master: u32) {
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in children.chain([master]) {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let (line, environment) = (read("cmdline"), read("environ"));
            // Until it has become another program, a child shows what its parent shows.
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            if let Some(role) = words.get(1).filter(|_| !environment.is_empty()) {
                self.roles.insert(String::from_utf8_lossy(role).into_owned());
            }
            self.texts.extend([line, environment]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_is_one_leaf_whatever_it_begins_with() {
        for begin in [&[0, 1][..], &[0x04, 30], &[0x30, 30]] {
            let scalar = [begin, &[7; 30]].concat();
            // As in RFC 5915, within the octets of RFC 5958.
            let key = [&[0x30, 37, 0x02, 1, 1, 0x04, 32][..], &scalar].concat();
            let mut found = Vec::new();
            leaves(&[&[0x04, 39][..], &key].concat(), &mut found);
            assert_eq!(found, [vec![1], scalar]);
        }
    }

    #[test]
    fn a_secret_is_found_in_each_form_and_nowhere_else() {
        let bytes: Vec<u8> = (0..32).map(|byte| byte * 7 + 1).collect();
        let secret = Secret::new("a test's", &bytes);
        let texts = [
            format!("{bytes:?}"),
            format!("{bytes:02x?}").replace(", ", ""),
            // By python's `base64`, behind "", "a" and "ab".
            "AQgPFh0kKzI5QEdOVVxjanF4f4aNlJuiqbC3vsXM09o=".to_owned(),
            "YQEIDxYdJCsyOUBHTlVcY2pxeH+GjZSboqmwt77FzNPa".to_owned(),
            "YWIBCA8WHSQrMjlAR05VXGNqcXh/ho2Um6KpsLe+xczT2g==".to_owned(),
        ];
        for text in texts {
            assert!(secret.is_in(text.as_bytes()), "{text}");
            assert!(!secret.is_in(&text.as_bytes()[..16]), "{text}");
        }
        assert!(secret.is_in(&bytes) && !secret.is_in(&bytes[1..16]));
        assert_eq!(format!("{secret:?}"), "a test's");
    }
}
