//! What master and workers may do, are given, and show of themselves in `/proc`.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use app_host_tests::build::workspace;
use app_host_tests::{Address, Connection, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{mode, nobody};

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
    let host = Host::misbehaving()
        .with("/user", user.name.as_str())
        .with("/admin", "unix:admin.sock")
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
        assert_eq!(
            process::status(pid, "Groups").unwrap(),
            user.gid.to_string(),
            "its own, and none of root's: {line}"
        );
        // Session and terminal.
        assert_eq!((stat(pid, 6), stat(pid, 7)), (i64::from(pid), 0), "{line}");
        assert_eq!(oom_score(pid), (oom_score(master) + 100).min(1000), "{line}");
        let variables = variables(pid);
        assert_eq!(variables["HOME"], user.dir.to_str().unwrap(), "{line}");
        assert_eq!((&*variables["USER"], &*variables["LOGNAME"]), ("nobody", "nobody"), "{line}");
        assert!(!variables.contains_key("A_SECRET_OF_ROOTS"), "{line}");
        let for_the_app = variables.contains_key("FOR_THE_APP");
        assert_eq!(for_the_app, line.contains("worker"), "{line}");
        assert!(is_dumpable(pid, user.uid.as_raw()), "{line}");
    }
    assert!(process::children(master).len() >= 3);
    host.restart_completes();
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn the_capabilities_of_the_shipped_unit_are_enough() {
    let unit = fs::read_to_string(workspace().join("host/systemd/app-host.service")).unwrap();
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let bounding = set.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect::<Vec<_>>().join(",");
    let arguments = ["--", "setpriv", "--bounding-set", &format!("-all,{bounding}"), "--no-new-privs"];
    let host = Host::misbehaving()
        .with("/user", nobody().name)
        .with("/admin", "unix:admin.sock")
        .with("/listen", json!(["127.0.0.1:0", { "address": "unix:s", "mode": "0660" }]))
        .with("/log/file", "own.log")
        .with("/hang_timeout", "2s")
        .launched_with(&arguments);
    host.spawn();
    let text = || fs::read_to_string(host.path("own.log")).unwrap_or_default();
    let has = |what: &str| host.wait(what, || text().contains(what).then_some(()));
    has("\"msg\":\"serving\"");
    let master = host.master();
    assert_eq!(process::status(master, "CapEff").unwrap().trim(), "00000000000000e1");
    assert_eq!(process::children(master).len(), 3);
    assert_eq!(mode(&host.path("s")), 0o660);
    let admin = || Connection::connect(&Address::Unix(host.path("admin.sock"))).unwrap();
    assert_eq!(admin().get("/readyz").unwrap(), 200);
    // Memory of the workers is seen, too.
    let mut metrics = admin();
    assert_eq!(metrics.get("/metrics").unwrap(), 200);
    assert!(metrics.text().contains("worker_resident_memory_bytes{slot=\"1\""), "{}", metrics.text());
    host.signal(Signal::SIGUSR2);
    has(said::RESTART_COMPLETE);
    host.signal(Signal::SIGUSR1);
    has(said::LOGS_REOPENED);
    // A worker of another user can be aborted.
    let mut blocked = Connection::connect(&Address::Unix(host.path("s"))).unwrap();
    blocked.ask("/block").unwrap();
    has(said::WORKER_HUNG);
    has("\"status\":\"signal 6\"");
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
}

/// Whether the kernel writes no core dump of it (`ptrace(2)`, "dumpable"): its files in `/proc` are root's then.
fn is_dumpable(pid: u32, user: u32) -> bool {
    fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid() == user && user != 0
}

#[test]
#[ignore = "second ring: needs root"]
fn where_core_dumps_are_forbidden_the_kernel_makes_none_of_master_and_workers() {
    let user = nobody();
    let host = Host::misbehaving().launched_with(&["--user", &user.uid.to_string()]).with("/core_dumps", false);
    chown(host.directory(), Some(user.uid.as_raw()), None).unwrap();
    let host = host.start();
    let master = host.master();
    let all = || host.workers().into_iter().chain([master]);
    assert!(all().all(|pid| !is_dumpable(pid, user.uid.as_raw())));
    for pid in host.workers() {
        assert_eq!(oom_score(pid), (oom_score(master) + 100).min(1000));
    }
    host.restart_completes();
    assert!(all().all(|pid| !is_dumpable(pid, user.uid.as_raw())));
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn workers_of_a_master_without_privileges_are_killed_before_it_and_its_files_in_proc_are_its_own() {
    let user = nobody();
    let host = Host::misbehaving().launched_with(&["--user", &user.uid.to_string()]);
    chown(host.directory(), Some(user.uid.as_raw()), None).unwrap();
    let host = host.start();
    let master = host.master();
    assert!(is_dumpable(master, user.uid.as_raw()));
    for pid in host.workers() {
        assert!(is_dumpable(pid, user.uid.as_raw()));
        assert_eq!(oom_score(pid), (oom_score(master) + 100).min(1000));
    }
    host.restart_completes();
    host.stop();
}
