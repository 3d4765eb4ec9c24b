//! What Cargo can't say of the architecture: which crate may use which, the order of modules within each, and where
//! `unsafe` is. Read from the sources and manifests, because nothing else would notice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use app_host_tests::build::workspace;

/// The host's crates: where each lies, and which of the others it may use. The arrow that must not exist is the one
/// between master and worker.
const CRATES: [(&str, &str, &[&str]); 7] = [
    ("app-host-core", "host/core", &[]),
    ("app-host-platform", "host/platform", &["core"]),
    ("app-host-services", "host/services", &["core", "platform"]),
    ("app-host-tls", "host/tls", &["core"]),
    ("app-host-worker", "host/worker", &["core", "platform", "services", "tls"]),
    ("app-host-master", "host/master", &["core", "platform"]),
    ("app-host", "host", &["core", "master", "platform", "services", "worker"]),
];

/// What the master's process must never have in its tree: HTTP, databanks, and whatever could load an app.
const NOT_IN_MASTER: [&str; 10] =
    ["hyper", "httparse", "h2", "mongodb", "bson", "rusqlite", "axum", "rustls", "ring", "x509-parser"];

/// All that the core may depend on: data types and their texts, no runtime and no system.
const CORE_DEPENDS_ON: [&str; 8] =
    ["bytes", "humantime", "ipnet", "serde", "serde_json", "serde_path_to_error", "strsim", "thiserror"];

/// The order of modules within a crate: a module uses those behind it only. A crate's root (`lib`, and what lies beside it
/// in the master and the worker) comes first.
const ORDERS: [(&str, &[&str]); 3] = [
    (
        "host/platform",
        &[
            "state_dir",
            "artifact",
            "children",
            "metrics",
            "console",
            "output",
            "socket_file",
            "identity",
            "logging",
            "channel",
            "usage",
            "disk_thread",
            "held",
            "paths",
            "timer",
            "sys",
        ],
    ),
    ("host/services", &["probe", "databank_check", "loader", "databank", "dispatch"]),
    (
        "host/core",
        &[
            "restart", "message", "status", "command", "config", "tls", "secret", "dispatch", "ids", "error",
            "foreign", "hosts", "words",
        ],
    ),
];

/// The crates whose names and files are held to order: one name for one thing, short files, one style of modules.
const TIDY: [&str; 7] =
    ["host", "host/core", "host/master", "host/platform", "host/services", "host/tls", "host/worker"];

/// What each command has under the same name, in a module that no other command uses.
const OF_EACH_COMMAND: [&str; 1] = ["Options"];

/// The roles of the program never use each other.
const ROLES: [&str; 7] = ["admin", "check", "ctl", "dev", "init", "inspect", "new"];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap_or_default();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code without its comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    // Where they are in the file; a `mod tests;` at its top ends nothing.
    let tests =
        ["mod tests {", "pub mod tests {", "pub(super) mod tests {"].map(|begin| format!("#[cfg(test)]\n{begin}"));
    let end = tests.iter().filter_map(|begin| text.find(begin)).min().unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The module that a file of a crate belongs to.
fn module(crate_root: &Path, path: &Path) -> String {
    let inner = path.strip_prefix(crate_root.join("src")).unwrap();
    let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// All sources of the host, with the crate that each belongs to.
fn host_sources() -> Vec<(PathBuf, PathBuf)> {
    CRATES
        .iter()
        .map(|(_, place, _)| workspace().join(place))
        .flat_map(|root| sources(&root.join("src")).into_iter().map(move |path| (root.clone(), path)))
        .collect()
}

/// Every module that the code names by `crate::`, also within braces.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut begins = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && begins && (c.is_alphabetic() || c == '_') {
                    used.insert(word(&group[at..]));
                    begins = false;
                }
                begins |= depth == 1 && c == ',';
            }
        } else {
            used.insert(word(rest));
        }
    }
    used
}

#[test]
fn crates_use_each_other_one_way() {
    for (name, place, may) in CRATES {
        let manifest = fs::read_to_string(workspace().join(place).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{place} is {name}");
        let used: BTreeSet<&str> = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("app-host-"))
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .collect();
        assert_eq!(used, may.iter().copied().collect(), "{name}");
        // `dev` tells the host's lines from the app's by it.
        let news = fs::read_to_string(workspace().join("host/src/dev/news.rs")).unwrap();
        assert!(news.contains(&format!("\"{}\"", name.replace('-', "_"))), "dev takes {name} for the app");
    }
}

