//! The order of modules within a crate, that each is compiled, and where `unsafe` is.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use app_host_tests::build::workspace;

use super::{CRATES, code, host_sources, module, sources};

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
            "restart",
            "renewal",
            "message",
            "status",
            "command",
            "config",
            "tls",
            "secret",
            "refused",
            "not_moved",
            "not_resumed",
            "dispatch",
            "ids",
            "error",
            "foreign",
            "hosts",
            "proxied",
            "words",
        ],
    ),
];

/// The roles of the program never use each other.
const ROLES: [&str; 7] = ["admin", "check", "ctl", "dev", "init", "inspect", "new"];

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
