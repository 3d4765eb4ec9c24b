//! Values that have a short form and an object: `"unix:PATH"` or `{"address": "unix:PATH", "mode": "660"}`.
//!
//! Why not an untagged enum of serde's: that one forgets which key of the object was wrong.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

/// The form in which a value was given.
pub(super) enum Written<T> {
    Port(u16),
    Text(String),
    Object(T),
}

/// The forms that a value may have.
pub(super) struct Forms {
    /// All of them, in the words of an error message.
    pub(super) expected: &'static str,
    /// Whether the number of a port is one.
    pub(super) port: bool,
}

impl Forms {
    pub(super) fn read<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        &self,
        deserializer: D,
    ) -> Result<Written<T>, D::Error> {
        deserializer.deserialize_any(Any { forms: self, object: PhantomData })
    }
}

struct Any<'a, T> {
    forms: &'a Forms,
    object: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<'_, T> {
    type Value = Written<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.forms.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let port = u16::try_from(number).ok().filter(|_| self.forms.port);
        port.map(Written::Port).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Written::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Written::Object)
    }
}
