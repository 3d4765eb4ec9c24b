//! How documents compare, for the drivers whose store doesn't do it.
//!
//! Owns equality and order: what equals what, and a key of bytes for what sorts where. Looks only for
//! what a [`Rule`] asks for: to build whole documents would be most of the work of a search.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Fault;
use super::query::{FieldPath, Kind, Order, Scalar};

/// What is searched for, and in which order.
pub struct Rule {
    equals: Vec<(FieldPath, Scalar)>,
    sort: Vec<(FieldPath, Order)>,
}

impl Rule {
    pub const fn new(equals: Vec<(FieldPath, Scalar)>, sort: Vec<(FieldPath, Order)>) -> Self {
        Self { equals, sort }
    }

    /// Bytes that compare as the documents sort; nothing when one of the conditions doesn't hold. Those of
    /// two documents are equal when only the id can decide.
    ///
    /// # Errors
    /// `Invalid` when this isn't what a driver has stored.
    pub fn sort_key(&self, kind: &Kind, id: &str, text: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        if self.equals.is_empty() && self.sort.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let paths = self.equals.iter().map(|(path, _)| path).chain(self.sort.iter().map(|(path, _)| path));
        let found = find(paths, text).map_err(|error| Fault::Invalid(format!("{kind}/{id} is damaged: {error}")))?;
        let (for_equals, for_sort) = found.split_at(self.equals.len());
        if !for_equals.iter().zip(&self.equals).all(|(found, (_, scalar))| found.equals(scalar)) {
            return Ok(None);
        }
        let mut key = Vec::new();
        for (found, (_, order)) in for_sort.iter().zip(&self.sort) {
            found.write_key(&mut key, *order);
        }
        Ok(Some(key))
    }
}

/// What is at a path, as far as it counts.
#[derive(Clone, Debug, PartialEq)]
enum Found {
    /// Or null.
    Nothing,
    Number(NumberKey),
    Text(String),
    Object,
    List,
    Bool(bool),
}

impl Found {
    fn equals(&self, scalar: &Scalar) -> bool {
        match (self, scalar) {
            (Self::Nothing, Scalar::Null) => true,
            (Self::Bool(value), Scalar::Bool(scalar)) => value == scalar,
            (Self::Text(value), Scalar::Text(scalar)) => value == scalar,
            (Self::Number(value), Scalar::Int(scalar)) => *value == whole(*scalar),
            (Self::Number(value), Scalar::Float(scalar)) => *value == float(*scalar),
            _ => false,
        }
    }

    /// Adds its part to a key. No part is the beginning of another one, so that what comes after it
    /// never counts more.
    fn write_key(&self, key: &mut Vec<u8>, order: Order) {
        let start = key.len();
        match self {
            Self::Nothing => key.push(0),
            Self::Number(number) => {
                key.push(1);
                key.extend(number);
            }
            Self::Text(text) => {
                key.push(2);
                // UTF-8 sorts as its code points do, and has no byte above 0xf4: one more of each
                // leaves 0 for the end.
                key.extend(text.bytes().map(|byte| byte + 1));
                key.push(0);
            }
            Self::Object => key.push(3),
            Self::List => key.push(4),
            Self::Bool(false) => key.push(5),
            Self::Bool(true) => key.push(6),
        }
        if order == Order::Descending {
            for byte in &mut key[start..] {
                *byte = !*byte;
            }
        }
    }
}

/// What is at each of the paths. A path leads through objects only.
fn find<'a>(paths: impl Iterator<Item = &'a FieldPath>, text: &[u8]) -> serde_json::Result<Vec<Found>> {
    let wanted: Wanted<'_> = paths.map(FieldPath::keys).enumerate().collect();
    let mut found = vec![Found::Nothing; wanted.len()];
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Finder { wanted, found: &mut found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

/// The places in a list of what was found, and the keys that still lead there.
type Wanted<'a> = Vec<(usize, &'a [String])>;

/// Looks at a value for what is wanted in it.
struct Finder<'a, 'f> {
    wanted: Wanted<'a>,
    found: &'f mut [Found],
}

impl Finder<'_, '_> {
    /// Says what this value itself is.
    fn is(&mut self, what: impl Fn() -> Found) {
        for (place, _) in self.wanted.iter().filter(|(_, keys)| keys.is_empty()) {
            self.found[*place] = what();
        }
    }
}

impl<'de> DeserializeSeed<'de> for Finder<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.is(|| Found::Bool(value));
        Ok(())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.is(|| Found::Number(whole(value)));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_i64(i64::try_from(value).map_err(|_| E::custom(format!("{value} is more than 64 bits hold")))?)
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.is(|| Found::Number(float(value)));
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.is(|| Found::Text(value.to_owned()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.is(|| Found::List);
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.is(|| Found::Object);
        while let Some(wanted) = items.next_key_seed(Under(&self.wanted))? {
            if wanted.is_empty() {
                items.next_value::<IgnoredAny>()?;
            } else {
                items.next_value_seed(Finder { wanted, found: &mut *self.found })?;
            }
        }
        Ok(())
    }
}

/// Reads a key and says what is wanted under it.
struct Under<'w, 'a>(&'w Wanted<'a>);

impl<'de, 'a> DeserializeSeed<'de> for Under<'_, 'a> {
    type Value = Wanted<'a>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Wanted<'a>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Under<'_, 'a> {
    type Value = Wanted<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Wanted<'a>, E> {
        let under = |&(place, keys): &(usize, &'a [String])| {
            keys.split_first().filter(|(first, _)| *first == key).map(|(_, rest)| (place, rest))
        };
        Ok(self.0.iter().filter_map(under).collect())
    }
}

