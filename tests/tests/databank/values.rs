//! Whatever can be stored comes back as it was.

use serde_json::{Value, json};

use super::Bank;

/// Texts that something on the way might take for something else, or change.
const TEXTS: [&str; 30] = [
    "a",
    " ",
    " a ",
    "\t",
    "\n",
    "\r\n",
    "\u{1}\u{1b}\u{7f}",
    "\u{80}\u{9f}\u{ad}",
    "\"",
    "\\",
    "'; drop table documents; --",
    "%",
    "_",
    "*",
    "/",
    "../../etc/passwd",
    ".",
    "..",
    "$where",
    "{\"$gt\":\"\"}",
    "null",
    "0",
    "\u{e9}",   // é as one code point,
    "e\u{301}", // and as two
    "\u{1F469}\u{200D}\u{1F680}\u{10FFFF}",
    "\u{5E9}\u{5DC}\u{5D5}\u{5DD} \u{202E}abc",
    "\u{FEFF}bom",
    "\u{FFFF}\u{FFFE}\u{FFFD}",
    "\u{2028}\u{2029}",
    "A",
];

pub fn any_text_is_an_id_and_comes_back(bank: &Bank) {
    let mut client = bank.client();
    for (number, id) in TEXTS.iter().enumerate() {
        client.create(bank.kind, id, &json!({ "n": number }).to_string()).revision();
    }
    for (number, id) in TEXTS.iter().enumerate() {
        let read = client.read(bank.kind, id);
        assert_eq!(read.body["id"], *id);
        assert_eq!(read.value(), json!({ "n": number }), "{id:?}");
        assert_eq!(client.increment(bank.kind, id, "n", 100).done()["sum"], number + 100, "{id:?}");
    }
    let mut sorted = TEXTS.to_vec();
    sorted.sort_unstable();
    assert_eq!(client.search(bank.kind, ""), sorted);
    let many = client.read_many(bank.kind, &TEXTS.map(str::to_owned)).done();
    let ids: Vec<_> = many["documents"].as_array().expect("a list").iter().map(|document| &document["id"]).collect();
    assert_eq!(ids, TEXTS);
    for id in TEXTS {
        client.remove(bank.kind, id).done();
    }
    assert!(client.search(bank.kind, "").is_empty());
}

