//! One name for one thing, in the field's language.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use app_host_tests::build::workspace;

use super::{FOR_APPS, TIDY, code, host_sources, sources};

/// What of [`FOR_APPS`] has one name for apps and for the store beneath, which the host shares.
const OF_BOTH_SIDES: [&str; 3] = ["Document", "Documents", "Order"];

/// What each command has under the same name, in a module that no other command uses.
const OF_EACH_COMMAND: [&str; 1] = ["Options"];

/// The name of the type that a line defines for its whole module. An associated type, which is indented, implements what
/// a trait names.
fn defined_type(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub").map_or(line, |rest| match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or(rest, |(_, rest)| rest),
        None => rest,
    });
    let (kind, rest) = rest.trim_start().split_once(' ')?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (["struct", "enum", "trait", "type", "union"].contains(&kind) && !line.starts_with(' ')).then_some(name)
}

#[test]
fn a_type_name_is_defined_once_in_a_crate() {
    for (line, name) in [
        ("struct A;", Some("A")),
        ("pub(super) enum B<T> {", Some("B")),
        ("pub trait C: Send {", Some("C")),
        ("type D = u8;", Some("D")),
        ("    type E = u8;", None),
        ("impl A {", None),
        ("pub fn f() {}", None),
    ] {
        assert_eq!(defined_type(line), name, "{line}");
    }
    for crate_root in TIDY.into_iter().chain([FOR_APPS]) {
        let mut defined: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in sources(&workspace().join(crate_root).join("src")) {
            for name in code(&path).lines().filter_map(defined_type) {
                defined.entry(name.to_owned()).or_default().push(path.clone());
            }
        }
        assert!(defined.len() > 10, "{crate_root}: {defined:?}");
        let twice: &[&str] = if crate_root == FOR_APPS { &OF_BOTH_SIDES } else { &OF_EACH_COMMAND };
        defined.retain(|name, paths| paths.len() > 1 && !twice.contains(&name.as_str()));
        assert!(defined.is_empty(), "one name, one thing: {defined:#?}");
    }
}

/// Words of the first years, when the host spoke a language of its own. The glossary has those that it speaks now.
const RETIRED: [&str; 36] = [
    "audience",
    "bed",
    "beds",
    "berth",
    "berths",
    "crew",
    "crowd",
    "desk",
    "dormitory",
    "ears",
    "farewell",
    "hall",
    "harbour",
    "lane",
    "lanes",
    "lookout",
    "papers",
    "parcel",
    "parcels",
    "pens",
    "quay",
    "retreat",
    "road",
    "roads",
    "scribe",
    "seat",
    "seats",
    "senses",
    "sighting",
    "sleeper",
    "sleepers",
    "sniff",
    "stance",
    "steer",
    "steers",
    "thirsty",
];

#[test]
fn the_host_speaks_the_fields_language() {
    let mut spoken = BTreeSet::new();
    for (_, path) in host_sources() {
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        let words = text.split(|c: char| !c.is_ascii_alphabetic());
        spoken.extend(words.filter(|word| RETIRED.contains(word)).map(|word| format!("{word}: {}", path.display())));
    }
    assert!(spoken.is_empty(), "{spoken:#?}");
}
