//! The journal: each line has the priority of its level, whoever has said it, and is otherwise what it would be elsewhere.

use app_host_tests::Line;
use serde_json::json;

use super::machine::Machine;
use super::plan::Plan;

/// The service's lines in the journal, of this priority or a more urgent one, without those of systemd about it.
fn lines(machine: &Machine, priority: &str) -> Vec<String> {
    machine.ok(&["journalctl", "--sync"]);
    let text = machine.ok(&["journalctl", "--no-pager", "-q", "-o", "cat", "-t", "app-host", "-p", priority]);
    text.lines().map(str::to_owned).collect()
}

/// Has master, workers and app say something of each kind.
fn have_all_speak(machine: &mut Machine) {
    machine.set("/log/level", "debug");
    machine.start();
    assert_eq!(machine.get("/panic").unwrap().0, 500);
    machine.get("/orphan").unwrap();
    for (pointer, value) in
        [("/workers", json!(1)), ("/workers", json!(2)), ("/app/config", json!({ "on_start": "error" }))]
    {
        machine.set(pointer, value);
        machine.run(&["systemctl", "reload", "app-host.service"]);
    }
}

#[test]
fn errors_of_master_workers_and_app_are_found_by_their_priority_and_bunyan_reads_all() {
    for plan in [Plan::new(), Plan::new().without("user")] {
        let mut machine = plan.boot();
        have_all_speak(&mut machine);
        let all = machine.wait("the panic", || {
            let all = lines(&machine, "debug");
            all.iter().any(|line| line.contains("panic")).then_some(all)
        });
        // What ExecReload says for people is no line of the log.
        let log = |lines: &[String]| -> Vec<Line> {
            let is_log = |line: &&String| !line.starts_with("app-host: restart") && !line.starts_with("restart ");
            lines.iter().filter(is_log).map(|line| Line::parse(line)).collect()
        };
        for line in log(&all) {
            assert!(line.value().is_object(), "bunyan can't read this: {}", line.text());
        }
        for (priority, least) in [("err", 50), ("warning", 40), ("info", 30), ("debug", 10)] {
            let found = log(&lines(&machine, priority));
            let expected = log(&all).iter().filter(|line| line.number("level") >= Some(least)).count();
            assert!(found.iter().all(|line| line.number("level") >= Some(least)), "{priority}: {found:?}");
            assert_eq!(found.len(), expected, "{priority}");
            assert!(expected > 0, "{priority}");
        }
        let errors = log(&lines(&machine, "err"));
        let master: u32 = machine.property("app-host.service", "MainPID").parse().unwrap();
        let is_masters = |line: &&Line| line.pid() == master;
        assert!(errors.iter().any(|line| is_masters(&line)), "{errors:?}");
        assert!(errors.iter().any(|line| !is_masters(&line) && line.text().contains("panic")), "{errors:?}");
        // And what `systemctl reload` says of its failure.
        assert!(
            lines(&machine, "err").iter().any(|line| line.contains("restart 1 refused")),
            "{:?}",
            lines(&machine, "err")
        );
    }
}

#[test]
fn text_has_priorities_too() {
    let mut machine = Plan::new().with("/log", json!({ "format": "text" })).boot();
    have_all_speak(&mut machine);
    let all = machine.wait("the panic", || {
        let all = lines(&machine, "debug");
        all.iter().any(|line| line.contains("panic")).then_some(all)
    });
    assert!(!all.iter().any(|line| line.starts_with('<')), "{all:?}");
    let errors = lines(&machine, "err");
    assert!(errors.iter().any(|line| line.contains(" ERROR ") && line.contains("panic")), "{errors:?}");
    assert!(errors.iter().all(|line| line.contains("ERROR") || line.starts_with("app-host: ")), "{errors:?}");
    let count = |word: &str, of: &[String]| of.iter().filter(|line| line.contains(word)).count();
    assert_eq!(count(" ERROR ", &errors), count(" ERROR ", &all));
    assert!(count(" WARN ", &lines(&machine, "warning")) > 0 && count(" WARN ", &errors) == 0);
}

#[test]
fn a_service_that_cannot_start_says_so_as_an_error() {
    let mut machine = Plan::new().boot();
    machine.set("/workers", 0);
    assert_eq!(machine.run(&["systemctl", "start", "app-host.service"]).code, Some(1));
    let errors = lines(&machine, "err");
    assert!(
        errors.iter().any(|line| line.contains("workers") && line.contains("/etc/app-host/app-host.json")),
        "{errors:?}"
    );
}

#[test]
fn a_log_in_a_file_has_no_priorities() {
    let machine = Plan::new().with("/log/file", "/var/log/app-host/service.log").boot();
    machine.start();
    let text = machine.read("/var/log/app-host/service.log");
    assert!(text.lines().count() > 3 && text.lines().all(|line| line.starts_with('{')), "{text}");
}
