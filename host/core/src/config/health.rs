//! The keys `hang_timeout` and `recycle`: when a worker is replaced that nobody has told to go.

use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use super::numbers::{Bytes, Number};
use super::values::duration;

/// A worker has more memory than this before it serves anything.
const LEAST_MEMORY: u64 = 1 << 20;

/// What a worker may have done, or become, before a new one of its generation takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recycle {
    /// So many requests are enough.
    #[serde(deserialize_with = "requests")]
    pub requests: Option<u64>,
    /// So many bytes may be resident.
    #[serde(deserialize_with = "memory")]
    pub memory: Option<u64>,
    /// No worker is recycled before it has been ready for this long, whatever it has done: one that has
    /// enough at once would be replaced all the time.
    #[serde(deserialize_with = "duration")]
    pub min_uptime: Duration,
}

impl Recycle {
    /// Nobody is recycled.
    pub const NEVER: Self = Self { requests: None, memory: None, min_uptime: Duration::from_mins(1) };

    /// Whether anybody ever is.
    pub const fn is_wanted(&self) -> bool {
        self.requests.is_some() || self.memory.is_some()
    }
}

impl Default for Recycle {
    fn default() -> Self {
        Self::NEVER
    }
}

fn requests<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Number { least: 1, most: u64::MAX, null: true }.read(deserializer)
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Bytes { least: LEAST_MEMORY, null: true, ..Bytes::ANY }.read(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recycle(text: &str) -> Result<Recycle, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn memory_is_bytes_or_a_text_with_a_unit() {
        for (text, expected) in [
            ("null", None),
            ("1048576", Some(1 << 20)),
            (r#""2048KiB""#, Some(1 << 21)),
            (r#""512MiB""#, Some(1 << 29)),
            (r#""3 GiB""#, Some(3 << 30)),
        ] {
            assert_eq!(recycle(&format!("{{\"memory\": {text}}}")).unwrap().memory, expected, "{text}");
        }
        for text in ["0", "1048575", "-1", "1e9", "true", r#""""#, r#""512""#, r#""512MB""#, r#""MiB""#, r#""1023KiB""#]
        {
            let error = recycle(&format!("{{\"memory\": {text}}}")).unwrap_err();
            assert!(error.contains("\"512MiB\""), "{text}: {error}");
        }
        assert!(recycle(r#"{"memory": "18446744073709551615GiB"}"#).is_err());
    }

    #[test]
    fn nobody_is_recycled_unless_it_is_said() {
        assert_eq!(recycle("{}").unwrap(), Recycle::NEVER);
        assert!(!Recycle::NEVER.is_wanted());
        assert!(recycle(r#"{"requests": 0}"#).unwrap_err().contains("a number from 1"));
        let some = recycle(r#"{"requests": 1000, "min_uptime": "0s"}"#).unwrap();
        assert_eq!((some.requests, some.min_uptime), (Some(1000), Duration::ZERO));
    }
}
