//! Sets of headers in one buffer: response heads and trailers.
//!
//! Owns the encoding that [`FfiHeaders`] describes. The decoder trusts nothing: whatever the bytes
//! are, the outcome is headers or an error.

use crate::abi::FfiHeaders;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

const LENGTHS: usize = 6;

/// Marks a value as sensitive, in the number that holds its length.
pub const SENSITIVE: u32 = 1 << 31;

/// Why a buffer is not a set of headers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    /// The buffer ends before the headers do.
    #[error("the buffer ends within header {index} of {count}")]
    Short {
        /// Which header, from 0.
        index: u32,
        /// How many were announced.
        count: u32,
    },
    /// Bytes follow the last header.
    #[error("{rest} bytes follow the last header")]
    Rest {
        /// How many.
        rest: usize,
    },
    /// A name has characters that no header's name may have (RFC 9110, section 5.1).
    #[error("the name of header {index} is not valid")]
    Name {
        /// Which header, from 0.
        index: u32,
    },
    /// A value has characters that no header's value may have (RFC 9110, section 5.5).
    #[error("the value of header `{name}` is not valid")]
    Value {
        /// The header's name.
        name: HeaderName,
    },
    /// More headers than a map can hold.
    #[error("{count} headers are more than a message can have")]
    Many {
        /// How many were announced.
        count: u32,
    },
}

/// Lays headers into one buffer.
#[must_use]
pub fn encode(headers: &HeaderMap) -> FfiHeaders {
    let size = headers.iter().map(|(name, value)| LENGTHS + name.as_str().len() + value.len()).sum();
    let mut arena = Vec::with_capacity(size);
    let mut count = 0;
    for (name, value) in headers {
        let name = name.as_str().as_bytes();
        // A name has at most 64 KiB - 1 bytes by construction. A value of 2 GiB is a message that
        // nobody would take; it is left out rather than sent with a wrong length.
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
            continue;
        };
        if value_len >= SENSITIVE {
            continue;
        }
        let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
        arena.extend_from_slice(&name_len.to_ne_bytes());
        arena.extend_from_slice(&(value_len | flag).to_ne_bytes());
        arena.extend_from_slice(name);
        arena.extend_from_slice(value.as_bytes());
        count += 1;
    }
    FfiHeaders { count, arena: arena.into() }
}

/// Reads headers out of a buffer. The values are slices of it.
pub fn decode(headers: FfiHeaders) -> Result<HeaderMap, ArenaError> {
    let FfiHeaders { count, arena } = headers;
    if count == 0 && arena.is_empty() {
        return Ok(HeaderMap::new());
    }
    let arena = Bytes::from_owner(arena);
    // A lying count must not make us allocate: each header takes its lengths at least.
    let plausible = (count as usize).min(arena.len() / LENGTHS);
    let mut map = HeaderMap::try_with_capacity(plausible).map_err(|_| ArenaError::Many { count })?;
    let mut at = 0;
    for index in 0..count {
        let short = || ArenaError::Short { index, count };
        let lengths = arena[at..].first_chunk::<LENGTHS>().ok_or_else(short)?;
        let [n0, n1, v0, v1, v2, v3] = *lengths;
        let name_len = usize::from(u16::from_ne_bytes([n0, n1]));
        let tagged = u32::from_ne_bytes([v0, v1, v2, v3]);
        let name_at = at + LENGTHS;
        let value_at = name_at + name_len;
        let end = value_at + (tagged & !SENSITIVE) as usize;
        let name = arena.get(name_at..value_at).ok_or_else(short)?;
        if end > arena.len() {
            return Err(short());
        }
        let name = HeaderName::from_bytes(name).map_err(|_| ArenaError::Name { index })?;
        let Ok(mut value) = HeaderValue::from_maybe_shared(arena.slice(value_at..end)) else {
            return Err(ArenaError::Value { name });
        };
        value.set_sensitive(tagged & SENSITIVE != 0);
        map.try_append(name, value).map_err(|_| ArenaError::Many { count })?;
        at = end;
    }
    match arena.len() - at {
        0 => Ok(map),
        rest => Err(ArenaError::Rest { rest }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn header() -> impl Strategy<Value = (String, Vec<u8>, bool)> {
        ("[a-z][a-z0-9-]{0,20}", vec(32_u8..127, 0..50), any::<bool>())
    }

    proptest! {
        #[test]
        fn any_set_of_headers_survives(headers in vec(header(), 0..40)) {
            let mut map = HeaderMap::new();
            for (name, value, sensitive) in headers {
                let mut value = HeaderValue::from_bytes(&value).unwrap();
                value.set_sensitive(sensitive);
                map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            let back = decode(encode(&map)).unwrap();
            prop_assert_eq!(&back, &map);
            prop_assert!(back.values().zip(map.values()).all(|(b, m)| b.is_sensitive() == m.is_sensitive()));
        }

        #[test]
        fn arbitrary_bytes_never_panic_the_decoder(count in 0_u32..50, arena in vec(any::<u8>(), 0..200)) {
            let _ = decode(FfiHeaders { count, arena: arena.into() });
        }

        #[test]
        fn a_damaged_buffer_never_panics_the_decoder(at in 0_usize..60, to: u8, count in 0_u32..5) {
            let mut map = HeaderMap::new();
            map.append("content-type", HeaderValue::from_static("text/plain"));
            map.append("x-request-id", HeaderValue::from_static("0123456789"));
            let FfiHeaders { mut arena, .. } = encode(&map);
            let at = at % arena.len();
            arena[at] = to;
            let _ = decode(FfiHeaders { count, arena });
        }
    }

    #[test]
    fn errors_say_which_header() {
        let mut map = HeaderMap::new();
        map.append("a", HeaderValue::from_static("b"));
        let error = |count, arena: &[u8]| decode(FfiHeaders { count, arena: arena.to_vec().into() }).unwrap_err();
        let good = encode(&map).arena;
        assert_eq!(error(2, &good), ArenaError::Short { index: 1, count: 2 });
        assert_eq!(error(1, &good[..7]), ArenaError::Short { index: 0, count: 1 });
        assert_eq!(error(0, &good), ArenaError::Rest { rest: 8 });
        assert_eq!(error(u32::MAX, &good), ArenaError::Short { index: 1, count: u32::MAX });
        let mut bad = good.to_vec();
        bad[6] = b' ';
        assert_eq!(error(1, &bad), ArenaError::Name { index: 0 });
        let mut bad = good.to_vec();
        bad[7] = b'\n';
        assert_eq!(error(1, &bad), ArenaError::Value { name: HeaderName::from_static("a") });
    }
}
