//! Inside host, dependencies point one way, and `unsafe` lives where it belongs: read from the
//! sources, because nothing else would notice.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use app_host_tests::build::workspace;

/// Who may use whom: a room uses rooms of later lines, and those behind it in its own line. Roles
/// never use each other.
const LAYERS: [(&str, &[&str]); 5] = [
    ("entry", &["main", "cli"]),
    (
        "roles",
        &["admin", "check", "ctl", "databank_check", "dev", "init", "inspect", "master", "new", "probe", "worker"],
    ),
    (
        "rooms",
        &[
            "preflight",
            "state_dir",
            "watcher",
            "artifact",
            "children",
            "metrics",
            "control",
            "http",
            "access",
            "listeners",
            "socket_file",
            "identity",
            "ledger",
            "locks",
            "output",
            "handover",
            "console",
            "logging",
            "notify",
            "channel",
            "desk",
            "held",
            "paths",
        ],
    ),
    ("depths", &["loader", "databank", "dispatch", "sys"]),
    ("pure", &["restart", "message", "command", "config", "ids", "causes", "foreign", "hosts"]),
];

/// What the pure rooms may use besides each other.
const PURE_CRATES: [&str; 8] =
    ["std", "serde", "serde_json", "serde_path_to_error", "thiserror", "humantime", "ipnet", "super"];

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
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The room that a file of `host/src` belongs to.
fn room(path: &Path) -> String {
    let inner = path.strip_prefix(workspace().join("host/src")).unwrap();
    let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Every room that the code names by `crate::`, also within braces.
fn used_rooms(code: &str) -> BTreeSet<String> {
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

fn place(room: &str) -> (usize, usize) {
    LAYERS
        .iter()
        .enumerate()
        .find_map(|(layer, (_, rooms))| Some((layer, rooms.iter().position(|name| *name == room)?)))
        .unwrap_or_else(|| panic!("room {room} has no place in the architecture: give it one in LAYERS and in main.rs"))
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for path in sources(&workspace().join("host/src")) {
        let user = room(&path);
        let (layer, rank) = place(&user);
        for used in used_rooms(&code(&path)) {
            if used == user || used.is_empty() {
                continue;
            }
            let (used_layer, used_rank) = place(&used);
            let allowed = used_layer > layer || (used_layer == layer && used_rank > rank && LAYERS[layer].0 != "roles");
            if !allowed {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_rooms_know_no_runtime_no_system_and_no_clock() {
    let pure = LAYERS[4].1;
    for path in sources(&workspace().join("host/src")).into_iter().filter(|path| pure.contains(&room(path).as_str())) {
        let code = code(&path);
        for line in code.lines().filter_map(|line| line.trim().trim_start_matches("pub ").strip_prefix("use ")) {
            let root = line.split([':', ';', ' ']).next().unwrap_or_default();
            let own =
                root == "crate" || code.contains(&format!("mod {root};")) || code.contains(&format!("mod {root} {{"));
            assert!(own || PURE_CRATES.contains(&root), "{}: {line}", path.display());
        }
        for banned in
            ["std::fs", "std::process", "std::thread", "Instant::now", "SystemTime", "tokio::", "nix::", "tracing::"]
        {
            assert!(!code.contains(banned), "{} knows {banned}", path.display());
        }
    }
}

#[test]
fn unsafe_code_is_only_where_it_belongs() {
    for path in sources(&workspace().join("host/src")) {
        let room = room(&path);
        let code = code(&path);
        if room != "sys" && room != "loader" {
            for banned in ["unsafe {", "unsafe fn", "unsafe impl", "expect(unsafe_code", "allow(unsafe_code"] {
                assert!(!code.contains(banned), "{} has {banned}", path.display());
            }
        }
    }
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
    let mut left = vec![workspace().join("host/src"), workspace().join("tests/tests")];
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
    let page = |name: &str| fs::read_to_string(workspace().join("docs").join(name)).unwrap();
    let (systemd, rotation) = (page("under-systemd.md"), page("rotate-logs.md"));
    assert!(systemd.len() <= 8192 && rotation.len() <= 8192, "a page has at most 8 kB");
    let directory = workspace().join("tests/systemd");
    let mut found = BTreeSet::new();
    for path in sources(&directory) {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let tests = text.split("#[test]\nfn ").skip(1).map(|rest| rest.split('(').next().unwrap_or_default());
        found.extend(tests.map(|test| format!("{file}::{test}")));
    }
    assert!(found.len() > 20, "{found:?}");
    let policy = fs::read_to_string(workspace().join("host/src/notify/patience.rs")).unwrap();
    let named: BTreeSet<&str> = systemd.split('`').filter(|word| word.contains("::") && !word.contains(' ')).collect();
    for name in &named {
        let in_policy = name.strip_prefix("patience::").is_some_and(|test| policy.contains(&format!("fn {test}(")));
        assert!(in_policy || found.contains(*name), "no such test: {name}");
    }
    // The other page names the file.
    assert!(rotation.contains("`tests/systemd/rotation.rs`"));
}

#[test]
fn every_sentence_about_trust_names_a_test_that_exists() {
    assert_held_by_tests("docs/trust.md", 20);
}

#[test]
fn every_item_about_load_balancers_names_a_test_that_exists() {
    assert_held_by_tests("docs/behind-a-load-balancer.md", 4);
}

#[test]
fn every_item_about_containers_names_a_test_that_exists() {
    assert_held_by_tests("docs/in-a-container.md", 15);
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
