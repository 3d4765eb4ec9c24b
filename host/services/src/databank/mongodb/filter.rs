//! Filters, guards and sort keys in MongoDB's query language.
//!
//! In MongoDB a path goes into lists, by element and by index, and a list matches where one of its elements does. Here a
//! path names keys of objects only, so every filter says of each step that it must not be a list. Values only ever stand
//! behind `$eq` and `$each`, and paths behind `d.`, so that nothing of the app's can become an operator.

use bson::raw::{RawBsonRef, RawDocument};
use bson::{Binary, Bson, doc, spec::BinarySubtype};

use super::super::query::{FieldPath, Order, Query, Scalar};
use super::encoding::DOCUMENT;

/// The type that an update needs at its path, if anything is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    WholeNumber,
    List,
}

impl Target {
    /// MongoDB's types of such a value.
    const fn types(self) -> &'static [&'static str] {
        match self {
            Self::WholeNumber => &["int", "long"],
            Self::List => &["array"],
        }
    }

    fn is(self, value: RawBsonRef<'_>) -> bool {
        match self {
            Self::WholeNumber => matches!(value, RawBsonRef::Int32(_) | RawBsonRef::Int64(_)),
            Self::List => matches!(value, RawBsonRef::Array(_)),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::WholeNumber => "whole number",
            Self::List => "list",
        }
    }
}

/// A path as it is in the store.
pub fn stored_path(path: &FieldPath) -> String {
    format!("{DOCUMENT}.{path}")
}

/// The objects that a path leads through, the outermost first, without `d`, which is always one.
fn on_the_way(path: &FieldPath) -> Vec<String> {
    let keys = path.keys();
    (1..keys.len()).map(|count| format!("{DOCUMENT}.{}", keys[..count].join("."))).collect()
}

/// The filter for the documents of a search.
pub fn matching(query: &Query) -> bson::Document {
    let mut all = Vec::new();
    for (path, value) in &query.equals {
        let value = match value {
            Scalar::Null => {
                all.push(absent(path));
                continue;
            }
            Scalar::Bool(value) => Bson::Boolean(*value),
            Scalar::Int(number) => Bson::Int64(*number),
            Scalar::Float(number) => Bson::Double(*number),
            Scalar::Text(text) => Bson::String(text.clone()),
        };
        all.extend(on_the_way(path).into_iter().map(|step| doc! { step: { "$not": { "$type": "array" } } }));
        all.push(doc! { stored_path(path): { "$eq": value, "$not": { "$type": "array" } } });
    }
    if all.is_empty() {
        doc! {}
    } else {
        doc! { "$and": all }
    }
}

/// The filter for documents with nothing or null at the path, or with a list on the way to it.
fn absent(path: &FieldPath) -> bson::Document {
    let mut any: Vec<_> = on_the_way(path).into_iter().map(|step| doc! { step: { "$type": "array" } }).collect();
    any.push(doc! { stored_path(path): { "$eq": Bson::Null, "$not": { "$type": "array" } } });
    doc! { "$or": any }
}

/// The stages of a search with a sort order.
pub fn ordering(query: &Query) -> Vec<bson::Document> {
    let (mut keys, mut sort, mut names) = (doc! {}, doc! {}, Vec::new());
    for (index, (path, order)) in query.sort.iter().enumerate() {
        let name = format!("sort{index}");
        keys.insert(&name, sort_key(path));
        sort.insert(&name, if *order == Order::Descending { -1 } else { 1 });
        names.push(name);
    }
    sort.insert("_id", 1);
    let mut stages = vec![doc! { "$match": matching(query) }, doc! { "$set": keys }, doc! { "$sort": sort }];
    if query.skip > 0 {
        stages.push(doc! { "$skip": i64::try_from(query.skip).unwrap_or(i64::MAX) });
    }
    if let Some(limit) = query.limit {
        stages.push(doc! { "$limit": i64::try_from(limit).unwrap_or(i64::MAX) });
    }
    stages.push(doc! { "$unset": names });
    stages
}

/// The sort key of a document. A list would sort as its least or greatest element; one byte string stands for all lists,
/// which MongoDB sorts where lists belong, between objects and truth values. All objects have one key, too, so that no key
/// is as large as a document.
fn sort_key(path: &FieldPath) -> Bson {
    let value = format!("${}", stored_path(path));
    let lists: Vec<_> = on_the_way(path).iter().map(|step| doc! { "$isArray": format!("${step}") }).collect();
    let list = Binary { subtype: BinarySubtype::Generic, bytes: Vec::new() };
    Bson::Document(doc! { "$switch": {
        "branches": [
            { "case": { "$or": lists }, "then": Bson::Null },
            { "case": { "$isArray": &value }, "then": list },
            { "case": { "$eq": [{ "$type": &value }, "object"] }, "then": { "$literal": {} } },
        ],
        "default": { "$ifNull": [&value, Bson::Null] },
    } })
}

