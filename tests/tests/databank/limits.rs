//! What lies just within a limit is done, what lies just outside is invalid.

use std::fmt::Write as _;

use serde_json::json;

use super::Bank;

pub fn types_have_1_to_100_plain_bytes(bank: &Bank) {
    let mut client = bank.client();
    // Types of this claim alone, whatever runs beside it on the same store.
    let longest = format!("{:x<100}", bank.kind);
    for kind in [longest.as_str(), "0types-Have_1-", "Z-_", "7"] {
        client.save(kind, "a", "{}").revision();
        assert_eq!(client.search(kind, ""), ["a"], "{kind}");
        client.increment(kind, "a", "n", 1).done();
        client.append(kind, "a", "l", "1").revision();
        assert_eq!(client.read_many(kind, &["a".to_owned()]).done()["documents"].as_array().map(Vec::len), Some(1));
        client.remove(kind, "a").done();
    }
    let too_long = format!("{longest}x");
    let wide = "\u{e9}";
    for kind in [
        "",
        &too_long,
        "-a",
        "_a",
        "a.b",
        ".",
        "system.users",
        "a$b",
        "$cmd",
        "a b",
        " a",
        "a\0b",
        "\0",
        "a/b",
        "a\"b",
        "a'b",
        "a\n",
        wide,
    ] {
        for answer in [
            client.create(kind, "a", "{}"),
            client.write("update", kind, "a", "{}"),
            client.save(kind, "a", "{}"),
            client.compare(kind, "a", 1, &json!({})),
            client.read(kind, "a"),
            client.remove(kind, "a"),
            client.increment(kind, "a", "n", 1),
            client.append(kind, "a", "l", "1"),
            client.read_many(kind, &["a".to_owned()]),
            client.try_search(kind, "").expect_err("such a type can't be searched"),
        ] {
            assert_eq!(answer.error(), "invalid", "{kind:?}: {answer}");
        }
    }
}

pub fn ids_have_1_to_512_bytes_without_nul(bank: &Bank) {
    let mut client = bank.client();
    let (narrow, wide) = ("x".repeat(512), "\u{1F9ED}".repeat(128));
    for id in [narrow.as_str(), wide.as_str(), "x", "\u{1}"] {
        client.create(bank.kind, id, "{}").revision();
        assert_eq!(client.read(bank.kind, id).body["id"], id);
        client.increment(bank.kind, id, "n", 1).done();
        client.remove(bank.kind, id).done();
    }
    let (narrow, wide, odd) = ("x".repeat(513), "\u{1F9ED}".repeat(129), format!("{}\u{e9}", "x".repeat(511)));
    for id in ["", &narrow, &wide, &odd, "\0", "a\0", "\0a", "a\0b"] {
        for answer in [
            client.create(bank.kind, id, "{}"),
            client.write("update", bank.kind, id, "{}"),
            client.save(bank.kind, id, "{}"),
            client.compare(bank.kind, id, 1, &json!({})),
            client.read(bank.kind, id),
            client.remove(bank.kind, id),
            client.increment(bank.kind, id, "n", 1),
            client.append(bank.kind, id, "l", "1"),
            client.read_many(bank.kind, &[id.to_owned()]),
        ] {
            assert_eq!(answer.error(), "invalid", "{id:?}: {answer}");
        }
    }
    assert!(client.search(bank.kind, "").is_empty(), "nothing was written");
}

