//! The second ring: a master that is root does nothing for its workers' user that this user could not do.
//!
//! Run with `-- --ignored` as root. Each test lays a trap as the user `nobody` could, and looks at what the
//! master has done there.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use app_host_tests::build::workspace;
use app_host_tests::{Address, App, Connection, Host, process, said};
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

/// Has the process shut down its listening socket, as its app could.
fn shut_down(pid: u32, address: &Address) {
    // Perl makes a duplicate of another process's descriptor with `pidfd_getfd(2)`, which root may.
    let inode = |line: &str| line.trim_start_matches("socket:[").trim_end_matches(']').to_owned();
    let listening: Vec<u32> = process::descriptors(pid)
        .into_iter()
        .filter(|(_, target)| target.to_string_lossy().starts_with("socket:"))
        .map(|(number, target)| (number, inode(&target.to_string_lossy())))
        .filter(|(_, inode)| is_listening_at(inode, address))
        .map(|(number, _)| number)
        .collect();
    let number = listening.first().expect("the process listens there");
    let script = "my $p = syscall(434, $ARGV[0]+0, 0); die qq(pidfd: $!) if $p < 0;
                  my $d = syscall(438, $p, $ARGV[1]+0, 0); die qq(getfd: $!) if $d < 0;
                  open(my $s, '+<&=', $d) or die $!; shutdown($s, 2) or die $!;";
    let output = std::process::Command::new("/usr/bin/perl")
        .args(["-e", script, &pid.to_string(), &number.to_string()])
        .output()
        .expect("perl is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the socket with this number is the listener at `address`.
fn is_listening_at(inode: &str, address: &Address) -> bool {
    match address {
        Address::Tcp(address) | Address::Tls(address, _) => {
            let port = format!(":{:04X}", address.port());
            fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.get(9) == Some(&inode) && fields[3] == "0A" && fields[1].ends_with(&port)
            })
        }
        Address::Unix(path) => fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(6) == Some(&inode) && fields.get(7).is_some_and(|at| Path::new(at) == path)
        }),
    }
}