/// The names of all packages that a crate's normal build takes.
fn tree(package: &str) -> BTreeSet<String> {
    let asked = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "-p",
            package,
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let text = String::from_utf8(asked.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn master_is_built_without_http_databanks_and_a_loader() {
    let tree = tree("app-host-master");
    assert!(tree.contains("tokio") && tree.contains("app-host-platform"), "{tree:?}");
    for banned in NOT_IN_MASTER {
        assert!(!tree.contains(banned), "the master's tree has {banned}");
    }
    // `abi_stable` brings a libloading of its own. It is there because `app_abi` compares its version with the one that
    // a library was built against; none of the master's crates can call either.
    for place in ["host/core", "host/platform", "host/master"] {
        let manifest = fs::read_to_string(workspace().join(place).join("Cargo.toml")).unwrap();
        for banned in ["libloading", "abi_stable", "async-ffi", "http"] {
            assert!(!manifest.contains(&format!("\n{banned}.")), "{place} has {banned}");
        }
    }
}

#[test]
fn core_depends_on_data_types_only() {
    let manifest = fs::read_to_string(workspace().join("host/core/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let found: Vec<&str> = dependencies.lines().filter_map(|line| line.split(['.', ' ']).next()).collect();
    assert_eq!(found.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>(), CORE_DEPENDS_ON);
    for path in sources(&workspace().join("host/core/src")) {
        let code = code(&path);
        for banned in
            ["std::fs", "std::process", "std::thread", "std::env", "std::net::Tcp", "Instant", "SystemTime::now"]
        {
            assert!(!code.contains(banned), "{} knows {banned}", path.display());
        }
    }
}

#[test]
fn modules_of_a_crate_use_those_behind_them_only() {
    let mut wrong = Vec::new();
    for (crate_root, order) in ORDERS {
        let root = workspace().join(crate_root);
        let rank = |module: &str| {
            let found = order.iter().position(|name| *name == module);
            found.unwrap_or_else(|| panic!("module {module} of {crate_root} has no place: give it one in ORDERS"))
        };
        for path in sources(&root.join("src")) {
            let user = module(&root, &path);
            if user == "lib" {
                continue;
            }
            for used in used_modules(&code(&path)) {
                if !used.is_empty() && used != user && rank(&used) < rank(&user) {
                    wrong.push(format!("{} uses {used}", path.display()));
                }
            }
        }
    }
    let root = workspace().join("host");
    for path in sources(&root.join("src")) {
        let user = module(&root, &path);
        for used in used_modules(&code(&path)) {
            if ROLES.contains(&user.as_str()) && ROLES.contains(&used.as_str()) && used != user {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

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
    for crate_root in TIDY {
        let mut defined: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in sources(&workspace().join(crate_root).join("src")) {
            for name in code(&path).lines().filter_map(defined_type) {
                defined.entry(name.to_owned()).or_default().push(path.clone());
            }
        }
        assert!(defined.len() > 10, "{crate_root}: {defined:?}");
        defined.retain(|name, paths| paths.len() > 1 && !OF_EACH_COMMAND.contains(&name.as_str()));
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

#[test]
fn every_file_is_a_module_that_is_compiled() {
    let mut left: Vec<PathBuf> = CRATES.iter().map(|(_, place, _)| workspace().join(place).join("src")).collect();
    while let Some(directory) = left.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                left.push(path.clone());
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if !(is_source || path.join("mod.rs").exists()) || ["lib", "main", "mod"].contains(&name) {
                continue;
            }
            let parents = ["mod.rs", "lib.rs", "main.rs"].map(|parent| path.parent().unwrap().join(parent));
            let text = parents.iter().find_map(|parent| fs::read_to_string(parent).ok()).unwrap_or_default();
            assert!(text.contains(&format!("mod {name};")), "{} belongs to no module", path.display());
        }
    }
}

#[test]
fn files_are_short_and_modules_and_their_tests_lie_in_one_style() {
    for crate_root in TIDY {
        let mut left = vec![workspace().join(crate_root).join("src")];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                assert!(!path.with_extension("rs").exists(), "{} has its module beside it", path.display());
                left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().count();
                assert!(lines <= 400, "{} has {lines} lines: split it by what changes together", path.display());
                // A file's tests are its last item; those of a directory are `tests.rs` or `tests/` in it.
                let inline = path.ends_with("mod.rs") && text.contains("\nmod tests {");
                assert!(!inline, "{} has tests of its own: they belong beside it", path.display());
            }
        }
    }
}

#[test]
fn unsafe_code_is_only_where_it_belongs() {
    let mut found = BTreeSet::new();
    for (root, path) in host_sources() {
        let code = code(&path);
        for word in ["unsafe {", "unsafe fn", "unsafe impl", "expect(unsafe_code", "allow(unsafe_code"] {
            if code.contains(word) {
                let place = root.strip_prefix(workspace()).unwrap().join(module(&root, &path));
                found.insert(place.to_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["host/platform/sys", "host/services/loader"]);
    assert!(fs::read_to_string(workspace().join("Cargo.toml")).unwrap().contains("unsafe_code = \"deny\""));
}

#[test]
fn contract_knows_neither_host_nor_runtime() {
    let manifest = fs::read_to_string(workspace().join("app-abi/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    // What a feature brings is the app's choice.
    let always: Vec<&str> = dependencies.lines().filter(|line| !line.contains("optional = true")).collect();
    let dependencies = always.join("\n");
    for banned in ["tokio", "hyper", "app-host", "nix", "tracing"] {
        assert!(!dependencies.contains(banned), "app-abi depends on {banned}");
    }
}

#[test]
fn app_needs_no_dependency_but_the_contract() {
    let manifest = fs::read_to_string(workspace().join("example-app/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names: Vec<&str> = dependencies.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(names, ["app-abi.workspace = true"]);
}

/// The page, one entry for each sentence that begins an item of a list.
fn sentences(page: &str) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    let mut within = false;
    for line in page.lines() {
        if line.starts_with("- ") {
            sentences.push(String::new());
            within = true;
        }
        within &= !line.is_empty() && !line.starts_with('#');
        if within && let Some(sentence) = sentences.last_mut() {
            sentence.push_str(line.trim());
            sentence.push(' ');
        }
    }
    sentences
}

/// Checks that behind each item of a page's lists a test is named that exists.
fn assert_held_by_tests(page: &str, least: usize) {
    let page = fs::read_to_string(workspace().join(page)).unwrap();
    let mut sources = String::new();
    let mut left = vec![workspace().join("host"), workspace().join("tests/tests")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let sentences = sentences(&page);
    assert!(sentences.len() > least, "{}", sentences.len());
    for sentence in sentences {
        let named: Vec<&str> = sentence.split('`').filter(|word| word.contains("::")).collect();
        let refers = sentence.trim_end().ends_with("as above;");
        assert!(refers || !named.is_empty(), "no test holds this: {sentence}");
        for name in named {
            let function = name.rsplit("::").next().unwrap_or_default();
            assert!(sources.contains(&format!("fn {function}(")), "no such test: {name}");
        }
    }
}

#[test]
fn every_test_that_the_page_on_systemd_names_exists() {
    let page = |name: &str| fs::read_to_string(workspace().join("docs/operate").join(name)).unwrap();
    let (systemd, rotation) = (page("../design/invariants.md"), page("rotate-logs.md"));
    let (_, systemd) = systemd.split_once("\n## Under systemd\n").expect("the section");
    assert!(page("systemd.md").contains("(../design/invariants.md#under-systemd)"));
    let directory = workspace().join("tests/systemd");
    let mut found = BTreeSet::new();
    for path in sources(&directory) {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let tests = text.split("#[test]\nfn ").skip(1).map(|rest| rest.split('(').next().unwrap_or_default());
        found.extend(tests.map(|test| format!("{file}::{test}")));
    }
    assert!(found.len() > 20, "{found:?}");
    let policy = fs::read_to_string(workspace().join("host/master/src/systemd/deadlines.rs")).unwrap();
    let named: BTreeSet<&str> = systemd.split('`').filter(|word| word.contains("::") && !word.contains(' ')).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in &named {
        let in_policy = name.strip_prefix("deadlines::").is_some_and(|test| policy.contains(&format!("fn {test}(")));
        assert!(in_policy || found.contains(*name), "no such test: {name}");
    }
    // The other page names the file.
    assert!(rotation.contains("`tests/systemd/rotation.rs`"));
}

#[test]
fn every_sentence_about_trust_names_a_test_that_exists() {
    assert_held_by_tests("docs/operate/trust.md", 8);
    assert_held_by_tests("docs/operate/trust-of-workers.md", 15);
}

#[test]
fn every_item_about_load_balancers_names_a_test_that_exists() {
    assert_held_by_tests("docs/operate/load-balancer.md", 4);
}

#[test]
fn every_item_about_containers_names_a_test_that_exists() {
    assert_held_by_tests("docs/operate/container.md", 15);
}

#[test]
fn every_fuzz_target_is_built_and_run() {
    let directory = workspace().join("tests/fuzz");
    let manifest = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
    let mut targets = 0;
    for entry in fs::read_dir(directory.join("fuzz_targets")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}\"")), "{name} isn't built");
        targets += 1;
    }
    assert!(targets >= 10, "{targets}");
    let run = fs::read_to_string(workspace().join(".ci/run")).unwrap();
    assert!(run.contains(".ci/fuzz "), "CI runs them");
}
