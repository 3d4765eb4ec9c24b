//! What the master holds stays as it is over many restarts, what runs short is survived, and nothing
//! leaks into workers or into what they spawn.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use app_host_tests::{App, Host, process};
use nix::sys::signal::Signal;

/// What a master holds: descriptors, zombies, and memory of its own in KiB.
fn holdings(host: &Host) -> (usize, usize, u64) {
    let master = host.master();
    // The probe of a refused restart may still be on its way out.
    let zombies = host.wait("no zombie", || process::zombies(master).is_empty().then_some(0));
    let memory = process::private_kib(master).expect("the master lives");
    (process::descriptors(master).len(), zombies, memory)
}

#[test]
fn descriptors_zombies_and_memory_are_flat_over_200_restarts() {
    // FAULTS 26: every other restart is refused, in turn for its configuration and its library.
    let host = Host::misbehaving().with("/restart/probation", "0s").with("/log/level", "info").start();
    let library = App::build().app("misbehaving");
    let round = |number: u32| {
        if number.is_multiple_of(2) {
            host.install_fresh(&library);
            assert_eq!(host.restart().verdict, "complete");
        } else if number % 4 == 1 {
            host.write_config(b"{");
            assert_eq!(host.restart().verdict, "refused: bad config");
            host.restore_config();
        } else {
            host.install_bytes(b"no library");
            assert_eq!(host.restart().verdict, "refused: bad artifact");
        }
    };
    (0..10).for_each(round);
    let after_10 = holdings(&host);
    (10..200).for_each(round);
    let after_200 = holdings(&host);
    assert_eq!(after_200.0, after_10.0, "descriptors: {:?}", process::descriptors(host.master()));
    assert_eq!(after_200.1, 0, "zombies");
    assert!(after_200.2 <= after_10.2 + 512, "KiB after 10 restarts: {}, after 200: {}", after_10.2, after_200.2);
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
        Signal::SIGTERM,
        Signal::SIGPIPE,
    ] {
        assert!(!process::has_signal(&mask("SigIgn:"), signal), "{signal} is ignored: {text}");
        assert!(!process::has_signal(&mask("SigBlk:"), signal), "{signal} is blocked: {text}");
    }
}

#[test]
fn full_disk_while_the_version_is_copied_is_refused_and_leaves_no_partial_copy() {
    // FAULTS 24: the state directory is a small file system of its own.
    let library = App::build().app("misbehaving");
    let size = fs::metadata(&library).unwrap().len();
    let host = Host::misbehaving();
    let state = host.path("state");
    fs::create_dir(&state).unwrap();
    let tmpfs = format!("{}={}", state.display(), size * 3);
    let host = host.launched_with(&["--tmpfs", &tmpfs]).start();
    let mut large = fs::read(&library).unwrap();
    large.resize(usize::try_from(size).unwrap() * 5, 0);
    host.install_bytes(&large);
    let detail = host.restart_is_refused("bad artifact");
    assert!(detail.contains("No space left"), "{detail}");
    // Seen through the master's own mounts.
    let versions = format!("/proc/{}/root{}/versions", host.master(), state.display());
    let left: Vec<_> = fs::read_dir(&versions).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    host.install(&library);
    host.restart_completes();
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
    fs::copy(App::build().host(), &binary).unwrap();
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
fn fork_that_fails_in_the_preflight_or_in_the_roll_touches_no_active_worker() {
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
fn respawn_that_cannot_fork_is_tried_again() {
    // FAULTS 25, outside a restart.
    let host = unprivileged().start();
    let before = host.serving();
    limit_processes(&host, "1");
    process::signal(before[0], Signal::SIGKILL);
    host.wait_for("worker respawn scheduled", |line| line.number("after_ms") > Some(0));
    host.assert_all_serve(&before[1..]);
    limit_processes(&host, "all");
    host.wait_for("worker ready", |line| !before.contains(&line.worker_pid()));
    host.assert_all_serve(&host.serving());
}

#[test]
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
    assert_eq!(host.lines_with("worker exited").len(), 0, "an orphan is no worker");
    assert_eq!(host.restart().verdict, "complete");
    assert!(process::zombies(master).is_empty());
    assert_eq!(host.workers().len(), 2);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn workers_run_as_the_configured_user_without_the_masters_privileges() {
    let own = nix::unistd::getuid();
    let user = if own.is_root() {
        nix::unistd::User::from_name("nobody").unwrap().expect("there is a user nobody")
    } else {
        nix::unistd::User::from_uid(own).unwrap().expect("the own user has a name")
    };
    let host = Host::misbehaving().with("/user", user.name).start();
    for _ in 0..2 {
        for pid in host.workers() {
            let ids = |key: &str| {
                process::status(pid, key).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(ids("Uid"), vec![user.uid.to_string(); 4]);
            assert_eq!(ids("Gid"), vec![user.gid.to_string(); 4]);
            assert_eq!(ids("CapEff"), ["0000000000000000"]);
            assert!(!ids("Groups").contains(&"0".to_owned()), "root's groups are gone");
        }
        host.assert_all_serve(&host.serving());
        host.restart_completes();
    }
}