/// The filter for the document with this id, if an update at `path` can be done to it.
pub fn updatable(id: &str, path: &FieldPath, target: Target) -> bson::Document {
    let absent_or =
        |step: &str, holds: bson::Document| doc! { "$or": [{ step: { "$exists": false } }, { step: holds }] };
    let object = || doc! { "$type": "object", "$not": { "$type": "array" } };
    let mut all: Vec<_> = on_the_way(path).iter().map(|step| absent_or(step, object())).collect();
    let mut holds = doc! { "$type": target.types() };
    if target != Target::List {
        holds.insert("$not", doc! { "$type": "array" });
    }
    all.push(absent_or(&stored_path(path), holds));
    doc! { "_id": id, "$and": all }
}

/// Why an update can't be done to a document, if that is so.
pub fn obstacle(stored: &RawDocument, path: &FieldPath, target: Target) -> Option<String> {
    let mut value = RawBsonRef::Document(stored);
    let keys = path.keys();
    for (index, key) in std::iter::once(DOCUMENT).chain(keys.iter().map(String::as_str)).enumerate() {
        let RawBsonRef::Document(object) = value else {
            return Some(format!("{} is not an object", keys[..index.saturating_sub(1)].join(".")));
        };
        // A value that can't be read isn't there for the server either.
        value = object.get(key).ok().flatten()?;
    }
    (!target.is(value)).then(|| format!("{path} is not a {}", target.name()))
}

/// The whole number that is now at the path.
pub fn whole_number(stored: &RawDocument, path: &FieldPath) -> Option<i64> {
    let mut value = RawBsonRef::Document(stored);
    for key in std::iter::once(DOCUMENT).chain(path.keys().iter().map(String::as_str)) {
        value = value.as_document()?.get(key).ok().flatten()?;
    }
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

#[cfg(test)]
mod tests {
    use bson::RawDocumentBuf;

    use super::*;

    fn path(path: &str) -> FieldPath {
        FieldPath::parse(path).unwrap()
    }

    #[test]
    fn no_step_of_a_condition_may_be_a_list() {
        let query = Query::new("note", &[("a.b", b"\"$gt\""), ("c", b"null")], &[], 0, None).unwrap();
        let all = doc! { "$and": [
            { "d.a": { "$not": { "$type": "array" } } },
            { "d.a.b": { "$eq": "$gt", "$not": { "$type": "array" } } },
            { "$or": [{ "d.c": { "$eq": null, "$not": { "$type": "array" } } }] },
        ] };
        assert_eq!(matching(&query), all);
        let query = Query::new("note", &[("a.b", b"null")], &[], 0, None).unwrap();
        let absent = doc! { "$or": [
            { "d.a": { "$type": "array" } },
            { "d.a.b": { "$eq": null, "$not": { "$type": "array" } } },
        ] };
        assert_eq!(matching(&query), doc! { "$and": [absent] });
        assert_eq!(matching(&Query::new("note", &[], &[], 0, None).unwrap()), doc! {});
    }

    #[test]
    fn the_id_decides_the_order_last() {
        let query = Query::new("note", &[], &[("a", true), ("b.c", false)], 3, Some(u64::MAX)).unwrap();
        let stages = ordering(&query);
        assert_eq!(stages[2], doc! { "$sort": { "sort0": -1, "sort1": 1, "_id": 1 } });
        assert_eq!(stages[3..5], [doc! { "$skip": 3_i64 }, doc! { "$limit": i64::MAX }]);
        assert_eq!(stages[5], doc! { "$unset": ["sort0", "sort1"] });
    }

    #[test]
    fn an_update_names_what_is_in_its_way() {
        let stored = doc! { "_id": "x", "d": { "n": 1_i64, "f": 1.0, "l": [1], "o": { "n": 2_i32 }, "z": null } };
        let stored = RawDocumentBuf::try_from(&stored).unwrap();
        let way = |at: &str, target| obstacle(&stored, &path(at), target);
        for at in ["n", "o.n", "x", "x.y.z", "o.x.y"] {
            assert_eq!(way(at, Target::WholeNumber), None, "{at}");
        }
        for at in ["l", "x", "o.l"] {
            assert_eq!(way(at, Target::List), None, "{at}");
        }
        for (at, why) in [
            ("f", "f is not a whole number"),
            ("z", "z is not a whole number"),
            ("l", "l is not a whole number"),
            ("l.0", "l is not an object"),
            ("o.n.x.y", "o.n is not an object"),
            ("z.a", "z is not an object"),
        ] {
            assert_eq!(way(at, Target::WholeNumber).as_deref(), Some(why));
        }
        assert_eq!(way("n", Target::List).as_deref(), Some("n is not a list"));
        assert_eq!(whole_number(&stored, &path("o.n")), Some(2));
        assert_eq!(whole_number(&stored, &path("l.0")), None);
    }
}
