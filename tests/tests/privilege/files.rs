//! Files and directories where the workers' user decides what lies there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use app_host_tests::{Connection, Host};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{mode, nobody};

/// A directory of the workers' user beside the configuration.
fn theirs(host: &Host, name: &str) -> std::path::PathBuf {
    let (path, user) = (host.path(name), nobody());
    fs::create_dir(&path).unwrap();
    chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    path
}

/// A file of root's that nobody else may read.
fn precious(host: &Host) -> std::path::PathBuf {
    let path = host.path("precious");
    fs::write(&path, "precious").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn put_link(at: &Path, to: &Path) {
    let _ = fs::remove_file(at);
    symlink(to, at).unwrap();
    lchown(at, Some(nobody().uid.as_raw()), None).unwrap();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_link_in_the_place_of_a_listeners_file_gets_no_mode_of_root() {
    let mut host = Host::misbehaving().with("/user", nobody().name);
    let (precious, path) = (precious(&host), theirs(&host, "run").join("s"));
    let listen = |mode: &str| json!(["127.0.0.1:0", { "address": format!("unix:{}", path.display()), "mode": mode }]);
    host.set("/listen", listen("0660"));
    let mut host = host.start();
    assert_eq!(mode(&path), 0o660);
    put_link(&path, &precious);
    host.set("/listen", listen("0666"));
    host.restart_completes();
    assert_eq!(mode(&precious), 0o600);
    host.stop();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "what others have put there isn't ours to remove");
}

#[test]
#[ignore = "second ring: needs root"]
fn no_log_is_written_where_the_workers_user_decides_what_lies_there() {
    let host = Host::misbehaving().with("/user", nobody().name);
    let (precious, path) = (precious(&host), theirs(&host, "logs").join("log"));
    put_link(&path, &precious);
    let host = host.with("/log/file", path.to_str().unwrap());
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert!(host.report().contains("who decides what lies there"), "{}", host.report());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
#[ignore = "second ring: needs root"]
fn a_link_that_has_come_into_the_place_of_a_log_is_not_followed_when_logs_are_reopened() {
    let mut host = Host::misbehaving().with("/user", nobody().name);
    let precious = precious(&host);
    let directory = host.path("logs");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("access");
    host.set("/access_log", json!({ "file": path }));
    let host = host.start();
    assert_eq!(Connection::connect(&host.address()).unwrap().get("/whoami").unwrap(), 200);
    put_link(&path, &precious);
    host.signal(Signal::SIGUSR1);
    host.wait_for("a worker's access log stays as it was", |line| line.text().contains("it is a link"));
    assert_eq!(Connection::connect(&host.address()).unwrap().get("/whoami").unwrap(), 200);
    host.restart_is_refused("bad config");
    fs::remove_file(&path).unwrap();
    host.restart_completes();
    assert_eq!(Connection::connect(&host.address()).unwrap().get("/whoami").unwrap(), 200);
    host.wait("the access log", || fs::metadata(&path).is_ok_and(|found| found.len() > 0).then_some(()));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
#[ignore = "second ring: needs root"]
fn a_state_directory_that_others_may_write_to_is_refused_before_anything_is_made_there() {
    let user = nobody();
    for (name, owner, mode, expected) in [
        ("theirs", user.uid.as_raw(), 0o755, "belongs to user"),
        ("groups", 0, 0o775, "others may write to it (its mode is 775)"),
        ("all", 0, 0o777, "everybody may write to"),
    ] {
        let host = Host::misbehaving().with("/user", user.name.as_str()).with("/state_dir", name);
        let path = host.path(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(owner), None).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        host.spawn();
        assert_eq!(host.wait_exit().code(), Some(1));
        assert!(host.report().contains(expected), "{name}: {}", host.report());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "{name}");
    }
}
