//! What can be addressed and searched, alike in every driver.
//!
//! Owns the rules for types, ids, paths and searches, and with them the promise that text stays text:
//! a driver gets nothing that its store could take for an operator.

use std::collections::HashSet;
use std::fmt;

use super::{Fault, document};

/// The most bytes of a type.
const MAX_KIND: usize = 100;

/// The most bytes of an id.
const MAX_ID: usize = 512;

/// The most bytes of a path.
const MAX_PATH: usize = 500;

/// The most keys in a path.
const MAX_KEYS: usize = 32;

/// The most conditions of a search.
const MAX_EQUALS: usize = 16;

/// The most paths to sort by.
const MAX_SORT: usize = 8;

/// The most documents that are read by their ids at once.
const MAX_IDS: usize = 1000;

/// A document's type: ASCII letters, digits, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(String);

impl Kind {
    /// # Errors
    /// `Invalid` when no driver takes it.
    pub fn new(kind: &str) -> Result<Self, Fault> {
        let (first, rest) = kind.as_bytes().split_first().ok_or_else(|| invalid("a type is empty"))?;
        if kind.len() > MAX_KIND {
            return Err(invalid(format!("a type has {} bytes, and {MAX_KIND} are the most", kind.len())));
        }
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !first.is_ascii_alphanumeric() || !rest.iter().all(fits) {
            return Err(invalid(format!(
                "the type {kind:?} isn't made of ASCII letters, digits, `_` and `-`, a letter or digit first"
            )));
        }
        Ok(Self(kind.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which document: its type and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub id: String,
}

impl Key {
    /// # Errors
    /// `Invalid` when no driver takes it.
    pub fn new(kind: &str, id: &str) -> Result<Self, Fault> {
        Ok(Self { kind: Kind::new(kind)?, id: check_id(id)?.to_owned() })
    }

    /// The fault that the document isn't there.
    pub fn not_found(&self) -> Fault {
        Fault::NotFound(format!("{self} is not there"))
    }

    /// The fault that the document is there.
    pub fn already_exists(&self) -> Fault {
        Fault::AlreadyExists(format!("{self} is there already"))
    }

    /// The fault that the document isn't as it was.
    pub fn conflict(&self) -> Fault {
        Fault::Conflict(format!("{self} has another revision by now"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

fn check_id(id: &str) -> Result<&str, Fault> {
    if id.is_empty() {
        return Err(invalid("an id is empty"));
    }
    if id.len() > MAX_ID {
        return Err(invalid(format!("an id has {} bytes, and {MAX_ID} are the most", id.len())));
    }
    if id.contains('\0') {
        return Err(invalid(format!("the id {id:?} has a NUL")));
    }
    Ok(id)
}

/// The ids of documents that are read at once. One that is named twice counts where it is named first.
///
/// # Errors
/// `Invalid` when there are too many, or one that no driver takes.
pub fn ids<'a>(ids: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Fault> {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for (before, id) in ids.enumerate() {
        if before == MAX_IDS {
            return Err(invalid(format!("these are more than {MAX_IDS} ids")));
        }
        if seen.insert(check_id(id)?) {
            all.push(id.to_owned());
        }
    }
    Ok(all)
}

/// Where in a document: the keys of objects, from the outermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// # Errors
    /// `Invalid` when no driver takes it.
    pub fn parse(path: &str) -> Result<Self, Fault> {
        if path.len() > MAX_PATH {
            return Err(invalid(format!("a path has {} bytes, and {MAX_PATH} are the most", path.len())));
        }
        let keys: Vec<_> = path.split('.').map(str::to_owned).collect();
        if keys.len() > MAX_KEYS {
            return Err(invalid(format!("the path {path:?} has {} keys, and {MAX_KEYS} are the most", keys.len())));
        }
        for key in &keys {
            let what = if key.is_empty() {
                "is empty"
            } else if key.contains('\0') {
                "has a NUL"
            } else if key.starts_with('$') {
                "begins with `$`"
            } else {
                continue;
            };
            return Err(invalid(format!("a key in the path {path:?} {what}")));
        }
        Ok(Self(keys))
    }

    /// At least one.
    pub fn keys(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A value to append, within the limits of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Value(serde_json::Value);

impl Value {
    /// # Errors
    /// `Invalid` when this is no JSON, or outside the limits.
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        document::parse_value(text).map(Self)
    }

    /// Whether the document wouldn't get too deep with this value in the list at `path`.
    ///
    /// # Errors
    /// `Invalid` when it would.
    pub fn check_levels_at(&self, path: &FieldPath) -> Result<(), Fault> {
        document::check_levels_at(path.keys().len(), document::levels(&self.0))
    }

    pub fn into_json(self) -> serde_json::Value {
        self.0
    }
}

/// What a condition asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Nothing there, or null.
    Null,
    Bool(bool),
    Int(i64),
    /// Never infinite, never NaN.
    Float(f64),
    Text(String),
}

impl Scalar {
    fn parse(path: &FieldPath, text: &[u8]) -> Result<Self, Fault> {
        Ok(match document::parse_value(text)? {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Self::Int(number),
                (None, Some(number)) => Self::Float(number),
                (None, None) => return Err(invalid(format!("`{path}` can't be compared with {number}"))),
            },
            other => {
                let what = document::name(&other);
                return Err(invalid(format!(
                    "`{path}` can't be compared with {what}, only with text, number, truth value or null"
                )));
            }
        })
    }
}

/// Which way to sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// A search among the documents of a type.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub kind: Kind,
    /// All of them hold.
    pub equals: Vec<(FieldPath, Scalar)>,
    /// Each path once; the id decides last.
    pub sort: Vec<(FieldPath, Order)>,
    pub skip: u64,
    pub limit: Option<u64>,
}

impl Query {
    /// `equals` has the value as JSON text; in `sort` the flag says that the largest come first.
    ///
    /// # Errors
    /// `Invalid` when no driver takes it.
    pub fn new(
        kind: &str,
        equals: &[(&str, &[u8])],
        sort: &[(&str, bool)],
        skip: u64,
        limit: Option<u64>,
    ) -> Result<Self, Fault> {
        if equals.len() > MAX_EQUALS {
            return Err(invalid(format!("a search has {} conditions, and {MAX_EQUALS} are the most", equals.len())));
        }
        if sort.len() > MAX_SORT {
            return Err(invalid(format!("a search has {} paths to sort by, and {MAX_SORT} are the most", sort.len())));
        }
        let condition = |&(path, value): &(&str, &[u8])| {
            let path = FieldPath::parse(path)?;
            let value = Scalar::parse(&path, value)?;
            Ok((path, value))
        };
        let mut query = Self {
            kind: Kind::new(kind)?,
            equals: equals.iter().map(condition).collect::<Result<_, Fault>>()?,
            sort: Vec::with_capacity(sort.len()),
            skip,
            limit,
        };
        for &(path, descending) in sort {
            let path = FieldPath::parse(path)?;
            // What a path says first has decided already when it comes again, and not every store
            // takes it twice.
            if query.sort.iter().all(|(before, _)| *before != path) {
                query.sort.push((path, if descending { Order::Descending } else { Order::Ascending }));
            }
        }
        Ok(query)
    }
}

fn invalid(cause: impl Into<String>) -> Fault {
    Fault::Invalid(cause.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(equals: &[(&str, &[u8])], sort: &[(&str, bool)]) -> Result<Query, Fault> {
        Query::new("note", equals, sort, 0, None)
    }

    #[test]
    fn types_have_1_to_100_safe_bytes() {
        for kind in ["a", "Z9", "0", "a_-", &"x".repeat(100)] {
            assert_eq!(Kind::new(kind).unwrap().as_str(), kind);
        }
        for kind in ["", "_a", "-a", "a.b", "a b", "é", "$a", "a\0", "system.users", &"x".repeat(101)] {
            assert!(matches!(Kind::new(kind), Err(Fault::Invalid(_))), "{kind:?}");
        }
    }

    #[test]
    fn ids_have_1_to_512_bytes_of_text_without_nul() {
        for id in ["a", "$where", ".", " ", "é", "\u{ffff}", "a/b", &"é".repeat(256)] {
            assert_eq!(Key::new("note", id).unwrap().to_string(), format!("note/{id}"));
        }
        for id in ["", "\0", "a\0b", &"x".repeat(513), &format!("x{}", "é".repeat(256))] {
            assert!(matches!(Key::new("note", id), Err(Fault::Invalid(_))), "{id:?}");
        }
    }

    #[test]
    fn at_most_1000_ids_are_read_at_once_each_one_once() {
        let many: Vec<_> = (0..1001).map(|number| number.to_string()).collect();
        assert_eq!(ids(many[..1000].iter().map(String::as_str)).unwrap(), many[..1000]);
        assert!(ids(many.iter().map(String::as_str)).is_err());
        assert_eq!(ids(["b", "a", "b"].into_iter()).unwrap(), ["b", "a"]);
        assert!(ids(["a", ""].into_iter()).is_err());
    }

    #[test]
    fn paths_have_at_most_500_bytes_and_32_keys() {
        for path in ["a", "a.b", "0", "a b", "a$", "é.ü", &"x".repeat(500), &["a"; 32].join(".")] {
            assert_eq!(FieldPath::parse(path).unwrap().to_string(), path);
        }
        assert_eq!(FieldPath::parse("a.b").unwrap().keys(), ["a", "b"]);
        for path in ["", ".", ".a", "a.", "a..b", "$a", "a.$b", "a\0", "a.\0", &"x".repeat(501), &["a"; 33].join(".")] {
            assert!(matches!(FieldPath::parse(path), Err(Fault::Invalid(_))), "{path:?}");
        }
    }

    #[test]
    fn a_search_has_at_most_16_conditions_and_8_paths_to_sort_by() {
        let paths: Vec<_> = (0..17).map(|number| format!("p{number}")).collect();
        let equals: Vec<_> = paths.iter().map(|path| (path.as_str(), &b"1"[..])).collect();
        let sort: Vec<_> = paths.iter().map(|path| (path.as_str(), true)).collect();
        assert_eq!(search(&equals[..16], &sort[..8]).unwrap().sort.len(), 8);
        assert!(search(&equals, &[]).is_err());
        assert!(search(&[], &sort[..9]).is_err());
        assert!(search(&[("$where", b"1")], &[]).is_err());
        assert!(search(&[], &[("a..b", false)]).is_err());
        assert!(Query::new("$note", &[], &[], 0, None).is_err());
    }

    #[test]
    fn conditions_compare_with_scalars_only() {
        for (text, scalar) in [
            ("null", Scalar::Null),
            ("true", Scalar::Bool(true)),
            ("1", Scalar::Int(1)),
            ("1.0", Scalar::Float(1.0)),
            ("\"$gt\"", Scalar::Text("$gt".to_owned())),
        ] {
            assert_eq!(search(&[("a", text.as_bytes())], &[]).unwrap().equals[0].1, scalar);
        }
        for text in ["{}", "{\"$gt\":1}", "[]", "[1]", "", "9223372036854775808", "1 2"] {
            assert!(matches!(search(&[("a", text.as_bytes())], &[]), Err(Fault::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_path_sorts_once() {
        let query = search(&[], &[("a", true), ("b", false), ("a", false)]).unwrap();
        let sort: Vec<_> = query.sort.iter().map(|(path, order)| (path.to_string(), *order)).collect();
        assert_eq!(sort, [("a".to_owned(), Order::Descending), ("b".to_owned(), Order::Ascending)]);
    }

    #[test]
    fn a_value_must_not_make_a_document_too_deep() {
        let value = Value::parse(format!("{}{}", "[".repeat(88), "]".repeat(88)).as_bytes()).unwrap();
        assert!(value.check_levels_at(&FieldPath::parse("a").unwrap()).is_ok());
        assert!(value.check_levels_at(&FieldPath::parse("a.b").unwrap()).is_err());
    }
}
