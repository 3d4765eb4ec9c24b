//! Encodes documents for MongoDB and decodes them: JSON to BSON, and BSON to JSON text.
//!
//! Owns the form of what is stored: `_id`, the revision as `r`, and the document itself under `d`, where none of its keys
//! can collide with those of the driver. Whole numbers are always Int64, so that they are read as they were written.

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use bson::spec::ElementType;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::{Fault, Stored};

/// The key of the document in the store.
pub const DOCUMENT: &str = "d";

/// The key of its revision in the store.
pub const REVISION: &str = "r";

/// The document as it is stored.
pub fn stored(id: &str, revision: u64, fields: &Map<String, Value>) -> Result<RawDocumentBuf, Fault> {
    let mut bytes = Vec::new();
    let start = open(&mut bytes);
    text(&mut bytes, "_id", id);
    whole(&mut bytes, REVISION, revision.cast_signed());
    key(&mut bytes, ElementType::EmbeddedDocument, DOCUMENT);
    object(&mut bytes, fields);
    close(&mut bytes, start);
    // This checks the frame: a document that is larger than BSON's lengths is an error and no panic.
    RawDocumentBuf::from_bytes(bytes).map_err(|error| Fault::Invalid(format!("it can't be stored: {error}")))
}

/// A value as part of an update.
pub fn value(value: &Value) -> bson::Bson {
    match value {
        Value::Null => bson::Bson::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().into(),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => bson::Bson::Array(items.iter().map(self::value).collect()),
        Value::Object(fields) => {
            bson::Bson::Document(fields.iter().map(|(key, field)| (key.clone(), self::value(field))).collect())
        }
    }
}

// Written by hand (bsonspec.org, version 1.1), because the crate's own buffers copy a value once for each level of the
// document that it is nested in.

fn object(bytes: &mut Vec<u8>, fields: &Map<String, Value>) {
    let start = open(bytes);
    for (name, field) in fields {
        element(bytes, name, field);
    }
    close(bytes, start);
}

fn element(bytes: &mut Vec<u8>, name: &str, value: &Value) {
    match value {
        Value::Null => key(bytes, ElementType::Null, name),
        Value::Bool(value) => {
            key(bytes, ElementType::Boolean, name);
            bytes.push(u8::from(*value));
        }
        Value::Number(number) => {
            if let Some(number) = number.as_i64() {
                whole(bytes, name, number);
            } else {
                key(bytes, ElementType::Double, name);
                // Every number is one of the two.
                bytes.extend(number.as_f64().unwrap_or_default().to_le_bytes());
            }
        }
        Value::String(value) => text(bytes, name, value),
        Value::Array(items) => {
            key(bytes, ElementType::Array, name);
            let start = open(bytes);
            for (index, item) in items.iter().enumerate() {
                element(bytes, &index.to_string(), item);
            }
            close(bytes, start);
        }
        Value::Object(fields) => {
            key(bytes, ElementType::EmbeddedDocument, name);
            object(bytes, fields);
        }
    }
}

fn key(bytes: &mut Vec<u8>, kind: ElementType, name: &str) {
    bytes.push(kind as u8);
    bytes.extend(name.as_bytes());
    bytes.push(0);
}

