//! In which order a search gives what it finds.

use serde_json::json;

use super::Bank;

/// Values from the smallest to the largest; those of one row are equal. Objects among each other, and
/// lists, have no order that a driver must keep.
const ROWS: [&[&str]; 33] = [
    &["", "null"],
    &["-1.7976931348623157e308"],
    &["-9223372036854775808", "-9223372036854775808.0"],
    &["-9007199254740993"],
    &["-9007199254740992", "-9007199254740992.0"],
    &["-1.5"],
    &["-1", "-1.0"],
    &["-5e-324"],
    &["0", "0.0", "-0.0"],
    &["5e-324"],
    &["0.1"],
    &["1", "1.0"],
    &["1.5"],
    &["2"],
    &["10"],
    &["9007199254740992", "9007199254740992.0"],
    &["9007199254740993"],
    &["9007199254740994.0", "9007199254740994"],
    &["9223372036854775807"],
    &["9223372036854775808.0"],
    &["1.7976931348623157e308"],
    &["\"\""],
    &["\"\\u0000\""],
    &["\"10\""],
    &["\"2\""],
    &["\"A\""],
    &["\"a\"", "\"a\""],
    &["\"a\\u0000\""],
    &["\"ab\""],
    // By code points, and so not as UTF-16 has it.
    &["\"\u{FFFF}\"", "\"\u{FFFF}\""],
    &["\"\u{10000}\""],
    &[r"{}", r#"{"a":1}"#, r#"{"a":-1}"#, r#"{"z":null}"#],
    &["[]", "[null]", "[-1]", "[\"\"]", "[true]", "[[]]", "[{}]", "[1,2]"],
];

/// Ids in an order that has nothing to do with that of the values.
fn id(number: usize) -> String {
    format!("{:03}", (number * 83 + 11) % 211)
}

pub fn values_sort_by_kind_and_then_by_value(bank: &Bank) {
    let mut client = bank.client();
    let truth: [&[&str]; 2] = [&["false"], &["true"]];
    let rows: Vec<_> = ROWS.into_iter().chain(truth).collect();
    let mut documents = Vec::new();
    for (row, values) in rows.iter().enumerate() {
        for value in *values {
            documents.push((row, *value, id(documents.len())));
        }
    }
    // Written in an order that is neither that of the values nor that of the ids.
    for at in 0..documents.len() {
        let (_, value, id) = &documents[(at * 31 + 7) % documents.len()];
        let document =
            if value.is_empty() { "{}".to_owned() } else { format!(r#"{{"v":{value},"in":{{"v":{value}}}}}"#) };
        client.create(bank.kind, id, &document).revision();
    }
    let has_order = |row: usize| !rows[row][0].starts_with(['{', '[']);
    for path in ["v", "in.v"] {
        for descending in [false, true] {
            let order = if descending { "descending" } else { "ascending" };
            let found = client.search(bank.kind, &format!(r#""sort":[["{path}","{order}"]]"#));
            assert_eq!(found.len(), documents.len(), "{path} {order}");
            let mut places = found.iter().map(|id| {
                let (row, value, id) = documents.iter().find(|(_, _, other)| other == id).expect("one of them");
                (*row, id.as_str(), *value)
            });
            let mut last = places.next().expect("there are some");
            for next in places {
                let in_order = match if descending { last.0.cmp(&next.0) } else { next.0.cmp(&last.0) } {
                    std::cmp::Ordering::Greater => true,
                    std::cmp::Ordering::Equal => !has_order(next.0) || last.1 < next.1,
                    std::cmp::Ordering::Less => false,
                };
                assert!(in_order, "{path} {order}: {last:?} came before {next:?}");
                last = next;
            }
        }
    }
}

pub fn nothing_at_a_path_sorts_as_null(bank: &Bank) {
    let mut client = bank.client();
    for (id, document) in [
        ("a", r#"{"o":{"v":5}}"#),
        ("b", r#"{"o":[{"v":1}]}"#),
        ("c", r#"{"o":{"v":-5}}"#),
        ("d", "{}"),
        ("e", r#"{"o":{"v":null}}"#),
        ("f", r#"{"o.v":1}"#),
        ("g", r#"{"o":1}"#),
        ("h", r#"{"o":[[9]]}"#),
        ("i", r#"{"o":{"v":[-9]}}"#),
        ("j", r#"{"o":[{"v":[1]}]}"#),
    ] {
        client.create(bank.kind, id, document).revision();
    }
    let up = client.search(bank.kind, r#""sort":[["o.v","ascending"]]"#);
    assert_eq!(up, ["b", "d", "e", "f", "g", "h", "j", "c", "a", "i"]);
    let down = client.search(bank.kind, r#""sort":[["o.v","descending"]]"#);
    assert_eq!(down, ["i", "a", "c", "b", "d", "e", "f", "g", "h", "j"]);
    assert_eq!(
        client.search(bank.kind, r#""sort":[["o.0","descending"]]"#),
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
    );
}

pub fn several_paths_sort_one_after_the_other(bank: &Bank) {
    let mut client = bank.client();
    let mut expected = Vec::new();
    for number in 0..60_u64 {
        let id = format!("{:02}", number * 17 % 60);
        let (two, three, four) = (number % 2, number * 7 % 3, number * 11 % 4);
        let document = json!({ "two": two, "in": { "three": three.to_string() }, "four": four == 0 });
        client.create(bank.kind, &id, &document.to_string()).revision();
        expected.push((two, std::cmp::Reverse(three), four == 0, id));
    }
    expected.sort();
    let found = client.search(
        bank.kind,
        r#""sort":[["two","ascending"],["in.three","descending"],["four","ascending"],["absent","descending"]]"#,
    );
    assert_eq!(found, expected.into_iter().map(|(.., id)| id).collect::<Vec<_>>());
    // A path that is named again decides nothing more.
    let again = client.search(bank.kind, r#""sort":[["two","ascending"],["two","descending"]]"#);
    assert_eq!(again, client.search(bank.kind, r#""sort":[["two","ascending"]]"#));
}

pub fn ids_decide_last_by_their_bytes(bank: &Bank) {
    let mut client = bank.client();
    let mut ids = [
        "a",
        "B",
        "\u{e9}",
        "e\u{301}",
        "\u{FFFF}",
        "\u{10000}",
        "ab",
        "a\u{1}",
        "10",
        "9",
        " ",
        "\u{1F9ED}",
        "a.b",
        "A",
    ];
    for id in ids {
        client.create(bank.kind, id, r#"{"v":1}"#).revision();
    }
    ids.sort_unstable();
    for rest in
        ["", r#""sort":[["v","ascending"]]"#, r#""sort":[["v","descending"]]"#, r#""sort":[["absent","descending"]]"#]
    {
        assert_eq!(client.search(bank.kind, rest), ids, "{rest}");
    }
}