/// Bytes that compare as the numbers do, exactly: the nearest float, and what it is off by.
type NumberKey = [u8; 10];

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "what is lost is added as the rest")]
fn whole(number: i64) -> NumberKey {
    let nearest = number as f64;
    // Near 2^63 floats are 1024 apart, so the rest is 512 at most.
    let rest = i128::from(number) - nearest as i128;
    numbers(nearest, rest as i16)
}

fn float(number: f64) -> NumberKey {
    numbers(number, 0)
}

fn numbers(nearest: f64, rest: i16) -> NumberKey {
    // The sum makes one zero of the two. The bits of a float compare as its absolute value does.
    let bits = (nearest + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    let mut key = [0; 10];
    key[..8].copy_from_slice(&ordered.to_be_bytes());
    key[8..].copy_from_slice(&(rest.cast_unsigned() ^ 0x8000).to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn path(path: &str) -> FieldPath {
        FieldPath::parse(path).unwrap()
    }

    fn sort_key(document: &Value, sort: &[(FieldPath, Order)]) -> Vec<u8> {
        let rule = Rule::new(Vec::new(), sort.to_vec());
        rule.sort_key(&Kind::new("note").unwrap(), "a", document.to_string().as_bytes()).unwrap().unwrap()
    }

    fn matches(document: &Value, at: &str, scalar: Scalar) -> bool {
        let rule = Rule::new(vec![(path(at), scalar)], Vec::new());
        rule.sort_key(&Kind::new("note").unwrap(), "a", document.to_string().as_bytes()).unwrap().is_some()
    }

    fn key(value: &Value, order: Order) -> Vec<u8> {
        sort_key(&json!({ "a": value }), &[(path("a"), order)])
    }

    /// In order; those of one line sort alike.
    fn ladder() -> Vec<Vec<Value>> {
        vec![
            vec![json!(null)],
            vec![json!(-1.797_693_134_862_315_7e308)],
            vec![json!(i64::MIN), json!(-9_223_372_036_854_775_808.0)],
            vec![json!(i64::MIN + 1)],
            vec![json!(-9_007_199_254_740_993_i64)],
            vec![json!(-9_007_199_254_740_992_i64), json!(-9_007_199_254_740_992.0)],
            vec![json!(-1), json!(-1.0)],
            vec![json!(-5e-324)],
            vec![json!(0), json!(0.0), json!(-0.0)],
            vec![json!(5e-324)],
            vec![json!(1), json!(1.0)],
            vec![json!(1.5)],
            vec![json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_992.0)],
            vec![json!(9_007_199_254_740_993_i64)],
            vec![json!(9_007_199_254_740_994_i64), json!(9_007_199_254_740_994.0)],
            vec![json!(i64::MAX - 1)],
            vec![json!(i64::MAX)],
            vec![json!(9_223_372_036_854_775_808.0)],
            vec![json!(1e300)],
            vec![json!("")],
            vec![json!("\0")],
            vec![json!("\0\0")],
            vec![json!("A")],
            vec![json!("a")],
            vec![json!("a\0")],
            vec![json!("ab")],
            vec![json!("é")],
            vec![json!("\u{ffff}")],
            vec![json!("\u{1f600}")],
            vec![json!({}), json!({"a": 1})],
            vec![json!([]), json!([1])],
            vec![json!(false)],
            vec![json!(true)],
        ]
    }

    #[test]
    fn values_sort_as_documented() {
        let ladder = ladder();
        for (a, line) in ladder.iter().enumerate() {
            for (b, other) in ladder.iter().enumerate() {
                for (left, right) in line.iter().flat_map(|left| other.iter().map(move |right| (left, right))) {
                    let up = key(left, Order::Ascending).cmp(&key(right, Order::Ascending));
                    let down = key(left, Order::Descending).cmp(&key(right, Order::Descending));
                    assert_eq!((up, down), (a.cmp(&b), b.cmp(&a)), "{left} {right}");
                }
            }
        }
        assert_eq!(key(&json!(null), Order::Ascending), sort_key(&json!({}), &[(path("a"), Order::Ascending)]));
    }

    #[test]
    fn scalars_equal_what_sorts_alike_except_objects_and_lists() {
        let scalar = |value: &Value| match value {
            Value::Null => Some(Scalar::Null),
            Value::Bool(value) => Some(Scalar::Bool(*value)),
            Value::String(text) => Some(Scalar::Text(text.clone())),
            Value::Number(number) => {
                Some(number.as_i64().map_or_else(|| Scalar::Float(number.as_f64().unwrap()), Scalar::Int))
            }
            _ => None,
        };
        let ladder = ladder();
        for (a, line) in ladder.iter().enumerate() {
            for (b, other) in ladder.iter().enumerate() {
                for (left, right) in line.iter().flat_map(|left| other.iter().map(move |right| (left, right))) {
                    let Some(scalar) = scalar(right) else { continue };
                    let equal = matches(&json!({ "a": left }), "a", scalar);
                    assert_eq!(equal, a == b, "{left} {right}");
                }
            }
        }
    }

    #[test]
    fn a_path_leads_through_objects_only() {
        let document = json!({"a": {"b": 1, "c.d": 2}, "l": [{"b": 1}, 1], "n": null, "t": "x"});
        let equals = |at: &str, scalar: Scalar| matches(&document, at, scalar);
        assert!(equals("a.b", Scalar::Int(1)));
        for nothing in ["x", "a.c.d", "a.b.c", "l.b", "l.0", "l.0.b", "n", "n.x", "t.x", "t.0"] {
            assert!(equals(nothing, Scalar::Null), "{nothing}");
            assert!(!equals(nothing, Scalar::Int(1)), "{nothing}");
        }
        assert!(!equals("l", Scalar::Int(1)));
        assert!(!equals("l", Scalar::Null));
    }

    #[test]
    fn the_first_path_counts_most() {
        let sort = [(path("a"), Order::Descending), (path("b"), Order::Ascending)];
        let key = |value: Value| sort_key(&value, &sort);
        assert!(key(json!({"a": "ab", "b": 9})) < key(json!({"a": "a", "b": 0})));
        assert!(key(json!({"a": "a", "b": 0})) < key(json!({"a": "a", "b": 9})));
        assert!(key(json!({"a": "a", "b": 9})) < key(json!({"b": 0})));
    }

    #[test]
    fn paths_may_lie_within_each_other() {
        let sort: Vec<_> = ["a", "a.b", "a.b.c", "b"].map(|at| (path(at), Order::Ascending)).into();
        let document = json!({"a": {"b": {"c": 1, "d": [{"c": 2}]}, "c": 3}, "b": "\u{e9}"});
        let paths = sort.iter().map(|(path, _)| path);
        let found = find(paths, document.to_string().as_bytes()).unwrap();
        assert_eq!(found, [Found::Object, Found::Object, Found::Number(whole(1)), Found::Text("é".to_owned())]);
    }

    #[test]
    fn what_is_damaged_is_named() {
        let rule = Rule::new(vec![(path("a"), Scalar::Null)], Vec::new());
        let damaged = rule.sort_key(&Kind::new("note").unwrap(), "a", br#"{"a":1"#);
        assert!(matches!(damaged, Err(Fault::Invalid(cause)) if cause.starts_with("note/a is damaged: ")));
    }

    proptest! {
        #[test]
        fn whole_numbers_and_floats_sort_by_value(a: i64, b in -1e19_f64..1e19) {
            #[expect(clippy::cast_possible_truncation, reason = "a float of this size has no fraction that i128 loses unseen")]
            let floor = b.floor() as i128;
            let by_value = i128::from(a).cmp(&floor).then(0.0_f64.total_cmp(&(b - b.floor())));
            prop_assert_eq!(whole(a).cmp(&float(b)), by_value);
        }

        #[test]
        fn near_2_to_the_63_too(a in i64::MAX - 5000..=i64::MAX, b in i64::MAX - 5000..=i64::MAX) {
            prop_assert_eq!(whole(a).cmp(&whole(b)), a.cmp(&b));
            prop_assert_eq!(whole(-a).cmp(&whole(-b)), b.cmp(&a));
        }
    }
}
