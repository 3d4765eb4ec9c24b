//! The key `environment`: which of the master's variables its children get.

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error as _, SeqAccess, Unexpected, Visitor};

/// Which variables are passed on. Those by which a service manager speaks with the master never are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Environment {
    All,
    /// Those of these names, as far as there are any.
    Only(Vec<String>),
}

/// Reads `"all"`, or a list of names.
pub(super) fn environment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Environment, D::Error> {
    struct Either;

    const EXPECTED: &str = "\"all\" or a list of names of variables";

    impl<'de> Visitor<'de> for Either {
        type Value = Environment;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Environment, E> {
            if text == "all" { Ok(Environment::All) } else { Err(E::invalid_value(Unexpected::Str(text), &EXPECTED)) }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Environment, A::Error> {
            let names = Vec::<String>::deserialize(SeqAccessDeserializer::new(names))?;
            // What `setenv(3)` takes.
            match names.iter().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
                Some(name) => Err(A::Error::invalid_value(Unexpected::Str(name), &"the name of a variable")),
                None => Ok(Environment::Only(names)),
            }
        }
    }

    deserializer.deserialize_any(Either)
}
