//! A master that is process 1 of its namespace.

use std::process::Command;

use app_host_tests::{Host, process, said};
use nix::sys::signal::Signal;

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn process_1_reaps_orphans_and_never_takes_them_for_workers() {
    // FAULTS 27
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    let master = host.master();
    assert_eq!(process::status(master, "NSpid").unwrap().split_whitespace().last(), Some("1"));
    let workers = host.workers();
    assert_eq!(workers.len(), 2);
    // A worker's child outlives it: its end is the master's to see.
    assert_eq!(host.serving().len(), 2);
    let text = host.get("/orphan");
    let in_namespace: u32 = text.trim().parse().unwrap();
    let orphan = host.wait("the orphan", || {
        process::children(master).into_iter().find(|pid| {
            process::status(*pid, "NSpid")
                .is_some_and(|pids| pids.split_whitespace().last() == Some(in_namespace.to_string().as_str()))
        })
    });
    process::signal(orphan, Signal::SIGKILL);
    host.wait("the orphan to be reaped", || (!process::all().contains(&orphan)).then_some(()));
    assert_eq!(host.lines_with(said::WORKER_EXITED).len(), 0, "an orphan is no worker");
    assert_eq!(host.restart().verdict, "complete");
    assert!(process::zombies(master).is_empty());
    assert_eq!(host.workers().len(), 2);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
}

/// Runs a command of the shell in the namespaces of a master that is process 1 there.
fn within(host: &Host, command: &str) {
    let mount_and = format!("mount -t proc proc /proc && {command}");
    let output = Command::new("nsenter")
        .args(["--target", &host.master().to_string(), "--pid", "--mount", "sh", "-c", &mount_and])
        .output()
        .expect("nsenter (util-linux) is needed");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn process_1_minds_signals_from_within_as_any_master_does() {
    // FAULTS 27: the kernel keeps from process 1 whatever it has no handler for; what it has one for, it gets.
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    within(&host, "kill -USR2 1");
    assert_eq!(host.verdict(1).verdict, "complete");
    within(&host, "kill -HUP 1");
    assert_eq!(host.verdict(2).verdict, "complete");
    within(&host, "kill -USR1 1");
    host.wait_for(said::LOGS_REOPENED, |_| true);
    // Neither kills it, whatever they do to others.
    within(&host, "kill -PIPE 1; kill -ALRM 1; kill -ABRT 1; kill -KILL 1");
    host.assert_all_serve(&host.serving());
    let workers = host.workers();
    within(&host, "kill -TERM 1");
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn process_1_reaps_a_crowd_of_orphans_while_a_hung_worker_is_replaced() {
    // FAULTS 27 and 9: the exits of both come together.
    let host = Host::misbehaving().with("/hang_timeout", "2s").launched_with(&["--pid-namespace"]).start();
    let master = host.master();
    let workers = host.workers();
    let (_pid_within, _connection) = host.block_a_thread();
    within(&host, "for n in $(seq 100); do (sleep 0.0$((n % 10)) &) ; done");
    host.wait_for(said::WORKER_HUNG, |_| true);
    within(&host, "for n in $(seq 100); do (sleep 0.0$((n % 10)) &) ; done");
    host.wait_for(said::WORKER_EXITED, |line| line.str("status").starts_with("signal 6"));
    host.wait("the new worker", || (host.serving().len() == 2).then_some(()));
    host.wait("the orphans to be reaped", || {
        let children = process::children(master);
        (process::zombies(master).is_empty() && children.len() == 2).then_some(())
    });
    assert_eq!(host.workers().iter().filter(|pid| workers.contains(pid)).count(), 1);
    assert_eq!(host.lines_with(said::WORKER_EXITED).len(), 1, "orphans are no workers");
}
