//! What the master holds stays as it is over many restarts, what runs short is survived, and nothing
//! leaks into workers or into what they spawn.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use app_host_tests::{App, Host, process, program, said};
use nix::sys::signal::Signal;

/// What a master holds: descriptors, and memory of its own in KiB. No zombie may be left.
fn holdings(host: &Host) -> (usize, u64) {
    let master = host.master();
    // The probe of a refused restart may still be on its way out.
    host.wait("the end of the last zombie", || process::zombies(master).is_empty().then_some(()));
    let memory = process::private_kib(master).expect("the master lives");
    (process::descriptors(master).len(), memory)
}

#[test]
fn descriptors_zombies_and_memory_are_flat_over_200_restarts() {
    // What the master has at a moment depends on how far behind a busy machine is.
    let _alone = app_host_tests::machine::alone();
    // FAULTS 26: 200 restarts that complete, and as many that are refused, in turn for their
    // configuration and for their library.
    let host = Host::misbehaving().with("/restart/probation", "0s").with("/log/level", "info").start();
    let library = App::build().app("misbehaving");
    let round = |number: u32| {
        host.install_fresh(&library);
        assert_eq!(host.restart().verdict, "complete");
        if number.is_multiple_of(2) {
            host.write_config(b"{");
            assert_eq!(host.restart().verdict, "refused: bad config");
            host.restore_config();
        } else {
            host.install_bytes(b"no library");
            assert_eq!(host.restart().verdict, "refused: bad artifact");
        }
    };
    (0..10).for_each(round);
    // What is free in the heap between two restarts comes and goes, by half a MiB: the least of ten looks is kept.
    let ten_more = |from: u32| {
        let looks = (from..from + 10).map(|number| {
            round(number);
            holdings(&host)
        });
        looks.reduce(|one, other| (one.0.min(other.0), one.1.min(other.1))).expect("there are ten")
    };
    let after_10 = ten_more(10);
    (20..190).for_each(round);
    let after_200 = ten_more(190);
    assert_eq!(after_200.0, after_10.0, "descriptors: {:?}", process::descriptors(host.master()));
    assert!(after_200.1 <= after_10.1 + 512, "KiB after 10 restarts: {}, after 200: {}", after_10.1, after_200.1);
    assert_eq!(host.workers().len(), 2);
    let versions = fs::read_dir(host.path("state/versions")).unwrap().count();
    assert!(versions <= 10, "{versions} versions are kept");
}

#[test]
fn master_never_maps_the_library() {
    let host = Host::misbehaving().start();
    host.restart_completes();
    let maps = fs::read_to_string(format!("/proc/{}/maps", host.master())).unwrap();
    assert!(!maps.contains("/versions/") && !maps.contains("app.so"), "{maps}");
    for pid in host.workers() {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        assert!(maps.contains("/versions/"), "a worker loads the version copy");
        assert!(!maps.contains("app.so"), "and not the artifact");
    }
}

#[test]
fn workers_hold_only_descriptors_that_they_need() {
    let host = Host::misbehaving().start();
    let open = |pid: u32| process::descriptors(pid).into_iter().map(|(_, target)| target).collect::<Vec<PathBuf>>();
    let first: Vec<_> = host.workers().into_iter().map(open).collect();
    for _ in 0..3 {
        host.restart_completes();
    }
    let workers = host.workers();
    let later: Vec<_> = workers.iter().copied().map(open).collect();
    for (before, now) in first.iter().zip(&later) {
        assert_eq!(before.len(), now.len(), "before: {before:?}\nnow: {now:?}");
    }
    for descriptors in &later {
        for target in descriptors {
            let name = target.to_string_lossy();
            assert!(!name.contains("app-host.pid") && !name.contains("app-host.json"), "{name} is the master's");
        }
    }
    // Two workers share the listener, which the master has too, and no other socket.
    let sockets = |targets: &[PathBuf]| -> HashSet<PathBuf> {
        targets.iter().filter(|target| target.to_string_lossy().starts_with("socket:")).cloned().collect()
    };
    let shared: HashSet<_> = sockets(&later[0]).intersection(&sockets(&later[1])).cloned().collect();
    assert_eq!(shared.len(), 1, "{shared:?}");
    assert!(shared.is_subset(&sockets(&open(host.master()))));
    // Nothing but the standard streams comes from outside.
    let library = later[0].iter().filter(|target| target.to_string_lossy().ends_with(".so"));
    assert!(library.count() <= 1);
}

