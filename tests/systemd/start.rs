//! The first start of the unit as shipped, and later ones.

use std::fs;

use app_host_tests::build::workspace;
use app_host_tests::process;
use nix::sys::signal::Signal;
use serde_json::json;

use super::plan::{Plan, USER};

#[test]
fn very_first_start_serves_with_a_user() {
    let machine = Plan::new().boot();
    machine.start();
    assert_eq!(machine.workers().len(), 2);
    assert_eq!(machine.property("app-host.service", "ActiveState"), "active");
    machine.ok(&["systemctl", "restart", "app-host.service"]);
    machine.assert_serves();
}

#[test]
fn very_first_start_serves_without_a_user() {
    let machine = Plan::new().without("user").boot();
    machine.start();
    machine.ok(&["systemctl", "restart", "app-host.service"]);
    machine.assert_serves();
    assert!(machine.workers().is_empty(), "nothing runs as user {USER}");
    assert_eq!(machine.processes().len(), 3);
}

#[test]
fn very_first_start_serves_where_the_unit_has_the_user_and_the_lines_in_brackets() {
    // Those of the unit's own comment.
    let unit = fs::read_to_string(workspace().join("host/systemd/app-host.service")).unwrap();
    let brackets = unit.split("# (* ").nth(1).and_then(|rest| rest.split(" besides)").next()).expect("the comment");
    let lines: Vec<&str> = brackets.split(", ").collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let unit = format!("[Service]\nUser=app-host\n{}\n", lines.join("\n"));
    let machine =
        Plan::new().without("user").with_file("etc/systemd/system/app-host.service.d/one-user.conf", &unit).boot();
    machine.start();
    assert_eq!(machine.workers().len(), 3, "master and workers are one user's");
    machine.ok(&["systemctl", "reload", "app-host.service"]);
    machine.ok(&["systemctl", "restart", "app-host.service"]);
    machine.assert_serves();
    machine.ok(&["systemctl", "stop", "app-host.service"]);
    assert!(machine.all_of_the_service().is_empty());
}

#[test]
fn workers_die_before_the_master_when_memory_runs_out_and_one_of_them_takes_nobody_along() {
    let machine = Plan::new().boot();
    machine.start();
    assert_eq!(machine.property("app-host.service", "OOMPolicy"), "continue");
    let (master, workers) = (machine.master(), machine.workers());
    let score =
        |pid: u32| -> i32 { fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap() };
    assert!(workers.iter().all(|worker| score(*worker) > score(master)));
    machine.signal(workers[0], Signal::SIGKILL);
    machine.wait("another worker", || {
        let now = machine.workers();
        (now.len() == 2 && !now.contains(&workers[0]) && now.contains(&workers[1])).then_some(())
    });
    assert_eq!(machine.master(), master);
    assert_eq!(machine.property("app-host.service", "NRestarts"), "0");
}

#[test]
fn limits_groups_and_processors_of_workers_are_within_what_the_unit_allows() {
    let limits = json!({ "nofile": 4096 });
    let plan = Plan::new().with("/limits", limits).with("/groups", json!(["adm"])).with("/cpus", json!([0]));
    let machine =
        plan.with("/control_socket", json!({ "path": "/var/lib/app-host/control.sock", "group": "adm" })).boot();
    machine.start();
    for worker in machine.workers() {
        let limits = fs::read_to_string(format!("/proc/{worker}/limits")).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().nth(3), Some("4096"), "{files}");
        assert_eq!(process::status(worker, "Groups").as_deref(), Some("4"));
        assert_eq!(process::status(worker, "Cpus_allowed_list").as_deref(), Some("0"));
    }
    assert_eq!(machine.ok(&["stat", "--format=%G", "/var/lib/app-host/control.sock"]).trim(), "adm");
    machine.ok(&["systemctl", "reload", "app-host.service"]);
}
