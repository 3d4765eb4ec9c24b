//! `app-host init` and `app-host schema`: an operator's first minutes with a library.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use app_host_tests::{App, Host};
use serde_json::{Value, json};
use tempfile::TempDir;

fn init(within: &TempDir, arguments: &[&str]) -> Output {
    Command::new(App::build().host()).arg("init").args(arguments).current_dir(within.path()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[test]
fn what_init_writes_is_served_once_it_may_run_here() {
    let outer = TempDir::new().unwrap();
    let library = App::build().app("misbehaving");
    let made = init(&outer, &[library.to_str().unwrap(), "shop", "--name", "shop"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let directory = outer.path().join("shop");
    assert_eq!(entries(&directory), ["app-host.json", "app-host.schema.json", "shop.service"]);
    let rights = fs::metadata(directory.join("app-host.json")).unwrap().permissions().mode();
    assert_eq!(rights & 0o777 & !0o640, 0, "secrets may come to stand in it: {rights:o}");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    for words in ["app-host.json", "systemctl enable --now shop", "useradd --system", "app-host check "] {
        assert!(said.contains(words), "{said}");
    }
    let config: Value = serde_json::from_slice(&fs::read(directory.join("app-host.json")).unwrap()).unwrap();
    for key in config.as_object().unwrap().keys().filter(|key| *key != "$schema") {
        assert!(said.contains(&format!("           {key}")), "{key} is not explained: {said}");
    }
    assert_eq!(config["user"], "shop");
    assert_eq!(config["$schema"], "./app-host.schema.json");
    let unit = fs::read_to_string(directory.join("shop.service")).unwrap();
    let program = App::build().host();
    let path = directory.join("app-host.json");
    assert!(unit.contains(&format!("ExecStart={} run {}\n", program.display(), path.display())), "{unit}");

    // Everything but what this machine lacks: the user, and a port that is free.
    let host =
        Host::misbehaving().with("/$schema", config["$schema"].clone()).with("/restart", config["restart"].clone());
    let host = host.with("/app/library", config["app"]["library"].clone()).start();
    host.assert_all_serve(&host.serving());
}

#[test]
fn init_overwrites_nothing_and_leaves_nothing_where_it_fails() {
    let outer = TempDir::new().unwrap();
    let library = App::build().app("misbehaving");
    let library = library.to_str().unwrap();
    fs::write(outer.path().join("app-host.service"), "mine").unwrap();
    let there = init(&outer, &[library]);
    assert_eq!(there.status.code(), Some(1));
    assert!(
        stderr(&there).contains("app-host.service exists already, and init overwrites nothing; nothing was written\n"),
        "{}",
        stderr(&there)
    );
    fs::write(outer.path().join("text.so"), "no library").unwrap();
    for (arguments, words) in [
        (vec!["nowhere.so"], "nowhere.so is no library that can be served"),
        (vec!["text.so"], "text.so is no library that can be served"),
        (vec![library, "nowhere/at/all"], "nowhere/at/all can't be made: No such file or directory"),
        (vec![library, "text.so"], "text.so can't be made: File exists"),
    ] {
        let refused = init(&outer, &arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    }
    let named = init(&outer, &[library, "--name", "../x"]);
    assert_eq!(named.status.code(), Some(2));
    assert_eq!(entries(outer.path()), ["app-host.service", "text.so"]);
    assert_eq!(fs::read_to_string(outer.path().join("app-host.service")).unwrap(), "mine");
}

#[test]
fn schema_prints_what_init_writes_and_help_has_every_command_in_its_group() {
    let outer = TempDir::new().unwrap();
    assert!(init(&outer, &[App::build().app("misbehaving").to_str().unwrap()]).status.success());
    let schema = Command::new(App::build().host()).arg("schema").output().unwrap();
    assert_eq!(schema.stdout, fs::read(outer.path().join("app-host.schema.json")).unwrap());
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["required"], json!(["app"]));
    let help = Command::new(App::build().host()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for words in
        ["Serve:\n  run ", "Write an app:\n  new ", "Look first:\n  check ", "Set up:\n  init ", "$ app-host ctl "]
    {
        assert!(help.contains(words), "{words} is not in {help}");
    }
    assert!(!help.contains("internal-"), "{help}");
}
