//! The second ring: a master that is root does nothing for its workers' user that this user could not do.
//!
//! Run with `-- --ignored` as root. Each test lays a trap as the user `nobody` could, and looks at what the
//! master has done there.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use app_host_tests::{Address, Connection, Host, process};
use nix::sys::signal::Signal;
use nix::unistd::{User, getuid};
use serde_json::json;

fn nobody() -> User {
    assert!(getuid().is_root(), "only root can start workers as another user");
    User::from_name("nobody").unwrap().expect("there is a user nobody")
}

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

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn put_link(at: &Path, to: &Path) {
    let _ = fs::remove_file(at);
    symlink(to, at).unwrap();
    lchown(at, Some(nobody().uid.as_raw()), None).unwrap();
}

fn variables(pid: u32) -> HashMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    text.split('\0').filter_map(|it| it.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// A field of `/proc/PID/stat`, counted as in `proc(5)`.
fn stat(pid: u32, field: usize) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text[text.rfind(')').unwrap() + 2..].split(' ').nth(field - 3).unwrap().parse().unwrap()
}

fn oom_score(pid: u32) -> i32 {
    fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
}

#[test]
#[ignore = "second ring: needs root"]
fn children_of_another_user_have_neither_terminal_nor_privilege_nor_a_way_to_one() {
    let user = nobody();
    let admin = format!("unix:{}", "admin.sock");
    let host = Host::misbehaving()
        .with("/user", user.name.as_str())
        .with("/admin", admin)
        .with_variable("HOME", "/root")
        .with_variable("A_SECRET_OF_ROOTS", "secret")
        .with_variable("FOR_THE_APP", "yes")
        .with("/environment", json!(["FOR_THE_APP", "NOT_THERE"]))
        .start();
    let master = host.master();
    for pid in process::children(master) {
        let line = process::command_line(pid);
        for (key, expected) in [
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
        ] {
            assert_eq!(process::status(pid, key).unwrap().trim(), expected, "{line}: {key}");
        }
        assert_eq!(process::status(pid, "Groups").unwrap().trim(), "", "{line}");
        // Session and terminal.
        assert_eq!((stat(pid, 6), stat(pid, 7)), (i64::from(pid), 0), "{line}");
        assert_eq!(oom_score(pid), (oom_score(master) + 100).min(1000), "{line}");
        let variables = variables(pid);
        assert_eq!(variables["HOME"], user.dir.to_str().unwrap(), "{line}");
        assert_eq!((&*variables["USER"], &*variables["LOGNAME"]), ("nobody", "nobody"), "{line}");
        assert!(!variables.contains_key("A_SECRET_OF_ROOTS"), "{line}");
        let for_the_app = variables.contains_key("FOR_THE_APP");
        assert_eq!(for_the_app, line.contains("worker"), "{line}");
    }
    assert!(process::children(master).len() >= 3);
    host.restart_completes();
    host.stop();
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
    let _ = Address::parse("127.0.0.1:1");
}
