//! The schema says what the reader does: the same keys, defaults and bounds, and the same answer to every value.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::{Config, SCHEMA};

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("it is JSON")
}

fn read(config: &Value) -> Result<Config, String> {
    Config::parse(config.to_string().as_bytes(), Path::new("/etc/app/host.json")).map_err(|error| error.to_string())
}

/// A step from a value into it: a key, or the first item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Item,
}

/// A key of the schema: the way to it, and what the schema says of it.
struct Key {
    way: Vec<Step>,
    says: Value,
}

impl Key {
    fn name(&self) -> String {
        let parts = self.way.iter().map(|step| match step {
            Step::Key(key) => format!(".{key}"),
            Step::Item => "[0]".to_owned(),
        });
        parts.collect::<String>().trim_start_matches('.').to_owned()
    }
}

/// The forms of a value.
fn forms(says: &Value) -> Vec<&Value> {
    let several = says["anyOf"].as_array().into_iter().flatten();
    std::iter::once(says).chain(several).collect()
}

/// Every key, each object before what is in it.
fn keys(says: &Value, way: &[Step], found: &mut Vec<Key>) {
    for form in forms(says) {
        for (key, says) in form["properties"].as_object().into_iter().flatten() {
            let way = [way, &[Step::Key(key.clone())]].concat();
            found.push(Key { way: way.clone(), says: says.clone() });
            keys(says, &way, found);
        }
        if form["items"].is_object() {
            keys(&form["items"], &[way, &[Step::Item]].concat(), found);
        }
    }
}

fn all_keys() -> Vec<Key> {
    let mut found = Vec::new();
    keys(&schema(), &[], &mut found);
    assert!(found.len() > 70, "{}", found.len());
    found
}

/// What the object at this place in a listener's `tls` can't be without.
fn needs_of_tls(way: &[Step]) -> Map<String, Value> {
    let certificate = json!({ "certificate": "c", "key": "k" });
    let needs = match way {
        [] => json!({ "certificates": [certificate] }),
        [Step::Key(key), ..] if key == "certificates" => certificate,
        [Step::Key(key), ..] if key == "hsts" => json!({ "max_age": "365d", "include_subdomains": true }),
        _ => json!({ "authorities": "a" }),
    };
    needs.as_object().expect("it is an object").clone()
}

/// A configuration with this value there, and what that needs beside it.
fn with(way: &[Step], value: Value) -> Value {
    let mut config = json!({ "app": { "library": "a" } });
    let mongodb = ["uri", "database", "indexes"].map(|key| Step::Key(key.to_owned()));
    if way.first() == Some(&Step::Key("databank".to_owned())) && way.get(1).is_some_and(|key| mongodb.contains(key)) {
        config["databank"] = json!({ "driver": "mongodb", "uri": "mongodb://h" });
    }
    let mut at = &mut config;
    for (depth, step) in way.iter().enumerate() {
        at = match step {
            Step::Key(key) => {
                // What an entry of these lists can't be without.
                let needs: Map<String, Value> = match way[..depth].first() {
                    Some(Step::Key(list)) if depth > 1 && list == "app_listeners" => {
                        [("name".to_owned(), json!("n")), ("address".to_owned(), json!("unix:n"))].into_iter().collect()
                    }
                    Some(Step::Key(list)) if depth > 2 && list == "listen" => needs_of_tls(&way[3..depth]),
                    Some(Step::Key(list)) if (depth > 1 && list == "listen") || list == "admin" => {
                        let address = if key == "freebind" { "127.0.0.1:1" } else { "unix:n" };
                        [("address".to_owned(), json!(address))].into_iter().collect()
                    }
                    Some(Step::Key(list)) if depth > 2 && list == "databank" => {
                        [("type".to_owned(), json!("t")), ("paths".to_owned(), json!(["p"]))].into_iter().collect()
                    }
                    _ => Map::new(),
                };
                if !at.is_object() {
                    *at = Value::Object(needs);
                }
                if key == "freebind" && at["address"] == "unix:n" {
                    at["address"] = json!("127.0.0.1:1");
                }
                if key == "proxy_protocol" || key == "forwarded" {
                    at["trusted_peers"] = json!(["unix"]);
                }
                at.as_object_mut().expect("it is an object").entry(key.clone()).or_insert(Value::Null)
            }
            Step::Item => {
                if !at.is_array() {
                    *at = json!([null]);
                }
                &mut at[0]
            }
        };
    }
    *at = value;
    config
}

