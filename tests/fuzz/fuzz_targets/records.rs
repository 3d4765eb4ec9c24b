//! What a client of HTTPS sends behind its handshake: records that are made with the right keys and say anything, records
//! that are not, and moves to another process in between.
//!
//! The client's keys are read from the connection's own state, so that every type of record and every message in it is
//! reached. Run as `command` is (see there), with `--bin records` and without the dictionary.
#![no_main]

use app_host_tls::{HEADER, Opened, Records, State, TlsError};
use ring::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

/// TLS 1.3 with AES-128-GCM, and TLS 1.2 with ChaCha20-Poly1305: the first byte of a state, and how long its material is.
const TLS13: (u8, usize) = (0, 32);
const TLS12: (u8, usize) = (5, 44);

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(secret: &[u8], label: &[u8], out: &mut [u8]) {
    let head = [0, out.len() as u8, 6 + label.len() as u8];
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret);
    prk.expand(&[&head, b"tls13 ", label, &[0]], Length(out.len())).unwrap().fill(out).unwrap();
}

/// A record of this type, as the client with these keys would make it next.
fn seal(state: &State, kind: u8, plain: &[u8]) -> Vec<u8> {
    let bytes = state.expose();
    let sequence: [u8; 8] = bytes[1..9].try_into().unwrap();
    let tls13 = bytes[0] == TLS13.0;
    let mut iv = [0; 12];
    let key = if tls13 {
        let (secret, mut key) = (&bytes[9..9 + TLS13.1], [0; 16]);
        expand(secret, b"key", &mut key);
        expand(secret, b"iv", &mut iv);
        UnboundKey::new(&AES_128_GCM, &key)
    } else {
        iv.copy_from_slice(&bytes[9 + 32..9 + 44]);
        UnboundKey::new(&CHACHA20_POLY1305, &bytes[9..9 + 32])
    };
    for (byte, number) in iv[4..].iter_mut().zip(sequence) {
        *byte ^= number;
    }
    let mut inner = plain.to_vec();
    if tls13 {
        inner.push(kind);
    }
    let length = (inner.len() + 16) as u16;
    let outer = if tls13 { 23 } else { kind };
    let header = [outer, 3, 3, (length >> 8) as u8, length as u8];
    let aad = if tls13 {
        header.to_vec()
    } else {
        [&sequence[..], &header[..3], &(plain.len() as u16).to_be_bytes()].concat()
    };
    let key = LessSafeKey::new(key.unwrap());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), &mut inner).unwrap();
    [&header[..], &inner].concat()
}

fn begin((first, length): (u8, usize)) -> Records {
    let mut bytes = vec![7; 1 + 2 * (8 + length) + 13];
    bytes[0] = first;
    bytes[1..9].fill(0);
    bytes[9 + length..17 + length].fill(0);
    let bounds = bytes.len() - 9;
    bytes[bounds..].fill(0);
    State::read(&bytes).expect("as long as one").resume().expect("of a connection")
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let mut records = begin(if first & 1 == 0 { TLS13 } else { TLS12 });
    let mut out = Vec::new();
    while let Some((&[what, length], after)) = rest.split_first_chunk::<2>() {
        let (plain, after) = after.split_at(after.len().min(usize::from(length)));
        rest = after;
        let Some(state) = records.suspend() else { return };
        let kind = [20, 21, 22, 23, 24, what][usize::from(what % 6)];
        let mut record = if what >= 240 { plain.to_vec() } else { seal(&state, kind, plain) };
        if what < 240 {
            assert_eq!(records.length(&record), Ok(Some(record.len())));
        } else if what >= 250 {
            // Another process goes on.
            let again = State::read(state.expose()).expect("it was written by us");
            records = again.resume().expect("it is of a connection");
            assert!(records.suspend().is_some_and(|again| again == state), "a move changes nothing");
            continue;
        }
        out.clear();
        match records.open(&mut record, &mut out) {
            Ok(Opened::Data(data)) => {
                // In TLS 1.3 the type is the last byte that is no zero.
                assert!(kind == 23 && data == plain && what < 240);
            }
            Ok(Opened::Control | Opened::Closed) => assert!(what < 240),
            Err(TlsError::AlertReceived(_)) => assert!(out.is_empty()),
            Err(_) => {
                assert!(!out.is_empty(), "the client is told why");
                assert!(records.suspend().is_none(), "nobody goes on with it");
                return;
            }
        }
        // An answer is one small record, or one a handshake message.
        assert!(out.len() <= 64 * (1 + plain.len() / 4), "{} bytes for {}", out.len(), plain.len() + HEADER);
    }
});
