//! Where the system gives no more: a disk that is full, too many descriptors on their way.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use app_host_tests::{App, Connection, Host, process, said};
use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::Value;

#[test]
#[ignore = "second ring: needs root or tools of the system"]
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

/// From now on a user's process may open so many descriptors more; those that it has are kept. Says its limit.
fn leave_room_for(descriptors: usize, pid: u32, user: &User) -> u32 {
    let open: HashSet<u32> = process::descriptors(pid).into_iter().map(|(number, _)| number).collect();
    let limit = (1..).filter(|limit| !open.contains(&(limit - 1))).nth(descriptors - 1).expect("numbers don't end");
    // Root may not do it everywhere, the user himself may.
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={limit}:{limit}")]);
    let output =
        prlimit.uid(user.uid.as_raw()).gid(user.gid.as_raw()).output().expect("prlimit (util-linux) is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    limit
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn too_many_descriptors_in_flight_hold_connections_up_and_end_none() {
    // The kernel lets a user without privileges have as many in flight as its sending process may have open
    // (ETOOMANYREFS, unix(7)).
    assert!(nix::unistd::getuid().is_root(), "only root can start workers as another user");
    let user = nix::unistd::User::from_name("nobody").unwrap().expect("there is a user nobody");
    let host = Host::misbehaving().with("/user", user.name.as_str()).with("/restart/probation", "1s").start();
    let open = |count: usize| -> Vec<Connection> {
        let mut connections: Vec<_> = (0..count).map(|_| host.connect()).collect();
        assert!(connections.iter_mut().all(|connection| connection.get("/whoami").unwrap() == 200));
        connections
    };
    let held = || {
        let status = host.control().ask_json("STATUS");
        status["workers"].as_array().unwrap().iter().map(|it| it["connections"].as_u64().unwrap()).sum::<u64>()
    };
    // These leave low numbers free for what a worker is sent when it drains: the links that it sends on.
    let first = open(40);
    let mut connections = open(600);
    drop(first);
    host.wait("the first connections to end", || (held() == 600).then_some(()));
    let before = host.serving();
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let candidate = host.wait_after(mark, said::WORKER_READY, |line| line.number("slot") == Some(0)).worker_pid();
    process::signal(candidate, Signal::SIGSTOP);
    host.wait("it to stand still", || process::is_stopped(candidate).then_some(()));
    let limits: Vec<_> = before.iter().map(|pid| leave_room_for(4, *pid, &user)).collect();
    let line = host.wait_after(mark, "connections wait for their turn to be sent", |_| true);
    process::signal(candidate, Signal::SIGCONT);
    println!("with limits of {limits:?} descriptors: {}", line.text());
    assert!(before.contains(&line.pid()), "{}", line.text());
    let refused = std::io::Error::from_raw_os_error(libc::ETOOMANYREFS).to_string();
    assert!(line.str("error").contains(&refused), "{}", line.text());
    assert_eq!(host.verdict(1).verdict, "complete");
    let now = host.serving();
    for connection in &mut connections {
        assert_eq!(connection.get("/whoami").expect("the connection lives"), 200);
        let answer: Value = serde_json::from_slice(connection.body()).unwrap();
        assert!(now.iter().any(|pid| answer["pid"] == *pid) && !connection.announced_close());
    }
    let exited = host.lines_with(said::WORKER_EXITED);
    let sum = |figure: &str| exited.iter().filter_map(|line| line.number(figure)).sum::<u64>();
    assert_eq!((exited.len(), sum("handed_over"), sum("closed"), sum("cut")), (2, 600, 0, 0));
}
