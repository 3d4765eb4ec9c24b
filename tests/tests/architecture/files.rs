//! How long files are, how modules and their tests lie in them, and that each fuzz target is one that runs.

use std::fs;
use std::path::{Path, PathBuf};

use app_host_tests::build::workspace;

use super::{FOR_APPS, TIDY};

/// The most lines that a file may have.
const LINES: usize = 400;

/// Where they are counted: programs, tests, apps and fuzz targets alike.
const SHORT: [&str; 5] = ["app-abi", "example-app", "examples", "host", "tests"];

/// Every Rust file below a directory, but for what Cargo makes.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let of_directories = directories.iter().filter(|path| !path.ends_with("target")).flat_map(|path| rust_files(path));
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    files.into_iter().filter(is_rust).chain(of_directories).collect()
}

#[test]
fn files_are_short_and_modules_and_their_tests_lie_in_one_style() {
    let mut long = Vec::new();
    for directory in SHORT {
        let files = rust_files(&workspace().join(directory));
        assert!(!files.is_empty(), "{directory} has no files");
        for path in files {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > LINES {
                long.push(format!("{}: {lines} lines", path.strip_prefix(workspace()).unwrap().display()));
            }
        }
    }
    assert!(long.is_empty(), "at most {LINES} lines; split these by what changes together: {long:#?}");
    for crate_root in TIDY.into_iter().chain([FOR_APPS]) {
        let mut left = vec![workspace().join(crate_root).join("src")];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                assert!(!path.with_extension("rs").exists(), "{} has its module beside it", path.display());
                left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.ends_with("mod.rs") {
                // A file's tests are its last item; those of a directory are `tests.rs` or `tests/` in it.
                let inline = fs::read_to_string(&path).unwrap().contains("\nmod tests {");
                assert!(!inline, "{} has tests of its own: they belong beside it", path.display());
            }
        }
    }
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
