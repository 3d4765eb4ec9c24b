use serde_json::json;

use super::*;

fn nested(levels: usize) -> String {
    // The document is a level itself.
    format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
}

fn fault(text: &str) -> String {
    match Document::parse(text.as_bytes()) {
        Err(Fault::Invalid(cause)) => cause,
        other => panic!("{text:.80}: {other:?}"),
    }
}

fn document(value: &Value) -> Document {
    Document::parse(value.to_string().as_bytes()).unwrap()
}

#[test]
fn numbers_come_back_as_they_went_in() {
    for number in [
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "9007199254740993",
        "1.0",
        "-0.0",
        "0.1",
        "5e-324",
        "1.7976931348623157e308",
        "2.2250738585072014e-308",
    ] {
        let text = format!("{{\"n\":{number}}}");
        let shown = Document::parse(text.as_bytes()).unwrap().text();
        let (was, is): (Value, Value) = (serde_json::from_str(&text).unwrap(), serde_json::from_str(&shown).unwrap());
        assert_eq!(was, is);
        assert_eq!(was["n"].is_i64(), is["n"].is_i64(), "{number} {shown}");
        assert_eq!(was["n"].as_f64().map(f64::to_bits), is["n"].as_f64().map(f64::to_bits), "{number} {shown}");
    }
}

#[test]
fn a_whole_number_outside_i64_is_invalid_and_a_large_float_is_not() {
    for number in
        ["9223372036854775808", "18446744073709551616", "123456789012345678901234567890", "-9223372036854775809"]
    {
        assert!(fault(&format!("{{\"n\":[1e300,{number}]}}")).contains("64 bits"), "{number}");
    }
    for number in ["1e300", "9223372036854775808.0", "1.8446744073709552e19", "-9223372036854775809e0"] {
        let text = format!("{{\"18446744073709551616\":\"\\\"18446744073709551616\",\"n\":{number}}}");
        assert!(Document::parse(text.as_bytes()).is_ok(), "{number}");
    }
    for number in ["1e400", "-1e400", "NaN", "Infinity"] {
        fault(&format!("{{\"n\":{number}}}"));
    }
}

#[test]
fn a_document_is_an_object() {
    for (text, what) in [("[]", "a list"), ("1", "a whole number"), ("1.5", "a float"), ("null", "null")] {
        assert_eq!(fault(text), format!("a document is a JSON object, and this is {what}"));
    }
    for text in ["", "{", "{} x", "{}{}", "{\"a\":\"\\ud800\"}", "{'a':1}"] {
        fault(text);
    }
    assert!(Document::parse(b"{\"a\":\"\xff\"}").is_err());
    assert!(Document::parse(b" { } ").unwrap().fields().is_empty());
}

#[test]
fn no_key_can_be_taken_for_an_operator() {
    for key in ["", "$where", "$", "a\\u0000", "\\u0000", "\\u0024gt"] {
        fault(&format!("{{\"{key}\":1}}"));
        fault(&format!("{{\"a\":[{{\"b\":{{\"{key}\":1}}}}]}}"));
    }
    for key in ["a.b", ".", "a$", " ", "_id", "é", "__proto__"] {
        assert!(Document::parse(format!("{{\"{key}\":\"$where\"}}").as_bytes()).is_ok(), "{key}");
    }
}

#[test]
fn there_are_at_most_90_levels() {
    assert!(Document::parse(nested(90).as_bytes()).is_ok());
    assert!(fault(&nested(91)).contains("90 levels"));
    assert!(fault(&nested(5000)).contains("90 levels"));
    assert!(parse_value(format!("{}{}", "[".repeat(90), "]".repeat(90)).as_bytes()).is_ok());
    assert!(parse_value(format!("{}{}", "[".repeat(91), "]".repeat(91)).as_bytes()).is_err());
    assert_eq!(levels(document(&json!({"a": [1, {"b": []}]})).0.get("a").unwrap()), 3);
    assert!(check_levels_at(1, 88).is_ok());
    assert!(check_levels_at(2, 88).is_err());
}

#[test]
fn the_compact_text_has_at_most_1_5_mib() {
    let text = |letters: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(letters));
    let frame = text(0).len();
    assert_eq!(MAX_BYTES, 1_572_864);
    assert!(Document::parse(text(MAX_BYTES - frame).as_bytes()).is_ok());
    assert!(fault(&text(MAX_BYTES - frame + 1)).contains("1572864 are the most"));
    // Blanks don't count, and what compact text makes longer does.
    assert!(Document::parse(format!("{}{}", " ".repeat(MAX_BYTES), text(9)).as_bytes()).is_ok());
    assert!(fault(&format!("{{\"a\":[{}1]}}", "1e15,".repeat(MAX_BYTES / 16))).contains("are the most"));
}

#[test]
fn the_longest_expansion_is_known() {
    for short in ["1e15", "1e16", "1e9", "1e5", "9e14", "0e0", "1E0"] {
        let long = compact_bytes(&parse_value(short.as_bytes()).unwrap());
        assert!(long <= short.len() * MAX_EXPANSION, "{short}");
    }
}

#[test]
fn increment_makes_what_is_not_there() {
    let key = Key::new("count", "a").unwrap();
    let path = FieldPath::parse("a.b").unwrap();
    let mut counted = Document::empty();
    assert_eq!(counted.increment(&key, &path, 3), Ok(3));
    assert_eq!(counted.increment(&key, &path, -5), Ok(-2));
    assert_eq!(counted.text(), r#"{"a":{"b":-2}}"#);
}

#[test]
fn increment_takes_only_whole_numbers_within_i64() {
    let key = Key::new("count", "a").unwrap();
    for (value, path) in [
        (json!({"a": 1.0}), "a"),
        (json!({"a": null}), "a"),
        (json!({"a": "1"}), "a"),
        (json!({"a": i64::MAX}), "a"),
        (json!({"a": null}), "a.b"),
        (json!({"a": 1}), "a.b"),
        (json!({"a": [{"b": 1}]}), "a.b"),
        (json!({"a": [1]}), "a.0"),
    ] {
        let outcome = document(&value).increment(&key, &FieldPath::parse(path).unwrap(), 1);
        assert!(matches!(outcome, Err(Fault::Invalid(_))), "{value} {path}: {outcome:?}");
    }
}

#[test]
fn append_takes_only_lists() {
    let key = Key::new("log", "a").unwrap();
    let path = FieldPath::parse("a.b").unwrap();
    let mut grown = Document::empty();
    for item in [json!(1), json!([2]), json!(null)] {
        grown.append(&key, &path, item).unwrap();
    }
    assert_eq!(grown.text(), r#"{"a":{"b":[1,[2],null]}}"#);
    for value in [json!({"a": {"b": null}}), json!({"a": {"b": {}}}), json!({"a": [[]]})] {
        assert!(matches!(document(&value).append(&key, &path, json!(1)), Err(Fault::Invalid(_))));
    }
}