pub fn paths_have_at_most_500_bytes_and_32_plain_keys(bank: &Bank) {
    let mut client = bank.client();
    let (longest, deepest, wide) = ("p".repeat(500), ["k"; 32].join("."), "\u{e9}".repeat(250));
    for (number, path) in [
        &longest,
        &deepest,
        &wide,
        "a$b",
        "a.b$",
        "0",
        "n.0",
        "_id",
        "a b",
        "-",
        "\u{1F9ED}",
        "a\"b",
        "a'b",
        "a[0]",
        "a\n",
        "#-1",
    ]
    .into_iter()
    .enumerate()
    {
        let id = number.to_string();
        assert_eq!(client.increment(bank.kind, &id, path, 7).done()["sum"], 7, "{path:?}");
        assert_eq!(client.increment(bank.kind, &id, path, -2).done()["sum"], 5, "{path:?}");
        let path = json!(path);
        assert_eq!(client.search(bank.kind, &format!(r#""equals":[[{path},5]]"#)), [id.as_str()], "{path}");
        let sorted = client.search(bank.kind, &format!(r#""sort":[[{path},"descending"]],"limit":1"#));
        assert_eq!(sorted, [id.as_str()], "{path}");
        let list = format!("list-{id}");
        for _ in 0..2 {
            client.append(bank.kind, &list, path.as_str().expect("a text"), "1").revision();
        }
        client.remove(bank.kind, &list).done();
    }
    let before = client.search(bank.kind, "");
    let (too_long, too_deep, too_wide) = ("p".repeat(501), ["k"; 33].join("."), "\u{e9}".repeat(251));
    for path in [
        "", &too_long, &too_deep, &too_wide, ".", "..", ".a", "a.", "a..b", "$", "$a", "a.$b", "a.$", "a.$[]", "\0",
        "a\0", "a.b\0.c",
    ] {
        client.increment(bank.kind, "none", path, 1).fails_with("invalid");
        client.append(bank.kind, "none", path, "1").fails_with("invalid");
        let path = json!(path);
        for rest in [
            format!(r#""equals":[[{path},1]]"#),
            format!(r#""sort":[[{path},"ascending"]]"#),
            format!(r#""sort":[["a","ascending"],[{path},"descending"]]"#),
        ] {
            client.try_search(bank.kind, &rest).expect_err("such a path isn't searched").fails_with("invalid");
        }
    }
    assert_eq!(client.search(bank.kind, ""), before, "nothing was written");
}

pub fn documents_are_objects(bank: &Bank) {
    let mut client = bank.client();
    client.create(bank.kind, "there", "{}").revision();
    for document in ["[]", "[{}]", "null", "true", "1", "1.5", "\"{}\""] {
        for method in ["create", "save"] {
            client.write(method, bank.kind, "a", document).fails_with("invalid");
        }
        client.write("update", bank.kind, "there", document).fails_with("invalid");
        let value = serde_json::from_str(document).expect("JSON");
        client.compare(bank.kind, "there", 1, &value).fails_with("invalid");
    }
    assert_eq!(client.search(bank.kind, ""), ["there"], "nothing was written");
}

pub fn keys_are_plain(bank: &Bank) {
    let mut client = bank.client();
    for key in ["a", "a$", "a.b", ".", "..", " ", "0", "_id", "\u{1}", "\u{1F9ED}", "k".repeat(10_000).as_str()] {
        let key = json!(key);
        let document = format!(r#"{{{key}:1,"in":[{{{key}:{{{key}:2}}}}]}}"#);
        client.save(bank.kind, "a", &document).revision();
        let read = client.read(bank.kind, "a").value();
        assert_eq!(read, serde_json::from_str::<serde_json::Value>(&document).expect("JSON"), "{key}");
        client.append(bank.kind, "a", "list", &format!("{{{key}:3}}")).revision();
        assert_eq!(
            client.read(bank.kind, "a").value()["list"][0],
            json!({ key.as_str().expect("a text"): 3 }),
            "{key}"
        );
    }
    client.remove(bank.kind, "a").done();
    for key in ["", "\0", "a\0", "$", "$a", "$set"] {
        let key = json!(key);
        for value in [
            format!("{{{key}:1}}"),
            format!(r#"{{"a":{{{key}:1}}}}"#),
            format!(r#"{{"a":[[{{{key}:1}}]]}}"#),
            format!(r#"{{"a":1,{key}:1,"b":2}}"#),
        ] {
            client.save(bank.kind, "a", &value).fails_with("invalid");
            client.append(bank.kind, "a", "list", &value).fails_with("invalid");
            client.append(bank.kind, "a", "list", &format!("[{value}]")).fails_with("invalid");
        }
    }
    assert!(client.search(bank.kind, "").is_empty(), "nothing was written");
}

pub fn documents_have_at_most_90_levels(bank: &Bank) {
    let mut client = bank.client();
    for (open, close) in [(r#"{"a":"#, "}"), ("[", "]"), (r#"{"a":["#, "]}")] {
        let each = if open.ends_with('[') && open.len() > 1 { 2 } else { 1 };
        // The document itself is the first level; the innermost value is none.
        let nested = |levels: usize| {
            let mut text = String::from(r#"{"a":"#);
            let times = (levels - 1) / each;
            let rest = (levels - 1) % each;
            let _ = write!(
                text,
                "{}{}1{}{}}}",
                open.repeat(times),
                "[".repeat(rest),
                "]".repeat(rest),
                close.repeat(times)
            );
            text
        };
        client.save(bank.kind, "a", &nested(90)).revision();
        assert_eq!(client.read(bank.kind, "a").document(), nested(90));
        for levels in [91, 92, 128, 129, 1_000, 100_000] {
            client.save(bank.kind, "a", &nested(levels)).fails_with("invalid");
        }
        assert_eq!(client.read(bank.kind, "a").document(), nested(90), "what failed has left it as it was");
    }
}

pub fn documents_have_at_most_one_and_a_half_mebibytes(bank: &Bank) {
    const MOST: usize = 1_572_864;
    let mut client = bank.client();
    let frame = r#"{"text":""}"#.len();
    for piece in ["x", "\u{1F9ED}", "\\\""] {
        let mut document = format!(r#"{{"text":"{}"#, piece.repeat((MOST - frame) / piece.len()));
        while document.len() < MOST - 2 {
            document.push('x');
        }
        document.push_str("\"}");
        assert_eq!(document.len(), MOST);
        client.save(bank.kind, "a", &document).revision();
        let read = client.read(bank.kind, "a").document();
        assert!(read == document, "{piece} came back otherwise");
        let larger = document.replacen("{\"text\":\"", "{\"text\":\"x", 1);
        for method in ["save", "create", "update"] {
            client.write(method, bank.kind, "a", &larger).fails_with("invalid");
        }
        client.append(bank.kind, "b", "list", &json!("x".repeat(MOST - 1)).to_string()).fails_with("invalid");
        // What counts is the compact text.
        let spaced = document.replacen(':', &format!(":{}", " ".repeat(1_000)), 1);
        client.save(bank.kind, "a", &spaced).revision();
    }
    client.read(bank.kind, "b").fails_with("not found");
    // The most values that fit: what other encodings need the most room for.
    let count = (MOST - r#"{"l":[0]}"#.len()) / 2;
    let numbers = format!(r#"{{"l":[{}0]}}"#, "0,".repeat(count));
    client.save(bank.kind, "a", &numbers).revision();
    assert!(client.read(bank.kind, "a").document() == numbers, "the numbers came back otherwise");
}

pub fn whole_numbers_are_those_of_i64_and_floats_are_finite(bank: &Bank) {
    let mut client = bank.client();
    for number in ["9223372036854775807", "-9223372036854775808", "1e18", "9223372036854775808.0", "1e300"] {
        client.save(bank.kind, "in", &format!(r#"{{"v":[{number}]}}"#)).revision();
        assert_eq!(client.search(bank.kind, &format!(r#""equals":[["other",{number}]]"#)).len(), 0);
    }
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "123456789012345678901234567890",
        "-123456789012345678901234567890",
        "1e309",
        "-1e999",
    ] {
        for document in [format!(r#"{{"v":{number}}}"#), format!(r#"{{"a":[{{"v":[1,{number}]}}],"text":"1.5e3"}}"#)] {
            client.save(bank.kind, "a", &document).fails_with("invalid");
            client.append(bank.kind, "a", "list", &document).fails_with("invalid");
        }
        client.append(bank.kind, "a", "list", number).fails_with("invalid");
        let found = client.try_search(bank.kind, &format!(r#""equals":[["v",{number}]]"#));
        found.expect_err("such a number isn't searched").fails_with("invalid");
    }
    client.read(bank.kind, "a").fails_with("not found");
    // In a text it is no number.
    client.save(bank.kind, "a", r#"{"v":"123456789012345678901234567890","w":1e300}"#).revision();
}

pub fn conditions_are_at_most_16_of_plain_values(bank: &Bank) {
    let mut client = bank.client();
    client.create(bank.kind, "a", r#"{"v":1}"#).revision();
    let conditions = |count: usize| format!(r#""equals":[{}]"#, vec![r#"["v",1]"#; count].join(","));
    assert_eq!(client.search(bank.kind, &conditions(16)), ["a"]);
    client.try_search(bank.kind, &conditions(17)).expect_err("17 are too many").fails_with("invalid");
    for value in ["[]", "{}", "[1]", r#"{"v":1}"#] {
        let found = client.try_search(bank.kind, &format!(r#""equals":[["v",{value}]]"#));
        found.expect_err("no plain value").fails_with("invalid");
    }
}

pub fn sorts_have_at_most_8_paths(bank: &Bank) {
    let mut client = bank.client();
    for (id, number) in [("a", 2), ("b", 1)] {
        client.create(bank.kind, id, &json!({ "p7": number }).to_string()).revision();
    }
    let sort = |count: usize| {
        let paths: Vec<_> = (0..count).map(|path| format!(r#"["p{path}","ascending"]"#)).collect();
        format!(r#""sort":[{}]"#, paths.join(","))
    };
    assert_eq!(client.search(bank.kind, &sort(8)), ["b", "a"]);
    client.try_search(bank.kind, &sort(9)).expect_err("9 are too many").fails_with("invalid");
}

pub fn read_many_takes_at_most_1000_valid_ids(bank: &Bank) {
    let mut client = bank.client();
    client.create(bank.kind, "999", "{}").revision();
    let ids = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(client.read_many(bank.kind, &ids(1_000)).done()["documents"][0]["id"], "999");
    client.read_many(bank.kind, &ids(1_001)).fails_with("invalid");
    let mut one_wrong = ids(10);
    one_wrong.push("a\0".to_owned());
    client.read_many(bank.kind, &one_wrong).fails_with("invalid");
}