fn whole(bytes: &mut Vec<u8>, name: &str, number: i64) {
    key(bytes, ElementType::Int64, name);
    bytes.extend(number.to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, name: &str, text: &str) {
    key(bytes, ElementType::String, name);
    bytes.extend(length(text.len() + 1));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// Begins a document with room for its length, which isn't known yet.
fn open(bytes: &mut Vec<u8>) -> usize {
    let start = bytes.len();
    bytes.extend([0; 4]);
    start
}

fn close(bytes: &mut Vec<u8>, start: usize) {
    bytes.push(0);
    let length = length(bytes.len() - start);
    bytes[start..start + 4].copy_from_slice(&length);
}

/// The bytes of a length. One that doesn't fit is far longer than any document may be, and makes the frame invalid.
fn length(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(-1).to_le_bytes()
}

/// Decodes a stored document for the app. One that was not written by this driver may hold what JSON lacks.
pub fn read(kind: &str, stored: &RawDocument) -> Result<Stored, Fault> {
    // In one pass: looking a key up by its name begins at the first one each time.
    let (mut id, mut revision, mut document) = (None, None, None);
    for field in stored.iter_elements() {
        let field = field.map_err(|error| foreign(kind, &format!("bytes ({error})")))?;
        match field.key().as_str() {
            "_id" => id = field.value().ok(),
            REVISION => revision = field.value().ok(),
            DOCUMENT => document = field.value().ok(),
            _ => {}
        }
    }
    let id = match id {
        Some(RawBsonRef::String(id)) => id,
        Some(other) => return Err(foreign(kind, &format!("an _id that is a {:?}", other.element_type()))),
        None => return Err(foreign(kind, "no readable _id")),
    };
    let strange = |what: &str| foreign(&format!("{kind}/{id}"), what);
    let (Some(RawBsonRef::Int64(revision)), Some(RawBsonRef::Document(document))) = (revision, document) else {
        return Err(strange("no revision `r` or no document `d`"));
    };
    let mut text = Vec::with_capacity(document.as_bytes().len());
    write_object(&mut text, document).map_err(|what| strange(&what.to_string()))?;
    Ok(Stored { id: id.to_owned(), revision: revision.cast_unsigned(), text: Bytes::from(text) })
}

fn foreign(place: &str, what: &str) -> Fault {
    Fault::Invalid(format!("{place} was written by something else: it has {what}"))
}

/// A value that JSON can't express, and where it is.
struct NotJson {
    /// The keys, the innermost one first.
    keys: Vec<String>,
    what: String,
}

impl std::fmt::Display for NotJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.keys.iter().rev().map(String::as_str).collect();
        write!(f, "{} at {}", self.what, keys.join("."))
    }
}

fn write_object(text: &mut Vec<u8>, document: &RawDocument) -> Result<(), NotJson> {
    text.push(b'{');
    write_fields(text, document, true)?;
    text.push(b'}');
    Ok(())
}

/// An array is a document, too: its keys are the indexes.
fn write_fields(text: &mut Vec<u8>, document: &RawDocument, with_keys: bool) -> Result<(), NotJson> {
    let unreadable = |error: &dyn std::fmt::Display| NotJson { keys: Vec::new(), what: format!("bytes ({error})") };
    for (index, field) in document.iter_elements().enumerate() {
        let field = field.map_err(|error| unreadable(&error))?;
        if index > 0 {
            text.push(b',');
        }
        let name = field.key().as_str();
        let written = if with_keys { write_text(text, name).map(|()| text.push(b':')) } else { Ok(()) };
        let written = written.and_then(|()| {
            let value = field.value().map_err(|error| unreadable(&error))?;
            write_value(text, value)
        });
        written.map_err(|mut strange| {
            strange.keys.push(name.to_owned());
            strange
        })?;
    }
    Ok(())
}

fn write_value(text: &mut Vec<u8>, value: RawBsonRef<'_>) -> Result<(), NotJson> {
    let strange = |what: String| NotJson { keys: Vec::new(), what };
    match value {
        RawBsonRef::Null => text.extend(b"null"),
        RawBsonRef::Boolean(true) => text.extend(b"true"),
        RawBsonRef::Boolean(false) => text.extend(b"false"),
        RawBsonRef::Int32(number) => write_json(text, &number)?,
        RawBsonRef::Int64(number) => write_json(text, &number)?,
        // serde_json would write it as null.
        RawBsonRef::Double(number) if !number.is_finite() => return Err(strange(format!("the number {number}"))),
        RawBsonRef::Double(number) => write_json(text, &number)?,
        RawBsonRef::String(value) => write_text(text, value)?,
        RawBsonRef::Document(document) => write_object(text, document)?,
        RawBsonRef::Array(items) => {
            text.push(b'[');
            // An array has the bytes of a document; the crate only hides its keys.
            let items = RawDocument::from_bytes(items.as_bytes()).map_err(|error| strange(error.to_string()))?;
            write_fields(text, items, false)?;
            text.push(b']');
        }
        other => return Err(strange(format!("a {:?}", other.element_type()))),
    }
    Ok(())
}

fn write_text(text: &mut Vec<u8>, value: &str) -> Result<(), NotJson> {
    if is_plain(value) {
        text.push(b'"');
        text.extend(value.as_bytes());
        text.push(b'"');
        return Ok(());
    }
    write_json(text, value)
}

