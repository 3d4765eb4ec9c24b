//! Rotation by logrotate itself, in each of the three ways of `docs/operate/rotate-logs.md`, whose configurations are run
//! as they stand there.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use app_host_tests::Line;
use app_host_tests::build::workspace;
use serde_json::json;

use super::machine::Machine;
use super::plan::Plan;

const LOG: &str = "/var/log/app-host/service.log";

/// The nth configuration of the page.
fn configuration(number: usize) -> String {
    let page = fs::read_to_string(workspace().join("docs/operate/rotate-logs.md")).unwrap();
    let block = page.split("```logrotate\n").nth(number + 1).unwrap_or_else(|| panic!("there is no block {number}"));
    block.split("```").next().unwrap().to_owned()
}

/// What is in all logs, the rotated and compressed ones included, in no order.
fn logged(machine: &Machine) -> String {
    machine.ok(&["sh", "-c", &format!("cat {LOG}; for file in {LOG}.*; do zcat --force $file; done")])
}

fn number(line: &str) -> Option<u64> {
    Line::parse(line).str("uri").strip_prefix("/whoami?n=")?.parse().ok()
}

/// Clients ask while the log is rotated several times. Says how often each of the requests is in the logs, of those that
/// were answered.
fn rotate_under_load(configuration: &str) -> (Machine, BTreeMap<u64, usize>) {
    let plan = Plan::new().with("/log/file", LOG).with("/access_log", json!(true)).with_logrotate();
    let machine = Arc::new(plan.with_file("etc/logrotate.d/app-host", configuration).boot());
    machine.start();
    let ends = Arc::new(AtomicBool::new(false));
    let clients = {
        let (machine, ends) = (Arc::clone(&machine), Arc::clone(&ends));
        thread::spawn(move || {
            let mut count = 0;
            while !ends.load(Ordering::Relaxed) || count == 0 {
                let answer = machine.get(&format!("/whoami?n={count}"));
                assert_eq!(answer.expect("each is answered").0, 200);
                count += 1;
            }
            count
        })
    };
    for round in 1..=3 {
        machine.logrotate("/etc/logrotate.d/app-host");
        // What is there now is written to the new file.
        machine.wait("lines in the new file", || machine.read(LOG).lines().filter_map(number).nth(20).map(drop));
        let rotated = machine.ok(&["sh", "-c", &format!("ls {LOG}.*")]);
        assert_eq!(rotated.lines().count(), round, "{rotated}");
    }
    ends.store(true, Ordering::Relaxed);
    let count = clients.join().expect("no client has failed");
    machine.wait("the last line", || {
        logged(&machine).lines().filter_map(number).any(|number| number == count - 1).then_some(())
    });
    let text = logged(&machine);
    assert!(!text.contains('\0'), "there is a hole");
    let mut seen: BTreeMap<u64, usize> = (0..count).map(|number| (number, 0)).collect();
    for line in text.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "half a line: {line}");
        if let Some(number) = number(line) {
            *seen.get_mut(&number).expect("it was asked for") += 1;
        }
    }
    let machine = Arc::into_inner(machine).expect("no client has it any more");
    (machine, seen)
}

#[test]
fn rename_and_signal_loses_no_line() {
    let (machine, seen) = rotate_under_load(&configuration(0));
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    assert!(machine.ok(&["sh", "-c", &format!("ls {LOG}.*")]).contains("service.log.2.gz"));
}

#[test]
fn rename_and_reload_loses_no_line_though_the_file_is_compressed_at_once() {
    let (machine, seen) = rotate_under_load(&configuration(1));
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    assert!(machine.ok(&["sh", "-c", &format!("ls {LOG}.*")]).contains("service.log.1.gz"));
}

#[test]
fn rename_and_a_reload_that_is_refused_rotates_all_the_same_and_tells() {
    let plan = Plan::new().with("/log/file", LOG).with("/access_log", json!(true)).with_logrotate();
    let machine = plan.with_file("etc/logrotate.d/app-host", &configuration(1)).boot();
    machine.start();
    machine.write("/usr/local/share/app.so", "no library");
    let said = machine.try_logrotate("/etc/logrotate.d/app-host");
    assert!(said.code == Some(1) && said.text.contains("error running shared postrotate script"), "{said:?}");
    machine.get("/whoami?n=1").unwrap();
    machine.wait("the line in the new file", || machine.read(LOG).lines().find_map(number));
}

#[test]
fn copy_and_truncate_leaves_no_hole_and_loses_only_what_comes_in_between() {
    let (_machine, seen) = rotate_under_load(&configuration(2));
    assert!(seen.values().all(|count| *count <= 1), "{seen:?}");
    let lost = seen.values().filter(|count| **count == 0).count();
    println!("{lost} of {} lines are lost", seen.len());
    assert!(lost * 2 < seen.len(), "{lost} of {}", seen.len());
}