pub fn any_text_is_a_value_and_a_key_and_comes_back(bank: &Bank) {
    let mut client = bank.client();
    for (number, text) in TEXTS.iter().enumerate() {
        let id = number.to_string();
        let key = text.trim_start_matches('$');
        let document = json!({ "v": text, "k": { key: text, "nul": "\0" }, "l": [text, "a\0b"] });
        client.create(bank.kind, &id, &document.to_string()).revision();
        assert_eq!(client.read(bank.kind, &id).value(), document, "{text:?}");
        client.append(bank.kind, &id, "l", &json!(text).to_string()).revision();
        assert_eq!(client.read(bank.kind, &id).value()["l"][2], *text);
    }
    for (number, text) in TEXTS.iter().enumerate() {
        let found = client.search(bank.kind, &format!(r#""equals":[["v",{}]]"#, json!(text)));
        assert_eq!(found, [number.to_string()], "exactly {text:?} is found");
    }
}

pub fn any_json_comes_back(bank: &Bank) {
    let mut client = bank.client();
    let document = json!({
        "null": null, "true": true, "false": false, "empty": "", "object": {}, "list": [],
        "lists": [[], [[]], [null, [1, "two", 3.5, { "four": [5] }]]],
        "keys": { "0": 1, "1": { "0": null }, "-1": 2, "a b": 3, "a.b": 4, ".": 5, "a$": 6, "_id": 7, "\u{e9}": 8 },
        "_id": "mine", "id": 1, "r": 2, "d": { "d": 3 }, "revision": 4, "document": 5, "kind": 6,
        // What other encodings write for values that JSON lacks stays an object.
        "like a date": { "date": { "numberLong": "1" } },
    });
    client.create(bank.kind, "a", &document.to_string()).revision();
    assert_eq!(client.read(bank.kind, "a").value(), document);
    client.increment(bank.kind, "a", "id", 1).done();
    assert_eq!(
        client.increment(bank.kind, "a", "_id.x", 1).error(),
        "invalid",
        "_id is a text, and the document's own"
    );
    let found = client.try_search(bank.kind, r#""equals":[["_id","mine"],["id",2]]"#).expect("found");
    assert_eq!(serde_json::from_str::<Value>(&found[0].text).expect("JSON")["keys"], document["keys"]);
    // With spaces and escapes that say nothing it is the same document.
    client.save(bank.kind, "b", " { \"a\" :\n[ 1 , \"\\u0061\\/\" ] } ").revision();
    assert_eq!(client.read(bank.kind, "b").document(), r#"{"a":[1,"a/"]}"#);
}

/// `levels` of objects and lists, one in the other.
fn nested(levels: usize, objects: bool) -> String {
    let (open, close) = if objects { (r#"{"a":"#, "}") } else { ("[", "]") };
    // The outermost is the document.
    format!(r#"{{"a":{}1{}}}"#, open.repeat(levels - 1), close.repeat(levels - 1))
}

pub fn deep_documents_come_back(bank: &Bank) {
    let mut client = bank.client();
    for objects in [true, false] {
        let document = nested(90, objects);
        client.save(bank.kind, "a", &document).revision();
        assert_eq!(client.read(bank.kind, "a").document(), document);
        assert_eq!(client.search(bank.kind, ""), ["a"]);
    }
    // As deep as a path goes.
    let document = nested(40, true);
    client.save(bank.kind, "b", &document).revision();
    let path = ["a"; 32].join(".");
    client.increment(bank.kind, "b", &path, 1).fails_with("invalid");
    client.increment(bank.kind, "c", &path, 1).done();
    assert_eq!(client.read(bank.kind, "c").document(), nested(32, true));
    assert_eq!(client.search(bank.kind, &format!(r#""equals":[["{path}",1]]"#)), ["c"]);
}

pub fn large_documents_come_back(bank: &Bank) {
    let mut client = bank.client();
    for (id, piece) in
        [("ascii", "0123456789abcdef"), ("escaped", "\"\\\n\u{1}\u{7f}/"), ("wide", "\u{e9}\u{20AC}\u{1F9ED}")]
    {
        // One MiB of it in the document's text.
        let escaped = json!(piece).to_string().len() - 2;
        let text = piece.repeat(1024 * 1024 / escaped);
        let document = json!({ "text": text, "n": 1 }).to_string();
        client.create(bank.kind, id, &document).revision();
        let read = client.read(bank.kind, id).value();
        assert!(read["text"] == text && read["n"] == 1, "{id} came back otherwise");
        assert_eq!(client.increment(bank.kind, id, "n", 1).done()["sum"], 2);
        assert!(client.read(bank.kind, id).value()["text"] == text, "{id} came back otherwise after it was written to");
    }
    assert_eq!(client.search(bank.kind, r#""equals":[["n",2]]"#), ["ascii", "escaped", "wide"]);
    // Many small values take another store the most room.
    let numbers = format!(r#"{{"list":[{}0]}}"#, "0,".repeat(500_000));
    client.create(bank.kind, "numbers", &numbers).revision();
    assert!(client.read(bank.kind, "numbers").document() == numbers, "the numbers came back otherwise");
}

/// Numbers at the edges of what i64 and f64 hold.
const NUMBERS: [&str; 34] = [
    "0",
    "1",
    "-1",
    "127",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775806",
    "9223372036854775807",
    "-9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "1.0",
    "-1.0",
    "0.1",
    "0.30000000000000004",
    "1e2",
    "9007199254740992.0",
    "9007199254740994.0",
    "9223372036854775807.0",
    "1e300",
    "5e-324",
    "-5e-324",
    "2.2250738585072014e-308",
    "2.225073858507201e-308",
    "1.7976931348623157e308",
    "-1.7976931348623157e308",
];

/// What a number is: whole or not, and its bits.
fn bits(number: &Value) -> (bool, u64) {
    number.as_i64().map_or_else(
        || (false, number.as_f64().unwrap_or_else(|| panic!("{number} is no number")).to_bits()),
        |whole| (true, whole.cast_unsigned()),
    )
}

pub fn numbers_come_back_as_they_went_in(bank: &Bank) {
    let mut client = bank.client();
    for (number, literal) in NUMBERS.iter().enumerate() {
        let id = format!("{number:02}");
        let document = format!(r#"{{"v":{literal},"in":{{"a":[{literal}]}}}}"#);
        let written: Value = serde_json::from_str(&document).expect("JSON");
        client.create(bank.kind, &id, &document).revision();
        let check = |read: &Value, list: &[usize]| {
            assert_eq!(bits(&read["v"]), bits(&written["v"]), "{literal} became {read}");
            for at in list {
                assert_eq!(bits(&read["in"]["a"][at]), bits(&written["v"]), "{literal} became {read}");
            }
        };
        check(&client.read(bank.kind, &id).value(), &[0]);
        let found = client.try_search(bank.kind, &format!(r#""skip":{number}"#)).expect("found");
        check(&serde_json::from_str(&found[0].text).expect("JSON"), &[0]);
        // Also when the store itself has changed the document, and what it was given to append.
        client.append(bank.kind, &id, "in.a", literal).revision();
        client.increment(bank.kind, &id, "count", 1).done();
        check(&client.read(bank.kind, &id).value(), &[0, 1]);
    }
}

pub fn types_of_rust_come_back(bank: &Bank) {
    let body = bank.client().ask("typed", json!({ "type": bank.kind, "id": "a" })).done();
    assert_eq!(body["same"], true, "{body}");
    let any = &body["any"];
    assert_eq!(any["unsigned"], i64::MAX, "{body}");
    assert_eq!((&any["absent"], any["whole"].is_f64()), (&Value::Null, true), "{body}");
    assert_eq!(body["too_large"], "invalid", "a u64 beyond i64: {body}");
    assert_eq!(body["other"][0], "invalid", "{body}");
    let text = body["other"][1].as_str().expect("a text");
    assert!(text.contains(&format!("{}/a", bank.kind)), "{text}");
}

pub fn nothing_in_a_text_becomes_an_operator(bank: &Bank) {
    let mut client = bank.client();
    for (id, text) in [("a", "secret"), ("b", "$ne"), ("c", r#"{"$ne":1}"#), ("d", "$v"), ("e", "$$ROOT")] {
        client.create(bank.kind, id, &json!({ "v": text, "n": 1 }).to_string()).revision();
    }
    // As an id, as a value and as what is appended they are text.
    for text in ["$ne", r#"{"$ne":1}"#, "$where", "$v", "$$ROOT", "/.*/", "' or '1'='1", "%", "\"", "$.v", "[]"] {
        client.read(bank.kind, text).fails_with("not found");
        client.remove(bank.kind, text).fails_with("not found");
        let found = client.search(bank.kind, &format!(r#""equals":[["v",{}]]"#, json!(text)));
        assert!(found.len() <= 1 && !found.contains(&"a".to_owned()), "{text} found {found:?}");
        client.append(bank.kind, "e", "list", &json!(text).to_string()).revision();
    }
    assert_eq!(client.read(bank.kind, "e").value()["list"][0], "$ne");
    // As objects and keys they can't be asked for.
    for value in [r#"{"$ne":1}"#, r#"{"$gt":""}"#, r#"{"$regex":".*"}"#, r#"["secret"]"#, "{}"] {
        let found = client.try_search(bank.kind, &format!(r#""equals":[["v",{value}]]"#));
        found.expect_err("an object is no value to ask for").fails_with("invalid");
    }
    for path in ["$where", "v.$ne", "$$ROOT", "$set.v", "list.$[]", "list.$"] {
        client.increment(bank.kind, "a", path, 1).fails_with("invalid");
        client.append(bank.kind, "a", path, "1").fails_with("invalid");
        for rest in [format!(r#""equals":[["{path}",1]]"#), format!(r#""sort":[["{path}","ascending"]]"#)] {
            client.try_search(bank.kind, &rest).expect_err("an operator is no path").fails_with("invalid");
        }
    }
    for document in [r#"{"$set":{"v":1}}"#, r#"{"v":{"$inc":1}}"#, r#"{"v":[{"$ref":"a"}]}"#] {
        client.save(bank.kind, "a", document).fails_with("invalid");
        client.append(bank.kind, "a", "list", document).fails_with("invalid");
    }
    assert_eq!(client.read(bank.kind, "a").value(), json!({ "v": "secret", "n": 1 }));
}
