//! Libraries built against another `app-abi`: a real second copy of the crate, changed and compiled.
//!
//! Each must be refused with what differs, and never run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use app_host_tests::build::{cargo, workspace};
use app_host_tests::{Host, machine, said};

/// A change to the copy: file, text, and what it becomes.
struct Change {
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const CHANGES: [Change; 5] = [
    // Unchanged: shows that what is refused below is refused for its change.
    Change { name: "same", file: "magic.rs", from: "", to: "" },
    // Two fields of a struct that crosses change places, which no number tells of.
    Change {
        name: "swapped",
        file: "abi/body.rs",
        from: "    pub lower: u64,\n    /// `u64::MAX` when there is no bound.\n    pub upper: u64,\n",
        to: "    /// `u64::MAX` when there is no bound.\n    pub upper: u64,\n    pub lower: u64,\n",
    },
    // The app asks for a function that this host doesn't have.
    Change {
        name: "later",
        file: "abi/mod.rs",
        from: "    pub worker_pid: unsafe extern \"C\" fn(data: *const ()) -> u32,\n",
        to: "    pub worker_pid: unsafe extern \"C\" fn(data: *const ()) -> u32,\n    pub from_a_later_host: extern \"C\" fn() -> u32,\n",
    },
    // The ABI has grown compatibly since: such an app may use what this host doesn't have yet.
    Change {
        name: "grown",
        file: "magic.rs",
        from: "pub const ABI_MINOR: u32 = 8;",
        to: "pub const ABI_MINOR: u32 = 9;",
    },
    Change { name: "raised", file: "magic.rs", from: "pub const ABI: u32 = 1;", to: "pub const ABI: u32 = 2;" },
];

/// Builds the app `a` against each changed copy, once.
fn built(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    // Before the lock: whoever waits for it may have one.
    let _turn = machine::beside();
    let directory = BUILT.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("second-copy");
        for change in &CHANGES {
            build(&directory, change);
        }
        directory
    });
    directory.join(format!("{name}.so"))
}

fn build(directory: &Path, change: &Change) {
    let root = directory.join("workspace");
    let copy = root.join("app-abi");
    if root.exists() {
        fs::remove_dir_all(&root).unwrap();
    }
    copy_directory(&workspace().join("app-abi"), &copy);
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let manifest: Vec<&str> = manifest.lines().filter(|line| !line.starts_with("default-members")).collect();
    let manifest = manifest.join("\n");
    let (head, rest) = manifest.split_once("members = [").unwrap();
    let (_, tail) = rest.split_once(']').unwrap();
    let manifest = format!("{head}members = [\"app-abi\", \"small-app\"]{tail}");
    // A table that grows makes abi_stable derive an accessor with `unsafe` in it.
    let manifest = manifest.replace("unsafe_code = \"deny\"", "unsafe_code = \"allow\"");
    fs::write(root.join("Cargo.toml"), manifest).unwrap();
    fs::copy(workspace().join("Cargo.lock"), root.join("Cargo.lock")).unwrap();
    fs::create_dir_all(root.join("small-app/src")).unwrap();
    fs::copy(workspace().join("tests/apps/answer_a.rs"), root.join("small-app/src/lib.rs")).unwrap();
    fs::write(
        root.join("small-app/Cargo.toml"),
        "[package]\nname = \"small-app\"\nversion = \"1.2.3\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\napp-abi.workspace = true\n",
    )
    .unwrap();
    let file = copy.join("src").join(change.file);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(change.from), "{} has changed: there is no\n{}", file.display(), change.from);
    fs::write(&file, text.replacen(change.from, change.to, 1)).unwrap();
    // The dependencies are there already: they are those of the workspace.
    let target = directory.join("target");
    let output = cargo()
        .current_dir(&root)
        .args(["build", "--quiet", "--offline", "-p", "small-app", "--target-dir"])
        .arg(&target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", change.name, String::from_utf8_lossy(&output.stderr));
    fs::copy(target.join("debug/libsmall_app.so"), directory.join(format!("{}.so", change.name))).unwrap();
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Refused while a good library serves, and no first library either.
fn refused(name: &str) -> String {
    let host = Host::misbehaving().start();
    host.install(&built(name));
    let detail = host.restart_is_refused("incompatibility");
    let first = Host::new(&built(name));
    first.spawn();
    assert_eq!(first.wait_exit().code(), Some(1));
    assert!(first.lines_with(said::WORKER_SPAWNED).is_empty());
    detail
}

#[test]
fn unchanged_copy_runs() {
    let host = Host::misbehaving().start();
    host.install(&built("same"));
    host.restart_completes();
    assert_eq!(host.get("/").trim(), "a");
}

#[test]
fn changed_struct_behind_an_unchanged_number_is_refused_naming_the_field() {
    let detail = refused("swapped");
    assert!(detail.contains("lower") && detail.contains("upper"), "{detail}");
    assert!(detail.len() < 600, "one can read it: {detail}");
}

#[test]
fn app_that_needs_more_than_the_host_has_is_refused_naming_it() {
    let detail = refused("later");
    assert!(detail.contains("from_a_later_host"), "{detail}");
}

#[test]
fn app_of_a_later_minor_is_refused_naming_the_least_that_it_needs() {
    let detail = refused("grown");
    assert!(detail.contains("`host_minor_needed` is 9") && detail.contains("minor 8 of ABI 1"), "{detail}");
}

#[test]
fn raised_abi_number_is_refused_naming_the_half_that_differs() {
    let detail = refused("raised");
    assert!(detail.contains("ABI 2") && detail.contains("ABI 1"), "{detail}");
}
