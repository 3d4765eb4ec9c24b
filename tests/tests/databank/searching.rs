//! What a search finds: equality, paths, conditions and windows.

use serde_json::json;

use super::Bank;

/// Values and what they are equal to: those with the same name. No list and no object is equal to what
/// can be asked for.
const VALUES: [(&str, &str); 42] = [
    ("null", "null"),
    ("false", "false"),
    ("true", "true"),
    ("0", "zero"),
    ("0.0", "zero"),
    ("-0.0", "zero"),
    ("1", "one"),
    ("1.0", "one"),
    ("-1", "minus one"),
    ("0.1", "a tenth"),
    ("0.30000000000000004", "three tenths and a bit"),
    ("0.3", "three tenths"),
    ("5e-324", "least"),
    ("9007199254740991", "2^53 - 1"),
    ("9007199254740992", "2^53"),
    ("9007199254740992.0", "2^53"),
    ("9007199254740993", "2^53 + 1"),
    ("9007199254740994.0", "2^53 + 2"),
    ("-9007199254740993", "-2^53 - 1"),
    ("-9007199254740992.0", "-2^53"),
    ("9223372036854775807", "2^63 - 1"),
    ("9223372036854775808.0", "2^63"),
    ("-9223372036854775808", "-2^63"),
    ("-9223372036854775808.0", "-2^63"),
    ("1e300", "1e300"),
    ("\"\"", "empty"),
    ("\"0\"", "text 0"),
    ("\"1\"", "text 1"),
    ("\"true\"", "text true"),
    ("\"null\"", "text null"),
    ("\"a\"", "a"),
    ("\"A\"", "A"),
    ("\"a \"", "a and a space"),
    ("\"\u{e9}\"", "e acute, one code point"),
    ("\"e\u{301}\"", "e acute, two code points"),
    ("[]", ""),
    ("[null]", ""),
    ("[1]", ""),
    ("[\"a\",true,0]", ""),
    ("{}", ""),
    ("{\"v\":1}", ""),
    ("[[1]]", ""),
];

