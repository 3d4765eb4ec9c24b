//! The section `limits`: what the kernel allows each worker (`getrlimit(2)`).

use serde::Deserialize;
use serde::de::Deserializer;

use super::numbers::{Bytes, Number};

/// A worker with fewer descriptors serves nobody.
const LEAST_NOFILE: u64 = 64;

/// No limit, as the kernel writes it (`RLIM_INFINITY`).
pub const UNLIMITED: u64 = u64::MAX;

/// The limits of workers; what is absent is as for the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many descriptors it may have open.
    #[serde(deserialize_with = "nofile")]
    pub nofile: Option<u64>,
    /// How many bytes of a core dump are kept.
    #[serde(deserialize_with = "core")]
    pub core: Option<u64>,
}

impl Limits {
    /// Those that are set, by their key and the kernel's name.
    pub fn set(&self) -> impl Iterator<Item = (&'static str, Limit, u64)> {
        let nofile = self.nofile.map(|value| ("limits.nofile", Limit::Nofile, value));
        let core = self.core.map(|value| ("limits.core", Limit::Core, value));
        nofile.into_iter().chain(core)
    }
}

/// Which limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Nofile,
    Core,
}

fn nofile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Number { least: LEAST_NOFILE, most: u64::MAX, null: true }.read(deserializer)
}

fn core<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Bytes { null: true, unlimited: Some(UNLIMITED), ..Bytes::ANY }.read(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_numbers_or_texts_with_a_unit() {
        assert_eq!(limits("{}").unwrap(), Limits { nofile: None, core: None });
        for (text, nofile, core) in [
            (r#"{"nofile": 64, "core": 0}"#, Some(64), Some(0)),
            (r#"{"nofile": null, "core": null}"#, None, None),
            (r#"{"core": "1GiB"}"#, None, Some(1 << 30)),
            (r#"{"core": "unlimited"}"#, None, Some(UNLIMITED)),
        ] {
            assert_eq!(limits(text).unwrap(), Limits { nofile, core }, "{text}");
        }
        for (text, expected) in [
            (r#"{"nofile": 63}"#, "a number from 64"),
            (r#"{"nofile": "many"}"#, "string \"many\", expected null, or a number from 64"),
            (r#"{"nofile": -1}"#, "integer `-1`, expected null, or a number from 64"),
            (r#"{"core": "big"}"#, "or \"unlimited\""),
            (r#"{"core": true}"#, "or \"unlimited\""),
            (r#"{"nproc": 1}"#, "unknown field `nproc`"),
        ] {
            let error = limits(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
