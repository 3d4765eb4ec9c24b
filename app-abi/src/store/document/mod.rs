//! What can be stored, alike in every driver.
//!
//! Owns the limits of a document and how it changes in place. What is in a document stays data: a
//! key that a store could take for an operator doesn't get past [`Document::parse`].

use std::cell::Cell;
use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::Fault;
use super::query::{FieldPath, Key, Kind};

/// The most levels: `MongoDB` documents 100, and a driver may wrap the document.
const MAX_LEVELS: usize = 90;

/// The most bytes of compact JSON that are written at once.
const MAX_BYTES: usize = 3 << 19;

/// The most bytes of compact JSON that a document may grow to by appending, in the drivers that keep
/// text: what `MongoDB` takes.
const MAX_GROWN_BYTES: usize = 16 << 20;

/// Compact JSON is at most this many times as long as other JSON of the same content: `1e15` becomes
/// `1000000000000000.0`.
const MAX_EXPANSION: usize = 8;

/// 2^63: from here on a whole number doesn't fit into `i64`, and may have been read as a float.
const TOO_WIDE: f64 = 9_223_372_036_854_775_808.0;

/// A document that is within all the limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Document(Map<String, Value>);

impl Document {
    /// # Errors
    /// `Invalid` when this is no JSON object, or one outside the limits.
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        match parse_value(text)? {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(Fault::Invalid(format!("a document is a JSON object, and this is {}", name(&other)))),
        }
    }

    /// A document as a driver keeps it, which may have grown since it was written.
    pub fn from_stored(kind: &Kind, id: &str, text: &[u8]) -> Result<Self, Fault> {
        let damaged = |error| Fault::Invalid(format!("{kind}/{id} is damaged: {error}"));
        serde_json::from_slice(text).map(Self).map_err(damaged)
    }

    /// One without any fields.
    pub fn empty() -> Self {
        Self(Map::new())
    }

    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Compact JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(&self.0).expect("a map with text for keys can always be written")
    }

    /// Compact JSON of a document that may have grown; `key` is for the fault's text.
    pub fn grown_text(&self, key: &Key) -> Result<String, Fault> {
        let text = self.text();
        if text.len() > MAX_GROWN_BYTES {
            let bytes = text.len();
            return Err(Fault::Invalid(format!("{key} would have {bytes} bytes, and {MAX_GROWN_BYTES} are the most")));
        }
        Ok(text)
    }

    /// Adds to the whole number at `path`; `key` is for the fault's text.
    ///
    /// # Errors
    /// `Invalid` where something is in the way or the sum outside `i64`; the document is as it was but
    /// for objects on the way.
    pub fn increment(&mut self, key: &Key, path: &FieldPath, by: i64) -> Result<i64, Fault> {
        match self.slot(key, path)? {
            Entry::Vacant(slot) => {
                slot.insert(by.into());
                Ok(by)
            }
            Entry::Occupied(mut slot) => {
                let was = slot.get().as_i64().ok_or_else(|| in_the_way(key, path, slot.get(), "a whole number"))?;
                let sum = was.checked_add(by).ok_or_else(|| {
                    Fault::Invalid(format!("{key}: {was} at `{path}` and {by} is more than 64 bits hold"))
                })?;
                slot.insert(sum.into());
                Ok(sum)
            }
        }
    }

    /// Puts a value at the end of the list at `path`; `key` is for the fault's text.
    ///
    /// # Errors
    /// `Invalid` where something is in the way; the document is as it was but for objects on the way.
    pub fn append(&mut self, key: &Key, path: &FieldPath, value: Value) -> Result<(), Fault> {
        match self.slot(key, path)?.or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => {
                list.push(value);
                Ok(())
            }
            other => Err(in_the_way(key, path, other, "a list")),
        }
    }

    /// The place at `path`, with objects made on the way.
    fn slot<'a>(&'a mut self, key: &Key, path: &'a FieldPath) -> Result<Entry<'a>, Fault> {
        let (last, way) = path.keys().split_last().expect("a path has a key");
        let mut fields = &mut self.0;
        for name in way {
            fields = match fields.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(fields) => fields,
                other => {
                    let what = self::name(other);
                    return Err(Fault::Invalid(format!("{key}: `{name}` on the way to `{path}` is {what}")));
                }
            };
        }
        Ok(fields.entry(last.as_str()))
    }
}

