//! What Cargo can't say of the architecture: which crate may use which, the order of modules within each, and where
//! `unsafe` is. Read from the sources and manifests, because nothing else would notice.

mod crates;
mod files;
mod modules;
mod names;
mod pages;

use std::fs;
use std::path::{Path, PathBuf};

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

/// The crates whose names and modules are held to order: one name for one thing, one style of modules.
const TIDY: [&str; 7] =
    ["host", "host/core", "host/master", "host/platform", "host/services", "host/tls", "host/worker"];

/// The app's crate, whose names and modules are held to the same.
const FOR_APPS: &str = "app-abi";

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
