//! The key `access_log`: whether each request is a line of a log, of which one, and whose request ids
//! are taken over.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::peers::{Trusted, trusted};

/// What is logged of each request, if anything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// A file of its own; the log itself when absent.
    pub file: Option<PathBuf>,
    /// Whose `x-request-id` is taken over.
    pub trusted_peers: Vec<Trusted>,
}

/// The key as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAccessLog {
    file: Option<PathBuf>,
    #[serde(default, deserialize_with = "trusted")]
    trusted_peers: Vec<Trusted>,
}

impl RawAccessLog {
    pub(super) fn resolve(self, directory: &Path) -> AccessLog {
        AccessLog { file: self.file.map(|file| directory.join(file)), trusted_peers: self.trusted_peers }
    }
}

/// Reads `true` and `false`, or an object, which says that there is one.
pub(super) fn access_log<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RawAccessLog>, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Option<RawAccessLog>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or an object with the keys file, trusted_peers")
        }

        fn visit_bool<E>(self, wanted: bool) -> Result<Self::Value, E> {
            Ok(wanted.then(|| RawAccessLog { file: None, trusted_peers: Vec::new() }))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            RawAccessLog::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Either)
}
