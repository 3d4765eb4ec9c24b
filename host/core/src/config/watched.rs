//! The key `watch`: which files ask for a restart, or are read again, by themselves.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// A new library asks for a restart.
    pub library: bool,
    /// A changed configuration file does.
    pub config: bool,
    /// Changed certificates and keys of listeners are read again.
    pub certificates: bool,
}

impl Watched {
    /// Nothing is, unless the operator wants it.
    pub(super) const NOTHING: Self = Self { library: false, config: false, certificates: false };

    /// Whether anything is.
    pub const fn anything(self) -> bool {
        self.library || self.config || self.certificates
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWatched {
    #[serde(default = "yes")]
    library: bool,
    #[serde(default)]
    config: bool,
    #[serde(default)]
    certificates: bool,
}

const fn yes() -> bool {
    true
}

/// Reads `true` and `false`, which are about the library alone, or an object.
pub(super) fn watched<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Watched, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Watched;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or an object with the keys library, config, certificates")
        }

        fn visit_bool<E>(self, library: bool) -> Result<Watched, E> {
            Ok(Watched { library, ..Watched::NOTHING })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Watched, A::Error> {
            let RawWatched { library, config, certificates } =
                RawWatched::deserialize(MapAccessDeserializer::new(map))?;
            Ok(Watched { library, config, certificates })
        }
    }

    deserializer.deserialize_any(Either)
}