/// Whether JSON needs no escapes for a text, as for most. Doesn't stop early, so that many bytes are compared at once.
fn is_plain(text: &str) -> bool {
    let escaped = |byte: u8| u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\');
    text.bytes().fold(0, |any, byte| any | escaped(byte)) == 0
}

fn write_json<T: Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) -> Result<(), NotJson> {
    serde_json::to_writer(text, value).map_err(|error| NotJson { keys: Vec::new(), what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use bson::{Bson, doc};

    use super::super::super::Document;
    use super::*;

    fn round(text: &str) -> String {
        let stored = stored("id", 7, Document::parse(text.as_bytes()).unwrap().fields()).unwrap();
        // The crate reads every byte of it.
        bson::Document::try_from(stored.as_ref()).unwrap();
        let read = read("note", &stored).unwrap();
        assert_eq!((read.id.as_str(), read.revision), ("id", 7));
        String::from_utf8(read.text.to_vec()).unwrap()
    }

    #[test]
    fn documents_come_back_as_they_went_in() {
        for text in [
            "{}",
            r#"{"a":[],"b":{},"c":[[{"d":[null,true,false]}]]}"#,
            r#"{"n":[0,-1,9223372036854775807,-9223372036854775808,9007199254740993]}"#,
            r#"{"n":[1.0,-0.0,0.1,5e-324,1.7976931348623157e308,9007199254740992.0,0.30000000000000004]}"#,
            r#"{"t":["","a\u0000b","\"\\\n","é\uffff𝒳"]}"#,
            r#"{"a.b":1,"0":2," ":3}"#,
        ] {
            let was: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&round(text)).unwrap(), was);
        }
        assert_eq!(round(r#"{"n":[1.0,-0.0,1,0.1]}"#), r#"{"n":[1.0,-0.0,1,0.1]}"#);
        let deep = format!("{}1{}", "{\"a\":".repeat(90), "}".repeat(90));
        assert_eq!(round(&deep), deep);
    }

    #[test]
    fn a_text_is_written_as_json_has_it() {
        let all: String = (0..0x250).filter_map(char::from_u32).chain(['\u{2028}', '\u{fffd}', '𝒳']).collect();
        let each = all.chars().map(|letter| format!("{}{letter}{0}", "x".repeat(40)));
        for value in each.chain([all.clone(), String::new()]) {
            let mut text = Vec::new();
            assert!(write_text(&mut text, &value).is_ok());
            assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string(&value).unwrap());
        }
    }

    #[test]
    fn a_value_in_an_update_is_the_one_in_a_document() {
        let json: Value = serde_json::from_str(r#"{"a":[1,1.0,"x",null,true,{"b":-0.0}]}"#).unwrap();
        let stored = stored("id", 7, json.as_object().unwrap()).unwrap();
        let document = bson::Document::try_from(stored.get_document(DOCUMENT).unwrap()).unwrap();
        assert_eq!(Bson::Document(document), value(&json));
    }

    #[test]
    fn what_json_lacks_is_named_with_its_place() {
        for (document, what) in [
            (doc! { "a": { "b": bson::DateTime::MAX } }, "a DateTime at a.b"),
            (doc! { "a": [1, f64::NAN] }, "the number NaN at a.1"),
        ] {
            let stored = RawDocumentBuf::try_from(&doc! { "_id": "x", "r": 1_i64, "d": document }).unwrap();
            let text = format!("note/x was written by something else: it has {what}");
            assert_eq!(read("note", &stored), Err(Fault::Invalid(text)));
        }
        let strange =
            [doc! {}, doc! { "_id": 1 }, doc! { "_id": "x", "r": 1, "d": {} }, doc! { "_id": "x", "r": 1_i64 }];
        for strange in strange {
            let stored = RawDocumentBuf::try_from(&strange).unwrap();
            assert!(matches!(read("note", &stored), Err(Fault::Invalid(_))), "{strange}");
        }
        let small = RawDocumentBuf::try_from(&doc! { "_id": "x", "r": 1_i64, "d": { "n": 5_i32 } }).unwrap();
        assert_eq!(read("note", &small).unwrap().text, r#"{"n":5}"#);
    }
}
