//! Deploys by a link to a release, and programs that are replaced.

use std::fs;
use std::os::unix::fs::symlink;

use app_host_tests::{App, Host, program};
use serde_json::{Value, json};

use super::{is_respawned, marker};

/// How a master is started: by a shell inside of the link, or by a path through it.
const INSIDE: &str = "cd current && shift && exec \"$1\" run app-host.json";

const BY_PATH: &str = "shift && exec \"$1\" run \"$PWD/current/app-host.json\"";

/// Two releases of the same service, which say who they are, and the link `current` to the first.
fn releases(host: &Host, state_dir: &str) {
    host.restore_config();
    let mut config: Value = serde_json::from_slice(&fs::read(host.config_path()).unwrap()).unwrap();
    config["state_dir"] = state_dir.into();
    for number in 1..=2 {
        let release = host.path(&format!("releases/{number}"));
        fs::create_dir_all(&release).unwrap();
        let mut library = fs::read(host.library_path()).unwrap();
        library.push(number);
        fs::write(release.join("app.so"), library).unwrap();
        config["app"]["config"] = json!({ "marker": format!("release {number}") });
        fs::write(release.join("app-host.json"), config.to_string()).unwrap();
    }
    symlink("releases/1", host.path("current")).unwrap();
}

/// As a deploy tool does it.
fn switch(host: &Host, to: &str) {
    symlink(to, host.path("next")).unwrap();
    fs::rename(host.path("next"), host.path("current")).unwrap();
}

#[test]
fn a_deploy_by_link_serves_the_new_release_and_needs_nothing_of_the_old_one() {
    for way in [INSIDE, BY_PATH] {
        let host = Host::misbehaving().launched_with(&["--", "sh", "-c", way, "sh"]);
        releases(&host, host.path("keep").to_str().unwrap());
        let host = host.start();
        assert_eq!(marker(&host), "release 1");
        switch(&host, "releases/2");
        host.restart_completes();
        assert_eq!(marker(&host), "release 2", "{way}");
        fs::remove_dir_all(host.path("releases/1")).unwrap();
        is_respawned(&host);
        // Nor of where its own copy lay.
        fs::remove_dir_all(host.path("keep")).unwrap();
        is_respawned(&host);
        assert_eq!(marker(&host), "release 2", "{way}");
        host.stop();
    }
}

#[test]
fn state_in_the_release_serves_on_when_that_is_gone_and_a_restart_says_where_it_belongs() {
    let host = Host::misbehaving().launched_with(&["--", "sh", "-c", BY_PATH, "sh"]);
    releases(&host, "state");
    let host = host.start();
    switch(&host, "releases/2");
    let detail = host.restart_is_refused("incompatibility");
    assert!(detail.contains("state_dir: ") && detail.contains("outside of the release"), "{detail}");
    fs::remove_dir_all(host.path("releases/1")).unwrap();
    is_respawned(&host);
    assert_eq!(marker(&host), "release 1");
    // Nobody begins an empty databank where the link leads now.
    assert!(!host.path("releases/2/state").exists());
    host.stop();
}

#[test]
fn a_program_that_was_replaced_on_disk_changes_nothing_for_the_master_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("app-host");
    program::copy(App::build().host(), &program);
    let host = Host::misbehaving().with_binary(&program).start();
    // As `mv` does it; and what lies there can't even be run.
    fs::write(directory.path().join("new"), "no program").unwrap();
    fs::rename(directory.path().join("new"), &program).unwrap();
    is_respawned(&host);
    host.restart_completes();
    host.stop();
}
