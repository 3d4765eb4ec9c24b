//! Every key of the configuration, and every configuration that the book shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use app_host_core::config::{Config, SCHEMA};
use app_host_tests::build::workspace;
use serde_json::Value;

use super::hold;

/// What a value may be, in words.
fn values(says: &Value) -> String {
    let number = |key: &str| says[key].as_u64();
    let mut forms = Vec::new();
    if let Some(several) = says["anyOf"].as_array().or(says["allOf"].as_array()) {
        forms.extend(several.iter().map(values));
    } else if let Some(words) = says["enum"].as_array() {
        forms.extend(words.iter().map(|word| format!("`{word}`")));
    } else if !says["const"].is_null() {
        forms.push(format!("`{}`", says["const"]));
    } else if let Some(name) = says["$ref"].as_str() {
        forms.push(match name.rsplit('/').next().unwrap_or_default() {
            "duration" => "a duration".to_owned(),
            "account" => "a name or a number".to_owned(),
            "bytes" => "`\"512MiB\"`".to_owned(),
            "variables" => "a list of names".to_owned(),
            other => panic!("{other} has no words"),
        });
    } else {
        let kinds: Vec<&str> = match &says["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        forms.extend(kinds.into_iter().map(|kind| match (kind, number("minimum"), number("maximum")) {
            ("integer", Some(least), Some(most)) => format!("{least} to {most}"),
            ("integer", Some(least), None) => format!("a number from {least}"),
            ("boolean", ..) => "`true` or `false`".to_owned(),
            ("string", ..) => "a text".to_owned(),
            ("array", ..) => "a list".to_owned(),
            ("object", ..) => "an object".to_owned(),
            ("null", ..) => "`null`".to_owned(),
            (other, ..) => panic!("{other} has no words"),
        }));
    }
    // Nothing is the last that one thinks of.
    forms.sort_by_key(|form| form == "`null`");
    let mut seen = BTreeSet::new();
    forms.retain(|form| seen.insert(form.clone()));
    match says["x-least"].as_str() {
        Some(least) if least != "1ns" => format!("{} (from `\"{least}\"`)", forms.join(", ")),
        _ if forms.is_empty() => "anything".to_owned(),
        _ => forms.join(", "),
    }
}

/// A row for each key that is below this one.
fn keys(prefix: &str, says: &Value, changes: &str, table: &mut String) {
    let several = says["anyOf"].as_array().into_iter().flatten();
    for form in std::iter::once(says).chain(several) {
        for (key, says) in form["properties"].as_object().into_iter().flatten() {
            let name = format!("{prefix}.{key}");
            row(&name, says, says["x-changes"].as_str().unwrap_or(changes), table);
        }
        if form["items"].is_object() {
            keys(&format!("{prefix}[]"), &form["items"], changes, table);
        }
    }
}

fn row(name: &str, says: &Value, changes: &str, table: &mut String) {
    let default = match (&says["default"], says["x-default"].as_str()) {
        (_, Some(text)) => text.to_owned(),
        (Value::Null, None) if says.get("default").is_none() => String::new(),
        (default, None) => format!("`{default}`"),
    };
    let changes = says["x-changes"].as_str().unwrap_or(changes);
    let meaning = says["description"].as_str().expect("each key has a description");
    let is_section = says["properties"].is_object();
    if !is_section {
        let _ = writeln!(table, "| `{name}` | {} | {default} | {changes} | {meaning} |", values(says));
    }
    keys(name, says, changes, table);
}

#[test]
fn every_key_of_the_configuration_stands_on_a_page_with_its_values_and_default() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let make = |names: &[&str]| {
        let mut table = "| key | values | default | brought in by | meaning |\n|---|---|---|---|---|\n".to_owned();
        for name in names {
            let says = &schema["properties"][name];
            assert!(says.is_object(), "there is no key {name}");
            row(name, says, "", &mut table);
        }
        table
    };
    let mut shown = Vec::new();
    for page in ["", "-listeners", "-http", "-sockets", "-workers", "-databank", "-restart", "-logs"] {
        shown.extend(hold(&format!("reference/configuration{page}.md"), "schema.json", make));
    }
    let there: BTreeMap<_, _> = schema["properties"].as_object().unwrap().iter().collect();
    let count = shown.len();
    let shown: BTreeSet<_> = shown.iter().collect();
    assert_eq!(shown.len(), count, "a key is shown twice");
    assert_eq!(shown, there.keys().copied().collect(), "shown (left), there (right)");
    assert!(make(&["restart"]).lines().count() > 8);
}

#[test]
fn every_configuration_that_the_book_shows_is_read() {
    let mut looked = 0;
    let mut left = vec![workspace().join("docs"), workspace().join("README.md")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let page = fs::read_to_string(&path).unwrap();
        for shown in page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let mut config: Value =
                serde_json::from_str(shown).unwrap_or_else(|error| panic!("{}: {error}\n{shown}", path.display()));
            if config["app"]["library"].is_null() {
                config["app"]["library"] = "libshop.so".into();
            }
            let read = Config::parse(config.to_string().as_bytes(), Path::new("/etc/shop/app-host.json"));
            assert!(read.is_ok(), "{}: {}\n{shown}", path.display(), read.unwrap_err());
            looked += 1;
        }
    }
    assert!(looked > 8, "{looked}");
}
