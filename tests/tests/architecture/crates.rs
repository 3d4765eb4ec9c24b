//! Which crate may use which, and what none of them may bring.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use app_host_tests::build::workspace;

use super::{CRATES, code, sources};

/// What the master's process must never have in its tree: HTTP, databanks, and whatever could load an app.
const NOT_IN_MASTER: [&str; 10] =
    ["hyper", "httparse", "h2", "mongodb", "bson", "rusqlite", "axum", "rustls", "ring", "x509-parser"];

/// All that the core may depend on: data types and their texts, no runtime and no system.
const CORE_DEPENDS_ON: [&str; 8] =
    ["bytes", "humantime", "ipnet", "serde", "serde_json", "serde_path_to_error", "strsim", "thiserror"];

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