/// The keys that the reader names when it is given one that it doesn't know there.
fn known_to_the_reader(way: &[Step]) -> BTreeSet<String> {
    let way = [way, &[Step::Key("no such key".to_owned())]].concat();
    let error = read(&with(&way, json!(1))).expect_err("there is no such key");
    let (_, names) = error.split_once("expected ").unwrap_or_else(|| panic!("{way:?}: {error}"));
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn schema_and_reader_have_the_same_keys_everywhere() {
    let mut objects = vec![(Vec::new(), schema())];
    let keys = all_keys();
    objects.extend(keys.iter().flat_map(|key| {
        let items = forms(&key.says).into_iter().filter(|form| form["items"].is_object()).map(|form| {
            let items = form["items"].clone();
            ([&key.way[..], &[Step::Item]].concat(), items)
        });
        items.chain([(key.way.clone(), key.says.clone())]).collect::<Vec<_>>()
    }));
    let mut compared = 0;
    for (way, says) in objects {
        for form in forms(&says) {
            let Some(properties) = form["properties"].as_object() else { continue };
            // The reader of a secret doesn't say which keys it has: nothing of what is there may be shown.
            if way.last() == Some(&Step::Key("uri".to_owned())) {
                continue;
            }
            assert_eq!(form["additionalProperties"], false, "{way:?}");
            let known: BTreeSet<String> = properties.keys().cloned().collect();
            assert_eq!(known_to_the_reader(&way), known, "{way:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 21, "all objects of the configuration");
}

#[test]
fn every_default_that_the_schema_names_is_the_readers() {
    let mut held = 0;
    for key in all_keys() {
        let Some(default) = key.says.get("default") else { continue };
        let name = key.name();
        let mut without = with(&key.way, default.clone());
        let with = read(&without).unwrap_or_else(|error| panic!("{name}: {error}"));
        let pointer = format!("/{}", name.replace("[0]", "/0").replace('.', "/"));
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        without.pointer_mut(parent).and_then(Value::as_object_mut).expect("it is an object").remove(last);
        let without = read(&without).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(format!("{with:?}"), format!("{without:?}"), "{name}");
        held += 1;
    }
    assert!(held > 35, "{held}");
}

#[test]
fn every_bound_that_the_schema_names_is_the_readers() {
    let mut held = 0;
    for key in all_keys() {
        let name = key.name();
        let is_read = |value: Value| read(&with(&key.way, value)).map(drop);
        let mut bound = |inside: Value, outside: Option<Value>| {
            is_read(inside.clone()).unwrap_or_else(|error| panic!("{name} {inside}: {error}"));
            if let Some(outside) = outside {
                assert!(is_read(outside.clone()).is_err(), "{name}: {outside} is read");
            }
            held += 1;
        };
        for form in forms(&key.says) {
            if let Some(least) = form["minimum"].as_i64() {
                bound(json!(least), Some(json!(least - 1)));
            }
            if let Some(most) = form["maximum"].as_u64() {
                bound(json!(most), Some(json!(most + 1)));
            }
            if let Some(most) = form["maxLength"].as_u64().and_then(|most| usize::try_from(most).ok()) {
                bound(json!("x".repeat(most)), Some(json!("x".repeat(most + 1))));
            }
            for one in form["enum"].as_array().into_iter().flatten().filter(|one| *one != "mongodb") {
                bound(one.clone(), None);
            }
        }
        if key.says["x-most"] == "24h" {
            let least = key.says["x-least"].as_str().unwrap_or("0s");
            let below = match least {
                "0s" => None,
                "1ns" => Some(json!("0s")),
                "1s" => Some(json!("999ms")),
                other => panic!("{name}: {other}"),
            };
            bound(json!(least), below);
            bound(json!("24h"), Some(json!("86401s")));
        }
    }
    assert!(held > 40, "{held}");
}

/// What is refused for what a schema can't say, in words of the reader's.
const BEYOND_A_SCHEMA: [&str; 13] = [
    // Bounds of what is written as a text.
    "expected a duration of at most a day",
    "a duration longer than zero",
    "a duration in whole seconds",
    "a duration from a second",
    "or a text such as \"512MiB\"",
    "is neither \"IP:PORT\"",
    "is no peer",
    // What depends on another key.
    "is for the driver",
    "is for Unix sockets",
    "needs a \"uri\"",
    "is there twice",
    // A file's name may be anything but this.
    "without space and",
    "expected octal digits",
];

#[test]
fn schema_and_reader_agree_about_every_kind_of_value_at_every_key() {
    let validator = jsonschema::validator_for(&schema()).expect("the schema is one");
    let values: Vec<Value> = serde_json::from_str(
        r#"[
        null, true, false, 0, 1, 2, -1, 63, 64, 65, 1.5, 512, 513, 1023, 1024, 65535, 65536, 4294967294, 4294967295,
        1048575, 1048576, "", " ", "x", "0", "7", "80", ":80", "65536", "127.0.0.1:80", "[::1]:80", "localhost:80", "*:80",
        "unix:s", "unix:", "smtp", "all", "auto", "unlimited", "unix", "10.0.0.1", "10.0.0.0/8", "fd00::/8", "10.0.0.0/33",
        "0s", "1ms", "250ms", "30s", "2m", "1h 30min", "3 days", "soon", "1", "512MiB", "1 GiB", "512MB", "600", "660", "666",
        "0640", "1777", "888", "a:b", "A=B", "sqlite", "memory", "postgres", "lock", "rollback", "text", "bunyan", "info",
        "goaway", "move", "fatal", "a.b",  [], [0], [0, 0], [1, 2], [1024], ["x"], ["A", "B"], ["A=B"], [80], ["127.0.0.1:80"], ["x", "x"],
        [null], [[]], {}, { "file": "f" }, { "file": "" }, { "file": 7 }, { "file": "f", "x": 1 }, { "x": 1 },
        { "address": "127.0.0.1:80" }, { "address": 80 }, { "name": "n", "address": "unix:s" }, { "path": "p" },
        { "library": true }, { "library": "l" }, { "inherit": [] }, { "inherit": {} }, [{ "type": "t", "paths": ["p"] }],
        [{ "type": "t", "paths": [] }], [{ "name": "n", "address": "unix:s" }], [{ "address": "unix:s" }]
    ]"#,
    )
    .expect("a list");
    let values = [values, vec![json!("x".repeat(300))]].concat();
    let (mut accepted, mut refused, mut beyond, mut disagreed) = (0, 0, 0, Vec::new());
    for key in all_keys() {
        for value in &values {
            let config = with(&key.way, value.clone());
            let (name, is_valid) = (key.name(), validator.is_valid(&config));
            match read(&config) {
                Ok(_) if is_valid => accepted += 1,
                Ok(_) => disagreed.push(format!("{name}: {value} is read, and an editor would underline it")),
                Err(_) if !is_valid => refused += 1,
                Err(error) if BEYOND_A_SCHEMA.iter().any(|words| error.contains(words)) => beyond += 1,
                Err(error) => {
                    disagreed.push(format!("{name}: {value} is refused, and no editor would say so: {error}"));
                }
            }
        }
    }
    assert!(disagreed.is_empty(), "{}", disagreed.join("\n"));
    assert!(accepted > 700 && refused > 5_000 && beyond < refused / 20, "{accepted} {refused} {beyond}");
}

#[test]
fn what_the_schema_says_only_a_start_can_change_is_what_a_restart_refuses() {
    let mut fixed = BTreeSet::new();
    let running = read(&json!({ "app": { "library": "a" } })).unwrap();
    for key in all_keys() {
        let Some(changes) = key.says["x-changes"].as_str() else { continue };
        let name = key.name();
        let value = match name.as_str() {
            "state_dir" | "pid_file" | "control_socket" | "user" | "group" => json!("other"),
            "groups" => json!([]),
            _ => {
                assert!(changes == "restart" || name.starts_with("databank."), "{name}: {changes}");
                continue;
            }
        };
        let config = read(&with(&key.way, value)).unwrap();
        assert_eq!((config.fixed_difference(&running), changes), (Some(name.as_str()), "start"));
        fixed.insert(name);
    }
    assert_eq!(fixed.len(), 6, "{fixed:?}");
}

#[test]
fn an_editors_key_is_ignored_whatever_it_says() {
    for place in ["./app-host.schema.json", "https://example.org/s", ""] {
        let config = read(&json!({ "$schema": place, "app": { "library": "a" } })).unwrap();
        assert_eq!(config.workers, 2);
    }
    let error = read(&json!({ "$schema": 1, "app": { "library": "a" } })).unwrap_err();
    assert!(error.contains("$schema: invalid type: integer `1`, expected a string"), "{error}");
}