#[test]
#[ignore = "second ring: needs root"]
fn a_tcp_listener_that_a_worker_shuts_down_listens_again_and_nobody_is_restarted() {
    let host = Host::misbehaving().with("/hang_timeout", json!(null)).with("/admin", "unix:admin.sock").start();
    let (address, workers) = (host.address(), host.workers());
    for round in 1..=2 {
        let mark = host.mark();
        shut_down(workers[0], &address);
        host.wait_after(mark, "listening again", |_| true);
        host.wait("a client to be served", || {
            Connection::connect(&address).ok().and_then(|mut it| it.get("/whoami").ok()).filter(|it| *it == 200)
        });
        host.assert_all_serve(&workers);
        let mut admin = Connection::connect(&Address::Unix(host.path("admin.sock"))).unwrap();
        assert_eq!(admin.get("/metrics").unwrap(), 200);
        assert!(admin.text().contains(&format!("app_host_listener_shutdowns_total {round}")), "{}", admin.text());
    }
    assert_eq!(host.workers(), workers);
    host.restart_completes();
    host.assert_all_serve(&host.serving());
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_unix_listener_that_a_worker_shuts_down_is_bound_anew_by_a_restart_of_the_masters_own() {
    let host =
        Host::misbehaving().with("/listen", json!(["127.0.0.1:0", "unix:s"])).with("/admin", "unix:admin.sock").start();
    let (path, workers) = (Address::Unix(host.path("s")), host.workers());
    let ready = || Connection::connect(&Address::Unix(host.path("admin.sock"))).unwrap().get("/readyz").unwrap();
    assert_eq!(ready(), 200);
    shut_down(workers[0], &path);
    assert_eq!(ready(), 503);
    host.wait_for(said::RESTART_REQUESTED, |line| line.str("by") == "healing");
    assert_eq!(host.verdict(1).verdict, "complete");
    assert_eq!(ready(), 200);
    for pid in host.serving() {
        assert!(!workers.contains(&pid));
    }
    assert_eq!(Connection::connect(&path).unwrap().get("/whoami").unwrap(), 200);
    host.restart_completes();
    assert_eq!(Connection::connect(&path).unwrap().get("/whoami").unwrap(), 200);
    host.stop();
    assert!(!host.path("s").exists());
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

/// Runs `check` where a script has mounted something first; says whether it accepts, and its words.
fn checked(host: &Host, prepare: &str) -> (bool, String) {
    host.restore_config();
    let script = format!("{prepare} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(App::build().host()).arg("check").arg(host.config_path());
    let output = command.current_dir(host.directory()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
#[ignore = "second ring: needs root"]
fn check_says_what_run_would_say_where_a_file_system_is_mounted_noexec() {
    let mount = "mount -t tmpfs -o mode=755,noexec none";
    let host = Host::misbehaving();
    for name in ["state", "elsewhere"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    for place in ["state", "elsewhere"] {
        let (accepted, said) = checked(&host, &format!("{mount} {place} && export TMPDIR=\"$PWD/elsewhere\""));
        assert_eq!(accepted, place == "elsewhere", "{place}: {said}");
        assert_eq!(accepted, !said.contains("state_dir: ") || !said.contains("mounted noexec"), "{place}: {said}");
        let script = format!("{mount} {place} && shift && exec \"$@\"");
        let run = Host::misbehaving().launched_with(&["--", "unshare", "--mount", "sh", "-c", &script, "sh"]);
        for name in ["state", "elsewhere"] {
            fs::create_dir(run.path(name)).unwrap();
        }
        run.spawn();
        if accepted {
            run.wait_for(said::SERVING, |_| true);
            run.stop();
        } else {
            assert_eq!(run.wait_exit().code(), Some(1));
        }
    }
    // Where there is no state directory yet, its parent says it.
    fs::remove_dir(host.path("state")).unwrap();
    let host = host.with("/state_dir", "elsewhere/a/state");
    let (accepted, said) = checked(&host, &format!("{mount} elsewhere"));
    assert!(
        !accepted && said.contains("elsewhere/a/state/versions lies on a file system that is mounted noexec"),
        "{said}"
    );
    assert_eq!(fs::read_dir(host.path("elsewhere")).unwrap().count(), 0, "check makes nothing");
    // What others may write to is refused by both.
    fs::create_dir(host.path("state")).unwrap();
    fs::set_permissions(host.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    let (accepted, said) = checked(&host.with("/state_dir", "state"), "true");
    assert!(!accepted && said.contains("others may write to it"), "{said}");
}

#[test]
#[ignore = "second ring: needs root"]
fn a_file_system_that_becomes_noexec_is_blamed_and_no_library() {
    let script = "mount -t tmpfs -o mode=755 none state && shift && exec \"$@\"";
    let host = Host::misbehaving().launched_with(&["--", "unshare", "--mount", "sh", "-c", script, "sh"]);
    fs::create_dir(host.path("state")).unwrap();
    let host = host.start();
    let remount = |option: &str| {
        let state = host.path("state");
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &host.master().to_string(), "--mount", "mount", "-o"])
            .arg(format!("remount,{option}"));
        assert!(command.arg(state).status().unwrap().success());
    };
    remount("noexec");
    host.install_fresh(&App::build().app("misbehaving"));
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("state_dir: ") && detail.contains("mounted noexec"), "{detail}");
    let mark = host.mark();
    process::signal(host.serving()[0], Signal::SIGKILL);
    let line = host.wait_after(mark, said::WORKER_UNABLE, |_| true);
    let detail = line.str("detail");
    assert!(detail.contains("no fault of the library's") && detail.contains("app.so is refused"), "{detail}");
    remount("exec");
    host.wait_after(mark, said::WORKER_READY, |_| true);
    host.restart_completes();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_start_that_fails_for_what_the_machine_is_like_says_so() {
    for (prepare, expected) in [
        ("umount -l /proc", "expected proc(5) to be mounted at /proc"),
        ("mount -t tmpfs -o mode=755,noexec none \"$0\"", "mounted noexec, and no library can be loaded from there"),
        ("mount -t tmpfs -o mode=755,ro none \"$0\"", "Read-only file system"),
    ] {
        let host = Host::misbehaving();
        let state = host.path("state");
        fs::create_dir(&state).unwrap();
        // A `--` comes before the program.
        let script = format!("{prepare} && shift && exec \"$@\"");
        let arguments = ["--", "unshare", "--mount", "sh", "-c", &script, state.to_str().unwrap()];
        let host = host.launched_with(&arguments);
        host.spawn();
        assert_eq!(host.wait_exit().code(), Some(1), "{prepare}");
        let report = host.report();
        assert!(report.contains(expected), "{prepare}: {report}");
    }
    let host =
        Host::misbehaving().with("/user", nobody().name).launched_with(&["--", "unshare", "--user", "--map-root-user"]);
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let expected = "which this process's user namespace doesn't know (/proc/self/uid_map)";
    assert!(host.report().contains(expected), "{}", host.report());
}

#[test]
#[ignore = "second ring: needs root"]
fn a_unix_listener_that_was_shut_down_costs_no_thread_although_no_restart_may_heal_it() {
    let host = Host::misbehaving()
        .with("/listen", json!(["127.0.0.1:0", "unix:s"]))
        .with("/workers", 1)
        .with("/admin", "unix:admin.sock")
        .start();
    let worker = host.workers()[0];
    let used = process::cpu_time(worker).unwrap();
    shut_down(worker, &Address::Unix(host.path("s")));
    host.wait_for("listener was shut down under a worker that serves", |line| line.str("listener") == "unix:s");
    host.wait_for(said::RESTART_REFUSED, |line| line.str("reason") == "no workers");
    // The thread serves its other listener.
    assert_eq!(Connection::connect(&host.address()).unwrap().get("/whoami").unwrap(), 200);
    let used = process::cpu_time(worker).unwrap().saturating_sub(used);
    assert!(used.as_millis() < 500, "{used:?}");
    let mut admin = Connection::connect(&Address::Unix(host.path("admin.sock"))).unwrap();
    assert_eq!(admin.get("/readyz").unwrap(), 503);
    assert!(admin.text().contains("turning clients away: "), "{}", admin.text());
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_listener_of_the_apps_that_was_shut_down_keeps_its_port_and_is_taken_by_new_workers() {
    let host = Host::new(&App::build().app("talkative"))
        .with("/app_listeners", json!([{ "name": "smtp", "address": "127.0.0.2:0" }]))
        .with("/app/config", json!({ "take": ["smtp"] }))
        .start();
    let address = host.address_of("smtp");
    let workers = host.workers();
    shut_down(workers[0], &address);
    host.wait_for(said::RESTART_REQUESTED, |line| line.str("by") == "healing");
    assert_eq!(host.verdict(1).verdict, "complete");
    let mut hello = String::new();
    BufReader::new(TcpStream::connect(address.tcp()).unwrap()).read_line(&mut hello).unwrap();
    assert!(hello.starts_with("2 "), "the second generation answers: {hello}");
    assert!(host.lines_with(said::LISTENING).len() == 2, "each was bound once");
    host.stop();
}
