//! `increment` and `append`: what they make, what they add to, and what is in their way.

use serde_json::json;

use super::Bank;

pub fn increment_makes_what_is_not_there(bank: &Bank) {
    let mut client = bank.client();
    assert_eq!(client.increment(bank.kind, "a", "n", 5).done()["sum"], 5);
    assert_eq!(client.increment(bank.kind, "a", "n", -7).done()["sum"], -2);
    assert_eq!(client.increment(bank.kind, "a", "in.the.deep", 1).done()["sum"], 1);
    assert_eq!(client.increment(bank.kind, "a", "in.other", 0).done()["sum"], 0);
    assert_eq!(client.increment(bank.kind, "a", "days.2026-11-22.7", 1).done()["sum"], 1, "no key is an index");
    let expected = json!({ "n": -2, "in": { "the": { "deep": 1 }, "other": 0 }, "days": { "2026-11-22": { "7": 1 } } });
    assert_eq!(client.read(bank.kind, "a").value(), expected);
    client.create(bank.kind, "b", r#"{"text":"stays","in":{"other":"stays"}}"#).revision();
    client.increment(bank.kind, "b", "in.n", 1).done();
    assert_eq!(client.read(bank.kind, "b").value(), json!({ "text": "stays", "in": { "other": "stays", "n": 1 } }));
    // What is made can be written to like any other document.
    let revision = client.read(bank.kind, "a").revision();
    client.compare(bank.kind, "a", revision, &json!({})).revision();
    client.create(bank.kind, "a", "{}").fails_with("already exists");
}

pub fn increment_adds_to_whole_numbers_only(bank: &Bank) {
    let mut client = bank.client();
    for value in [
        "null",
        "true",
        "false",
        "1.0",
        "0.0",
        "-0.0",
        "1.5",
        "1e300",
        "\"1\"",
        "\"\"",
        "[]",
        "[1]",
        "{}",
        r#"{"n":1}"#,
    ] {
        client.save(bank.kind, "a", &format!(r#"{{"n":{value}}}"#)).revision();
        let before = client.read(bank.kind, "a");
        client.increment(bank.kind, "a", "n", 1).fails_with("invalid");
        assert_eq!(client.read(bank.kind, "a").body, before.body, "{value}: what failed is no write");
    }
    for value in ["0", "1", "-1", "2147483647", "-2147483649", "9007199254740993"] {
        client.save(bank.kind, "a", &format!(r#"{{"n":{value}}}"#)).revision();
        let expected = value.parse::<i64>().expect("a number") + 1;
        assert_eq!(client.increment(bank.kind, "a", "n", 1).done()["sum"], expected);
        assert_eq!(client.read(bank.kind, "a").value(), json!({ "n": expected }));
    }
}

pub fn increment_never_overflows(bank: &Bank) {
    let mut client = bank.client();
    assert_eq!(client.increment(bank.kind, "least", "n", i64::MIN).done()["sum"], i64::MIN);
    assert_eq!(client.increment(bank.kind, "most", "n", i64::MAX).done()["sum"], i64::MAX);
    for (id, by) in [("least", -1), ("least", i64::MIN), ("most", 1), ("most", i64::MAX)] {
        let before = client.read(bank.kind, id);
        client.increment(bank.kind, id, "n", by).fails_with("invalid");
        assert_eq!(client.read(bank.kind, id).body, before.body, "{id} is as it was");
    }
    assert_eq!(client.increment(bank.kind, "least", "n", i64::MAX).done()["sum"], -1);
    assert_eq!(client.increment(bank.kind, "most", "n", i64::MIN).done()["sum"], -1);
    // Sums that a float couldn't tell apart.
    assert_eq!(client.increment(bank.kind, "fine", "n", (1 << 53) + 1).done()["sum"], (1_i64 << 53) + 1);
    assert_eq!(client.increment(bank.kind, "fine", "n", 1 << 61).done()["sum"], (1_i64 << 53) + (1 << 61) + 1);
}

pub fn append_makes_what_is_not_there(bank: &Bank) {
    let mut client = bank.client();
    client.append(bank.kind, "a", "list", "1").revision();
    client.append(bank.kind, "a", "list", "2").revision();
    client.append(bank.kind, "a", "in.the.list", "\"x\"").revision();
    client.append(bank.kind, "a", "in.0.1", "0").revision();
    let expected = json!({ "list": [1, 2], "in": { "the": { "list": ["x"] }, "0": { "1": [0] } } });
    assert_eq!(client.read(bank.kind, "a").value(), expected);
    client.create(bank.kind, "a", "{}").fails_with("already exists");
}

pub fn append_adds_any_value_to_lists_only(bank: &Bank) {
    let mut client = bank.client();
    let values = [
        "null",
        "true",
        "0",
        "-0.0",
        "1.0",
        "9223372036854775807",
        "5e-324",
        "\"\"",
        "\"$x\"",
        "[]",
        "[1,[2]]",
        "{}",
        r#"{"a":{"b":[null]}}"#,
        r#"{"each":[1,2],"position":0,"slice":1,"sort":1}"#,
    ];
    for value in values {
        client.append(bank.kind, "a", "list", value).revision();
    }
    assert_eq!(client.read(bank.kind, "a").document(), format!(r#"{{"list":[{}]}}"#, values.join(",")));
    for value in ["null", "true", "1", "1.5", "\"\"", "\"[]\"", "{}", r#"{"0":1}"#] {
        let document = format!(r#"{{"list":{value}}}"#);
        let revision = client.save(bank.kind, "b", &document).revision();
        client.append(bank.kind, "b", "list", "1").fails_with("invalid");
        let read = client.read(bank.kind, "b");
        assert_eq!(read.body["revision"], revision, "{value}: what failed is no write");
        assert_eq!(read.document(), document);
    }
    for list in ["[]", "[null]", r#"["text",{"list":[]}]"#] {
        client.save(bank.kind, "b", &format!(r#"{{"in":{{"list":{list}}}}}"#)).revision();
        client.append(bank.kind, "b", "in.list", "1").revision();
        let read = client.read(bank.kind, "b").value();
        assert_eq!(read["in"]["list"].as_array().and_then(|list| list.last()), Some(&json!(1)), "{list}");
    }
}

pub fn paths_of_writes_go_through_objects_only(bank: &Bank) {
    let mut client = bank.client();
    for value in ["null", "true", "1", "1.5", "\"text\"", "[]", "[1]", r#"[{"n":1,"list":[]}]"#, "[[1]]"] {
        let document = format!(r#"{{"way":{value},"in":{{"way":{value}}}}}"#);
        client.save(bank.kind, "a", &document).revision();
        let before = client.read(bank.kind, "a");
        for path in ["way.n", "way.0", "way.0.n", "in.way.n", "in.way.0", "in.way.0.n", "way.n.more", "way.length"] {
            client.increment(bank.kind, "a", path, 1).fails_with("invalid");
            client.append(bank.kind, "a", path, "1").fails_with("invalid");
        }
        client.append(bank.kind, "a", "way.0.list", "1").fails_with("invalid");
        assert_eq!(client.read(bank.kind, "a").body, before.body, "{value}: what failed is no write");
    }
}

pub fn keys_with_dots_are_stored_and_not_addressed(bank: &Bank) {
    let mut client = bank.client();
    client.create(bank.kind, "a", r#"{"a.b":1,"l.m":[1]}"#).revision();
    assert!(client.search(bank.kind, r#""equals":[["a.b",1]]"#).is_empty());
    assert_eq!(client.search(bank.kind, r#""equals":[["a.b",null]]"#), ["a"]);
    assert_eq!(client.increment(bank.kind, "a", "a.b", 5).done()["sum"], 5, "another number than that of the key");
    client.append(bank.kind, "a", "l.m", "2").revision();
    let expected = json!({ "a.b": 1, "l.m": [1], "a": { "b": 5 }, "l": { "m": [2] } });
    assert_eq!(client.read(bank.kind, "a").value(), expected);
    assert_eq!(client.search(bank.kind, r#""equals":[["a.b",5]]"#), ["a"]);
}

pub fn what_fails_to_grow_is_left_as_it_was(bank: &Bank) {
    let mut client = bank.client();
    let document = r#"{"n":"text","list":1,"way":0}"#;
    client.create(bank.kind, "a", document).revision();
    let before = client.read(bank.kind, "a");
    client.increment(bank.kind, "a", "n", 1).fails_with("invalid");
    client.append(bank.kind, "a", "list", "1").fails_with("invalid");
    for path in ["way.new.n", "n.new"] {
        client.increment(bank.kind, "a", path, 1).fails_with("invalid");
        client.append(bank.kind, "a", path, "1").fails_with("invalid");
    }
    assert_eq!(client.read(bank.kind, "a").body, before.body);
    // Nor does it leave a document that wasn't there.
    client.append(bank.kind, "none", "list", r#"{"$x":1}"#).fails_with("invalid");
    client.increment(bank.kind, "none", "$x", 1).fails_with("invalid");
    client.read(bank.kind, "none").fails_with("not found");
}

pub fn document_grows_until_it_is_invalid_and_stays_readable(bank: &Bank) {
    let mut client = bank.client();
    let piece = json!("x".repeat(1_500_000)).to_string();
    let mut grown = 0;
    let refusal = loop {
        let answer = client.append(bank.kind, "a", "list", &piece);
        if answer.status != 200 {
            break answer;
        }
        grown += 1;
        assert!(grown < 12, "it grows without end");
    };
    assert!(refusal.fails_with("invalid").contains(&format!("{}/a", bank.kind)), "{refusal}");
    assert_eq!(grown, 11, "16 MiB, in every driver alike");
    let read = client.read(bank.kind, "a").value();
    let list = read["list"].as_array().expect("a list");
    assert!(list.len() == grown && list.iter().all(|text| text.as_str().map(str::len) == Some(1_500_000)));
    assert_eq!(client.search(bank.kind, ""), ["a"]);
    client.remove(bank.kind, "a").done();
}

pub fn deep_values_are_appended_and_stay_readable(bank: &Bank) {
    let mut client = bank.client();
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    // The document, a level for each key of the path, and those of the value.
    for (path, most) in [("list", 88), ("in.the.list", 86), (&["k"; 32].join("."), 57)] {
        client.append(bank.kind, path, path, &nested(most)).revision();
        client.append(bank.kind, path, path, &nested(most + 1)).fails_with("invalid");
        client.append(bank.kind, path, path, &nested(90)).fails_with("invalid");
        client.append(bank.kind, path, path, "2").revision();
        let read = client.read(bank.kind, path).document();
        assert!(read.contains(&format!("[{},2]", nested(most))), "{read}");
        assert_eq!(client.search(bank.kind, r#""sort":[["k","descending"]]"#).len(), 1);
        // It can be written as it was read.
        client.write("update", bank.kind, path, &read).revision();
        client.remove(bank.kind, path).done();
    }
}
