//! Who may do what: users and groups of workers, of listeners and of the control socket, by name and by number.
//!
//! Most needs root, who alone can become somebody else: the second ring, `-- --ignored`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use app_host_tests::{Host, process, program, said};
use nix::sys::signal::Signal;
use nix::unistd::getuid;
use serde_json::json;

/// A user and a group that no database knows.
const USER: u32 = 12_345;
const GROUP: u32 = 54_321;

fn root() {
    assert!(getuid().is_root(), "only root can become somebody else");
}

/// What a file's rights are: user, group, mode.
fn rights(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o777)
}

/// `app-host ctl`, as another user with these groups.
fn ctl_as(host: &Host, uid: u32, gid: u32, groups: &str, arguments: &[&str]) -> Output {
    // That user must reach the binary, wherever the workspace lies.
    let binary = host.path("app-host");
    if !binary.exists() {
        program::copy(app_host_tests::App::build().host(), &binary);
    }
    let groups = if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), groups, "--".to_owned()]);
    command.arg(binary).arg("ctl").args(["--config", "app-host.json"]).args(arguments);
    command.current_dir(host.directory()).output().unwrap()
}

#[track_caller]
fn assert_said(output: &Output, code: i32, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(said), "{said}: {stderr}");
}

#[test]
#[ignore = "second ring: needs root"]
fn a_deploy_group_runs_ctl_and_strangers_are_told_whose_the_socket_is() {
    root();
    let host = Host::misbehaving().with("/control_socket", json!({ "group": GROUP })).start();
    assert_eq!(rights(&host.path("state/control.sock")), (0, GROUP, 0o660));
    for (gid, groups) in [(GROUP, ""), (USER, "7,54321")] {
        assert_said(&ctl_as(&host, USER, gid, groups, &["status"]), 0, "");
        assert_said(&ctl_as(&host, USER, gid, groups, &["restart", "--wait"]), 0, "");
    }
    let expected = format!("it belongs to user root and group {GROUP}, with mode 0660");
    for order in ["status", "restart", "stop"] {
        let refused = ctl_as(&host, USER, USER, "7", &[order]);
        assert_said(&refused, 5, &format!("not allowed to speak to the master at {}", host.path("state").display()));
        assert_said(&refused, 5, &expected);
    }
    fs::set_permissions(host.path("state"), Permissions::from_mode(0o700)).unwrap();
    let said = format!("the directory {} can't be passed by us", host.path("state").display());
    assert_said(&ctl_as(&host, USER, GROUP, "", &["status"]), 5, &said);
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_member_of_no_group_that_is_handed_a_connection_is_told_that_it_is_not_allowed() {
    root();
    // The file lets it connect, as somebody has seen to since; who it is counts all the same.
    let host = Host::misbehaving().start();
    let socket = host.path("state/control.sock");
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    for order in [["status"].as_slice(), &["restart"], &["restart", "--wait"], &["stop"]] {
        assert_said(&ctl_as(&host, USER, USER, "", order), 5, "not allowed to speak to the master at ");
    }
    assert!(host.lines_with(said::RESTART_REQUESTED).is_empty());
    host.wait("the log's lines", || (host.lines_with(said::STRANGER_CLOSED).len() == 4).then_some(()));
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_unix_listener_belongs_to_whom_the_configuration_says_and_a_restart_changes_that() {
    root();
    let listen = |rights: serde_json::Value| {
        let mut listener = json!({ "address": "unix:s" });
        listener.as_object_mut().unwrap().extend(rights.as_object().unwrap().clone());
        json!(["127.0.0.1:0", listener])
    };
    let mut host = Host::misbehaving()
        .with("/listen", listen(json!({ "mode": "660", "owner": USER, "group": GROUP.to_string() })))
        .with("/app_listeners", json!([{ "name": "own", "address": "unix:own", "mode": "620", "group": 7 }]))
        .with("/admin", json!({ "address": "unix:admin", "mode": "600", "owner": "nobody" }))
        .start();
    assert_eq!(rights(&host.path("s")), (USER, GROUP, 0o660));
    assert_eq!(rights(&host.path("own")), (0, 7, 0o620));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    assert_eq!(rights(&host.path("admin")), (nobody, 0, 0o600));
    host.set("/listen", listen(json!({ "mode": "606", "owner": 77 })));
    assert_eq!(host.restart().verdict, "complete");
    assert_eq!(rights(&host.path("s")), (77, 0, 0o606));
    host.set("/listen", listen(json!({ "mode": "600" })));
    assert_eq!(host.restart().verdict, "complete");
    assert_eq!(rights(&host.path("s")), (0, 0, 0o600));
    UnixStream::connect(host.path("s")).unwrap();
    host.stop();
    assert!(!host.path("s").exists());
}

#[test]
fn a_group_that_nobody_has_is_named_at_the_start_and_at_a_restart() {
    let unknown = json!([{ "address": "unix:s", "group": "no-such-group" }]);
    let host = Host::misbehaving().with("/listen", unknown.clone());
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = host.wait_for(said::START_FAILED, |_| true).str("error").to_owned();
    assert!(said.contains("group: there is no group \"no-such-group\"; hint: "), "{said}");
    let mut host = Host::misbehaving().start();
    host.set("/listen", unknown);
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "refused: cannot bind");
    assert!(verdict.line.text().contains("there is no group"), "{}", verdict.line.text());
    let check =
        Command::new(app_host_tests::App::build().host()).arg("check").arg(host.config_path()).output().unwrap();
    assert_said(&check, 1, "/s: group: there is no group \"no-such-group\"");
    let host = Host::misbehaving().with("/control_socket", json!({ "owner": "no-such-user" }));
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = host.wait_for(said::START_FAILED, |_| true).str("error").to_owned();
    assert!(said.contains("control_socket: owner: there is no user \"no-such-user\""), "{said}");
}

#[test]
fn accounts_that_no_master_could_start_with_are_bad_config_at_a_restart_and_no_advice_to_start_anew() {
    for (pointer, value, expected) in [
        ("/groups", json!(["no-such-group"]), "groups: there is no group"),
        ("/user", json!("no-such-user"), "user: there is no user"),
        ("/group", json!("no-such-group"), "group: there is no group"),
        (
            "/control_socket",
            json!({ "path": "state/control.sock", "group": "no-such-group" }),
            "group: there is no group",
        ),
    ] {
        let mut host = Host::misbehaving().start();
        host.set(pointer, value);
        let verdict = host.restart();
        assert_eq!(verdict.verdict, "refused: bad config", "{}", verdict.line.text());
        let said = verdict.line.str("detail");
        assert!(said.contains(expected) && !said.contains("restart the master"), "{said}");
    }
}

#[test]
fn ctl_waits_for_no_writer_of_a_fifo_in_the_place_of_its_configuration() {
    let host = Host::misbehaving().start();
    let fifo = host.path("fifo.json");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let status = Command::new("timeout")
        .arg("10")
        .arg(app_host_tests::App::build().host())
        .args(["ctl", "--config"])
        .arg(&fifo)
        .arg("status")
        .output()
        .unwrap();
    // At the default place beside it, where this master has its socket.
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

#[test]
#[ignore = "second ring: needs root"]
fn workers_are_numbers_without_an_entry_and_have_the_groups_that_are_named() {
    root();
    let host = Host::misbehaving()
        .with("/user", USER)
        .with("/group", GROUP.to_string())
        .with("/groups", json!([7, "daemon"]))
        .with_variable("HOME", "/root")
        .start();
    let daemon = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
    for pid in host.serving() {
        let ids = |key| process::status(pid, key).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(ids("Uid"), vec![USER.to_string(); 4]);
        assert_eq!(ids("Gid"), vec![GROUP.to_string(); 4]);
        let mut groups = [7, daemon].map(|group| group.to_string());
        groups.sort_unstable();
        let mut found = ids("Groups");
        found.sort_unstable();
        assert_eq!(found, groups);
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(variables.split(|byte| *byte == 0).any(|variable| variable == b"HOME=/"), "that of nobody's");
    }
    assert_eq!(host.restart().verdict, "complete");
    host.stop();
}

#[test]
#[ignore = "second ring: needs root"]
fn workers_of_a_user_have_its_groups_unless_there_are_to_be_none() {
    root();
    // A user database of the test's own would need a namespace: what the system says of a user counts.
    let user = "daemon";
    let expected = Command::new("id").args(["-G", user]).output().unwrap();
    let expected = String::from_utf8(expected.stdout).unwrap().trim().to_owned();
    for (groups, expected) in [(json!(null), expected.as_str()), (json!([]), "")] {
        let host = Host::misbehaving().with("/user", user).with("/groups", groups).start();
        for pid in host.serving() {
            assert_eq!(process::status(pid, "Groups").unwrap(), expected);
        }
        host.stop();
    }
}

#[test]
#[ignore = "second ring: needs root"]
fn a_number_without_an_entry_needs_a_group() {
    root();
    let host = Host::misbehaving().with("/user", USER);
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = fs::read_to_string(host.path("log")).unwrap();
    assert!(said.contains("user: 12345 has no entry in the user database"), "{said}");
}

#[test]
#[ignore = "second ring: needs root"]
fn all_of_it_works_with_the_capabilities_of_the_shipped_unit() {
    root();
    let host = Host::misbehaving();
    let unit = fs::read_to_string(app_host_tests::build::workspace().join("host/systemd/app-host.service")).unwrap();
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let names = set.split(' ').map(|name| name.trim_start_matches("CAP_").to_lowercase());
    let set = names.fold(String::new(), |set, name| set + ",+" + &name);
    let script = host.path("launch.sh");
    let binary = app_host_tests::App::build().host();
    let text = format!("#!/bin/sh\nexec setpriv --bounding-set=-all{set} -- {} \"$@\"\n", binary.display());
    program::script(&script, &text);
    let mut host = host
        .with_binary(&script)
        .with("/user", USER)
        .with("/group", GROUP)
        .with("/control_socket", json!({ "group": 7, "owner": 8 }))
        .with("/listen", json!(["127.0.0.1:0", { "address": "unix:s", "mode": "660", "owner": USER, "group": GROUP }]))
        .start();
    assert_eq!(process::status(host.master(), "CapEff").unwrap(), "00000000000000e1", "chown, kill, setgid, setuid");
    assert_eq!(rights(&host.path("s")), (USER, GROUP, 0o660));
    assert_eq!(rights(&host.path("state/control.sock")), (8, 7, 0o660));
    host.set("/listen", json!(["127.0.0.1:0", { "address": "unix:s", "mode": "606", "group": 9 }]));
    assert_eq!(host.restart().verdict, "complete");
    assert_eq!(rights(&host.path("s")), (0, 9, 0o606));
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(!host.path("s").exists() && !host.path("state/control.sock").exists());
}

#[test]
fn a_port_that_another_listener_of_ours_has_is_said_to_be_that_ones() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (one, all) = (format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"));
    let host = Host::misbehaving()
        .with("/listen", json!([one]))
        .with("/app_listeners", json!([{ "name": "own", "address": all }]));
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = host.wait_for(said::START_FAILED, |_| true).str("error").to_owned();
    assert!(said.contains(&format!("{all} can't be bound: its port is taken by {one}, which is configured")), "{said}");
    // At a restart, by what is open.
    let mut host = Host::misbehaving().with("/admin", one.as_str()).start();
    host.set("/admin", json!(null));
    host.set("/listen", json!([all]));
    host.signal(Signal::SIGUSR2);
    let verdict = host.verdict(1);
    assert_eq!(verdict.verdict, "refused: cannot bind");
    assert!(verdict.line.text().contains(&format!("its port is taken by {one}")), "{}", verdict.line.text());
}

#[test]
fn two_unix_listeners_with_one_file_are_refused_however_its_path_is_written() {
    let host = Host::misbehaving().with("/listen", json!(["127.0.0.1:0", "unix:s", "unix:state/../s"]));
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = host.wait_for(said::START_FAILED, |_| true).str("error").to_owned();
    let expected = format!("unix:{} can't be bound: another listener", host.path("s").display());
    assert!(said.contains(&expected), "{said}");
    assert!(!host.path("s").exists());
}

#[test]
fn ctl_finds_its_master_while_the_configuration_is_broken_and_says_where_it_looked() {
    for (mut host, socket) in [
        (Host::misbehaving(), "state/control.sock"),
        (Host::misbehaving().with("/state_dir", "elsewhere"), "elsewhere/control.sock"),
        (Host::misbehaving().with("/control_socket", "c.sock"), "c.sock"),
        (Host::misbehaving().with("/control_socket", json!({ "path": "c.sock" })), "c.sock"),
    ] {
        host.set("/log/level", "info");
        let host = host.start();
        let whole = fs::read_to_string(host.config_path()).unwrap();
        // An unknown key and a value that is wrong: all of it is JSON still, and nothing need be said.
        host.write_config(
            whole.replacen('{', "{\"nonsense\": 1, ", 1).replace("\"workers\":2", "\"workers\":\"two\"").as_bytes(),
        );
        let output = host.ctl(&["status"]);
        assert_said(&output, 0, "");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        // A comma too many.
        host.write_config(format!("{},}}", whole.strip_suffix('}').unwrap()).as_bytes());
        let output = host.ctl(&["status"]);
        assert_said(&output, 0, "app-host: the configuration can't be read (");
        assert_said(&output, 0, &format!("{}; or say --socket PATH", host.path(socket).display()));
        let refused = host.ctl(&["restart", "--wait"]);
        assert_said(&refused, 3, "bad config");
    }
    // Nothing can be found: the default place.
    let host = Host::misbehaving().start();
    host.write_config(b"");
    let output = host.ctl(&["status"]);
    assert_said(&output, 0, "the control socket is looked for where it is by default: ");
    assert_said(&output, 0, &host.path("state/control.sock").display().to_string());
}