#[test]
fn children_of_an_app_inherit_no_descriptor_and_the_default_of_every_signal() {
    let host = Host::misbehaving().start();
    let text = host.get("/child");
    let descriptors: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("fd ")).collect();
    assert_eq!(descriptors.len(), 3, "only the standard streams: {text}");
    assert!(descriptors.iter().any(|line| line.ends_with("/dev/null")), "{text}");
    let mask = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
    for signal in [
        Signal::SIGUSR2,
        Signal::SIGUSR1,
        Signal::SIGHUP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGXFSZ,
        Signal::SIGTERM,
        Signal::SIGPIPE,
    ] {
        assert!(!process::has_signal(&mask("SigIgn:"), signal), "{signal} is ignored: {text}");
        assert!(!process::has_signal(&mask("SigBlk:"), signal), "{signal} is blocked: {text}");
    }
}

/// A master that may make no further process. As root its user must be another, because the limit
/// doesn't bind root (`getrlimit(2)`).
fn unprivileged() -> Host {
    let host = Host::misbehaving();
    if !nix::unistd::getuid().is_root() {
        return host;
    }
    // That user must reach the binary and its directory, wherever the workspace lies.
    let binary = host.path("app-host");
    program::copy(App::build().host(), &binary);
    let nobody = 65_534;
    std::os::unix::fs::chown(host.directory(), Some(nobody), Some(nobody)).unwrap();
    host.with_binary(&binary).launched_with(&["--user", "65534"])
}

/// Lets the master's user have so many processes and threads at most. Only a process of that user
/// may say so, where root lacks `CAP_SYS_RESOURCE`.
fn limit_processes(host: &Host, most: &str) {
    let mut command = Command::new(App::build().launch());
    if nix::unistd::getuid().is_root() {
        command.args(["--user", "65534"]);
    }
    let limit = format!("{}={most}", host.master());
    let status = command.args(["--limit-processes", &limit, "--", "true"]).current_dir("/").status().unwrap();
    assert!(status.success());
}

#[test]
fn fork_that_fails_in_a_restart_touches_no_active_worker() {
    // FAULTS 25
    let host = unprivileged().start();
    let before = host.serving();
    limit_processes(&host, "1");
    let verdict = host.restart().verdict;
    assert!(verdict.starts_with("refused: ") || verdict == "failed: cannot spawn", "{verdict}");
    assert_eq!(host.serving(), before);
    host.assert_all_serve(&before);
    limit_processes(&host, "all");
    if verdict.starts_with("refused: ") {
        host.restart_completes();
    }
}

#[test]
fn fork_that_fails_in_a_roll_fails_it_and_as_many_serve_on() {
    // FAULTS 25, between the first candidate worker and the second.
    let host = unprivileged().with("/restart/probation", "2s").start();
    let before = host.serving();
    host.signal(Signal::SIGUSR2);
    host.wait_for(said::PROBATION_STARTED, |_| true);
    limit_processes(&host, "1");
    assert_eq!(host.verdict(1).verdict, "failed: cannot spawn");
    limit_processes(&host, "all");
    // Slot 0 has its candidate; slot 1, whose candidate couldn't be made, keeps its active worker.
    let drained = host.wait_for(said::WORKER_EXITED, |line| line.number("slot") == Some(0));
    assert_eq!((drained.number("generation"), drained.str("status")), (Some(1), "exit 0"));
    let after = host.serving();
    assert_eq!(after.len(), 2);
    assert_eq!(after.iter().filter(|pid| before.contains(pid)).count(), 1);
    host.assert_all_serve(&after);
    assert_eq!(host.restart().verdict, "refused: aborted restart");
}

#[test]
fn respawn_that_cannot_fork_is_tried_again() {
    // FAULTS 25, outside a restart.
    let host = unprivileged().start();
    let before = host.serving();
    limit_processes(&host, "1");
    process::signal(before[0], Signal::SIGKILL);
    host.wait_for(said::RESPAWN_SCHEDULED, |line| line.number("after_ms") > Some(0));
    host.assert_all_serve(&before[1..]);
    limit_processes(&host, "all");
    host.wait_for(said::WORKER_READY, |line| !before.contains(&line.worker_pid()));
    host.assert_all_serve(&host.serving());
}