pub fn search_finds_equal_values_and_no_others(bank: &Bank) {
    let mut client = bank.client();
    for (number, (value, _)) in VALUES.iter().enumerate() {
        let document = format!(r#"{{"v":{value},"in":{{"v":{value}}}}}"#);
        client.create(bank.kind, &format!("{number:02}"), &document).revision();
    }
    client.create(bank.kind, "nothing", "{}").revision();
    for (value, name) in VALUES.iter().filter(|(_, name)| !name.is_empty()) {
        let equal = VALUES.iter().enumerate().filter(|(_, (_, other))| other == name);
        let mut expected: Vec<_> = equal.map(|(number, _)| format!("{number:02}")).collect();
        if *name == "null" {
            expected.push("nothing".to_owned());
        }
        for path in ["v", "in.v"] {
            let found = client.search(bank.kind, &format!(r#""equals":[["{path}",{value}]]"#));
            assert_eq!(found, expected, "equal to {value} at {path}");
        }
    }
}

pub fn search_follows_paths_through_objects_only(bank: &Bank) {
    let mut client = bank.client();
    for (id, document) in [
        ("deep", r#"{"o":{"v":1,"0":1,"length":1}}"#),
        ("dotted", r#"{"o.v":1,"o.0":1}"#),
        ("empty", "{}"),
        ("list of lists", r#"{"o":[[1]]}"#),
        ("list of objects", r#"{"o":[{"v":1,"0":1},{"v":null}]}"#),
        ("list", r#"{"o":[1,1]}"#),
        ("list at the end", r#"{"o":{"v":[1],"0":[1]}}"#),
        ("null", r#"{"o":null}"#),
        ("null at the end", r#"{"o":{"v":null,"0":null}}"#),
        ("number", r#"{"o":1}"#),
        ("text", r#"{"o":"v"}"#),
    ] {
        client.create(bank.kind, id, document).revision();
    }
    let nothing =
        ["dotted", "empty", "list", "list of lists", "list of objects", "null", "null at the end", "number", "text"];
    for path in ["o.v", "o.0"] {
        assert_eq!(client.search(bank.kind, &format!(r#""equals":[["{path}",1]]"#)), ["deep"], "{path}");
        assert_eq!(client.search(bank.kind, &format!(r#""equals":[["{path}",null]]"#)), nothing, "{path}");
    }
    assert_eq!(client.search(bank.kind, r#""equals":[["o",1]]"#), ["number"], "no list matches by its elements");
    assert_eq!(client.search(bank.kind, r#""equals":[["o",null]]"#), ["dotted", "empty", "null"]);
    assert!(client.search(bank.kind, r#""equals":[["o.0.v",1]]"#).is_empty());
    assert!(client.search(bank.kind, r#""equals":[["o.0.0",1]]"#).is_empty());
    assert_eq!(client.search(bank.kind, r#""equals":[["o.v.more.still",null]]"#).len(), 11);
}

pub fn all_conditions_must_hold(bank: &Bank) {
    let mut client = bank.client();
    for number in 0..60 {
        let document = json!({ "two": number % 2, "in": { "three": number % 3 }, "five": (number % 5).to_string() });
        client.create(bank.kind, &format!("{number:02}"), &document.to_string()).revision();
    }
    let conditions = |rest: &str| format!(r#""equals":[["two",1],["in.three",2]{rest}]"#);
    assert_eq!(client.search(bank.kind, &conditions("")).len(), 10);
    assert_eq!(client.search(bank.kind, &conditions(r#",["five","4"]"#)), ["29", "59"]);
    assert_eq!(client.search(bank.kind, &conditions(r#",["five","4"],["absent",null]"#)), ["29", "59"]);
    assert_eq!(client.search(bank.kind, &conditions(r#",["five","4"],["two",1.0]"#)), ["29", "59"], "one path twice");
    assert!(client.search(bank.kind, &conditions(r#",["two",0]"#)).is_empty(), "one path, two values");
    assert!(client.search(bank.kind, &conditions(r#",["five",4]"#)).is_empty());
}

pub fn search_stays_within_its_type(bank: &Bank) {
    let mut client = bank.client();
    let others = [format!("{}-", bank.kind), format!("{}0", bank.kind), bank.kind[..bank.kind.len() - 1].to_owned()];
    for kind in &others {
        client.create(kind, "other", r#"{"v":1}"#).revision();
    }
    for rest in ["", r#""equals":[["v",1]]"#, r#""sort":[["v","descending"]]"#] {
        assert!(client.search(bank.kind, rest).is_empty(), "{rest}");
    }
    client.create(bank.kind, "own", r#"{"v":1}"#).revision();
    for rest in ["", r#""equals":[["v",1]]"#, r#""sort":[["v","descending"]]"#] {
        assert_eq!(client.search(bank.kind, rest), ["own"], "{rest}");
    }
}

pub fn search_shows_documents_as_read_does(bank: &Bank) {
    let mut client = bank.client();
    for number in 0..20 {
        let document = json!({ "n": number, "text": "\u{1F9ED}".repeat(number), "list": [number, { "half": 0.5 }] });
        client.create(bank.kind, &format!("{number:02}"), &document.to_string()).revision();
    }
    for rest in ["", r#""sort":[["n","descending"]]"#, r#""equals":[["n",7]]"#] {
        for found in client.try_search(bank.kind, rest).expect("found") {
            let read = client.read(bank.kind, &found.id);
            assert_eq!(read.body["revision"], found.revision);
            assert_eq!(read.document(), found.text);
        }
    }
}

pub fn scan_gives_all_by_id(bank: &Bank) {
    let mut client = bank.client();
    assert!(client.search(bank.kind, "").is_empty(), "nothing is there yet");
    let mut ids: Vec<_> = (0..700).map(|number| format!("{}", number * 7_919 % 10_007)).collect();
    for id in &ids {
        client.create(bank.kind, id, "{}").revision();
    }
    ids.sort_unstable();
    assert_eq!(client.search(bank.kind, ""), ids);
}

pub fn skip_and_limit_cut_a_window(bank: &Bank) {
    let mut client = bank.client();
    let all: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
    for id in &all {
        client.create(bank.kind, id, r#"{"v":1}"#).revision();
    }
    for conditions in
        ["", r#""equals":[["v",1]],"#, r#""sort":[["v","ascending"]],"#, r#""sort":[["w","descending"]],"#]
    {
        let mut window =
            |skip: u64, limit: &str| client.search(bank.kind, &format!(r#"{conditions}"skip":{skip},"limit":{limit}"#));
        assert_eq!(window(0, "null"), all);
        assert_eq!(window(0, "5"), all[..5]);
        assert_eq!(window(5, "5"), all[5..10]);
        assert_eq!(window(17, "5"), all[17..]);
        assert_eq!(window(19, "null"), all[19..]);
        assert!(window(20, "null").is_empty());
        assert!(window(0, "0").is_empty(), "at most none");
        assert!(window(3, "0").is_empty());
        // What no store can count to.
        for huge in [1 << 31, 1 << 32, 1 << 63, u64::MAX] {
            assert!(window(huge, "5").is_empty(), "{huge}");
            assert_eq!(window(18, &huge.to_string()), all[18..], "{huge}");
        }
    }
}

pub fn windows_of_a_sorted_search_fit_together(bank: &Bank) {
    let mut client = bank.client();
    // More than a page of any driver, with many ties.
    let mut expected = Vec::new();
    for number in 0_u64..900 {
        let id = format!("{:03}", number * 367 % 900);
        let rank = number % 7;
        client.create(bank.kind, &id, &json!({ "rank": rank, "even": number % 2 == 0 }).to_string()).revision();
        expected.push((rank, id));
    }
    expected.sort_unstable();
    let ids = |expected: &[(u64, String)]| expected.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
    let up = r#""sort":[["rank","ascending"]]"#;
    assert_eq!(client.search(bank.kind, up), ids(&expected));
    for skip in [0, 1, 255, 256, 257, 600, 899] {
        let window = client.search(bank.kind, &format!(r#"{up},"skip":{skip},"limit":300"#));
        assert_eq!(window, ids(&expected[skip..(skip + 300).min(900)]), "from {skip}");
    }
    expected.sort_by(|(rank, id), (other_rank, other_id)| other_rank.cmp(rank).then_with(|| id.cmp(other_id)));
    let down = r#""sort":[["rank","descending"]]"#;
    assert_eq!(client.search(bank.kind, down), ids(&expected));
    for skip in [0, 257, 600] {
        let window = client.search(bank.kind, &format!(r#"{down},"skip":{skip},"limit":300"#));
        assert_eq!(window, ids(&expected[skip..(skip + 300).min(900)]), "down from {skip}");
    }
    let some = client.search(bank.kind, &format!(r#"{down},"equals":[["even",true]],"skip":300,"limit":1000"#));
    assert_eq!(some.len(), 150);
}