fn in_the_way(key: &Key, path: &FieldPath, found: &Value, expected: &str) -> Fault {
    Fault::Invalid(format!("{key}: what is at `{path}` is {}, expected {expected}", name(found)))
}

/// What a value is, for people.
pub fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(number) if number.is_f64() => "a float",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Any JSON value within the limits of a document.
///
/// # Errors
/// `Invalid` when this is no JSON, or outside the limits.
pub fn parse_value(text: &[u8]) -> Result<Value, Fault> {
    let large_float = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Checked { levels: MAX_LEVELS, large_float: &large_float }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Fault::Invalid(format!("this can't be stored: {error}")))?;
    if large_float.get()
        && let Some(number) = wide_integer(text)
    {
        return Err(Fault::Invalid(format!("this can't be stored: {number} is more than 64 bits hold")));
    }
    if text.len() > MAX_BYTES / MAX_EXPANSION {
        let bytes = compact_bytes(&value);
        if bytes > MAX_BYTES {
            return Err(Fault::Invalid(format!(
                "this has {bytes} bytes as compact JSON, and {MAX_BYTES} are the most"
            )));
        }
    }
    Ok(value)
}

/// How many levels of objects and lists there are.
pub fn levels(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// Whether a value with so many levels may lie in a list at a path of so many keys.
pub fn check_levels_at(keys: usize, levels: usize) -> Result<(), Fault> {
    // The document is one level, and each key leads into another: the last one into the list.
    let all = 1 + keys + levels;
    if all > MAX_LEVELS {
        return Err(Fault::Invalid(format!("this would make {all} levels, and {MAX_LEVELS} are the most")));
    }
    Ok(())
}

fn compact_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("counting doesn't fail");
    count.0
}

/// The first whole number in valid JSON text that `i64` doesn't hold. (`serde_json` makes a float of
/// one that `u64` doesn't hold either.)
fn wide_integer(text: &[u8]) -> Option<String> {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                at += 1;
                while text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let more = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let end = at + text[at..].iter().take_while(more).count();
                let number = str::from_utf8(&text[at..end]).unwrap_or_default();
                if !number.contains(['.', 'e', 'E']) && number.parse::<i64>().is_err() {
                    return Some(number.to_owned());
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

/// Makes a value and checks it on the way, so that nothing is built that is too deep.
#[derive(Clone, Copy)]
struct Checked<'a> {
    /// How many more there may be.
    levels: usize,
    /// Set when there is a float that could have been a whole number.
    large_float: &'a Cell<bool>,
}

impl Checked<'_> {
    fn below<E: Error>(self) -> Result<Self, E> {
        let too_deep = || E::custom(format!("it has more than {MAX_LEVELS} levels"));
        Ok(Self { levels: self.levels.checked_sub(1).ok_or_else(too_deep)?, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Checked<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        let value = i64::try_from(value).map_err(|_| E::custom(format!("{value} is more than 64 bits hold")))?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if value.abs() >= TOO_WIDE {
            self.large_float.set(true);
        }
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut fields = Map::new();
        while let Some(key) = items.next_key::<String>()? {
            if key.is_empty() {
                return Err(A::Error::custom("a key is empty"));
            }
            if key.contains('\0') {
                return Err(A::Error::custom(format!("the key {key:?} has a NUL")));
            }
            if key.starts_with('$') {
                return Err(A::Error::custom(format!("the key {key:?} begins with `$`")));
            }
            fields.insert(key, items.next_value_seed(below)?);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests;
