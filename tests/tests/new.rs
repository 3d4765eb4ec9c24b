//! `app-host new`: what a new user does, word for word, and whatever keeps a crate from being made.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use app_host_tests::build::workspace;
use app_host_tests::dev::{Dev, app_host, shell_cargo};
use app_host_tests::{App, machine};
use serde_json::Value;
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("app-host-new-").tempdir().unwrap()
}

fn new(within: &Path, arguments: &[&str]) -> Output {
    app_host().arg("new").args(arguments).current_dir(within).output().unwrap()
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn refused(within: &Path, arguments: &[&str], words: &[&str]) {
    let output = new(within, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?}: {word} is not in {error}");
    }
}

fn config(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("app-host.json")).unwrap()).unwrap()
}

/// Makes, formats, lints, tests and serves; edits what it greets with; and gives the page of before and after. `served`
/// sees what is served before the edit.
fn as_a_new_user(name: &str, arguments: &[&str], served: impl FnOnce(&Dev)) -> [String; 2] {
    let _turn = machine::beside();
    let outer = directory();
    let output = new(outer.path(), &[&[name], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("cd {name} && cargo test && ")) && said.ends_with(" dev --open\n"), "{said}");
    let inner = outer.path().join(name);
    for words in [&["fmt", "--check"][..], &["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]] {
        let mut cargo = shell_cargo();
        cargo.args(words).current_dir(&inner);
        succeeds(cargo);
    }
    let mut cargo = shell_cargo();
    cargo.arg("test").current_dir(&inner);
    let tested = succeeds(cargo);
    assert!(tested.contains("1 passed"), "{tested}");

    // Another one may listen where it does.
    let text = fs::read_to_string(inner.join("app-host.json")).unwrap();
    assert!(text.contains("127.0.0.1:8080"), "{text}");
    fs::write(inner.join("app-host.json"), text.replace("127.0.0.1:8080", "127.0.0.1:0")).unwrap();
    let moved = directory();
    fs::remove_dir(moved.path()).unwrap();
    fs::rename(&inner, moved.path()).unwrap();
    let dev = Dev::within(moved);
    dev.wait_after(0, &["live", "version"]);
    let first = dev.get("/");
    served(&dev);
    let mark = dev.lines().len();
    dev.edit("<h1>", "<h1>And: ");
    dev.wait_after(mark, &["live", "version"]);
    // A busy machine may still be at a build from before the edit.
    let edited = || Some(dev.get("/")).filter(|text| text.contains("And: "));
    [first, app_host_tests::host::wait_until(edited).expect("the edit goes live")]
}

#[test]
fn new_app_builds_tests_and_runs_at_once_and_an_edit_is_live() {
    let [first, second] = as_a_new_user("new-shop", &[], |_| {});
    assert_eq!(first, "<h1>Hello from app-host</h1>\n<p>Visit 1.</p>\n");
    assert!(second.starts_with("<h1>And: Hello from app-host</h1>\n<p>Visit "), "{second}");
}

#[test]
fn new_app_of_an_axum_router_builds_tests_and_runs_at_once_and_an_edit_is_live() {
    let [first, second] = as_a_new_user("new-site", &["--axum"], |dev| {
        assert_eq!(dev.get("/hello/Ada"), "Hello from app-host, Ada\n");
        // Nothing had to be set up for it.
        dev.wait_after(0, &["info", "greeted", "guest=Ada"]);
    });
    assert_eq!(first, "<h1>Hello from app-host</h1>\n");
    assert_eq!(second, "<h1>And: Hello from app-host</h1>\n");
}

#[test]
fn what_comes_next_names_the_program_as_a_shell_finds_it() {
    let outer = directory();
    let tools = outer.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let without = std::env::split_paths(&path).filter(|directory| !directory.join("app-host").exists());
    let with: Vec<_> = std::iter::once(tools.clone()).chain(without).collect();
    let next = |directory: &str| {
        let mut command = app_host();
        command.env("PATH", std::env::join_paths(&with).unwrap()).current_dir(outer.path());
        command.args(["new", directory, "--name", "next"]);
        succeeds(command).lines().last().unwrap().to_owned()
    };
    let host = App::build().host();
    assert_eq!(next("my shop"), format!("   next  cd 'my shop' && cargo test && {} dev --open", host.display()));
    std::os::unix::fs::symlink(host, tools.join("app-host")).unwrap();
    assert_eq!(next("shop"), "   next  cd shop && cargo test && app-host dev --open");
}

#[test]
fn new_app_names_the_library_of_its_release_build_and_hides_what_it_writes() {
    let outer = directory();
    // Where cargo builds is said by nobody, so it is in the crate.
    let mut command = app_host();
    succeeds({
        command.env_remove("CARGO_TARGET_DIR").args(["new", "first-app"]).current_dir(outer.path());
        command
    });
    let first = outer.path().join("first-app");
    assert_eq!(config(&first)["app"]["library"], "target/release/libfirst_app.so");
    let ignored = fs::read_to_string(first.join(".gitignore")).unwrap();
    assert_eq!(ignored.lines().collect::<Vec<_>>(), ["/target", "/state"]);

    // With a directory for all, it is there; and `check` takes what is built there.
    assert!(new(outer.path(), &["second", "--name", "second-app"]).status.success());
    let second = outer.path().join("second");
    let mut cargo = shell_cargo();
    cargo.args(["build", "--release"]).current_dir(&second);
    succeeds(cargo);
    let mut check = app_host();
    check.args(["check", "app-host.json"]).current_dir(&second);
    succeeds(check);
}

#[test]
fn new_app_in_a_workspace_is_its_member() {
    let outer = directory();
    let manifest = "[workspace]\nmembers = []\nresolver = \"3\"\n\n[workspace.package]\nversion = \"7.0.0\"\n\n\
                    [workspace.lints.rust]\nunsafe_code = \"deny\"\n";
    fs::write(outer.path().join("Cargo.toml"), manifest).unwrap();
    let mut command = app_host();
    command.env_remove("CARGO_TARGET_DIR").args(["new", "apps/member"]).current_dir(outer.path());
    succeeds(command);
    let manifest = fs::read_to_string(outer.path().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("apps/member"), "{manifest}");
    let member = outer.path().join("apps/member");
    assert_eq!(config(&member)["app"]["library"], "../../target/release/libmember.so");
    let manifest = fs::read_to_string(member.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("version.workspace = true") && manifest.contains("workspace = true"), "{manifest}");
}

#[test]
fn new_app_that_cannot_be_made_is_refused_with_what_is_wrong_and_touches_nothing() {
    let outer = directory();
    let there = outer.path().join("there");
    fs::create_dir(&there).unwrap();
    fs::write(there.join("file"), "mine").unwrap();
    refused(outer.path(), &["there"], &["the directory there exists; hint: choose another DIR"]);
    refused(outer.path(), &["1st"], &["1st", "cannot start with a digit"]);
    refused(outer.path(), &["--name", "a b", "named"], &["a b"]);
    refused(
        outer.path(),
        &["other", "--app-abi", "nowhere"],
        &["not in nowhere; hint: name the directory app-abi of a clone"],
    );
    let host = workspace().join("host");
    refused(outer.path(), &["other", "--app-abi", host.to_str().unwrap()], &["is not app-abi"]);
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(there.join("file")).unwrap(), "mine");
}
